package engine

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
)

// frame is what a claim had ready: records of one topic partition in offset order, handed to goka as one message so that
// goka's cost per message is paid once per frame.
type frame struct{ records []*sarama.ConsumerMessage }

// frames lends frames to goka. goka passes a message's value as bytes to the topic's codec, or to the table's store, so a frame
// travels as a number.
type frames struct {
	mu   sync.Mutex
	last uint64
	lent map[uint64]*frame
	pool sync.Pool
}

// put stores a frame and returns the bytes that stand for it.
func (f *frames) put(fr *frame) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lent == nil {
		f.lent = make(map[uint64]*frame)
	}
	f.last++
	f.lent[f.last] = fr
	return binary.BigEndian.AppendUint64(nil, f.last)
}

// take returns the frame its bytes stand for, once.
func (f *frames) take(token []byte) (*frame, error) {
	if len(token) != 8 {
		return nil, fmt.Errorf("take frame: token of %d bytes, not 8: a message by-passed the consumer wrapper", len(token))
	}
	n := binary.BigEndian.Uint64(token)
	f.mu.Lock()
	defer f.mu.Unlock()
	fr := f.lent[n]
	if fr == nil {
		return nil, fmt.Errorf("take frame: number %d is not lent", n)
	}
	delete(f.lent, n)
	return fr, nil
}

// drop forgets all frames that are lent: goka dropped them when its partitions stopped.
func (f *frames) drop() {
	f.mu.Lock()
	clear(f.lent)
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
		m := f.message(f.pack(first, in, limit))
		select {
		case c.out <- m:
		case <-done:
			_, _ = f.take(m.Value)
			return
		}
	}
}

// pack is a frame of a record and what is there already behind it.
func (f *frames) pack(first *sarama.ConsumerMessage, in <-chan *sarama.ConsumerMessage, limit int) *frame {
	fr := f.fresh()
	fr.records = append(fr.records, first)
	fr.fill(in, limit)
	return fr
}

// message is a frame as goka is to see it: a record at the offset of its last.
func (f *frames) message(fr *frame) *sarama.ConsumerMessage {
	last := fr.records[len(fr.records)-1]
	return &sarama.ConsumerMessage{
		Topic: last.Topic, Partition: last.Partition, Offset: last.Offset, Timestamp: fr.records[0].Timestamp, Value: f.put(fr),
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
