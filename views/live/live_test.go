package live_test

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kfake"

	"klgstream.dev/codecs"
	"klgstream.dev/views/httpapi"
	"klgstream.dev/views/live"
)

const table = "aircraft-registry-table"

// world is a broker with a group table, and the table as views/live reads it.
type world struct {
	*testing.T
	broker   *kfake.Cluster
	now      atomic.Int64 // of its clock, in ms
	producer sarama.SyncProducer
	table    *live.Table
	decide   func(change codecs.Change) // what the registry does with a published change
}

func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, table))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Producer.Return.Successes = true
	p, err := sarama.NewSyncProducer(c.ListenAddrs(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	w := &world{T: t, broker: c, producer: p}
	w.now.Store(1_770_000_000_000)
	w.table = live.NewTable(live.Config{
		Brokers: c.ListenAddrs(), Kafka: cfg, Table: table, Hasher: func() hash.Hash32 { return fnv.New32a() },
		Consumer: func(brokers []string, _ string) (sarama.Consumer, error) { return sarama.NewConsumer(brokers, cfg) },
		Logger:   slog.New(slog.DiscardHandler), Now: w.clock, Pause: 5 * time.Millisecond,
	})
	return w
}

func (w *world) clock() time.Time { return time.UnixMilli(w.now.Load()) }

// start follows the table and returns once it was read.
func (w *world) start() {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.table.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
	w.until(func() bool { return w.table.Ready() == nil })
}

func (w *world) until(ok func() bool) {
	w.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-w.Context().Done():
			w.Fatal("it never came")
		}
	}
}

// put writes a record; nil is a tombstone.
func (w *world) put(registration string, a *codecs.Aircraft) {
	w.Helper()
	m := &sarama.ProducerMessage{Topic: table, Key: sarama.StringEncoder(registration)}
	if a != nil {
		env := codecs.Envelope{Purged: math.MinInt64, Due: codecs.NoDue, State: a.Append(nil)}
		m.Value = sarama.ByteEncoder(env.Append(nil))
	}
	if _, _, err := w.producer.SendMessage(m); err != nil {
		w.Fatal(err)
	}
}

// Publish implements httpapi.Publisher: the change reaches whoever decides.
func (w *world) Publish(_ context.Context, events []httpapi.Event) error {
	for _, e := range events {
		var decoded codecs.Event
		if err := new(codecs.Decoder).Decode(&decoded, e.Value); err != nil || string(decoded.Registration) != e.Key {
			return fmt.Errorf("published %s under %q: %w", e.Value, e.Key, err)
		}
		w.decide(codecs.ParseChange(e.Value))
	}
	return nil
}

func (w *world) registry() *live.Registry {
	return live.NewRegistry(w.table, w, func() time.Time { return time.UnixMilli(1_770_000_000_000) })
}

func aircraft(typ string, revision int64) *codecs.Aircraft {
	return &codecs.Aircraft{Type: typ, Revision: revision, Created: 1, Updated: revision}
}

