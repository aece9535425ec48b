package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"
)

// IdleMode says what a partition's watermark does when every source is idle.
type IdleMode string

const (
	// IdleClock lets the watermark follow the wall clock, so that quiet keys get their final results.
	IdleClock IdleMode = "clock"
	// IdleHold leaves it where it is: for replays of old events.
	IdleHold IdleMode = "hold"
)

// Config are the settings of a [Processor]. The zero value of a field is its documented default.
type Config struct {
	// Brokers are the bootstrap addresses, host:port.
	Brokers []string
	// Kafka is the connection part (TLS, SASL, client id, version) of the sarama configuration; what exactness needs is set
	// over it. Default sarama.NewConfig().
	Kafka *sarama.Config
	// InstanceID is the static membership id (KIP-345), unique per replica: a restart within the session time-out moves no
	// partition. Default none.
	InstanceID string

	// CommitInterval is the time between checkpoints. Default 100 ms, least 1 ms.
	CommitInterval time.Duration
	// MaxDirty is how many changed keys a partition holds before it waits for its checkpoint. Default 50,000.
	MaxDirty int
	// ShareKeys is how many changed keys of a partition are encoded and written at a time, at most: a share is about a batch.
	// Default 4,096. More cost memory, fewer cost round trips to the broker.
	ShareKeys int
	// DecodedKeys is how many keys of all partitions together stay decoded when they are written; others are kept as bytes until
	// their next event. Default 262,144. Decoded a key takes two to three times the memory.
	DecodedKeys int
	// MaxPending is how many bytes of letters, results and re-keyed events all partitions of the input together hold before they wait; while
	// they are written as many again may be held. Default 64 MiB.
	MaxPending int
	// FrameRecords is the most records handed to goka as one message. Default 1,000.
	FrameRecords int
	// MaxBatch is the size of a produced record batch in bytes; the topics' max.message.bytes must allow it. Default 900,000.
	MaxBatch int

	// Bound is how far events may be out of order within one source. Default 0.
	Bound time.Duration
	// IdleTimeout is how long a source that is read to its end holds the watermark back. Default 30 s.
	IdleTimeout time.Duration
	// Idle says what follows when all sources are idle. Default IdleClock.
	Idle IdleMode
	// MaxFutureSkew is how far ahead of its arrival an event may lie. Default 24 h; negative = any.
	MaxFutureSkew time.Duration
	// RekeyOff makes an event that is not in its key's partition a dead letter instead of passing it on through the loop.
	RekeyOff bool
	// AcceptLoss starts from the oldest record where retention has deleted events that were not counted yet, instead of refusing.
	AcceptLoss bool
	// StateTTL forgets a key that had no event for that long, by event time, and has no window open. Default 0: never.
	StateTTL time.Duration
	// MaxKeys is the most keys one partition keeps; an event of a further key is a dead letter. Default 0: any number.
	MaxKeys int
	// HotStandby keeps a copy of every partition's table in every replica, so that a takeover reads only what is newer than the copy.
	// The copies are read behind the own partitions' back: nobody waits for them. Default false.
	HotStandby bool

	// SessionTimeout is how long the group waits for a silent member. Default 10 s.
	SessionTimeout time.Duration
	// WriteTimeout is how long a write is repeated before the run ends; it must outlast a broker's restart. Default 60 s.
	WriteTimeout time.Duration
	// Backoff is the pause before the first restart of a failed run, doubled each time up to MaxBackoff. Default 100 ms.
	Backoff time.Duration
	// MaxBackoff is the longest pause between two runs. Default 15 s.
	MaxBackoff time.Duration

	// Now is the processing time. Required.
	Now func() time.Time
	// Logger takes the engine's and goka's log. Required.
	Logger *slog.Logger
	// Registerer takes the metrics. Default none.
	Registerer prometheus.Registerer
	// Checkpointed is told of every checkpoint that had something to write, by the goroutine that made it. Default none.
	Checkpointed func(Checkpointed)
}

