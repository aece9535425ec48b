package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/viewtest"
)

// scripted is a store that does with each write what the test says, and keeps what it took.
type scripted struct {
	views.Store
	write   func(ctx context.Context, b views.Batch) error
	migrate func(ctx context.Context) error

	mu       sync.Mutex
	took     []views.Batch
	attempts int
}

func (s *scripted) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts
}

func (s *scripted) Name() string                      { return "scripted" }
func (s *scripted) Migrate(ctx context.Context) error { return s.migrate(ctx) }

func (s *scripted) Write(ctx context.Context, b views.Batch) error {
	s.mu.Lock()
	s.attempts++
	s.mu.Unlock()
	if s.write != nil {
		if err := s.write(ctx, b); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, views.Batch{Windows: slices.Clone(b.Windows), Late: slices.Clone(b.Late), Dead: slices.Clone(b.Dead)})
	return nil
}

// rowsTaken is the number of rows of each write that was taken.
func (s *scripted) rowsTaken() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes []int
	for _, b := range s.took {
		sizes = append(sizes, b.Len())
	}
	return sizes
}

// pigeonholes keeps letters, or refuses to.
type pigeonholes struct {
	err  func() error
	kept []codecs.Letter
}

func (p *pigeonholes) put(l *codecs.Letter) error {
	if p.err != nil {
		if err := p.err(); err != nil {
			return err
		}
	}
	p.kept = append(p.kept, *l)
	return nil
}

func (p *pigeonholes) close() {}

// bench is a loader with everything around it replaced.
type bench struct {
	store    *scripted
	letters  *pigeonholes
	sink     *Sink
	messages chan *sarama.ConsumerMessage
	cancel   context.CancelFunc
	done     chan struct{}

	mu    sync.Mutex
	marks []int64
}

func (b *bench) mark(next int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.marks = append(b.marks, next)
}

func (b *bench) marked() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.marks)
}

func newBench(t *testing.T, change func(c *Config)) *bench {
	t.Helper()
	b := &bench{store: &scripted{}, letters: &pigeonholes{}, messages: make(chan *sarama.ConsumerMessage, 10_000), done: make(chan struct{})}
	c := Config{Brokers: []string{"localhost:1"}, Store: b.store, Now: time.Now, Registerer: prometheus.NewRegistry()}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.letters, b.sink = b.letters, s
	return b
}

// start runs the loader of partition 3 of a topic until stop.
func (b *bench) start(t *testing.T, topic string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b.cancel = cancel
	b.sink.setJoined(true)
	go func() {
		defer close(b.done)
		newLoader(b.sink, topic, 3).run(ctx, b.messages, b.mark)
	}()
}

func (b *bench) stop() {
	b.cancel()
	<-b.done
}

// send gives the loader a record with the next offset.
func (b *bench) send(topic string, offset int64, value []byte, headers ...codecs.Header) {
	m := &sarama.ConsumerMessage{Topic: topic, Partition: 3, Offset: offset, Key: []byte("key"), Value: value, Timestamp: time.Now()}
	for _, h := range headers {
		m.Headers = append(m.Headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	b.messages <- m
}

func windowValue(registration string, hours, count int64) []byte {
	w := viewtest.Window(registration, hours, count)
	return w.AppendJSON(nil)
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

const topic = "aircraft-windows"

func TestBatchesBySizeAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.BatchRows, c.BatchWait = 3, time.Second })
		b.start(t, topic)
		for i := range int64(5) {
			b.send(topic, 10+i, windowValue("N1", i, 1))
		}
		synctest.Wait()
		check(t, "writes before the wait is over", b.store.rowsTaken(), []int{3})
		check(t, "marks", b.marked(), []int64{13})
		<-time.After(time.Second - 1)
		synctest.Wait()
		check(t, "writes before the wait is over", b.store.rowsTaken(), []int{3})
		<-time.After(1)
		synctest.Wait()
		check(t, "writes", b.store.rowsTaken(), []int{3, 2})
		check(t, "marks", b.marked(), []int64{13, 15})
		b.stop()
		check(t, "first row", b.store.took[0].Windows[0], viewtest.Window("N1", 0, 1))
	})
}

// TestBatchWaitsNoLongerThanItMust has a record come during a long write, and another after a pause: both have waited, or
// nobody has, and they go a tenth of the batch wait later.
func TestBatchWaitsNoLongerThanItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.BatchWait = time.Second })
		var began []time.Duration
		start := time.Now()
		b.store.write = func(context.Context, views.Batch) error {
			began = append(began, time.Since(start))
			<-time.After(3 * time.Second)
			return nil
		}
		b.start(t, topic)
		b.send(topic, 1, windowValue("N1", 1, 1))
		<-time.After(2 * time.Second) // within the first write
		b.send(topic, 2, windowValue("N1", 2, 1))
		<-time.After(18 * time.Second) // long after the second
		b.send(topic, 3, windowValue("N1", 3, 1))
		<-time.After(10 * time.Second)
		b.stop()
		check(t, "writes", began, []time.Duration{100 * time.Millisecond, 3200 * time.Millisecond, 20100 * time.Millisecond})
	})
}

