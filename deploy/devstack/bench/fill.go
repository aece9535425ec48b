package bench

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// topicSettings are how klgstream wants its topics: nothing is deleted for its age, which event times would make look old.
var topicSettings = map[string]*string{
	"retention.ms":           new("-1"),
	"message.timestamp.type": new("LogAppendTime"),
	"max.message.bytes":      new("4194816"),
}

// CreateTopics makes topics of n partitions.
func CreateTopics(ctx context.Context, brokers []string, n int, topics ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	got, err := kadm.NewClient(cl).CreateTopics(ctx, int32(n), -1, topicSettings, topics...)
	if err == nil {
		err = got.Error()
	}
	if err != nil {
		return fmt.Errorf("create topics %v: %w", topics, err)
	}
	return nil
}

// DeleteTopics makes room for the next measurement.
func DeleteTopics(ctx context.Context, brokers []string, topics ...string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	got, err := kadm.NewClient(cl).DeleteTopics(ctx, topics...)
	if err == nil {
		err = got.Error()
	}
	if err != nil {
		return fmt.Errorf("delete topics %v: %w", topics, err)
	}
	return nil
}

// Fill publishes the shape's events to a topic, and behind them one per partition that closes all windows.
func Fill(ctx context.Context, brokers []string, topic string, s Shape) error {
	return publish(ctx, brokers, topic, s, s.events)
}

// FillOpen is Fill without the closing events: windows stay open until [Seal].
func FillOpen(ctx context.Context, brokers []string, topic string, s Shape) error {
	return publish(ctx, brokers, topic, s, func(yield func(int32, event)) {
		s.inner(func(i int, e event) { yield(s.partition(i, e), e) })
	})
}

// Seal publishes the closing events alone.
func Seal(ctx context.Context, brokers []string, topic string, s Shape) error {
	return publish(ctx, brokers, topic, s, s.seal)
}

// publish sends events and waits until all are acknowledged.
func publish(ctx context.Context, brokers []string, topic string, s Shape, events func(yield func(partition int32, e event))) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(900_000), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	var once sync.Once
	var failed error
	events(func(partition int32, e event) {
		r := &kgo.Record{Topic: topic, Value: e.json(nil), Partition: partition}
		if !s.Unkeyed {
			r.Key = registration(nil, e.key)
		}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
		})
	})
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("fill %s: %w", topic, err)
	}
	if failed != nil {
		return fmt.Errorf("fill %s: %w", topic, failed)
	}
	return nil
}

// FillWindows publishes results to an output topic, each to its registration's partition. It returns how many are there.
func FillWindows(ctx context.Context, brokers []string, topic string, partitions int, windows []codecs.Window) (int, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(900_000),
		kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return 0, fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	for i := range windows {
		w := &windows[i]
		cl.Produce(ctx, &kgo.Record{
			Topic: topic, Key: w.AppendKey(nil), Value: w.AppendJSON(nil), Partition: engine.PartitionOf([]byte(w.Registration), int32(partitions)),
		}, nil)
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, fmt.Errorf("fill %s: %w", topic, err)
	}
	n, err := records(ctx, brokers, topic)
	if err == nil && n != len(windows) {
		err = fmt.Errorf("fill %s: %d of %d results are there", topic, n, len(windows))
	}
	return n, err
}

// PartitionOf is the partition of a registration.
func PartitionOf(registration string, partitions int) int32 {
	return engine.PartitionOf([]byte(registration), int32(partitions))
}

// Results are what a processor that publishes windows whenever they change makes of the shape's events in tumbling hours: one per
// event, the count of its window so far.
func (s Shape) Results() []codecs.Window {
	counts := make(map[cell]int64)
	out := make([]codecs.Window, 0, s.Events)
	s.inner(func(_ int, e event) {
		c := cell{e.key, e.time - floorMod(e.time, hour)}
		counts[c]++
		out = append(out, codecs.Window{
			Registration: string(registration(nil, e.key)), Definition: tumblingHour, Kind: "tumbling", Start: c.slot, End: c.slot + hour, Count: counts[c], Revision: 2 * counts[c],
			Aggregate: codecs.Aggregate{
				First: e.time, Last: e.time, LastType: eventTypes[e.kind], AircraftID: int64(e.key), HasAircraftID: true,
				Types: []codecs.TypeCount{{Type: eventTypes[e.kind], Count: counts[c]}},
			},
		})
	})
	return out
}
