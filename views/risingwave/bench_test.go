package risingwave_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/sink"
	"klgstream.dev/views/sqlite"
	"klgstream.dev/views/viewtest"
)

// counted is a store that knows how many rows it took and how old each was, by the time in it.
type counted struct {
	views.Store
	mu     sync.Mutex
	rows   int
	delays []time.Duration
	want   int
	done   chan struct{}
}

func (s *counted) Write(ctx context.Context, b views.Batch) error {
	if err := s.Store.Write(ctx, b); err != nil {
		return err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.rows
	s.rows += b.Len()
	for i := range b.Windows {
		s.delays = append(s.delays, now.Sub(time.UnixMilli(b.Windows[i].Last)))
	}
	if before < s.want && s.rows >= s.want {
		close(s.done)
	}
	return nil
}

// stores are PostgreSQL and SQLite, each empty and migrated.
func stores(b *testing.B, run func(b *testing.B, name string, open func(b *testing.B) views.Store)) {
	run(b, "postgresql", func(b *testing.B) views.Store {
		return ready(b, open(b, risingwave.Config{URL: postgres(b).database(b)}))
	})
	run(b, "sqlite", func(b *testing.B) views.Store {
		s, err := sqlite.Open(b.Context(), sqlite.Config{Path: filepath.Join(b.TempDir(), "views.db")})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return ready(b, s)
	})
}

func ready(b *testing.B, s views.Store) views.Store {
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

const benchTopicPartitions = 4

func benchTopic(b *testing.B) (addrs []string, client *kgo.Client) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(benchTopicPartitions, "aircraft-windows", "aircraft-events-late", "aircraft-events-dlq"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cluster.Close)
	client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return cluster.ListenAddrs(), client
}

func windowRecord(w *codecs.Window, partition int) *kgo.Record {
	return &kgo.Record{Topic: "aircraft-windows", Partition: int32(partition % benchTopicPartitions), Key: w.AppendKey(nil), Value: w.AppendJSON(nil)}
}

// sinkInto runs a sink into the store until stop.
func sinkInto(b *testing.B, addrs []string, s views.Store) (stop func()) {
	loading, err := sink.New(sink.Config{Brokers: addrs, Store: s, Now: time.Now, BatchRows: 2000})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := loading.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	return func() { cancel(); running.Wait() }
}

// BenchmarkSink compares rows per second from topic to table with a bare loop of the same writes, 2000 rows each.
func BenchmarkSink(b *testing.B) {
	const rows = 100_000
	all := make([]codecs.Window, rows)
	for i := range all {
		all[i] = viewtest.Window(fmt.Sprintf("N%05d", i/20), int64(i%20), 1)
	}
	addrs, client := benchTopic(b)
	var records []*kgo.Record
	for i := range all {
		records = append(records, windowRecord(&all[i], i/20))
	}
	if err := client.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
		b.Fatal(err)
	}
	stores(b, func(b *testing.B, name string, open func(b *testing.B) views.Store) {
		b.Run(name+"/bare", func(b *testing.B) {
			s := open(b)
			for b.Loop() {
				for chunk := range slices.Chunk(all, 2000) {
					if err := s.Write(b.Context(), views.Batch{Windows: chunk}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
		b.Run(name+"/sink", func(b *testing.B) {
			for b.Loop() {
				s := &counted{Store: open(b), want: rows, done: make(chan struct{})}
				group := fmt.Sprintf("%s-%d", b.Name(), time.Now().UnixNano())
				loading, err := sink.New(sink.Config{Brokers: addrs, Group: group, Store: s, Now: time.Now, BatchRows: 2000})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(b.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = loading.Run(ctx) })
				<-s.done
				cancel()
				running.Wait()
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	})
}

// BenchmarkDelay publishes 20,000 windows a second and tells how long it takes until their rows are durable.
func BenchmarkDelay(b *testing.B) {
	const perTick, every = 200, 10 * time.Millisecond
	stores(b, func(b *testing.B, name string, open func(b *testing.B) views.Store) {
		b.Run(name, func(b *testing.B) {
			addrs, client := benchTopic(b)
			s := &counted{Store: open(b), want: -1}
			defer sinkInto(b, addrs, s)()
			tick := time.NewTicker(every)
			defer tick.Stop()
			sent := int64(0)
			for b.Loop() {
				now := (<-tick.C).UnixMilli()
				for range perTick {
					w := viewtest.Window(fmt.Sprintf("N%04d", sent%5000), 0, sent/5000+1)
					w.First, w.Last = min(w.First, now), now
					client.Produce(b.Context(), windowRecord(&w, int(sent%5000)), nil)
					sent++
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			slices.Sort(s.delays)
			if n := len(s.delays); n > 0 {
				b.ReportMetric(float64(s.delays[n/2].Milliseconds()), "p50-ms")
				b.ReportMetric(float64(s.delays[n*99/100].Milliseconds()), "p99-ms")
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
			}
		})
	})
}