func TestListAndFind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.registry()
	if _, _, err := r.List(t.Context(), httpapi.AircraftQuery{Limit: 1}); !errors.Is(err, httpapi.ErrUnavailable) {
		t.Errorf("before the table was read: %v", err)
	}
	for i := range 9 {
		w.put(fmt.Sprintf("N%d", i), aircraft([]string{"A320", "B738"}[i%2], 1))
	}
	w.put("D-AIBL", &codecs.Aircraft{Type: "A319", Revision: 2, AircraftID: 7, HasAircraftID: true})
	w.put("REFUSED", &codecs.Aircraft{Decisions: []codecs.Decision{{Request: "x"}}})
	w.put("GONE", aircraft("A320", 1))
	w.put("GONE", nil)
	w.start()
	names := func(q httpapi.AircraftQuery) string {
		t.Helper()
		page, more, err := r.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, a := range page {
			out = append(out, a.Registration)
		}
		return fmt.Sprint(strings.Join(out, " "), " ", more)
	}
	for _, tt := range []struct {
		q    httpapi.AircraftQuery
		want string
	}{
		{httpapi.AircraftQuery{Limit: 3}, "D-AIBL N0 N1 true"},
		{httpapi.AircraftQuery{Limit: 3, After: "N1"}, "N2 N3 N4 true"},
		{httpapi.AircraftQuery{Limit: 9, Prefix: "N"}, "N0 N1 N2 N3 N4 N5 N6 N7 N8 false"},
		{httpapi.AircraftQuery{Limit: 9, Prefix: "N", Type: "B738", After: "N3"}, "N5 N7 false"},
		{httpapi.AircraftQuery{Limit: 9, Prefix: "Z"}, " false"},
		{httpapi.AircraftQuery{Limit: 9, Exact: "N4"}, "N4 false"},
		{httpapi.AircraftQuery{Limit: 9, Exact: "N", Prefix: "N"}, " false"},
		{httpapi.AircraftQuery{Limit: 9, Exact: "N4", Prefix: "D"}, " false"},
		{httpapi.AircraftQuery{Limit: 9, Exact: "N4", After: "N4"}, " false"},
	} {
		if got := names(tt.q); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.q, got, tt.want)
		}
	}
	a, err := r.Find(t.Context(), "D-AIBL")
	if err != nil || a.Type != "A319" || !a.HasID || a.AircraftID != 7 || a.Revision != 2 {
		t.Errorf("%+v %v", a, err)
	}
	for _, missing := range []string{"REFUSED", "GONE", "NEVER"} {
		if _, err := r.Find(t.Context(), missing); !errors.Is(err, httpapi.ErrNotFound) {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

func TestChangesWaitForTheirDecision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	r := w.registry()
	w.decide = func(c codecs.Change) {
		w.put("N1", &codecs.Aircraft{Type: *c.Type, Revision: 1, Decisions: []codecs.Decision{{Request: c.Request, Applied: true, Revision: 1}}})
	}
	a, err := r.Create(t.Context(), httpapi.Draft{Registration: "N1", Type: "A320", RequestID: "r1"})
	if err != nil || a.Revision != 1 || a.Type != "A320" {
		t.Fatalf("%+v %v", a, err)
	}
	if _, err := r.Create(t.Context(), httpapi.Draft{Registration: "N1", RequestID: "r2"}); !errors.Is(err, httpapi.ErrTaken) {
		t.Errorf("a second creation: %v", err)
	}
	if o, err := r.Outcome(t.Context(), "N1", "r1"); o != httpapi.OutcomeApplied || err != nil {
		t.Errorf("outcome %v %v", o, err)
	}
	if o, err := r.Outcome(t.Context(), "N1", "never"); o != httpapi.OutcomePending || err != nil {
		t.Errorf("outcome %v %v", o, err)
	}
	if _, err := r.Update(t.Context(), 7, httpapi.Draft{Registration: "N1"}); !errors.Is(err, httpapi.ErrConflict) {
		t.Errorf("an update of another revision: %v", err)
	}
	if _, err := r.Update(t.Context(), 1, httpapi.Draft{Registration: "N2"}); !errors.Is(err, httpapi.ErrNotFound) {
		t.Errorf("an update of nothing: %v", err)
	}
	// Another request came first in the log.
	w.decide = func(c codecs.Change) {
		if c.Expected != 1 {
			t.Errorf("expected revision %d", c.Expected)
		}
		w.put("N1", &codecs.Aircraft{Type: "B738", Revision: 2, Decisions: []codecs.Decision{{Request: c.Request, Revision: 2}}})
	}
	if _, err := r.Update(t.Context(), 1, httpapi.Draft{Registration: "N1", Type: "E190", RequestID: "r3"}); !errors.Is(err, httpapi.ErrConflict) {
		t.Errorf("a refused update: %v", err)
	}
	if o, _ := r.Outcome(t.Context(), "N1", "r3"); o != httpapi.OutcomeRefused {
		t.Errorf("outcome %v", o)
	}
	w.decide = func(codecs.Change) {} // the registry is away
	ctx, cancel := context.WithCancel(t.Context())
	w.decide = func(codecs.Change) { cancel() }
	if _, err := r.Create(ctx, httpapi.Draft{Registration: "N9", RequestID: "r4"}); !errors.Is(err, httpapi.ErrPending) {
		t.Errorf("undecided: %v", err)
	}
}

// silent is a broker that does not acknowledge in time; what it was given may be in the topic all the same.
type silent struct{}

func (silent) Publish(ctx context.Context, _ []httpapi.Event) error { <-ctx.Done(); return ctx.Err() }

func TestChangeThatIsNotAcknowledgedIsPending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	r := live.NewRegistry(w.table, silent{}, time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := r.Create(ctx, httpapi.Draft{Registration: "N1", RequestID: "r1"}); !errors.Is(err, httpapi.ErrPending) {
		t.Errorf("error %v, want that it is pending", err)
	}
}

// A table without brokers is as it was, and says how old that is.
func TestAgeOfTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if at := w.table.AsOf(); !at.IsZero() || w.table.Fresh(t.Context()) == nil {
		t.Errorf("a table that was not read is as of %v", at)
	}
	w.put("N1", aircraft("A320", 1))
	w.start()
	w.until(func() bool { return w.table.AsOf().Equal(w.clock()) })
	w.now.Add(time.Hour.Milliseconds())
	w.until(func() bool { return w.table.AsOf().Equal(w.clock()) && w.table.Fresh(t.Context()) == nil })
	w.put("N2", aircraft("A320", 1))
	w.until(func() bool { return w.table.Find("N2") != nil })
	w.now.Add(1)
	w.until(func() bool { return w.table.AsOf().Equal(w.clock()) })

	w.broker.Close()
	last := w.clock()
	w.now.Add(time.Minute.Milliseconds())
	if got := w.table.AsOf(); got.After(last) {
		t.Errorf("without brokers it is as of %v, want at most %v", got, last)
	}
	if err := w.table.Fresh(t.Context()); err == nil || !strings.Contains(err.Error(), "1m0s old, must be at most 10s") {
		t.Errorf("without brokers: %v", err)
	}
	if w.table.Find("N2") == nil {
		t.Error("it is forgotten")
	}
}

func TestBrokenRecordsAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, _, err := w.producer.SendMessage(&sarama.ProducerMessage{Topic: table, Key: sarama.StringEncoder("N1"), Value: sarama.StringEncoder("?")}); err != nil {
		t.Fatal(err)
	}
	w.start()
	r := w.registry()
	if _, err := r.Find(t.Context(), "N1"); err == nil || !strings.Contains(err.Error(), `"N1"`) {
		t.Errorf("find: %v", err)
	}
	if _, _, err := r.List(t.Context(), httpapi.AircraftQuery{Limit: 9}); err == nil {
		t.Error("listed")
	}
	if _, err := r.Outcome(t.Context(), "N1", "x"); err == nil {
		t.Error("an outcome")
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	windows := live.NewWindows(w.table, func(registration string, record []byte) ([]codecs.Window, error) {
		if len(record) == 0 {
			return nil, errors.New("empty")
		}
		return []codecs.Window{{Definition: "b", Start: 1}, {Definition: "a", Start: 2, Registration: registration}, {Definition: "a", Start: 1}}, nil
	})
	if _, err := windows.Windows(t.Context(), "N1"); !errors.Is(err, httpapi.ErrUnavailable) {
		t.Errorf("before the table was read: %v", err)
	}
	w.put("N1", aircraft("x", 1))
	w.start()
	got, err := windows.Windows(t.Context(), "N1")
	if err != nil || len(got) != 3 || got[0].Start != 2 || got[1].Definition != "a" || got[0].Registration != "N1" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := windows.Windows(t.Context(), "N2"); !errors.Is(err, httpapi.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
}
