package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/codec"
	"github.com/lovoo/goka/storage"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

// mode is one way to read a topic of events. It returns when all of it was done, durably where the way is durable.
type mode func(ctx context.Context, j job) (time.Time, error)

// atEnd makes a mode of what is done when it ends.
func atEnd(run func(ctx context.Context, j job) error) mode {
	return func(ctx context.Context, j job) (time.Time, error) {
		err := run(ctx, j)
		return time.Now(), err
	}
}

// job is what one measurement works on.
type job struct {
	Brokers []string
	Input   string
	Suffix  string // of the groups and topics of this measurement
	Shape   Shape
	Product Product
	ends    map[int32]int64
	total   int64
}

// group is the product's consumer group.
func (j *job) group() string { return "klg-" + j.Suffix }

// Product is how klgstream itself is set. The zero value of a field is its documented default.
type Product struct {
	Commit  time.Duration // commit interval; default the engine's
	Windows []string      // definitions; default tumbling:1h
	OnClose bool          // publish windows when they are complete only, not whenever they changed
	Bound   time.Duration // out-of-orderness bound; default the shape's disorder
}

// modes are the ways to read a topic, in the order they are measured and shown.
func modes() []string { return []string{"raw", "empty", "stock", "klgstream"} }

func modeOf(name string) mode {
	return map[string]mode{"raw": atEnd(raw), "empty": atEnd(empty), "stock": atEnd(stock), "klgstream": product}[name]
}

func saramaConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	c.Consumer.Fetch.Default = 1 << 20
	c.ChannelBufferSize = 4096
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	return c
}

