// Package sink moves what processors publish into a [views.Store]: windows, late events and dead letters, from their topics
// into rows.
//
// Each partition is taken in order, in batches by size and time, and partitions beside each other. What holds:
//
//   - K1 An offset is committed only after the store said that the row is durable (E8 of the design). Whatever is
//     delivered again meets a row of the same revision, so nothing is lost and nothing counts twice.
//   - K2 A store that is away for any time stops nothing but progress: the batch is tried again with growing, jittered
//     pauses while the group membership lives on; [Sink.Ready] and the metrics tell.
//   - K3 A row that the store will never take is found by halving its batch, goes to the dead-letter topic with the
//     reason, and everything else goes on. So does a record that is no window.
//   - K4 A dead letter that the store will never take stays on its topic, is logged and counted, and goes no further:
//     it would only come back.
package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// Topics names what the sink reads. Dead is also where it puts what the store refuses.
type Topics struct {
	Windows string // results; default aircraft-windows
	Late    string // late events; default aircraft-events-late
	Dead    string // dead letters; default aircraft-events-dlq
}

func (t Topics) list() []string { return []string{t.Windows, t.Late, t.Dead} }

// Config says what a sink reads and where it writes.
type Config struct {
	// Brokers are the addresses to ask first, host:port. Required.
	Brokers []string
	// Group is the consumer group: sinks with one group share the partitions, and one into another store needs another
	// group. Default klgstream-sink.
	Group string
	// Topics to read.
	Topics Topics
	// Sarama is the client's configuration (addresses, TLS, SASL, client id); the sink works on a copy and sets what its
	// promises need. Its version must be at least 2.8. Default sarama's own.
	Sarama *sarama.Config
	// Store takes the rows; the sink migrates it first and does not close it. Required.
	Store views.Store
	// BatchRows is the most rows of one write, 1 to 100000. Default 2000. Of several revisions of a window that are read together
	// only the highest is a row.
	BatchRows int
	// BatchWait is the least time between the beginnings of two writes of a partition, unless a batch is full: a row waits at
	// most so long for others, and at least a tenth of it. Default 50 ms.
	BatchWait time.Duration
	// WriteTimeout ends a write that hangs, so that it is tried again, and the first try of a migration. Default 30 s.
	WriteTimeout time.Duration
	// RetryMin and RetryMax bound the pause before a failed write is tried again; it doubles each time, and up to half of
	// it is taken off at random so that replicas do not come back together. Default 100 ms and 15 s.
	RetryMin, RetryMax time.Duration
	// CommitInterval is how often offsets of durable rows are committed. Default 200 ms.
	CommitInterval time.Duration
	// FromBeginning forgets the group's offsets before it reads, to rebuild a store. It needs a group without members.
	FromBeginning bool
	// Now is the clock that the delay of rows is measured with. Required.
	Now func() time.Time
	// Logger takes what happens. Default none.
	Logger *slog.Logger
	// Registerer takes the metrics. Default one of its own, which nobody reads.
	Registerer prometheus.Registerer
	// Written is told of every attempt to write a batch, by the goroutines that make them. Default none.
	Written func(Written)
}

