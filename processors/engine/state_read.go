package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// readAttempts is how often a read of a partition is tried before its fault is told; between two tries leaders are asked for anew.
const readAttempts = 5

// ReadPartition yields the records of a partition from an offset up to, and without, another one, in order: those a consumer
// gets to see. It ends early where the log ends or yield returns an error, which it returns.
func ReadPartition(ctx context.Context, client sarama.Client, topic string, partition int32, from, to int64,
	yield func(*sarama.ConsumerMessage) error,
) error {
	oldest, err := client.GetOffset(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return fmt.Errorf("find start of %s/%d: %w", topic, partition, err)
	}
	newest, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil {
		return fmt.Errorf("find end of %s/%d: %w", topic, partition, err)
	}
	to = min(to, newest)
	for from = max(from, oldest); from < to; {
		batches, err := fetchPatiently(ctx, client, topic, partition, from, to)
		if err != nil {
			return fmt.Errorf("read %s/%d@%d: %w", topic, partition, from, err)
		}
		if len(batches) == 0 {
			return nil
		}
		for _, b := range batches {
			if err := b.records(topic, partition, from, to, yield); err != nil {
				return err
			}
			from = max(from, b.LastOffset()+1)
		}
	}
	return nil
}

// fetchPatiently repeats a fetch that failed, for example because the leader has moved.
func fetchPatiently(ctx context.Context, client sarama.Client, topic string, partition int32, from, end int64) ([]fetched, error) {
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batches, err := fetch(client, topic, partition, from, end)
		if err == nil || attempt == readAttempts || errors.Is(err, sarama.ErrOffsetOutOfRange) || errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
			return batches, err
		}
		if pause(ctx, time.Duration(attempt)*50*time.Millisecond) == nil {
			_ = client.RefreshMetadata(topic)
		}
	}
}

// records yields what a consumer sees of a batch in [from, to).
func (b fetched) records(topic string, partition int32, from, to int64, yield func(*sarama.ConsumerMessage) error) error {
	if !b.visible {
		return nil
	}
	for _, r := range b.Records {
		m := &sarama.ConsumerMessage{
			Topic: topic, Partition: partition, Offset: b.FirstOffset + r.OffsetDelta,
			Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: b.FirstTimestamp.Add(r.TimestampDelta),
		}
		if b.LogAppendTime {
			m.Timestamp = b.MaxTimestamp
		}
		if m.Offset < from || m.Offset >= to {
			continue
		}
		if err := yield(m); err != nil {
			return err
		}
	}
	return nil
}
