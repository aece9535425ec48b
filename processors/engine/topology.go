package engine

import (
	"errors"
	"time"
)

// ErrSkip is what a topology's Decode returns for a record that is none of the job's business: it is passed over, without
// an effect on state or watermark.
var ErrSkip = errors.New("not an event of this job")

// Record is one input record as the topology's decoder sees it. Its byte fields are valid only during the call.
type Record struct {
	Key       []byte
	Value     []byte    // nil for a tombstone
	Timestamp time.Time // the record's own timestamp: creation or append time, as the topic is configured
}

// Emit takes one result of the output topic. Key and value are copied before it returns.
type Emit func(key, value []byte)

// Topology is one stream job: how a record becomes an event E, and how the events of a key become its state S and its
// results. All methods of one partition are called from one goroutine at a time; different partitions call them
// concurrently, each on a Topology of its own (see [Job]).
//
// A watermark is in milliseconds since the epoch; math.MinInt64 means none yet.
type Topology[E, S any] interface {
	// Decode reads one record into dst, which is reused. ErrSkip passes it over; another error, or a panic, makes it a
	// dead letter, whose reason is a *codecs.FieldError's, or what a method Reason() string of the error says.
	Decode(dst *E, r *Record) error
	// Key is the event's key, 1 to 255 bytes, valid until the next Decode.
	Key(e *E) []byte
	// Time is the event time in milliseconds since the epoch.
	Time(e *E) int64

	// Fold adds an event to its key's state; watermark is the one before the event. False: no window took it, it is late.
	Fold(s *S, watermark int64, e *E) bool
	// Touch marks everything in the state to be emitted again by the next Collect.
	Touch(s *S)
	// Collect emits what changed since the last Collect.
	Collect(key string, s *S, watermark int64, emit Emit)
	// Advance emits what is due at the watermark and marks it closed.
	Advance(key string, s *S, watermark int64, emit Emit)
	// Settle forgets what was closed at or before the watermark and has been emitted: its results are acknowledged.
	Settle(s *S, watermark int64)
	// Due is the least watermark at which Advance has something to do; math.MaxInt64 if there is none.
	Due(s *S) int64
	// Idle reports whether no window is open or unsettled: the state may be kept encoded.
	Idle(s *S) bool
	// Append appends the encoded state.
	Append(dst []byte, s *S) []byte
	// Parse replaces the state by the encoded one, which it must not retain. purged is the watermark up to which it was purged. What the
	// state held may be of another key: only its memory is to be used again.
	Parse(s *S, data []byte, purged int64) error
}

// Warmer is a [Topology] that can read ahead.
type Warmer[S any] interface {
	// Warm reads what Fold will read of a state, and returns anything made of it. It is called for several keys in a row, so that
	// they wait for memory together.
	Warm(s *S) int64
}

// Owner is a [Topology] that can tell its own results from those that other jobs write to the same output topic.
type Owner interface {
	// Owns reports whether the key of an output record is one that the topology emits under.
	Owns(key []byte) bool
	// Newer reports whether of two results under one key the first is newer: then the other does not have to follow it.
	// It is called while other methods are.
	Newer(value, than []byte) bool
}

// Shadow is a [Topology] of a job beside another one on the same input, which keeps what neither can use: this one passes over what would be
// a dead letter, or there were two of each, and whoever replayed them had the event counted twice.
type Shadow interface {
	// Shadow marks it.
	Shadow()
}

// Job is a topology with its names. All topics have the same number of partitions, except that Late and Dead may differ.
type Job[E, S any] struct {
	// Group is the consumer group; goka derives the table's and the loop's topic from it: <group>-table, <group>-loop.
	Group string
	// Input is the topic of events.
	Input string
	// Output takes the results, Late the events no window took, Dead those that cannot be decoded.
	Output, Late, Dead string
	// Definition identifies what the state records hold, for example the window definitions. A group whose committed
	// positions carry another definition is refused.
	Definition string
	// New makes the topology of one partition.
	New func() Topology[E, S]
}

// Table is the group table's topic.
func (j *Job[E, S]) Table() string { return j.Group + "-table" }

// Loop is the topic through which events reach the partition of their key.
func (j *Job[E, S]) Loop() string { return j.Group + "-loop" }