// Written is one attempt to write a batch into the store.
type Written struct {
	Topic        string
	Partition    int32
	Offset       int64 // of the first record
	Rows         int
	Began, Ended time.Time
	Err          error // nil: the rows are durable
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.Group = cmp.Or(c.Group, "klgstream-sink")
	c.Topics.Windows = cmp.Or(c.Topics.Windows, "aircraft-windows")
	c.Topics.Late = cmp.Or(c.Topics.Late, "aircraft-events-late")
	c.Topics.Dead = cmp.Or(c.Topics.Dead, "aircraft-events-dlq")
	c.BatchRows = cmp.Or(c.BatchRows, 2000)
	c.BatchWait = cmp.Or(c.BatchWait, 50*time.Millisecond)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 30*time.Second)
	c.RetryMin = cmp.Or(c.RetryMin, 100*time.Millisecond)
	c.RetryMax = cmp.Or(c.RetryMax, max(c.RetryMin, 15*time.Second))
	c.CommitInterval = cmp.Or(c.CommitInterval, 200*time.Millisecond)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// Validate tells everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(len(c.Brokers) == 0, "brokers: want at least one host:port")
	fault(c.Store == nil, "store: required")
	fault(c.Now == nil, "now: required")
	names := slices.Sorted(slices.Values(c.Topics.list()))
	fault(len(slices.Compact(names)) < 3, "topics %q: windows, late and dead must be three topics", c.Topics.list())
	fault(c.BatchRows < 1 || c.BatchRows > 100_000, "batch rows %d: must be 1 to 100000", c.BatchRows)
	fault(c.BatchWait < 0, "batch wait %s: must not be negative", c.BatchWait)
	fault(c.WriteTimeout < 0, "write timeout %s: must not be negative", c.WriteTimeout)
	fault(c.RetryMin < 0 || c.RetryMax < c.RetryMin, "retry pause %s to %s: the least must be at most the longest", c.RetryMin, c.RetryMax)
	fault(c.CommitInterval < 0, "commit interval %s: must not be negative", c.CommitInterval)
	fault(c.Sarama != nil && !c.Sarama.Version.IsAtLeast(sarama.V2_8_0_0), "kafka version: must be at least %s", sarama.V2_8_0_0)
	return errors.Join(faults...)
}

// Sink is one member of the group that loads a store. Make it with [New].
type Sink struct {
	config  Config
	client  *sarama.Config
	metrics *metrics
	lags    *lags
	log     *slog.Logger
	letters interface {
		put(l *codecs.Letter) error
		close()
	}

	mu     sync.Mutex
	joined bool                 // partitions were given to this sink
	faults map[partition]string // what keeps a partition from going on
}

// partition names one partition of a topic.
type partition struct {
	topic  string
	number int32
}

// String is the partition as topic/number.
func (p partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.number) }

// New makes a sink; nothing runs before [Sink.Run].
func New(c Config) (*Sink, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure sink: %w", err)
	}
	c = c.withDefaults()
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("configure sink: %w", err)
	}
	client := clientConfig(c.Sarama)
	producer := producerConfig(client)
	if err := errors.Join(client.Validate(), producer.Validate()); err != nil {
		return nil, fmt.Errorf("configure sink: %w", err)
	}
	return &Sink{
		config: c, client: client, metrics: m, log: c.Logger, lags: &lags{gauge: m.lag, next: map[partition]int64{}}, faults: map[partition]string{},
		letters: &letterBox{brokers: c.Brokers, config: producer, topic: c.Topics.Dead},
	}, nil
}

// clientConfig is the given configuration with what the sink's promises need.
func clientConfig(given *sarama.Config) *sarama.Config {
	c := *sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	if given != nil {
		c = *given
	}
	c.Consumer.Offsets.AutoCommit.Enable = false                                                             // K1: only what is durable, when we say so
	c.Consumer.Offsets.Initial = sarama.OffsetOldest                                                         // a new group loads everything there is
	c.Consumer.IsolationLevel = sarama.ReadCommitted                                                         // a transactional processor's aborted results are none
	c.Consumer.Return.Errors = true                                                                          // logged by us
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()} // eager: a blocked claim ends with its session
	c.ChannelBufferSize = arrivals                                                                           // more wait in a queue that is bounded in bytes
	c.Metadata.AllowAutoTopicCreation = false                                                                // a misspelt topic is an error, not a topic
	return &c
}

