package codecs

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MaxDefinitionBytes is the longest window definition accepted.
	MaxDefinitionBytes = 256
	// MaxWindowBytes is the largest window record accepted, as JSON.
	MaxWindowBytes = 1 << 20
)

// Window is one window's result: a record of the output topic.
type Window struct {
	// Registration is whose window it is.
	Registration string
	// Definition is the window definition in its canonical text, such as "tumbling:1h"; it holds no '|'.
	Definition string
	// Kind is the definition's kind, such as "tumbling".
	Kind string
	// Start and End bound the window, in ms since the epoch: [Start, End).
	Start, End int64
	// Count is how many events the window holds.
	Count int64
	// Aggregate is what else is known of them.
	Aggregate
	// Revision grows as the window changes and is the same on every replay; of two records the higher one holds.
	Revision int64
	// Final tells that the window is closed and this is its last word.
	Final bool
	// Withdrawn tells that the window no longer exists: a session that a merge absorbed.
	Withdrawn bool
}

// kindCumulating is the kind whose windows share their starts.
const kindCumulating = "cumulating"

// Anchor is the border, in ms, that tells the window from the others of its registration and definition for as long as
// it lives: its start (the end of a session moves), or its end where windows share their starts (cumulating).
func (w *Window) Anchor() int64 {
	if w.Kind == kindCumulating {
		return w.End
	}
	return w.Start
}

// AppendKey appends the record's key: definition, Anchor in ms and registration, divided by '|'.
func (w *Window) AppendKey(dst []byte) []byte {
	dst = append(append(dst, w.Definition...), '|')
	dst = append(appendInt(dst, w.Anchor()), '|')
	return append(dst, w.Registration...)
}

// ParseWindowKey reads what AppendKey writes, and nothing else. The error is a *FieldError.
func ParseWindowKey(key []byte) (definition string, anchor int64, registration string, err error) {
	d, rest, _ := bytes.Cut(key, []byte{'|'})
	s, r, found := bytes.Cut(rest, []byte{'|'})
	anchor, ok := parseCanonical(s)
	ok = ok && found && utf8.Valid(key) && len(d) > 0 && len(d) <= MaxDefinitionBytes && len(r) > 0 && len(r) <= MaxRegistrationBytes
	if !ok {
		return "", 0, "", &FieldError{
			Record: "window key", Value: clip(key), Reason: ReasonBadRecord,
			Limit: "definition|anchor_ms|registration", Offset: -1,
		}
	}
	return string(d), anchor, string(r), nil
}

// appendInt appends a decimal integer.
func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// AppendJSON appends the record's value. Times are RFC 3339 in UTC with ms and Z. Of a window without events (a
// withdrawn one may be) the first and last times, the last type and the aircraft id are null.
func (w *Window) AppendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"registration_number":`...), w.Registration)
	dst = appendString(append(dst, `,"window_definition":`...), w.Definition)
	dst = appendString(append(dst, `,"window_kind":`...), w.Kind)
	dst = AppendTime(append(dst, `,"window_start":"`...), w.Start)
	dst = AppendTime(append(dst, `","window_end":"`...), w.End)
	dst = appendInt(append(dst, `","event_count":`...), w.Count)
	dst = w.appendEvents(dst)
	dst = appendInt(append(dst, `,"revision":`...), w.Revision)
	dst = strconv.AppendBool(append(dst, `,"final":`...), w.Final)
	dst = strconv.AppendBool(append(dst, `,"withdrawn":`...), w.Withdrawn)
	return append(dst, '}')
}

// appendEvents appends the aggregate's members, each behind a comma.
func (a *Aggregate) appendEvents(dst []byte) []byte {
	dst = append(dst, `,"event_types":{`...)
	for i := range a.Types {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, a.Types[i].Type), ':')
		dst = appendInt(dst, a.Types[i].Count)
	}
	if a.Empty() {
		return append(dst, `},"first_event_time":null,"last_event_time":null,"last_event_type":null,"aircraft_id":null`...)
	}
	dst = AppendTime(append(dst, `},"first_event_time":"`...), a.First)
	dst = AppendTime(append(dst, `","last_event_time":"`...), a.Last)
	dst = appendString(append(dst, `","last_event_type":`...), a.LastType)
	return appendID(append(dst, `,"aircraft_id":`...), a.AircraftID, a.HasAircraftID)
}

