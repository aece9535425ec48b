package engine

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
)

// frame is what a claim had ready: records of one topic partition in offset order, handed to goka as one message so that
// goka's cost per message is paid once per frame.
type frame struct {
	records []*sarama.ConsumerMessage
	end     int64 // offset after the partition's last record known when the frame was packed
}

// frames lends frames to goka. goka passes a message's value as bytes to the topic's codec, so a frame travels as the
// number of its slot.
type frames struct {
	mu    sync.Mutex
	slots []*frame
	free  []uint32
	pool  sync.Pool
}

// put stores a frame and returns the bytes that stand for it.
func (f *frames) put(fr *frame) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var slot uint32
	if n := len(f.free); n > 0 {
		slot, f.free = f.free[n-1], f.free[:n-1]
		f.slots[slot] = fr
	} else {
		slot = uint32(len(f.slots))
		f.slots = append(f.slots, fr)
	}
	return binary.BigEndian.AppendUint32(nil, slot)
}

// take returns the frame its bytes stand for, once.
func (f *frames) take(token []byte) (*frame, error) {
	if len(token) != 4 {
		return nil, fmt.Errorf("take frame: token of %d bytes, not 4: a message by-passed the consumer group wrapper", len(token))
	}
	slot := binary.BigEndian.Uint32(token)
	f.mu.Lock()
	defer f.mu.Unlock()
	if int(slot) >= len(f.slots) || f.slots[slot] == nil {
		return nil, fmt.Errorf("take frame: slot %d is empty", slot)
	}
	fr := f.slots[slot]
	f.slots[slot] = nil
	f.free = append(f.free, slot)
	return fr, nil
}

// drop forgets all frames that are lent: goka dropped them when its partitions stopped.
func (f *frames) drop() {
	f.mu.Lock()
	f.slots, f.free = nil, nil
	f.mu.Unlock()
}

// fresh is an empty frame; recycle gives one back.
func (f *frames) fresh() *frame {
	if fr, ok := f.pool.Get().(*frame); ok {
		return fr
	}
	return &frame{}
}

func (f *frames) recycle(fr *frame) {
	clear(fr.records)
	fr.records = fr.records[:0]
	f.pool.Put(fr)
}

// frameCodec is the goka codec of input and loop: a message's value is a frame's token.
type frameCodec struct{ frames *frames }

// Encode is never called: nothing is emitted through goka.
func (frameCodec) Encode(any) ([]byte, error) {
	return nil, fmt.Errorf("encode frame: nothing is emitted through goka")
}

// Decode returns the *frame.
func (c frameCodec) Decode(token []byte) (any, error) { return c.frames.take(token) }

// bytesCodec passes table values through: the store decodes them.
type bytesCodec struct{}

func (bytesCodec) Encode(v any) ([]byte, error)    { return v.([]byte), nil }
func (bytesCodec) Decode(data []byte) (any, error) { return data, nil }

// framedClaim hands out a claim's records as frames.
type framedClaim struct {
	sarama.ConsumerGroupClaim
	out chan *sarama.ConsumerMessage
}

func (c *framedClaim) Messages() <-chan *sarama.ConsumerMessage { return c.out }

// newFramedClaim packs until the claim ends or done closes; it never waits for a frame to fill.
func newFramedClaim(claim sarama.ConsumerGroupClaim, f *frames, limit int, done <-chan struct{}) *framedClaim {
	c := &framedClaim{claim, make(chan *sarama.ConsumerMessage, 2)}
	go c.pack(f, limit, done)
	return c
}

func (c *framedClaim) pack(f *frames, limit int, done <-chan struct{}) {
	defer close(c.out)
	in := c.ConsumerGroupClaim.Messages()
	for first := range in {
		fr := f.fresh()
		fr.records = append(fr.records, first)
		fr.fill(in, limit)
		fr.end = c.HighWaterMarkOffset()
		m := &sarama.ConsumerMessage{
			Topic: first.Topic, Partition: first.Partition, Offset: fr.records[len(fr.records)-1].Offset,
			Timestamp: first.Timestamp, Value: f.put(fr),
		}
		select {
		case c.out <- m:
		case <-done:
			_, _ = f.take(m.Value)
			return
		}
	}
}

// fill adds what is there already.
func (fr *frame) fill(in <-chan *sarama.ConsumerMessage, limit int) {
	for len(fr.records) < limit {
		select {
		case m, ok := <-in:
			if !ok {
				return
			}
			fr.records = append(fr.records, m)
		default:
			return
		}
	}
}