// Run loads the store until ctx ends, and then returns nil. It waits for brokers and store as long as it takes; an error
// is what no waiting mends.
func (s *Sink) Run(ctx context.Context) error {
	defer s.letters.close()
	if err := s.migrate(ctx); err != nil {
		return stopped(ctx, err)
	}
	if s.config.FromBeginning {
		if err := s.forget(ctx); err != nil {
			return stopped(ctx, err)
		}
	}
	client, group, err := s.join(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	var background sync.WaitGroup
	background.Go(func() {
		for err := range group.Errors() {
			s.metrics.errors.Inc()
			s.log.Warn("consumer group", "group", s.config.Group, "error", err)
		}
	})
	background.Go(func() { s.lags.measureRegularly(ctx, client) })
	err = s.consume(ctx, group)
	err = errors.Join(err, group.Close(), client.Close())
	background.Wait()
	return stopped(ctx, err)
}

// stopped is nil when the sink was told to stop: what ends because of that is no error.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run sink: %w", err)
	}
	return nil
}

// maxMigration is the longest that one try of a migration may take.
const maxMigration = 12 * time.Hour

// migrate brings the store to its schema, waiting for it if it is away. A try that ran out of time is followed by one with twice
// as much: an index or a total of a large store takes as long as it takes, but a connection that hangs must end.
func (s *Sink) migrate(ctx context.Context) error {
	at, limit := partition{topic: s.config.Store.Name(), number: -1}, s.config.WriteTimeout
	return s.insist(ctx, at, "migrate store", func(context.Context) error {
		within, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := s.config.Store.Migrate(within)
		if within.Err() != nil {
			limit = min(2*limit, maxMigration)
		}
		return err
	})
}

// join makes the group membership, waiting for brokers if they are away.
func (s *Sink) join(ctx context.Context) (client sarama.Client, group sarama.ConsumerGroup, err error) {
	at := partition{topic: "brokers", number: -1}
	err = s.insist(ctx, at, "connect to brokers", func(context.Context) (err error) {
		if client, err = sarama.NewClient(s.config.Brokers, s.client); err != nil {
			return err
		}
		if group, err = sarama.NewConsumerGroupFromClient(s.config.Group, client); err != nil {
			return errors.Join(err, client.Close())
		}
		return nil
	})
	return client, group, err
}

// consume takes part in one session after another: a rebalance ends one, and the next begins at once.
func (s *Sink) consume(ctx context.Context, group sarama.ConsumerGroup) error {
	failures := 0
	for ctx.Err() == nil {
		h := &handler{sink: s}
		err := group.Consume(ctx, s.config.Topics.list(), h)
		if err == nil || h.ran {
			failures = 0
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.fail(partition{topic: "group", number: -1}, fmt.Sprintf("join group %q: %v", s.config.Group, err))
		s.log.Warn("join group", "group", s.config.Group, "error", err)
		if err := s.pause(ctx, failures); err != nil {
			return err
		}
		failures++
	}
	return nil
}

// forget deletes the group's offsets, so that it begins at the oldest record of each partition.
func (s *Sink) forget(ctx context.Context) error {
	at := partition{topic: "brokers", number: -1}
	return s.insist(ctx, at, "forget offsets", func(context.Context) error {
		admin, err := sarama.NewClusterAdmin(s.config.Brokers, s.client)
		if err != nil {
			return err
		}
		err = admin.DeleteConsumerGroup(s.config.Group)
		switch {
		case errors.Is(err, sarama.ErrGroupIDNotFound):
			err = nil
		case errors.Is(err, sarama.ErrNonEmptyGroup):
			err = views.Permanent(fmt.Errorf("group %q has members: stop every sink of it, or rebuild with another group: %w", s.config.Group, err))
		}
		return errors.Join(err, admin.Close())
	})
}

// Ready is nil when nothing keeps the sink from loading rows, or says what does.
func (s *Sink) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []error
	for _, fault := range s.faults {
		faults = append(faults, errors.New(fault))
	}
	slices.SortFunc(faults, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if len(faults) == 0 && !s.joined {
		return fmt.Errorf("sink: group %q has given no partitions yet", s.config.Group)
	}
	return errors.Join(faults...)
}

func (s *Sink) fail(p partition, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[p] = what
}

func (s *Sink) mend(p partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, p)
}

func (s *Sink) setJoined(joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined = joined
	if joined {
		delete(s.faults, partition{topic: "group", number: -1})
	}
}
