package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/registry"
	"klgstream.dev/processors/window"
	"klgstream.dev/views/httpapi"
)

// processorCmd counts events.
type processorCmd struct {
	Kafka        `group:"kafka"`
	Names        `group:"names"`
	Meaning      `group:"meaning"`
	Engine       `group:"engine"`
	ProcessorOps `group:"ops"`
}

func (c *processorCmd) check() error {
	return checkAll(&c.Kafka, &c.Names, &c.Meaning, &c.Engine, &c.ProcessorOps)
}

// Run counts until ctx ends.
func (c *processorCmd) Run(ctx context.Context, a *app) error {
	l, err := listen(ctx, "ops-url", c.addr())
	if err != nil {
		return err
	}
	o := newOps(a.log)
	p, err := newProcessor(a, c.Kafka, c.Names, c.Meaning, c.Engine, o.registry)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	o.watch("topics", &o.topics)
	o.watch("processor", p)
	parts, flink := []func(ctx context.Context) error{p.Run}, &flinkView{app: a, processors: []*engine.Processor{p}, counters: o.registry}
	o.flink = httpapi.FlinkHandler(flink)
	if r, err := newRegistry(a, c.Kafka, c.Names, c.Meaning, c.Engine, o.registry); err != nil {
		return errors.Join(err, l.Close())
	} else if r != nil {
		o.watch("registry", r)
		parts = append(parts, r.Run)
		flink.processors = append(flink.processors, r)
	}
	a.log.Info("processor", "brokers", c.Brokers, "group", c.Group, "windows", c.Window, "operations", "http://"+l.Addr().String())
	return a.role(ctx, o.serveOn(l), func(ctx context.Context) error {
		if err := o.awaitTopics(ctx, a, c.Kafka, c.Names); err != nil {
			return err
		}
		return together(ctx, parts...)
	})
}

// newProcessor makes the aircraft-activity processor.
func newProcessor(a *app, k Kafka, n Names, m Meaning, e Engine, reg prometheus.Registerer) (*engine.Processor, error) {
	emit := window.OnUpdate
	if m.Emit == "close" {
		emit = window.OnClose
	}
	job, err := activity.New(activity.Config{
		Windows: m.Window, AllowedLateness: m.AllowedLateness, Emit: emit, Zone: m.location(),
		Group: n.Group, Input: n.Input, Output: n.Output, Late: n.Late, Dead: n.Dead,
	})
	if err != nil {
		return nil, err
	}
	return engine.New(engineConfig(a, k, m, e, reg), job)
}

// newRegistry makes the aircraft-registry processor; nil if there is to be none.
func newRegistry(a *app, k Kafka, n Names, m Meaning, e Engine, reg prometheus.Registerer) (*engine.Processor, error) {
	if n.registry() == "" {
		return nil, nil
	}
	return engine.New(engineConfig(a, k, m, e.ofRegistry(), reg), registry.New(registry.Config{
		Group: n.registry(), Output: n.registry(), Input: n.Input, Late: n.Late, Dead: n.Dead, Zone: m.location(),
	}))
}

// ofRegistry are the settings of the registry, which forgets no aircraft: it hears of one only when it is created or changed, so that one that
// flies every day would be quiet to it.
func (e Engine) ofRegistry() Engine {
	e.StateTTL = 0
	return e
}

func engineConfig(a *app, k Kafka, m Meaning, e Engine, reg prometheus.Registerer) engine.Config {
	return engine.Config{
		Brokers: k.Brokers, Kafka: clientConfig(k), InstanceID: e.InstanceID,
		CommitInterval: e.CommitInterval, MaxDirty: e.MaxDirty, SessionTimeout: e.SessionTimeout,
		Bound: m.Bound, IdleTimeout: m.IdleTimeout, Idle: engine.IdleMode(m.Idle), MaxFutureSkew: m.futureSkew(),
		RekeyOff: !m.Rekey, AcceptLoss: e.AcceptLoss, HotStandby: e.HotStandby, StateTTL: e.StateTTL, MaxKeys: e.MaxKeys,
		Now: a.now, Logger: a.log, Registerer: reg, Checkpointed: a.tracing.checkpointed(),
	}
}

// futureSkew is the setting for the engine, where zero is its default.
func (m *Meaning) futureSkew() time.Duration {
	if m.MaxFutureSkew == 0 {
		return 1 // ns: no event may be ahead of the clock
	}
	return m.MaxFutureSkew
}

// role runs the parts of a role until ctx ends or one of them fails. That ctx ended is no error.
func (a *app) role(ctx context.Context, parts ...func(ctx context.Context) error) error {
	err := together(ctx, parts...)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		a.log.Info("stopped")
		return nil
	}
	return err
}

// together runs the parts until one fails, which ends the others.
func together(ctx context.Context, parts ...func(ctx context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		g.Go(func() error { return part(ctx) })
	}
	return g.Wait()
}

// Pauses between two looks for a broker that is away.
const (
	topicsPause    = 500 * time.Millisecond
	topicsMaxPause = 15 * time.Second
)

// missingPatience is how long topics may be missing before a start is refused: a broker that has just started, or to which the
// news of a topic is still on its way, does not know it yet.
const missingPatience = 10 * time.Second

// awaitTopics waits for the broker, and refuses topics that are not as they must be. tell hears what is waited for; of nothing when all are there.
func (a *app) awaitTopics(ctx context.Context, k Kafka, n Names, tell func(lacks error)) error {
	began := a.now()
	for pause := topicsPause; ; pause = min(2*pause, topicsMaxPause) {
		faults, err := verifyTopics(k, n)
		if err == nil && (!onlyMissing(faults) || a.now().Sub(began) >= missingPatience) {
			tell(refuse(faults))
			return refuse(faults)
		}
		err = cmp.Or(err, refuse(faults))
		tell(err)
		a.log.Warn("wait for the broker", "error", err, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("wait for the broker: %w", err)
		}
	}
}

// sleep waits; an error says that ctx ended before.
func sleep(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onlyMissing reports whether there are faults, all of them of topics that do not exist.
func onlyMissing(faults []fault) bool {
	return len(faults) > 0 && !slices.ContainsFunc(faults, func(f fault) bool { return f.what != topicMissing })
}