// TestRevisionsOfOneWindowAreOneRow has a sink that is behind find revisions of a window beside each other, in any order: the
// highest is written, a batch takes more records for it, and no row more.
func TestRevisionsOfOneWindowAreOneRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.BatchRows, c.BatchWait = 3, time.Hour })
		for i, count := range []int64{1, 3, 2} {
			b.send(topic, int64(i), windowValue("N1", 0, count))
		}
		b.send(topic, 3, windowValue("N2", 0, 1))
		b.send(topic, 4, windowValue("N3", 0, 1)) // the third window: full
		for offset := range int64(15) {
			b.send(topic, 5+offset, windowValue("N4", 0, 1+offset)) // 12 records: full
		}
		b.start(t, topic)
		synctest.Wait()
		check(t, "marks", b.marked(), []int64{5, 17, 20})
		check(t, "writes", b.store.rowsTaken(), []int{3, 1, 1})
		check(t, "revision of the first window", b.store.took[0].Windows[0].Revision, int64(6))
		check(t, "revision of the last window", b.store.took[2].Windows[0].Revision, int64(30))
		b.stop()
	})
}

// K3: a revision that the store refuses does not take the one before it along.
func TestRefusedRevisionLeavesTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.store.write = func(_ context.Context, batch views.Batch) error {
			if slices.ContainsFunc(batch.Windows, func(w codecs.Window) bool { return w.Count == 3 }) {
				return views.Permanent(errors.New("three is too many"))
			}
			return nil
		}
		for i := range int64(3) {
			b.send(topic, i, windowValue("N1", 0, i+1))
		}
		b.start(t, topic)
		<-time.After(time.Minute)
		synctest.Wait()
		b.stop()
		var counts []int64
		for _, batch := range b.store.took {
			for _, w := range batch.Windows {
				counts = append(counts, w.Count)
			}
		}
		check(t, "counts written", counts, []int64{1, 2})
		check(t, "dead letters", len(b.letters.kept), 1)
		check(t, "marks", b.marked(), []int64{3})
	})
}

func TestLargeRecordsEndABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.BatchWait = time.Hour })
		b.start(t, "aircraft-events-dlq")
		letter := viewtest.Letter(1, "too_large")
		for i := range int64(9) {
			b.send("aircraft-events-dlq", i, make([]byte, 2<<20), letter.Headers()...)
		}
		synctest.Wait()
		check(t, "writes", b.store.rowsTaken(), []int{8})
		b.stop()
	})
}

// K2: a store that is away costs time and nothing else.
// While the store is stuck records of any size arrive, and only so many bytes of them are taken from the brokers.
func TestLargeRecordsDoNotFillMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		if n := b.sink.client.ChannelBufferSize; n > 64 {
			t.Errorf("the client holds up to %d records of any size", n)
		}
		b.store.write = func(ctx context.Context, _ views.Batch) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithCancel(t.Context())
		arriving, taken := make(chan *sarama.ConsumerMessage), 0
		l := newLoader(b.sink, b.sink.config.Topics.Dead, 0)
		var done sync.WaitGroup
		done.Go(func() { l.run(ctx, l.queue(ctx, arriving), b.mark) })
		done.Go(func() {
			defer close(arriving)
			value := make([]byte, 1<<20)
			for offset := range int64(200) {
				select {
				case arriving <- &sarama.ConsumerMessage{Topic: b.sink.config.Topics.Dead, Offset: offset, Value: value}:
					taken++
				case <-ctx.Done():
					return
				}
			}
		})
		<-time.After(time.Minute)
		synctest.Wait()
		if taken < 20 || taken > 40 {
			t.Errorf("%d records of 1 MiB are held", taken)
		}
		cancel()
		done.Wait()
	})
}

func TestStoreAwayIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.RetryMin, c.RetryMax = time.Second, 8*time.Second })
		back := time.Now().Add(time.Hour)
		b.store.write = func(context.Context, views.Batch) error {
			if time.Now().Before(back) {
				return errors.New("connection refused")
			}
			return nil
		}
		b.start(t, topic)
		b.send(topic, 41, windowValue("N1", 0, 1))
		<-time.After(30 * time.Minute)
		synctest.Wait()
		if err := b.sink.Ready(); err == nil || !strings.Contains(err.Error(), "aircraft-windows/3@41: write 1 rows: connection refused") {
			t.Errorf("ready: %v", err)
		}
		check(t, "marks while it is away", len(b.marked()), 0)
		if calls := b.store.calls(); calls < 30*60/8 || calls > 30*60/4+4 {
			t.Errorf("%d attempts in half an hour, with pauses of 4 to 8 s", calls)
		}
		<-time.After(31 * time.Minute)
		synctest.Wait()
		check(t, "marks", b.marked(), []int64{42})
		check(t, "ready", b.sink.Ready(), nil)
		check(t, "rows", testutil.ToFloat64(b.sink.metrics.rows.WithLabelValues("windows")), 1.0)
		check(t, "retries", testutil.ToFloat64(b.sink.metrics.retries), float64(b.store.calls()-1))
		b.stop()
	})
}

func TestHangingWriteIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.WriteTimeout = 5 * time.Second })
		b.store.write = func(ctx context.Context, _ views.Batch) error {
			if b.store.calls() > 2 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		b.start(t, topic)
		b.send(topic, 0, windowValue("N1", 0, 1))
		<-time.After(20 * time.Second)
		synctest.Wait()
		check(t, "attempts", b.store.calls(), 3)
		check(t, "marks", b.marked(), []int64{1})
		b.stop()
	})
}

// A new schema takes a large store longer than any write: it is given twice the time of the try before until it is through.
func TestLongMigrationComesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var limits []time.Duration
		b.store.migrate = func(ctx context.Context) error {
			end, _ := ctx.Deadline()
			limits = append(limits, time.Until(end))
			select {
			case <-time.After(100 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		check(t, "migration", b.sink.migrate(ctx), nil)
		check(t, "limits", limits, []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute})
	})
}

// K1: what was not durable when the partition was taken away is not marked.
func TestStopMarksNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.store.write = func(context.Context, views.Batch) error { return errors.New("away") }
		b.start(t, topic)
		b.send(topic, 0, windowValue("N1", 0, 1))
		<-time.After(time.Minute)
		b.stop()
		check(t, "marks", len(b.marked()), 0)
	})
}

func TestClosedPartitionIsLoadedToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.send(topic, 7, windowValue("N1", 0, 1))
		close(b.messages)
		b.start(t, topic)
		<-b.done
		check(t, "marks", b.marked(), []int64{8})
		b.stop()
	})
}

// K3, with any number of hopeless rows anywhere in a batch.
func TestHopelessRowsAreIsolated(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { isolate(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func isolate(t *testing.T, random *rand.Rand) {
	b := newBench(t, nil)
	b.store.write = func(_ context.Context, batch views.Batch) error {
		for _, w := range batch.Windows {
			if w.Registration == "POISON" {
				return views.Permanent(errors.New("value too odd"))
			}
		}
		if random.IntN(4) == 0 {
			return errors.New("away")
		}
		return nil
	}
	const rows = 100
	share := random.IntN(10) + 1
	var poison []int64
	for i := range int64(rows) {
		registration := fmt.Sprintf("N%d", i%7)
		if random.IntN(10) < share {
			registration, poison = "POISON", append(poison, i)
		}
		b.send(topic, i, windowValue(registration, 0, i+1))
	}
	b.start(t, topic)
	<-time.After(time.Hour)
	synctest.Wait()
	b.stop()
	check(t, "marks", b.marked(), []int64{rows})
	var buried []int64
	for _, l := range b.letters.kept {
		buried = append(buried, l.Offset)
		check(t, "letter", l, codecs.Letter{
			Reason: ReasonRefused, Detail: l.Detail, Topic: topic, Partition: 3, Offset: l.Offset,
			EventTime: codecs.NoTime, Key: []byte("key"), Value: windowValue("POISON", 0, l.Offset+1),
		})
		if !strings.Contains(l.Detail, "value too odd") {
			t.Errorf("detail %q does not say why", l.Detail)
		}
	}
	check(t, "offsets of dead letters", buried, poison)
	last, taken := map[string]int64{}, 0
	for _, batch := range b.store.took {
		for _, w := range batch.Windows {
			taken++
			if w.Revision <= last[w.Registration] {
				t.Errorf("%s: revision %d came behind %d", w.Registration, w.Revision, last[w.Registration])
			}
			last[w.Registration] = w.Revision
		}
	}
	check(t, "rows taken", taken, rows-len(poison))
}

// K3, for records that are no window; a tombstone is no fault.
func TestUnreadableRecordsAreBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		away := 3
		b.letters.err = func() error { // the broker needs a while, too
			if away--; away >= 0 {
				return sarama.ErrNotEnoughReplicas
			}
			return nil
		}
		b.send(topic, 0, []byte(`{"registration_number":`))
		b.send(topic, 1, nil)
		b.send(topic, 2, windowValue("N1", 0, 1))
		b.send(topic, 3, []byte{})
		b.start(t, topic)
		<-time.After(time.Minute)
		synctest.Wait()
		b.stop()
		check(t, "marks", b.marked(), []int64{4})
		check(t, "writes", b.store.rowsTaken(), []int{1})
		var offsets []int64
		for _, l := range b.letters.kept {
			offsets = append(offsets, l.Offset)
			if !slices.Contains(codecs.Reasons(), l.Reason) {
				t.Errorf("reason %q", l.Reason)
			}
		}
		check(t, "offsets of dead letters", offsets, []int64{0, 3})
	})
}