// raw reads all partitions with bare sarama consumers and does nothing.
func raw(ctx context.Context, j job) error {
	c, err := sarama.NewConsumer(j.Brokers, saramaConfig())
	if err != nil {
		return err
	}
	defer c.Close()
	g, ctx := errgroup.WithContext(ctx)
	for p, end := range j.ends {
		if end == 0 {
			continue
		}
		pc, err := c.ConsumePartition(j.Input, p, 0)
		if err != nil {
			return err
		}
		g.Go(func() error {
			defer pc.AsyncClose()
			for {
				select {
				case m := <-pc.Messages():
					if m.Offset == end-1 {
						return nil
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	return g.Wait()
}

// counter ends a goka processor when all events went through its callback.
type counter struct {
	seen atomic.Int64
	done chan struct{}
	want int64
}

func newCounter(want int64) *counter { return &counter{done: make(chan struct{}), want: want} }

func (c *counter) one() {
	if c.seen.Add(1) == c.want {
		close(c.done)
	}
}

// runGoka runs a group until the counter is full.
func runGoka(ctx context.Context, j job, g *goka.GroupGraph, c *counter, opts ...goka.ProcessorOption) error {
	cfg := goka.DefaultConfig()
	cfg.Version = sarama.V2_8_0_0
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Consumer.Fetch.Default = 1 << 20
	cfg.ChannelBufferSize = 4096
	goka.ReplaceGlobalConfig(cfg)
	p, err := goka.NewProcessor(j.Brokers, g, append(opts, goka.WithLogger(silent{}), goka.WithHasher(engine.Hasher), goka.WithPartitionChannelSize(4096))...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	select {
	case <-c.done:
		cancel()
		return <-ended
	case err := <-ended:
		return fmt.Errorf("goka ended: %w", err)
	}
}

type silent struct{}

func (silent) Print(...any)          {}
func (silent) Println(...any)        {}
func (silent) Printf(string, ...any) {}

// empty is goka with a callback that does nothing.
func empty(ctx context.Context, j job) error {
	c := newCounter(j.total)
	return runGoka(ctx, j, goka.DefineGroup(goka.Group("empty-"+j.Suffix),
		goka.Input(goka.Stream(j.Input), new(codec.Bytes), func(goka.Context, any) { c.one() })), c)
}

// stockEvent, stockState and their codecs are what a first program with goka looks like.
type stockEvent struct {
	Type         string    `json:"event_type"`
	AircraftID   int64     `json:"aircraft_id"`
	Registration string    `json:"registration_number"`
	Timestamp    time.Time `json:"timestamp"`
}

type stockState struct {
	Hours map[int64]*stockHour `json:"hours"`
}

type stockHour struct {
	Registration string         `json:"registration_number"`
	Start        int64          `json:"window_start"`
	Count        int64          `json:"event_count"`
	Types        map[string]int `json:"event_types"`
	Last         time.Time      `json:"last_event_time"`
}

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(v any) ([]byte, error) { return json.Marshal(v) }
func (jsonCodec[T]) Decode(data []byte) (any, error) {
	v := new(T)
	return v, json.Unmarshal(data, v)
}

// stock is goka done the usual way: encoding/json, memory storage, one SetValue and one Emit per event.
func stock(ctx context.Context, j job) error {
	c := newCounter(j.total)
	output := goka.Stream("stock-out-" + j.Suffix)
	return runGoka(ctx, j, goka.DefineGroup(goka.Group("stock-"+j.Suffix),
		goka.Input(goka.Stream(j.Input), jsonCodec[stockEvent]{}, func(ctx goka.Context, msg any) {
			e := msg.(*stockEvent)
			s, _ := ctx.Value().(*stockState)
			if s == nil {
				s = &stockState{Hours: make(map[int64]*stockHour)}
			}
			start := e.Timestamp.Truncate(time.Hour).UnixMilli()
			h := s.Hours[start]
			if h == nil {
				h = &stockHour{Registration: e.Registration, Start: start, Types: make(map[string]int)}
				s.Hours[start] = h
			}
			h.Count++
			h.Types[e.Type]++
			if e.Timestamp.After(h.Last) {
				h.Last = e.Timestamp
			}
			ctx.SetValue(s)
			ctx.Emit(output, ctx.Key(), h)
			c.one()
		}),
		goka.Output(output, jsonCodec[stockHour]{}),
		goka.Persist(jsonCodec[stockState]{})), c, goka.WithStorageBuilder(storage.MemoryBuilder()))
}

// product is klgstream with production settings, until its group has committed the end of the input, and of its loop, and
// the watermark has closed all windows. It is done with the former when it publishes windows as they change, since all counts
// are out then; else with the latter.
func product(ctx context.Context, j job) (time.Time, error) {
	metrics := prometheus.NewRegistry()
	p, err := newProduct(j, slog.New(slog.DiscardHandler), metrics)
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := p.Run(ctx); err != nil {
			return fmt.Errorf("the processor ended: %w", err)
		}
		return nil
	})
	var done time.Time
	g.Go(func() error {
		defer cancel()
		if err := awaitCommitted(ctx, j); err != nil {
			return err
		}
		done = time.Now()
		err := awaitWatermark(ctx, metrics, j)
		if j.Product.OnClose {
			done = time.Now()
		}
		return err
	})
	err = g.Wait()
	return done, err
}

// awaitWatermark returns when every partition has committed the watermark that the sealing events make.
func awaitWatermark(ctx context.Context, metrics prometheus.Gatherer, j job) error {
	want := float64(j.Shape.Sealed(j.bound()).UnixMilli()) / 1000
	tick := time.NewTicker(committedPoll)
	defer tick.Stop()
	for {
		families, err := metrics.Gather()
		if err != nil {
			return fmt.Errorf("await watermark: %w", err)
		}
		reached := 0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "klgstream_watermark_seconds" && m.GetGauge().GetValue() >= want {
					reached++
				}
			}
		}
		if reached == j.Shape.Partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// bound is how far events may be out of order.
func (j *job) bound() time.Duration {
	if j.Product.Bound == 0 {
		return j.Shape.Disorder
	}
	return j.Product.Bound
}

func newProduct(j job, log *slog.Logger, metrics prometheus.Registerer) (*engine.Processor, error) {
	g, emit := j.group(), window.OnUpdate
	if j.Product.OnClose {
		emit = window.OnClose
	}
	a, err := activity.New(activity.Config{
		Windows: j.Product.Windows, Emit: emit, Group: g, Input: j.Input, Output: g + "-out", Late: g + "-late", Dead: g + "-dead",
	})
	if err != nil {
		return nil, err
	}
	return engine.New(engine.Config{
		Brokers: j.Brokers, CommitInterval: j.Product.Commit, Bound: j.bound(), Idle: engine.IdleHold, MaxFutureSkew: -1,
		Now: time.Now, Logger: log, Registerer: metrics,
	}, a)
}

// committedPoll is how often the group's offsets are asked for: what a measurement may take too long, at most.
const committedPoll = 10 * time.Millisecond

// awaitCommitted returns when the group has committed the end of the input, and after that the end of its loop.
func awaitCommitted(ctx context.Context, j job) error {
	client, err := sarama.NewClient(j.Brokers, saramaConfig())
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	defer admin.Close()
	tick := time.NewTicker(committedPoll)
	defer tick.Stop()
	through := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !through {
			through = committed(admin, j.group(), j.Input, j.ends)
		}
		if through && (!j.Shape.Unkeyed || loopThrough(client, admin, j)) {
			return nil
		}
	}
}

// committed reports whether a group stands at the ends of a topic.
func committed(admin sarama.ClusterAdmin, group, topic string, ends map[int32]int64) bool {
	resp, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: slices.Collect(maps.Keys(ends))})
	if err != nil {
		return false // not there yet
	}
	for p, end := range ends {
		if b := resp.GetBlock(topic, p); end > 0 && (b == nil || b.Offset < end) {
			return false
		}
	}
	return true
}

// loopThrough reports whether everything that was passed on has been taken.
func loopThrough(client sarama.Client, admin sarama.ClusterAdmin, j job) bool {
	loop, ends := j.group()+"-loop", map[int32]int64{}
	for p := range j.ends {
		end, err := client.GetOffset(loop, p, sarama.OffsetNewest)
		if err != nil {
			return false
		}
		ends[p] = end
	}
	return committed(admin, j.group(), loop, ends)
}
