package codecs

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// MaxStateBytes is the largest state record accepted.
	MaxStateBytes = 64 << 20
	// maxSources bounds the sources, and the undecided events, of one record.
	maxSources = 1 << 16
)

// Source is a position in the input topic: the partition an event was first read from and its offset there.
type Source struct {
	Partition int32 // from 0
	Offset    int64
}

// Envelope is the record of a group table: a key's state with what makes replays exact (state.proto,
// GroupTableRecord).
type Envelope struct {
	// Sources are the last offsets applied, one per partition.
	Sources []Source
	// Purged is the watermark, in ms, at which windows were last purged from the state; NoTime if none were.
	Purged int64
	// Undecided are late events whose late record may not be acknowledged yet.
	Undecided []Source
	// Due is the least watermark, in ms, at which an open window of the state has something to emit; NoDue if there is
	// none. Recovery schedules a key by it without decoding the state.
	Due int64
	// State is the group's own part.
	State []byte
}

// NoDue is the Due of a state no window of which is open.
const NoDue = math.MaxInt64

const (
	envelopeVersion   protowire.Number = 1
	envelopeSources   protowire.Number = 2
	envelopePurged    protowire.Number = 3
	envelopeUndecided protowire.Number = 4
	envelopeState     protowire.Number = 5
	envelopeDue       protowire.Number = 6
)

// Append appends the record.
func (e *Envelope) Append(dst []byte) []byte {
	dst = appendVarint(dst, envelopeVersion, StateVersion)
	dst = appendSources(dst, envelopeSources, e.Sources)
	if e.Purged != NoTime {
		dst = appendPresent(dst, envelopePurged, e.Purged)
	}
	dst = appendSources(dst, envelopeUndecided, e.Undecided)
	dst = appendText(dst, envelopeState, e.State)
	if e.Due != NoDue {
		dst = appendPresent(dst, envelopeDue, e.Due)
	}
	return dst
}

// appendSources appends positions as one field each.
func appendSources(dst []byte, number protowire.Number, sources []Source) []byte {
	for _, s := range sources {
		var content int
		dst, content = openMessage(dst, number)
		dst = appendVarint(dst, 1, uint64(s.Partition))
		dst = appendVarint(dst, 2, uint64(s.Offset))
		dst = closeMessage(dst, content)
	}
	return dst
}

// Parse reads a record. State aliases data; the slices of e keep their capacity. Fields it does not know are skipped,
// a version it does not know is refused (C5). The error is a *FieldError; e is then undefined.
func (e *Envelope) Parse(data []byte) error {
	if err := e.parse(data); err != nil {
		return err
	}
	return nil
}

func (e *Envelope) parse(data []byte) *FieldError {
	*e = Envelope{Sources: e.Sources[:0], Undecided: e.Undecided[:0], Purged: NoTime, Due: NoDue}
	if len(data) > MaxStateBytes {
		return &FieldError{Record: "state record", Reason: ReasonTooLarge, Limit: atMost(MaxStateBytes, "bytes"), Offset: -1}
	}
	versioned := false
	for len(data) > 0 {
		var f wireField
		var ok bool
		if data, ok = f.read(data); !ok {
			return truncated("")
		}
		if err := e.field(&f); err != nil {
			return err
		}
		versioned = versioned || f.number == envelopeVersion
	}
	if !versioned {
		return badRecord("version", "present")
	}
	if !distinct(e.Sources) {
		return badRecord("sources", "one per partition")
	}
	return nil
}

// field reads one field.
func (e *Envelope) field(f *wireField) (err *FieldError) {
	switch f.number {
	case envelopeVersion:
		return checkVersion(f)
	case envelopeSources:
		e.Sources, err = parseSource(e.Sources, f, "sources")
	case envelopePurged:
		if f.kind != protowire.VarintType {
			return truncated("purged_watermark")
		}
		e.Purged = f.signed()
	case envelopeDue:
		if f.kind != protowire.VarintType {
			return truncated("due")
		}
		e.Due = f.signed()
	case envelopeUndecided:
		e.Undecided, err = parseSource(e.Undecided, f, "undecided")
	case envelopeState:
		if f.kind != protowire.BytesType {
			return truncated("state")
		}
		e.State = f.bytes
	}
	return err
}

// checkVersion refuses a version this program does not know.
func checkVersion(f *wireField) *FieldError {
	if f.kind != protowire.VarintType || f.value == 0 {
		return badRecord("version", "at least 1")
	}
	if f.value > StateVersion {
		return &FieldError{
			Record: "state record", Field: "version", Value: clip(appendInt(nil, int64(min(f.value, math.MaxInt64)))),
			Reason: ReasonUnknownVersion, Limit: "at most " + strconv.Itoa(StateVersion), Offset: -1,
		}
	}
	return nil
}

// parseSource appends one position to sources.
func parseSource(sources []Source, f *wireField, name string) ([]Source, *FieldError) {
	if f.kind != protowire.BytesType {
		return sources, truncated(name)
	}
	if len(sources) >= maxSources {
		return sources, badRecord(name, atMost(maxSources, "entries"))
	}
	var s Source
	for data := f.bytes; len(data) > 0; {
		var part wireField
		var ok bool
		if data, ok = part.read(data); !ok || (part.number <= 2 && part.kind != protowire.VarintType) {
			return sources, truncated(name)
		}
		switch part.number {
		case 1:
			if part.value > math.MaxInt32 {
				return sources, badRecord(name+".partition", "0 to 2147483647")
			}
			s.Partition = int32(part.value)
		case 2:
			s.Offset = int64(part.value)
		}
	}
	return append(sources, s), nil
}

// distinct tells whether no partition occurs twice. Written in ascending order they are told apart at a glance.
func distinct(sources []Source) bool {
	ascending := true
	for i := 1; i < len(sources) && ascending; i++ {
		ascending = sources[i-1].Partition < sources[i].Partition
	}
	if ascending {
		return true
	}
	seen := make(map[int32]bool, len(sources))
	for _, s := range sources {
		if seen[s.Partition] {
			return false
		}
		seen[s.Partition] = true
	}
	return true
}
