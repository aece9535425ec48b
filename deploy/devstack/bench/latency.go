package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// counted is one window of one registration.
type counted struct {
	registration string
	start        int64
}

// Tracker knows when each event was to be sent. A window's count of n says that its first n events are in, so that every
// event's delay is known without a mark in it. Delays are counted from when an event was to be sent, not from when it was:
// a sender that is held up hides nothing (no coordinated omission). It is safe for concurrent use.
type Tracker struct {
	mu     sync.Mutex
	warm   time.Time // events meant before this are not recorded
	meant  map[counted][]time.Time
	events int
}

// NewTracker records events meant at warm or later.
func NewTracker(warm time.Time) *Tracker {
	return &Tracker{warm: warm, meant: make(map[counted][]time.Time)}
}

// Meant notes that the next event of a window was to be sent at a time.
func (t *Tracker) Meant(registration string, start int64, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := counted{registration, start}
	t.meant[k] = append(t.meant[k], at)
	t.events++
}

// Stage is one place where events are seen.
type Stage struct {
	tracker *Tracker
	seen    map[counted]int
	total   int
	delays  *hdrhistogram.Histogram // µs
}

// Stage is a new place where events may be seen.
func (t *Tracker) Stage() *Stage {
	return &Stage{tracker: t, seen: make(map[counted]int), delays: hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)}
}

// Seen notes that a window's count was seen.
func (s *Stage) Seen(registration string, start, count int64, at time.Time) {
	s.tracker.mu.Lock()
	defer s.tracker.mu.Unlock()
	k := counted{registration, start}
	meant := s.tracker.meant[k]
	for i := s.seen[k]; i < len(meant) && i < int(count); i++ {
		s.seen[k] = i + 1
		s.total++
		if !meant[i].Before(s.tracker.warm) {
			_ = s.delays.RecordValue(max(1, at.Sub(meant[i]).Microseconds())) // beyond its range is the last of it
		}
	}
}

// All reports whether every event was seen here.
func (s *Stage) All() bool {
	s.tracker.mu.Lock()
	defer s.tracker.mu.Unlock()
	return s.total == s.tracker.events
}

// Delays are quantiles of how long events took to be seen somewhere.
type Delays struct {
	Where  string        `json:"where"`
	Commit time.Duration `json:"commit_interval_ns"`
	Events int64         `json:"events"`
	P50    float64       `json:"p50_ms"`
	P90    float64       `json:"p90_ms"`
	P99    float64       `json:"p99_ms"`
	P999   float64       `json:"p99_9_ms"`
	Max    float64       `json:"max_ms"`
}

// Delays are what the stage has recorded.
func (s *Stage) Delays(where string, commit time.Duration) Delays {
	s.tracker.mu.Lock()
	defer s.tracker.mu.Unlock()
	ms := func(us int64) float64 { return float64(us) / 1000 }
	h := s.delays
	return Delays{
		where, commit, h.TotalCount(), ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(90)), ms(h.ValueAtQuantile(99)), ms(h.ValueAtQuantile(99.9)), ms(h.Max()),
	}
}

// DelaysTable writes one line per stage.
func DelaysTable(w io.Writer, all []Delays) error {
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "commit interval\tevent →\tevents\tp50 ms\tp90 ms\tp99 ms\tp99.9 ms\tmax ms")
	for _, d := range all {
		_, _ = fmt.Fprintf(tw, "%v\t%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\n", d.Commit, d.Where, d.Events, d.P50, d.P90, d.P99, d.P999, d.Max)
	}
	return tw.Flush()
}

// Pace sends events at a steady rate, each at its own time. The zero value of a field is its documented default.
type Pace struct {
	Brokers    []string
	Topic      string
	Partitions int           // of the topic
	Rate       int           // events per second; default 20,000
	Duration   time.Duration // default 30 s
	Keys       int           // registrations in use at a time; default 5,000
	Churn      time.Duration // after which other registrations are in use; default: always the same
	Window     time.Duration // of the tumbling windows they are counted in; default 1 h
	Tracker    *Tracker      // told when events were to be sent; default none
}

// pulse is how often events are sent; one is late by at most that and what the machine adds.
const pulse = 500 * time.Microsecond

// Run sends until the duration is over and waits until all is acknowledged. It returns how many events it has sent.
func (p Pace) Run(ctx context.Context) (int, error) {
	set(&p.Rate, 20_000)
	set(&p.Duration, 30*time.Second)
	set(&p.Keys, 5000)
	set(&p.Window, time.Hour)
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Brokers...), kgo.DefaultProduceTopic(p.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return 0, fmt.Errorf("connect to %v: %w", p.Brokers, err)
	}
	defer cl.Close()
	failed := make(chan error, 1)
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	sent, all := 0, int(p.Duration.Seconds()*float64(p.Rate))
	for began := time.Now(); sent < all; {
		for due := min(all, int(time.Since(began).Seconds()*float64(p.Rate))); sent < due; sent++ {
			p.send(ctx, cl, sent, began, failed)
		}
		select {
		case <-tick.C:
		case err := <-failed:
			return sent, fmt.Errorf("send to %s: %w", p.Topic, err)
		case <-ctx.Done():
			return sent, ctx.Err()
		}
	}
	if err := cl.Flush(ctx); err != nil {
		return sent, fmt.Errorf("send to %s: %w", p.Topic, err)
	}
	select {
	case err := <-failed:
		return sent, fmt.Errorf("send to %s: %w", p.Topic, err)
	default:
		return sent, nil
	}
}

// send sends event i.
func (p *Pace) send(ctx context.Context, cl *kgo.Client, i int, began time.Time, failed chan<- error) {
	meant := began.Add(time.Duration(float64(i) / float64(p.Rate) * float64(time.Second)))
	key := i % p.Keys
	if p.Churn > 0 {
		key += int(meant.Sub(began)/p.Churn) * p.Keys
	}
	e := event{key, i % len(eventTypes), meant.UnixMilli()}
	r := &kgo.Record{Key: registration(nil, key), Value: e.json(nil)}
	r.Partition = engine.PartitionOf(r.Key, int32(p.Partitions))
	if p.Tracker != nil {
		p.Tracker.Meant(string(r.Key), e.time-floorMod(e.time, p.Window.Milliseconds()), meant)
	}
	cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	})
}

// Watch tells a stage of every window that is published on an output topic, until ctx ends.
func Watch(ctx context.Context, brokers []string, topic string, s *Stage) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return fmt.Errorf("watch %s: %w", topic, err)
	}
	defer cl.Close()
	var names codecs.Interner
	var w codecs.Window
	for {
		fetches := cl.PollFetches(ctx)
		now := time.Now()
		if err := fetches.Err0(); err != nil {
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("watch %s: %w", topic, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			if err := w.Parse(it.Next().Value, &names); err != nil {
				return fmt.Errorf("watch %s: %w", topic, err)
			}
			s.Seen(w.Registration, w.Start, w.Count, now)
		}
	}
}

// Probe is the beginning of ten registrations, which are looked for where it would cost too much to look for all.
const Probe = "RA-0000"