// UnmarshalJSON reads what AppendJSON writes; see Parse.
func (w *Window) UnmarshalJSON(data []byte) error { return w.Parse(data, nil) }

// Parse reads a window record's value strictly: each field must be there once, of its type and within its limits, and
// agree with the others; times must be written as AppendJSON writes them. Members it does not know are skipped, so that
// an older reader outlives a newer writer (C5). names makes the strings that repeat; nil allocates them. The error is
// a *FieldError; w is then undefined. w.Types keeps its capacity.
func (w *Window) Parse(data []byte, names *Interner) error {
	*w = Window{Aggregate: Aggregate{Types: w.Types[:0]}}
	p := windowParser{w: w, names: names, data: data}
	if err := p.parse(); err != nil {
		return err
	}
	return nil
}

// windowParser is one Window.Parse on its way.
type windowParser struct {
	w       *Window
	names   *Interner
	data    []byte
	pos     int
	scratch []byte
	next    int    // the field expected next
	seen    uint32 // fields, by bit
	null    uint32 // fields that were null, by bit
}

// windowFields are the members of a window record in the order written; a member's index is its bit in seen and null.
var windowFields = [...]string{
	"registration_number", "window_definition", "window_kind", "window_start", "window_end", "event_count",
	"event_types", "first_event_time", "last_event_time", "last_event_type", "aircraft_id",
	"revision", "final", "withdrawn",
}

const (
	atFirst = 7 + iota
	atLast
	atLastType
	atAircraft
	ofEvents = 1<<atFirst | 1<<atLast | 1<<atLastType // null of a window without events, and only then
)

func (p *windowParser) parse() (err *FieldError) {
	if len(p.data) > MaxWindowBytes {
		return &FieldError{
			Record: "window", Value: clip(p.data), Reason: ReasonTooLarge,
			Limit: atMost(MaxWindowBytes, "bytes"), Offset: -1,
		}
	}
	if p.pos, err = openObject("window", p.data); err != nil {
		return err
	}
	if err = p.members(true); err != nil {
		return err
	}
	if p.pos = skipSpace(p.data, p.pos); p.pos != len(p.data) {
		return p.broken(badSyntax)
	}
	return p.agree()
}

// members reads the members of an object, the record or its counts per type, from the first one or the closing brace to
// behind the brace.
func (p *windowParser) members(ofRecord bool) (err *FieldError) {
	for more := p.data[p.pos] != '}'; more; {
		var name []byte
		if name, err = p.name(); err != nil {
			return err
		}
		if ofRecord {
			err = p.member(name)
		} else {
			err = p.typeCount(name)
		}
		if err != nil {
			return err
		}
		if p.pos, more, err = nextMember("window", p.data, p.pos); err != nil {
			return err
		}
	}
	p.pos++
	return nil
}

// broken words a fault of the grammar at pos.
func (p *windowParser) broken(f fault) *FieldError { return scanError("window", p.data, p.pos, f) }

// name reads a member's name and goes to its value.
func (p *windowParser) name() ([]byte, *FieldError) {
	if p.pos >= len(p.data) || p.data[p.pos] != '"' {
		return nil, p.broken(badSyntax)
	}
	name, err := p.string()
	if err != nil {
		return nil, err
	}
	var f fault
	if p.pos, f = scanColon(p.data, p.pos); f != sound {
		return nil, p.broken(f)
	}
	return name, nil
}

