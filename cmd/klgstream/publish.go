package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/semaphore"

	"klgstream.dev/views/httpapi"
)

const (
	// maxRecord is the largest record this program publishes: four times the largest event that is valid, so that what is
	// too large can still be told so by the processor, with its bytes kept.
	maxRecord = 4 << 20
	// maxInFlight is how many bytes wait for their acknowledgement before a sender waits too.
	maxInFlight = 64 << 20
	// recordOverhead is what a record costs besides its value, about.
	recordOverhead = 256
	// publishPatience is how long a record is repeated. It outlasts a broker's restart, which takes its session's time-out.
	publishPatience = 60 * time.Second
	publishPause    = 250 * time.Millisecond
)

// errClosed is the error of sending to a publisher that is closed.
var errClosed = errors.New("publisher is closed")

// publisher writes records to one topic: acknowledged by all replicas in sync, in order within a partition and without
// duplicates. It is safe for concurrent use.
type publisher struct {
	topic    string
	producer sarama.AsyncProducer
	room     *semaphore.Weighted // bytes in flight
	answers  sync.WaitGroup      // the two goroutines that take acknowledgements

	mu     sync.RWMutex // held for reading while a record is handed over
	closed bool
}

// record is one to publish. Without a key it goes to whichever partition is next, or to the one whose turn it is.
type record struct {
	key     string
	turn    int64 // of a record without a key: it goes to partition (turn−1) modulo the partitions; 0: none
	value   []byte
	headers []sarama.RecordHeader
}

// inFlight is what a record is remembered by until it is acknowledged.
type inFlight struct {
	weight int64
	turn   int64 // of its record
	done   func(error)
}

// newPublisher connects to the broker.
func newPublisher(k Kafka, topic string) (*publisher, error) {
	producer, err := sarama.NewAsyncProducer(k.Brokers, publishConfig(k))
	if err != nil {
		return nil, fmt.Errorf("connect publisher to %q: %w", k.Brokers, err)
	}
	p := &publisher{topic: topic, producer: producer, room: semaphore.NewWeighted(maxInFlight)}
	p.answers.Go(func() {
		for msg := range producer.Successes() {
			p.answer(msg, nil)
		}
	})
	p.answers.Go(func() {
		for failed := range producer.Errors() {
			p.answer(failed.Msg, failed.Err)
		}
	})
	return p, nil
}

// clientConfig is what every client of the broker has in common.
func clientConfig(k Kafka) *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = k.ClientID
	c.Version = sarama.V2_8_0_0               // spoken by Redpanda and by Kafka since 2.8
	c.Metadata.AllowAutoTopicCreation = false // klgstream topics makes them, as they must be
	k.secure(c)
	return c
}

func publishConfig(k Kafka) *sarama.Config {
	c := clientConfig(k)
	c.Producer.RequiredAcks = sarama.WaitForAll
	// A repeated batch is recognised by its sequence number, so nothing is doubled and order is kept; sarama can do so with
	// one request in flight only.
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Partitioner = newPartitioner
	c.Producer.MaxMessageBytes = maxRecord + recordOverhead
	c.Producer.Retry.Max = int(publishPatience / publishPause)
	c.Producer.Retry.Backoff = publishPause
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = 5*time.Second, 15*time.Second, 15*time.Second
	return c
}

// send hands a record over, waiting while too much is in flight, and returns before it is acknowledged. done is called
// once with the outcome if and only if send returned nil; it must not block.
func (p *publisher) send(ctx context.Context, r record, done func(error)) error {
	weight := min(int64(len(r.value)+recordOverhead), maxInFlight)
	if err := p.room.Acquire(ctx, weight); err != nil {
		return err
	}
	msg := &sarama.ProducerMessage{Topic: p.topic, Headers: r.headers, Value: sarama.ByteEncoder(r.value), Metadata: inFlight{weight, r.turn, done}}
	if r.key != "" {
		msg.Key = sarama.StringEncoder(r.key)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		p.room.Release(weight)
		return errClosed
	}
	select {
	case p.producer.Input() <- msg:
		return nil
	case <-ctx.Done():
		p.room.Release(weight)
		return ctx.Err()
	}
}

func (p *publisher) answer(msg *sarama.ProducerMessage, err error) {
	if err != nil {
		err = fmt.Errorf("publish to %s: %w", p.topic, err)
	}
	flight, ok := msg.Metadata.(inFlight)
	if !ok {
		return
	}
	p.room.Release(flight.weight)
	flight.done(err)
}

// Publish implements [httpapi.Publisher]: nil says that the broker has acknowledged all events.
func (p *publisher) Publish(ctx context.Context, events []httpapi.Event) error {
	if len(events) == 0 {
		return nil
	}
	outcome := make(chan error, 1) // the first failure, or nil from the last acknowledgement
	var left atomic.Int64
	left.Store(int64(len(events)))
	done := func(err error) {
		if left.Add(-1) == 0 || err != nil {
			select {
			case outcome <- err:
			default:
			}
		}
	}
	for i := range events {
		if err := p.send(ctx, record{key: events[i].Key, value: events[i].Value}, done); err != nil {
			return fmt.Errorf("publish event %d of %d to %s: %w", i+1, len(events), p.topic, err)
		}
	}
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return fmt.Errorf("await acknowledgement of %d events from %s: %w", len(events), p.topic, ctx.Err())
	}
}

// Close waits for what is in flight. Closing again does nothing.
func (p *publisher) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if first {
		p.producer.AsyncClose()
	}
	p.answers.Wait()
	return nil
}

// partitioner puts a key where Kafka's own clients put it, murmur2(key) & 0x7fffffff modulo the partitions, and deals
// records without a key out in turn: in their own, if they have one.
type partitioner struct {
	sarama.Partitioner

	spread sarama.Partitioner
}

func newPartitioner(topic string) sarama.Partitioner {
	return &partitioner{Partitioner: sarama.NewMurmur2Partitioner(topic), spread: sarama.NewRoundRobinPartitioner(topic)}
}

// Partition implements sarama.Partitioner.
func (p *partitioner) Partition(msg *sarama.ProducerMessage, n int32) (int32, error) {
	if msg.Key != nil {
		return p.Partitioner.Partition(msg, n)
	}
	if flight, ok := msg.Metadata.(inFlight); ok && flight.turn > 0 {
		return int32((flight.turn - 1) % int64(n)), nil
	}
	return p.spread.Partition(msg, n)
}

// RequiresConsistency implements sarama.Partitioner. It is true for records without a key too: dealt out among all
// partitions and not among those that have a leader just now, the same file lands in the same partitions again.
func (p *partitioner) RequiresConsistency() bool { return true }
