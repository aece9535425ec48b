package risingwave_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/sink"
	"klgstream.dev/views/viewtest"
)

// topics is a broker in this process with what a processor would have published: every revision of some windows, and some
// letters.
type topics struct {
	addrs  []string
	client *kgo.Client
	truth  map[string]int64 // event count by registration and hour
	dead   int              // dead letters there are to be
}

const (
	aircraft, hours, revisions = 40, 5, 12
	letters                    = 30
)

func newTopics(t *testing.T) *topics {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Millisecond), kfake.SeedTopics(4, "aircraft-windows", "aircraft-events-late", "aircraft-events-dlq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := &topics{addrs: cluster.ListenAddrs(), client: client, truth: map[string]int64{}}
	b.publishWindows(t, 0, hours, revisions)
	b.publishLetters(t)
	return b
}

// publishWindows publishes windows of some hours in all their revisions. Of every other aircraft the last one is final.
func (b *topics) publishWindows(t *testing.T, from, to, revisions int64) {
	t.Helper()
	var records []*kgo.Record
	for revision := range revisions {
		for i := range int64(aircraft) {
			for h := from; h < to; h++ {
				w := viewtest.Window(fmt.Sprintf("N%03d", i), h, revision+1)
				w.Final = i%2 == 0 && revision == revisions-1
				b.truth[fmt.Sprint(w.Registration, w.Start)] = revisions
				records = append(records, &kgo.Record{Topic: "aircraft-windows", Partition: int32(i % 4), Key: w.AppendKey(nil), Value: w.AppendJSON(nil)})
			}
		}
	}
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (b *topics) publishLetters(t *testing.T) {
	t.Helper()
	var records []*kgo.Record
	for i := range int64(letters) {
		l := viewtest.Letter(i, "late")
		r := &kgo.Record{Topic: "aircraft-events-late", Partition: int32(i % 4), Key: l.Key, Value: l.Value}
		for _, h := range l.Headers() {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		records = append(records, r)
	}
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// rung is a store that rings behind every write, whatever became of it.
type rung struct {
	views.Store
	bell chan error
}

func (s rung) Write(ctx context.Context, b views.Batch) error {
	err := s.Store.Write(ctx, b)
	select {
	case s.bell <- err:
	case <-ctx.Done():
	}
	return err
}

// load runs sinks one after the other until the store holds the truth. between is called behind every write and may break
// things; it returns true to have the sink die there and then.
func (b *topics) load(t *testing.T, open func() views.Store, between func(err error) (die bool)) {
	t.Helper()
	deadline, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for lives := 1; ; lives++ {
		if b.live(deadline, t, open(), between) {
			t.Logf("the truth after %d lives of the sink", lives)
			return
		}
	}
}

// live runs one sink until it dies or the store holds the truth.
func (b *topics) live(deadline context.Context, t *testing.T, store views.Store, between func(error) bool) (done bool) {
	t.Helper()
	defer store.Close()
	bell := make(chan error)
	s, err := sink.New(sink.Config{
		Brokers: b.addrs, Store: rung{store, bell}, Now: time.Now, BatchRows: 37, RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
		CommitInterval: 5 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-bell:
			if between(err) {
				return false
			}
		case <-tick.C:
			if len(b.difference(ctx, store)) == 0 {
				return true
			}
		case <-deadline.Done():
			t.Fatalf("no truth in time: %v; %v", s.Ready(), b.difference(t.Context(), store))
		}
	}
}

// difference lists what the store does not hold as it should.
func (b *topics) difference(ctx context.Context, store views.Store) (list []string) {
	r, err := store.Query(ctx, views.Query{View: "aircraft_windows", Limit: views.MaxLimit})
	if err != nil {
		return []string{err.Error()}
	}
	if len(r.Rows) != len(b.truth) {
		list = append(list, fmt.Sprintf("%d windows, want %d", len(r.Rows), len(b.truth)))
	}
	for _, row := range r.Rows {
		if key := fmt.Sprint(row[0], row[3].(time.Time).UnixMilli()); row[5] != b.truth[key] {
			list = append(list, fmt.Sprintf("%s: %v events, want %d", key, row[5], b.truth[key]))
		}
	}
	r, err = store.Query(ctx, views.Query{View: "late_events", Limit: views.MaxLimit})
	if err != nil || len(r.Rows) != letters {
		list = append(list, fmt.Sprintf("%d late events, want %d (%v)", len(r.Rows), letters, err))
	}
	r, err = store.Query(ctx, views.Query{View: "dead_letters", Limit: views.MaxLimit})
	if err != nil || len(r.Rows) != b.dead {
		list = append(list, fmt.Sprintf("%d dead letters, want %d (%v)", len(r.Rows), b.dead, err))
	}
	return list
}

// TestSinkOutlivesPostgreSQL stops the server at once again and again, and the sink too.
func TestSinkOutlivesPostgreSQL(t *testing.T) {
	server := postgres(t)
	url := server.database(t)
	random := rand.New(rand.NewPCG(1, 1))
	writes := 0
	newTopics(t).load(t,
		func() views.Store { return open(t, risingwave.Config{URL: url}) },
		func(error) bool {
			if writes++; writes%9 == 0 && writes < 60 {
				server.kill()
				if err := server.run(); err != nil {
					t.Fatal(err)
				}
			}
			return random.IntN(25) == 0
		})
	compareTotals(t, connect(t, url), "after stops and deaths")
}

// TestSinkIsolatesWhatPostgreSQLRefuses has the database refuse one aircraft: each of its records ends as a dead letter, once,
// although the sink dies again and again, and all others are rows.
func TestSinkIsolatesWhatPostgreSQLRefuses(t *testing.T) {
	url := postgres(t).database(t)
	if err := open(t, risingwave.Config{URL: url}).Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, url).Exec(t.Context(), "ALTER TABLE windows ADD CONSTRAINT picky CHECK (registration_number <> 'N007')"); err != nil {
		t.Fatal(err)
	}
	b := newTopics(t)
	b.dead = hours * revisions
	for key := range b.truth {
		if strings.HasPrefix(key, "N007") {
			delete(b.truth, key)
		}
	}
	writes := 0
	b.load(t,
		func() views.Store { return open(t, risingwave.Config{URL: url}) },
		func(error) bool { writes++; return writes%97 == 0 && writes < 300 })
}

// TestSinkOutlivesRisingWave crashes the database at statements of any kind, and the sink too.
func TestSinkOutlivesRisingWave(t *testing.T) {
	s := newStandIn(t)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	faults := 0
	s.setScript(func(sql string) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(sql, "SELECT") || faults > 40 {
			return nil
		}
		switch random.IntN(8) {
		case 0:
			faults++
			return errCrash
		case 1:
			faults++
			return errors.New("Service unavailable: the cluster is recovering")
		}
		return nil
	})
	newTopics(t).load(t,
		func() views.Store { return openRisingWave(t, s) },
		func(error) bool {
			mu.Lock()
			defer mu.Unlock()
			return random.IntN(12) == 0
		})
	if faults < 10 {
		t.Errorf("%d faults only", faults)
	}
}

// BenchmarkWrite compares the store with a bare loop of the very statement it runs, its arguments made beforehand.
func BenchmarkWrite(b *testing.B) {
	server := postgres(b)
	for _, rows := range []int64{100, 1000, 10_000} {
		all := views.Batch{Windows: make([]codecs.Window, rows)}
		for i := range all.Windows {
			all.Windows[i] = viewtest.Window(fmt.Sprintf("N%d", i), 0, 1)
		}
		run := func(name string, loop func(s *risingwave.Store) error) {
			b.Run(fmt.Sprintf("%s/%d", name, rows), func(b *testing.B) {
				s := open(b, risingwave.Config{URL: server.database(b)})
				if err := s.Migrate(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := loop(s); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
		run("store", func(s *risingwave.Store) error {
			for i := range all.Windows {
				all.Windows[i].Revision++
			}
			return s.Write(b.Context(), all)
		})
		text, args := risingwave.Insert(all)
		text = strings.Replace(text, "excluded.revision > windows.revision", "excluded.revision >= windows.revision", 1) // or it would write nothing
		run("bare", func(s *risingwave.Store) error { return risingwave.Exec(b.Context(), s, text, args) })
	}
}
