package engine

import (
	"testing"

	"github.com/IBM/sarama"
)

// streamClaim is a claim whose messages the test sends.
type streamClaim struct {
	fakeClaim
	in chan *sarama.ConsumerMessage
}

func (c *streamClaim) Messages() <-chan *sarama.ConsumerMessage { return c.in }

// What waits is packed into frames of at most so many records, in order.
func TestFramesTakeWhatWaits(t *testing.T) {
	t.Parallel()
	c := &streamClaim{fakeClaim{end: 99}, make(chan *sarama.ConsumerMessage, 10)}
	for i := range int64(7) {
		c.in <- &sarama.ConsumerMessage{Topic: "in", Partition: 3, Offset: i}
	}
	close(c.in)
	var f frames
	framed := newFramedClaim(c, &f, 3, nil)
	var sizes []int
	next := int64(0)
	for m := range framed.Messages() {
		fr, err := f.take(m.Value)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range fr.records {
			if r.Offset != next {
				t.Errorf("offset %d, want %d", r.Offset, next)
			}
			next++
		}
		sizes = append(sizes, len(fr.records))
		if m.Offset != next-1 || m.Topic != "in" || m.Partition != 3 {
			t.Errorf("a frame up to %s/%d@%d", m.Topic, m.Partition, m.Offset)
		}
		f.recycle(fr)
	}
	if next != 7 || len(sizes) != 3 || sizes[0] != 3 || sizes[1] != 3 {
		t.Errorf("frames of %v records, want 3, 3, 1", sizes)
	}
}

// When the generation ends a frame that nobody takes is taken back, and the packing ends.
func TestFrameThatNobodyTakes(t *testing.T) {
	t.Parallel()
	c := &streamClaim{fakeClaim{end: 9}, make(chan *sarama.ConsumerMessage, 10)}
	for i := range int64(5) {
		c.in <- &sarama.ConsumerMessage{Offset: i}
	}
	var f frames
	done := make(chan struct{})
	framed := &framedClaim{c, make(chan *sarama.ConsumerMessage)} // no room
	close(done)
	framed.pack(&f, 1, done)
	if _, open := <-framed.Messages(); open {
		t.Error("a frame came through")
	}
	if len(f.lent) != 0 || f.last != 1 {
		t.Errorf("of %d frames %d are still lent", f.last, len(f.lent))
	}
}