// string reads the string at pos. What it returns holds until the next call.
func (p *windowParser) string() ([]byte, *FieldError) {
	start := p.pos + 1
	end, kind, f := scanString(p.data, start)
	if f != sound {
		p.pos = end
		return nil, p.broken(f)
	}
	p.pos = end + 1
	if kind&escaped == 0 {
		return p.data[start:end], nil
	}
	p.scratch = unescape(p.scratch[:0], p.data[start:end])
	return p.scratch, nil
}

// member reads one member of the record.
func (p *windowParser) member(name []byte) *FieldError {
	i := p.next // in the order written, as a rule
	if i >= len(windowFields) || windowFields[i] != string(name) {
		if i = slices.Index(windowFields[:], string(name)); i < 0 {
			return p.skip()
		}
	}
	p.next = i + 1
	if p.seen&(1<<i) != 0 {
		return duplicate("window", windowFields[i], p.data, p.pos)
	}
	p.seen |= 1 << i
	if hasPrefix(p.data[p.pos:], "null") && i >= atFirst && i <= atAircraft {
		p.null |= 1 << i
		return p.skip()
	}
	return p.value(i)
}

// skip goes over the value at pos.
func (p *windowParser) skip() *FieldError {
	var f fault
	if p.pos, f = scanValue(p.data, p.pos, 1); f != sound {
		return p.broken(f)
	}
	return nil
}

// value reads the i-th field.
func (p *windowParser) value(i int) (err *FieldError) {
	w := p.w
	switch i {
	case 0:
		w.Registration, err = p.text(i, MaxRegistrationBytes, nil)
	case 1:
		w.Definition, err = p.text(i, MaxDefinitionBytes, p.names)
	case 2:
		w.Kind, err = p.text(i, MaxTypeBytes, p.names)
	case 3:
		w.Start, err = p.time(i)
	case 4:
		w.End, err = p.time(i)
	case 5:
		w.Count, err = p.integer(i, 0)
	case 6:
		err = p.types()
	case atFirst:
		w.First, err = p.time(i)
	case atLast:
		w.Last, err = p.time(i)
	case atLastType:
		w.LastType, err = p.text(i, MaxTypeBytes, p.names)
	case atAircraft:
		w.HasAircraftID = true
		w.AircraftID, err = p.integer(i, minInt64)
	case 11:
		w.Revision, err = p.integer(i, 0)
	case 12:
		w.Final, err = p.bool(i)
	default:
		w.Withdrawn, err = p.bool(i)
	}
	return err
}

const minInt64 = -1 << 63

// refuse words what is wrong with the i-th field, whose value begins at start.
func (p *windowParser) refuse(i, start int, reason, limit string) *FieldError {
	return &FieldError{
		Record: "window", Field: windowFields[i], Value: clip(p.data[start:min(p.pos, len(p.data))]),
		Reason: reason, Limit: limit, Offset: start,
	}
}

// wrongType refuses the value at pos, unless it is not even a value.
func (p *windowParser) wrongType(i int, want string) *FieldError {
	start := p.pos
	if err := p.skip(); err != nil {
		return err
	}
	return p.refuse(i, start, ReasonWrongType, want)
}

// text reads a string of 1 to limit bytes.
func (p *windowParser) text(i, limit int, names *Interner) (string, *FieldError) {
	start := p.pos
	if start >= len(p.data) || p.data[start] != '"' {
		return "", p.wrongType(i, "a string")
	}
	s, err := p.string()
	switch {
	case err != nil:
		return "", err
	case len(s) == 0:
		return "", p.refuse(i, start, ReasonEmpty, "1 to "+strconv.Itoa(limit)+" bytes")
	case len(s) > limit:
		return "", p.refuse(i, start, ReasonTooLong, atMost(limit, "bytes"))
	}
	return names.Intern(s), nil
}

// time reads a time.
func (p *windowParser) time(i int) (int64, *FieldError) {
	start := p.pos
	if start >= len(p.data) || p.data[start] != '"' {
		return 0, p.wrongType(i, "a string")
	}
	s, err := p.string()
	if err != nil {
		return 0, err
	}
	ms, ok := ParseTime(s)
	if !ok {
		return 0, p.refuse(i, start, ReasonBadTimestamp, "RFC 3339 in UTC with three decimals and Z")
	}
	return ms, nil
}