// Checkpointed is what one checkpoint did.
type Checkpointed struct {
	Group        string
	Began, Ended time.Time
	Partitions   int   // that had something to write
	Keys         int   // whose state changed
	Records      int   // written, of all topics
	Bytes        int   // of them, before compression
	Committed    bool  // false without an error: the next one commits
	Err          error // that ended the run
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	setDefault(&c.CommitInterval, 100*time.Millisecond)
	setDefault(&c.MaxDirty, 50_000)
	setDefault(&c.ShareKeys, 4096)
	setDefault(&c.DecodedKeys, 262_144)
	setDefault(&c.MaxPending, 64<<20)
	setDefault(&c.FrameRecords, 1000)
	setDefault(&c.MaxBatch, 900_000)
	setDefault(&c.IdleTimeout, 30*time.Second)
	setDefault(&c.Idle, IdleClock)
	setDefault(&c.MaxFutureSkew, 24*time.Hour)
	setDefault(&c.SessionTimeout, 10*time.Second)
	setDefault(&c.WriteTimeout, time.Minute)
	setDefault(&c.Backoff, 100*time.Millisecond)
	setDefault(&c.MaxBackoff, 15*time.Second)
	if c.Kafka == nil {
		c.Kafka = sarama.NewConfig()
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns all faults of the settings at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Brokers) > 0, "brokers: none given, at least one host:port is needed")
	check(c.CommitInterval >= time.Millisecond, "commit interval %v must be at least 1ms", c.CommitInterval)
	check(c.MaxDirty > 0, "max dirty %d must be at least 1", c.MaxDirty)
	check(c.ShareKeys > 0, "share keys %d must be at least 1", c.ShareKeys)
	check(c.DecodedKeys > 0, "decoded keys %d must be at least 1", c.DecodedKeys)
	check(c.MaxPending > 0, "max pending %d bytes must be at least 1", c.MaxPending)
	check(c.FrameRecords > 0, "frame records %d must be at least 1", c.FrameRecords)
	check(c.MaxBatch >= 1024, "max batch %d bytes must be at least 1024", c.MaxBatch)
	check(c.Bound >= 0, "out-of-orderness bound %v must not be negative", c.Bound)
	check(c.IdleTimeout > 0, "idle timeout %v must be positive", c.IdleTimeout)
	check(c.Idle == IdleClock || c.Idle == IdleHold, "idle mode %q must be %q or %q", c.Idle, IdleClock, IdleHold)
	check(c.SessionTimeout >= 100*time.Millisecond, "session timeout %v must be at least 100ms", c.SessionTimeout)
	check(c.CommitInterval < c.SessionTimeout/2, "commit interval %v must be below half the session timeout %v",
		c.CommitInterval, c.SessionTimeout)
	check(c.StateTTL == 0 || c.StateTTL >= time.Second, "state TTL %v must be at least 1s, or 0 for none", c.StateTTL)
	check(c.MaxKeys >= 0, "max keys %d must not be negative", c.MaxKeys)
	check(c.Now != nil, "now: no clock given")
	check(c.Logger != nil, "logger: none given")
	return errors.Join(faults...)
}

// sarama is the configuration of every client of a run: the caller's connection settings under what exactness needs.
func (c *Config) sarama() *sarama.Config {
	s := *c.Kafka
	// Static membership and leader epochs need 2.3; Redpanda and Kafka since 2.8 speak all of it.
	s.Version = sarama.V2_8_0_0
	// A topic that is missing is to be told: a broker would make the group table with a retention of its own.
	s.Metadata.AllowAutoTopicCreation = false
	// The log is read from its start: a new group, or a partition added later, must not skip what is there.
	s.Consumer.Offsets.Initial = sarama.OffsetOldest
	// A committed offset outside the log is a contradiction to be told, not jumped over.
	s.Consumer.Group.ResetInvalidOffsets = false
	// Commits are the ledger's (E1).
	s.Consumer.Offsets.AutoCommit.Enable = false
	s.Consumer.Return.Errors = true
	s.Consumer.IsolationLevel = sarama.ReadCommitted
	s.Consumer.Group.Session.Timeout = c.SessionTimeout
	s.Consumer.Group.Heartbeat.Interval = c.SessionTimeout / 4
	// How long a generation waits for a member to come back. A member that stops its partitions sends no heartbeats, so the
	// session time-out bounds it anyway; sarama's 60 s would only keep the others waiting, past their own patience for an answer.
	s.Consumer.Group.Rebalance.Timeout = c.SessionTimeout
	// A coordinator that moves answers again within a moment: many short retries instead of sarama's 4 of 2 s.
	s.Consumer.Group.Rebalance.Retry.Max, s.Consumer.Group.Rebalance.Retry.Backoff = 40, 200*time.Millisecond
	// Goka's is for groups in which members of an earlier version take part.
	s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{keeping{c.InstanceID != ""}, goka.CopartitioningStrategy}
	s.Consumer.Group.InstanceId = c.InstanceID
	// One fetch of 1 MiB per partition feeds several frames; more only costs memory.
	s.Consumer.Fetch.Default = 1 << 20
	s.Consumer.MaxWaitTime = 100 * time.Millisecond
	s.ChannelBufferSize = 4096
	// A state in the table and a result must survive their leader (E1).
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Timeout = 10 * time.Second
	s.Net.MaxOpenRequests = 1
	// Time-outs of one request; a write as a whole is repeated for WriteTimeout.
	s.Net.ReadTimeout, s.Net.WriteTimeout, s.Net.DialTimeout = 15*time.Second, 15*time.Second, 5*time.Second
	s.Metadata.Retry.Max = 10
	s.Metadata.Retry.Backoff = 200 * time.Millisecond
	return &s
}

// groupSarama is the configuration of the consumer group's client. A join is answered when the last member has joined or the
// rebalance has timed out: whoever hangs up before that comes back as another member, for which the others wait in turn.
func (c *Config) groupSarama() *sarama.Config {
	s := c.sarama()
	s.Net.ReadTimeout = s.Consumer.Group.Rebalance.Timeout + 5*time.Second
	return s
}
