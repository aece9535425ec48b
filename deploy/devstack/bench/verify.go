package bench

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
)

// hourOf is the tumbling hour of an event.
type hourOf struct {
	key   int
	start int64
}

const hour = int64(3_600_000)

// truth counts the shape's events per key and hour.
func (s Shape) truth() map[hourOf]int64 {
	out := make(map[hourOf]int64)
	s.events(func(_ int, e event) { out[hourOf{e.key, e.time - e.time%hour}]++ })
	return out
}

// Verdict is what a comparison of all windows with the events found.
type Verdict struct {
	Windows int `json:"windows"`
	Wrong   int `json:"wrong"`
	Records int `json:"records"` // of the output topic
}

// verify reads an output topic to its end and compares the highest revision of each window with the truth.
func verify(ctx context.Context, brokers []string, topic string, s Shape, parse func(*kgo.Record) (key string, start, count, revision int64, err error)) (Verdict, error) {
	truth := s.truth()
	type seen struct{ count, revision int64 }
	got := make(map[string]map[int64]seen, s.Keys)
	records, err := readAll(ctx, brokers, topic, func(r *kgo.Record) error {
		key, start, count, revision, err := parse(r)
		if err != nil {
			return err
		}
		starts := got[key]
		if starts == nil {
			starts = make(map[int64]seen)
			got[key] = starts
		}
		if old, ok := starts[start]; !ok || revision >= old.revision {
			starts[start] = seen{count, revision}
		}
		return nil
	})
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Windows: len(truth), Records: records}
	found := 0
	for k, n := range truth {
		w, ok := got[string(registration(nil, k.key))][k.start]
		if !ok || w.count != n {
			v.Wrong++
		}
		if ok {
			found++
		}
	}
	for _, starts := range got {
		found -= len(starts)
	}
	v.Wrong += -found // windows that no event belongs to
	return v, nil
}

// windowRecord reads the product's results.
func windowRecord(r *kgo.Record) (string, int64, int64, int64, error) {
	var w codecs.Window
	if err := w.UnmarshalJSON(r.Value); err != nil {
		return "", 0, 0, 0, err
	}
	return w.Registration, w.Start, w.Count, w.Revision, nil
}

// readAll reads a topic from start to end.
func readAll(ctx context.Context, brokers []string, topic string, yield func(*kgo.Record) error) (int, error) {
	ends, err := endOffsets(ctx, brokers, topic)
	if err != nil {
		return 0, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", topic, err)
	}
	defer cl.Close()
	left := 0
	for _, end := range ends {
		left += int(end)
	}
	n := 0
	for n < left {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return n, fmt.Errorf("read %s: %w", topic, err)
		}
		for it := fetches.RecordIter(); !it.Done(); n++ {
			if err := yield(it.Next()); err != nil {
				return n, fmt.Errorf("read %s: %w", topic, err)
			}
		}
	}
	return n, nil
}

// endOffsets are the ends of a topic's partitions.
func endOffsets(ctx context.Context, brokers []string, topic string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find ends of %s: %w", topic, err)
	}
	out := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}
