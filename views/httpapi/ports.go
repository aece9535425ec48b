package httpapi

import (
	"context"
	"errors"
	"time"

	"klgstream.dev/codecs"
)

// Event is one record for the input topic.
type Event struct {
	Key   string // the registration number, trimmed and upper-cased
	Value []byte // the bytes the client sent
}

// Publisher writes events to the input topic. Publish returns nil only after the broker has acknowledged every one of
// them; after an error any of them may or may not be in the topic. It must be safe for concurrent use and must not keep
// a Value after it has returned nil.
type Publisher interface {
	Publish(ctx context.Context, events []Event) error
}

// Pipeline tells how far the processing is. It must be safe for concurrent use. It is asked at most about once a second,
// whatever the number of clients.
type Pipeline interface {
	Status(ctx context.Context) (Status, error)
}

// Status is the state of the pipeline at one moment.
type Status struct {
	Topics []Topic // in the order an event meets them
	Totals Totals
	Replay *Replay // nil when nothing is being replayed by this process
}

// Role is a topic's part in the pipeline.
type Role string

// The roles a topic can have.
const (
	RoleInput  Role = "input"
	RoleLoop   Role = "loop"
	RoleTable  Role = "table"
	RoleOutput Role = "output"
	RoleLate   Role = "late"
	RoleDead   Role = "dead"
)

// Topic is one topic of the pipeline with the positions of the one who reads it.
type Topic struct {
	Name       string
	Role       Role
	Reader     string // the consumer group whose positions these are, "" if nobody reads it
	Partitions []Partition
}

// Unknown is the value of a position or an event time nobody has told yet.
const Unknown = -1 << 63

// Partition is one partition's positions.
type Partition struct {
	ID        int32
	Committed int64 // next offset the reader will resume from; Unknown if it never committed
	End       int64 // next offset a producer will get
	Lag       int64 // records between the two; End minus the first kept offset where nothing is committed
	Watermark int64 // event time, ms since the epoch, that the reader has passed; Unknown if it keeps none
}

// Totals counts events by outcome since each counter began. A negative number means the count is not known here.
type Totals struct {
	Counted, Late, Dead, Fenced, Rekeyed int64
}

// Replay is the progress of a replay inside this process.
type Replay struct {
	Source string // what is replayed, for people
	Sent   int64  // events acknowledged so far
	Total  int64  // events in the source; 0 if not known
	Done   bool
}

// Live reads the windows that are still open, from the processor's own state.
type Live interface {
	// Windows lists the open windows of a registration, newest first; ErrNotFound if the processor has never seen it.
	Windows(ctx context.Context, registration string) ([]codecs.Window, error)
	// AsOf is a time up to which everything the processor has written is in what is read; zero if that is not known.
	AsOf() time.Time
}

// Sentinels of Registry and Live, for errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrTaken       = errors.New("registration number is taken")
	ErrConflict    = errors.New("revision does not match")
	ErrPending     = errors.New("not decided yet")
	ErrUnavailable = errors.New("not available")
)

// Aircraft is one entry of the registry, as folded from its events.
type Aircraft struct {
	Registration string // canonical, at most 32 bytes; the entry's identity
	Type         string // "" if unknown
	AircraftID   int64  // number given by the producers; meaningful with HasAircraftID
	HasID        bool
	Revision     int64 // grows with every change, from 1
	Created      time.Time
	Updated      time.Time
}

// Draft is what a client says of an aircraft it creates or changes.
type Draft struct {
	Registration string
	Type         string
	RequestID    string // names the request in the log, so that its outcome can be asked for later; at most 64 bytes
}

// AircraftQuery selects entries of the registry, in the order of their registrations.
type AircraftQuery struct {
	Exact  string // the registration; "" means all
	Prefix string // of the registration; "" means all
	Type   string // "" means all
	After  string // registration to go on behind; "" starts at the beginning
	Limit  int    // 1 to 1,000
}

// Outcome is what became of a request to create or change an aircraft.
type Outcome string

// The outcomes of a request.
const (
	OutcomePending Outcome = "pending" // not in the registry yet, or unknown to it
	OutcomeApplied Outcome = "applied"
	OutcomeRefused Outcome = "refused" // another request came first
)

// Registry is the aircraft registry: reads come from its group table, changes are events. It must be safe for concurrent
// use.
type Registry interface {
	// List returns at most q.Limit entries and whether there are more.
	List(ctx context.Context, q AircraftQuery) (page []Aircraft, more bool, err error)
	// Find returns one entry; ErrNotFound if there is none.
	Find(ctx context.Context, registration string) (Aircraft, error)
	// Create publishes the event and waits until the registry has taken it: ErrTaken if another came first in the log,
	// ErrPending if ctx ended before it was decided (the event is published, or may still be).
	Create(ctx context.Context, d Draft) (Aircraft, error)
	// Update likewise changes the entry if it still has the given revision: ErrConflict if not, ErrNotFound, ErrPending.
	Update(ctx context.Context, revision int64, d Draft) (Aircraft, error)
	// Outcome tells what became of a request that answered ErrPending.
	Outcome(ctx context.Context, registration, requestID string) (Outcome, error)
	// AsOf is a time up to which everything that was decided is in what is read; zero if that is not known.
	AsOf() time.Time
}
