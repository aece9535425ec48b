package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
)

// Processor runs a job until its context ends: one run after another, each from the log (E2).
type Processor struct {
	config  Config
	job     names
	start   func(ctx context.Context, healthy func()) error
	metrics *metrics

	mu       sync.Mutex
	problem  error // nil while the partitions are folded
	started  time.Time
	changed  time.Time
	restarts int
	alive    time.Time // when the checkpointer last came round; zero: there is none
	assigned int       // partitions of the generation
	unread   error     // partitions that cannot be read
}

// Status is what a processor says of itself.
type Status struct {
	Group    string
	Problem  error     // nil while the assigned partitions are folded
	Started  time.Time // when Run was called; zero before
	Changed  time.Time // when Problem last came or went
	Restarts int       // runs that failed and were started again
}

// Status is the processor's state now.
func (p *Processor) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{p.job.group, p.problem, p.started, p.changed, p.restarts}
}

// names is what the supervisor says of a job.
type names struct{ group string }

// New prepares a processor; nothing is connected before Run.
func New[E, S any](c Config, job Job[E, S]) (*Processor, error) {
	if err := errors.Join(c.Validate(), job.validate()); err != nil {
		return nil, fmt.Errorf("configure processor %q: %w", job.Group, err)
	}
	c = c.withDefaults()
	p := &Processor{
		config: c, job: names{job.Group}, metrics: newMetrics(prometheus.WrapRegistererWith(prometheus.Labels{"group": job.Group}, c.Registerer)),
		problem: errors.New("not started"),
	}
	p.start = func(ctx context.Context, healthy func()) error {
		r, err := newRun(p, &c, &job)
		if err != nil {
			return err
		}
		return r.run(ctx, healthy)
	}
	return p, nil
}

// validate names every missing part.
func (j *Job[E, S]) validate() error {
	var faults []error
	for _, f := range []struct{ name, value string }{
		{"group", j.Group}, {"input", j.Input}, {"output", j.Output}, {"late", j.Late}, {"dead", j.Dead},
	} {
		if f.value == "" {
			faults = append(faults, fmt.Errorf("job: %s is empty", f.name))
		}
	}
	if j.New == nil {
		faults = append(faults, errors.New("job: no topology"))
	}
	return errors.Join(faults...)
}

// Run processes until ctx ends, which is no error. A run that fails is started again after a pause; a start that is
// refused is not: it returns the [RefusalError].
func (p *Processor) Run(ctx context.Context) error {
	log := p.config.Logger.With("group", p.job.group)
	p.mu.Lock()
	p.started = p.config.Now()
	p.changed = p.started
	p.problem = errors.New("starting: connecting to the brokers")
	p.mu.Unlock()
	var absent time.Time // since when a topic has been missing at every start
	for failures := 0; ; {
		began := p.config.Now()
		err := p.start(ctx, func() { p.report(nil) })
		if ctx.Err() != nil {
			p.report(errors.New("stopped"))
			if err != nil && !errors.Is(err, context.Canceled) { // the next run goes on from the log
				log.Warn("stopped before everything was written", "error", err)
			}
			return nil
		}
		if _, ok := errors.AsType[*absentError](err); !ok {
			absent = time.Time{}
		} else if absent.IsZero() {
			absent = began
		}
		if refusal := p.refusal(err, absent); refusal != nil {
			p.report(refusal)
			return fmt.Errorf("start processor %s: %w", p.job.group, refusal)
		}
		if err == nil {
			err = errors.New("the run ended by itself")
		}
		if p.config.Now().Sub(began) > time.Minute {
			failures = 0
		}
		wait := p.backoff(failures)
		failures++
		p.report(fmt.Errorf("restarting: %w", err))
		p.metrics.failures.Inc()
		p.mu.Lock()
		p.restarts = failures
		p.mu.Unlock()
		log.Error("run ended, starting again from the log", "error", err, "pause", wait, "failures", failures)
		if pause(ctx, wait) != nil {
			return nil //nolint:nilerr // that the context ended is no error of the processor's
		}
	}
}

// absentError is a topic that the broker which was asked does not know. One that has just started, or to which the news of
// the topic is still on its way, knows it a moment later.
type absentError struct{ topic string }

func (e *absentError) Error() string { return fmt.Sprintf("topic %s does not exist", e.topic) }

// absentPatience is how long a topic may be missing before the start is refused.
const absentPatience = 10 * time.Second

// refusal is what a restart would not change; nil if it might. absent is since when a topic has been missing.
func (p *Processor) refusal(err error, absent time.Time) *RefusalError {
	if r, ok := errors.AsType[*RefusalError](err); ok {
		return r
	}
	if a, ok := errors.AsType[*absentError](err); ok && p.config.Now().Sub(absent) >= absentPatience {
		return &RefusalError{a.Error(), "klgstream topics"}
	}
	if errors.Is(err, sarama.ErrInvalidSessionTimeout) {
		return &RefusalError{
			fmt.Sprintf("the brokers do not allow a session timeout of %v", p.config.SessionTimeout),
			"choose --session-timeout within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms (by default 6s to 30m)",
		}
	}
	return nil
}

// backoff doubles with each failure up to the limit, spread by ± 25 % so that replicas do not return in step.
func (p *Processor) backoff(failures int) time.Duration {
	d := p.config.Backoff << min(failures, 20)
	if d > p.config.MaxBackoff || d <= 0 {
		d = p.config.MaxBackoff
	}
	return d*3/4 + rand.N(d/2+1)
}

func (p *Processor) report(problem error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (p.problem == nil) != (problem == nil) {
		p.changed = p.config.Now()
	}
	p.problem = problem
}

// Ready is nil while the group's assigned partitions are recovered and folded; else it says what is missing.
func (p *Processor) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem != nil {
		return p.problem
	}
	return p.stuck(p.config.Now())
}

// gokaLogger passes goka's log on: its chatter as debug.
type gokaLogger struct{ log *slog.Logger }

func (g gokaLogger) Print(v ...any) { g.log.Debug("goka", "says", fmt.Sprint(v...)) }

func (g gokaLogger) Println(v ...any) { g.log.Debug("goka", "says", fmt.Sprintln(v...)) }

func (g gokaLogger) Printf(format string, v ...any) {
	g.log.Debug("goka", "says", fmt.Sprintf(format, v...))
}
func (g gokaLogger) Debugf(string, ...any) {}