// integer reads an integer that is at least least.
func (p *windowParser) integer(i int, least int64) (int64, *FieldError) {
	start := p.pos
	if start < len(p.data) {
		if n, end := shortInt(p.data, start); end > 0 && n >= least {
			p.pos = end
			return n, nil
		}
	}
	if err := p.skip(); err != nil {
		return 0, err
	}
	n, ok := parseInt(p.data[start:p.pos])
	switch _, whole, f := scanNumber(p.data, start); {
	case f != sound || !whole:
		return 0, p.refuse(i, start, ReasonWrongType, "an integer")
	case !ok || n < least:
		return 0, p.refuse(i, start, ReasonOutOfRange, "an integer of 64 bits, at least "+strconv.FormatInt(least, 10))
	}
	return n, nil
}

// bool reads true or false.
func (p *windowParser) bool(i int) (bool, *FieldError) {
	start := p.pos
	if err := p.skip(); err != nil {
		return false, err
	}
	switch string(p.data[start:p.pos]) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, p.refuse(i, start, ReasonWrongType, "true or false")
}

// types reads the object of counts per type.
func (p *windowParser) types() *FieldError {
	if p.pos >= len(p.data) || p.data[p.pos] != '{' {
		return p.wrongType(6, "an object")
	}
	if p.pos = skipSpace(p.data, p.pos+1); p.pos >= len(p.data) {
		return p.broken(badSyntax)
	}
	if err := p.members(false); err != nil {
		return err
	}
	types := p.w.Types
	if !slices.IsSortedFunc(types, compareTypes) {
		slices.SortFunc(types, compareTypes)
	}
	for i := 1; i < len(types); i++ {
		if types[i].Type == types[i-1].Type {
			return p.refuse(6, p.pos, ReasonDuplicateField, "free of repeated types: "+strconv.Quote(types[i].Type))
		}
	}
	if p.w.named() > MaxTypes {
		return p.refuse(6, p.pos, ReasonTooLong, atMost(MaxTypes, "types and ")+OtherType)
	}
	return nil
}

// compareTypes orders counts by type.
func compareTypes(a, b TypeCount) int { return strings.Compare(a.Type, b.Type) }

// typeCount reads one type's count.
func (p *windowParser) typeCount(name []byte) *FieldError {
	if len(name) == 0 || len(name) > MaxTypeBytes || len(p.w.Types) > MaxTypes {
		return p.refuse(6, p.pos, ReasonTooLong, atMost(MaxTypes, "types of 1 to ")+strconv.Itoa(MaxTypeBytes)+" bytes")
	}
	typ := p.names.Intern(name)
	n, err := p.integer(6, 1)
	if err != nil {
		return err
	}
	p.w.Types = append(p.w.Types, TypeCount{Type: typ, Count: n})
	return nil
}

// agree checks that nothing is missing and that the fields fit each other.
func (p *windowParser) agree() *FieldError {
	w := p.w
	for i, name := range windowFields {
		if p.seen&(1<<i) == 0 {
			return &FieldError{Record: "window", Field: name, Reason: ReasonMissing, Limit: "present", Offset: -1}
		}
	}
	wantNull := uint32(0)
	if w.Empty() {
		wantNull = ofEvents
	}
	field, limit := "", ""
	switch {
	case p.null&ofEvents != wantNull || (w.Empty() && w.HasAircraftID):
		field, limit = "event_types", "empty exactly when the times and types of events are null"
	case w.Start >= w.End:
		field, limit = "window_end", "after window_start"
	case w.First > w.Last:
		field, limit = "last_event_time", "at or after first_event_time"
	case strings.Contains(w.Definition, "|"):
		field, limit = "window_definition", `free of "|"`
	default:
		return nil
	}
	return &FieldError{Record: "window", Field: field, Reason: ReasonOutOfRange, Limit: limit, Offset: -1}
}
