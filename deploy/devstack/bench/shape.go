// Package bench measures klgstream against what its own parts can do at most: the same topic is read by bare consumers,
// by goka with an empty callback, by goka used the usual way, and by the product. Figures are of one run on one machine;
// what they are good for is their ratios. Every run compares all windows with the events.
package bench

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"klgstream.dev/processors/engine"
)

// Shape is what a topic of events looks like. Events are a function of the shape and their number alone, so that the
// truth about them need not be stored.
type Shape struct {
	Events     int           // default 4,000,000
	Keys       int           // distinct registration numbers; default 5,000
	Partitions int           // default 4
	Span       time.Duration // event time from first to last; default 10,000 s
	Disorder   time.Duration // largest delay of an event against its neighbours; default 5 s
	Zipf       float64       // exponent of the keys' distribution, above 1; 0 = uniform
	Unkeyed    bool          // spread over the partitions without regard to the key
	EveryKey   bool          // the first events are one of each key, in order
	Seed       uint64        // of the random numbers; default 42
}

// WithDefaults fills what is zero.
func (s Shape) WithDefaults() Shape {
	set(&s.Events, 4_000_000)
	set(&s.Keys, 5_000)
	set(&s.Partitions, 4)
	set(&s.Span, 10_000*time.Second)
	set(&s.Disorder, 5*time.Second)
	set(&s.Seed, 42)
	return s
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate returns all faults at once.
func (s Shape) Validate() error {
	s = s.WithDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(s.Events > 0, "events %d must be at least 1", s.Events)
	check(s.Keys > 0 && s.Keys <= 100_000_000, "keys %d must be 1 to 100,000,000", s.Keys)
	check(s.Partitions > 0 && s.Partitions <= 10_000, "partitions %d must be 1 to 10,000", s.Partitions)
	check(s.Span > 0, "span %v must be positive", s.Span)
	check(s.Disorder >= 0, "disorder %v must not be negative", s.Disorder)
	check(s.Zipf == 0 || s.Zipf > 1, "zipf exponent %v must be above 1, or 0 for uniform", s.Zipf)
	return errors.Join(faults...)
}

// epoch is when the first event happens.
var epoch = time.Date(2026, 2, 8, 0, 0, 0, 0, time.UTC)

var eventTypes = [...]string{"created", "updated", "departed", "landed", "maintenance"}

// sealing begins the registration of sealing events, whose own windows are not looked at.
const sealing = "SEAL-"

// event is one generated event.
type event struct {
	key  int
	kind int
	time int64 // ms
}

// horizon is how far the sealing events lie behind the last event: what a definition's windows and the bound may span
// together, so that they close every window.
const horizon = 10 * 24 * time.Hour

// events generates all of them in order, then the sealing events.
func (s Shape) events(yield func(partition int32, e event)) {
	s.inner(func(i int, e event) { yield(s.partition(i, e), e) })
	s.seal(yield)
}

// seal generates one sealing event per partition: it closes every window.
func (s Shape) seal(yield func(partition int32, e event)) {
	end := epoch.Add(s.WithDefaults().Span + horizon).UnixMilli()
	for p := range int32(s.Partitions) {
		n := 1
		for engine.PartitionOf(registration(nil, -n), int32(s.Partitions)) != p {
			n++
		}
		yield(p, event{-n, 0, end})
	}
}

// Sealed is the watermark that the sealing events make, given how far events may be out of order.
func (s Shape) Sealed(bound time.Duration) time.Time {
	return epoch.Add(s.WithDefaults().Span + horizon - bound - time.Millisecond)
}

// partition is where the producer puts event i.
func (s Shape) partition(i int, e event) int32 {
	if s.Unkeyed {
		return int32(i % s.Partitions)
	}
	return engine.PartitionOf(registration(nil, e.key), int32(s.Partitions))
}

// inner generates the events that are counted.
func (s Shape) inner(yield func(i int, e event)) {
	rng := rand.New(rand.NewPCG(s.Seed, 1))
	var zipf *rand.Zipf
	if s.Zipf > 0 {
		zipf = rand.NewZipf(rng, s.Zipf, 1, uint64(s.Keys-1))
	}
	step := float64(s.Span.Milliseconds()) / float64(s.Events)
	for i := range s.Events {
		key := i
		switch {
		case s.EveryKey && i < s.Keys:
		case zipf != nil:
			key = int(zipf.Uint64())
		default:
			key = rng.IntN(s.Keys)
		}
		back := int64(0)
		if d := s.Disorder.Milliseconds(); d > 0 {
			back = rng.Int64N(d)
		}
		yield(i, event{key, rng.IntN(len(eventTypes)), epoch.UnixMilli() + int64(math.Floor(float64(i)*step)) - back})
	}
}

// registration is a key's text; a negative key is a sealing event's.
func registration(dst []byte, key int) []byte {
	if key < 0 {
		return strconv.AppendInt(append(dst, sealing...), int64(-key), 10)
	}
	dst = append(dst, "RA-"...)
	for n := key; n < 10_000; n = n*10 + 9 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, int64(key), 10)
}

// json is an event as its producer writes it.
func (e event) json(dst []byte) []byte {
	dst = append(dst, `{"event_type":"`...)
	dst = append(dst, eventTypes[e.kind]...)
	dst = append(dst, `","aircraft_id":`...)
	dst = strconv.AppendInt(dst, int64(e.key), 10)
	dst = append(dst, `,"registration_number":"`...)
	dst = registration(dst, e.key)
	dst = append(dst, `","timestamp":"`...)
	dst = time.UnixMilli(e.time).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	return append(dst, `"}`...)
}
