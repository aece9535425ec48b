package bench

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// topicSettings are how klgstream wants its topics: nothing is deleted for its age, which event times would make look old.
var topicSettings = map[string]*string{
	"retention.ms":           kadm.StringPtr("-1"),
	"message.timestamp.type": kadm.StringPtr("LogAppendTime"),
	"max.message.bytes":      kadm.StringPtr("4194816"),
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

// Fill publishes the shape's events to a topic and waits until all are acknowledged.
func Fill(ctx context.Context, brokers []string, topic string, s Shape) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(900_000), kgo.MaxBufferedRecords(100_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	var once sync.Once
	var failed error
	s.events(func(partition int32, e event) {
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