func TestLettersBecomeRows(t *testing.T) {
	for name, pick := range map[string]func(views.Batch) []codecs.Letter{
		"aircraft-events-late": func(b views.Batch) []codecs.Letter { return b.Late },
		"aircraft-events-dlq":  func(b views.Batch) []codecs.Letter { return b.Dead },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				letter := viewtest.Letter(77, "late")
				b.send(name, 0, letter.Value, letter.Headers()...)
				b.send(name, 1, []byte("what"))
				b.start(t, name)
				<-time.After(time.Second)
				synctest.Wait()
				b.stop()
				check(t, "marks", b.marked(), []int64{2})
				letter.Key = []byte("key")
				rows := pick(b.store.took[0])
				check(t, "letter", rows[0], letter)
				check(t, "record that is no letter", rows[1], codecs.Letter{
					Reason: ReasonNoLetter, Detail: rows[1].Detail, Topic: name, Partition: 3, Offset: 1,
					EventTime: codecs.NoTime, Key: []byte("key"), Value: []byte("what"),
				})
			})
		})
	}
}

// K4: the letter about a letter would be refused as well, for ever.
func TestHopelessDeadLetterStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.store.write = func(context.Context, views.Batch) error { return views.Permanent(errors.New("no")) }
		letter := viewtest.Letter(77, "late")
		b.send("aircraft-events-dlq", 5, letter.Value, letter.Headers()...)
		b.start(t, "aircraft-events-dlq")
		<-time.After(time.Second)
		synctest.Wait()
		b.stop()
		check(t, "marks", b.marked(), []int64{6})
		check(t, "letters", len(b.letters.kept), 0)
		check(t, "left", testutil.ToFloat64(b.sink.metrics.refused.WithLabelValues("left")), 1.0)
	})
}

func TestBackoffDoublesWithinBounds(t *testing.T) {
	for failures, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		check(t, fmt.Sprint("pause after ", failures), backoff(100, 1000, failures, 0), want)
		if got := backoff(100, 1000, failures, 0.999); got < want/2 || got > want*51/100 {
			t.Errorf("shortest pause after %d: %d, want half of %d", failures, got, want)
		}
	}
	for _, failures := range []int{62, 63, 64, 1000} {
		check(t, "pause after very many", backoff(1, time.Hour, failures, 0), time.Hour)
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	old := sarama.NewConfig()
	old.Version = sarama.V2_0_0_0
	_, err := New(Config{
		Topics: Topics{Windows: "a", Late: "a"}, BatchRows: 200_000, BatchWait: -1, WriteTimeout: -1,
		RetryMin: 2, RetryMax: 1, CommitInterval: -1, Sarama: old,
	})
	for _, part := range []string{
		"brokers", "store", "now", "three topics", "batch rows 200000: must be 1 to 100000", "batch wait", "write timeout",
		"retry pause 2ns to 1ns", "commit interval", "kafka version",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}
}

func TestConfigIsNotShared(t *testing.T) {
	given := sarama.NewConfig()
	given.Version = sarama.V3_0_0_0
	b := newBench(t, func(c *Config) { c.Sarama = given })
	check(t, "the caller's autocommit", given.Consumer.Offsets.AutoCommit.Enable, true)
	check(t, "the sink's autocommit", b.sink.client.Consumer.Offsets.AutoCommit.Enable, false)
	check(t, "the sink's first offset", b.sink.client.Consumer.Offsets.Initial, sarama.OffsetOldest)
}

func TestMetricsAreWellNamed(t *testing.T) {
	registry := prometheus.NewRegistry()
	b := newBench(t, func(c *Config) { c.Registerer = registry })
	b.sink.metrics.lag.WithLabelValues("t", "0").Set(1)
	b.sink.metrics.delay.WithLabelValues("t").Observe(1)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	if _, err := New(b.sink.config); err == nil {
		t.Error("two sinks share metrics")
	}
}

func TestNotReadyBeforeItJoined(t *testing.T) {
	b := newBench(t, nil)
	if err := b.sink.Ready(); err == nil || !strings.Contains(err.Error(), `"klgstream-sink"`) {
		t.Errorf("ready: %v", err)
	}
}
