package window

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a zone must mean the same on every host, also in an image without a zone database
)

// Kind is how windows are laid over time.
type Kind uint8

// The kinds of window.
const (
	// Tumbling windows follow each other without gap or overlap: each event is in one.
	Tumbling Kind = iota
	// Hopping windows of Size begin every Slide; Apache Flink's DataStream API calls them sliding.
	Hopping
	// Cumulating windows begin together every Size and end at each further Slide, up to Size.
	Cumulating
	// Session windows hold events that are at most Gap apart.
	Session
)

var kindNames = [...]string{Tumbling: "tumbling", Hopping: "hopping", Cumulating: "cumulating", Session: "session"}

// String is the kind's name as a definition spells it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// MaxOverlap is the largest number of windows one event may belong to: Size/Slide of a definition.
const MaxOverlap = 100_000

// Definition is one way to cut time into windows. All durations are whole milliseconds.
type Definition struct {
	// Kind is the layout; the default is Tumbling.
	Kind Kind
	// Size is a window's length; the greatest length of a cumulating window. Unused by sessions.
	Size time.Duration
	// Slide is the distance between the starts of hopping windows, or between the ends of cumulating ones, which Size must be a multiple of.
	Slide time.Duration
	// Gap is the quiet time that ends a session. Events exactly Gap apart are in one session.
	Gap time.Duration
	// Offset shifts all windows from the epoch. It counts modulo the distance of starts, so −4 min and +6 min are the same for 10 min windows.
	Offset time.Duration
	// Zone, if not nil, lays the windows over that zone's local time, so that days begin at its midnight. Nil is UTC. Unused by sessions.
	Zone *time.Location
}

// ParseDefinition reads a definition from its text:
//
//	tumbling:SIZE  hopping:SIZE/SLIDE  cumulating:STEP/SIZE  session:GAP
//
// each but the last optionally followed by an offset (+5h, -5h) and a zone (@America/New_York). A duration is a row of whole numbers with
// units d, h, m, s, ms, in that order: 1d, 1h30m. A day is 24 hours, or with a zone a local day.
func ParseDefinition(text string) (Definition, error) {
	d, err := parseDefinition(text)
	if err == nil {
		d = d.canonical()
		err = d.Validate()
	}
	if err != nil {
		return Definition{}, fmt.Errorf("parse window definition %q: %w", clip(text), err)
	}
	return d, nil
}

func parseDefinition(text string) (d Definition, err error) {
	name, body, _ := strings.Cut(text, ":")
	kind, ok := kindOf(name)
	if !ok {
		return d, fmt.Errorf("kind %q is none of tumbling, hopping, cumulating, session", clip(name))
	}
	d.Kind = kind
	body, zone, zoned := strings.Cut(body, "@")
	if zoned {
		if d.Zone, err = loadZone(zone); err != nil {
			return d, err
		}
	}
	if i := strings.IndexAny(body, "+-"); i >= 0 {
		if d.Offset, err = parseDuration(body[i+1:]); err != nil {
			return d, fmt.Errorf("offset: %w", err)
		}
		if body[i] == '-' {
			d.Offset = -d.Offset
		}
		body = body[:i]
	}
	return d, d.parseSizes(body)
}

func kindOf(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), true
		}
	}
	return 0, false
}

// parseSizes reads what stands between the kind and the offset.
func (d *Definition) parseSizes(body string) error {
	switch d.Kind {
	case Hopping:
		return parsePair(body, "size", &d.Size, "slide", &d.Slide)
	case Cumulating:
		return parsePair(body, "step", &d.Slide, "size", &d.Size)
	case Session:
		return parseNamed(body, "gap", &d.Gap)
	case Tumbling:
	}
	return parseNamed(body, "size", &d.Size)
}

func parsePair(body, name1 string, d1 *time.Duration, name2 string, d2 *time.Duration) error {
	first, second, ok := strings.Cut(body, "/")
	if !ok {
		return fmt.Errorf("%q lacks a slash between %s and %s", clip(body), name1, name2)
	}
	return errors.Join(parseNamed(first, name1, d1), parseNamed(second, name2, d2))
}

func parseNamed(text, name string, d *time.Duration) (err error) {
	if *d, err = parseDuration(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func loadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("zone %q must be a name of the IANA database, such as Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("zone %q: %w", clip(name), err)
	}
	return zone, nil
}

// Validate returns all that is wrong with the definition.
func (d Definition) Validate() error {
	d = d.canonical()
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	length := func(name string, v time.Duration) {
		need(v > 0, "%s %v must be greater than 0", name, v)
		need(v%time.Millisecond == 0, "%s %v must be whole milliseconds", name, v)
	}
	need(int(d.Kind) < len(kindNames), "kind %d is unknown", d.Kind)
	need(d.Offset%time.Millisecond == 0, "offset %v must be whole milliseconds", d.Offset)
	if d.Kind == Session {
		length("gap", d.Gap)
		need(d.Offset == 0, "a session takes no offset, but it is %v", d.Offset)
		need(d.Zone == nil, "a session takes no zone, but it is %v", d.Zone)
		return errors.Join(faults...)
	}
	length("size", d.Size)
	if d.Zone != nil {
		same, err := loadZone(d.Zone.String())
		need(err == nil && same != time.UTC, "zone %v must be one of the IANA database, so that its name tells which", d.Zone)
	}
	if d.Kind != Tumbling {
		length("slide", d.Slide)
	}
	if len(faults) == 0 {
		d.validateOverlap(need)
	}
	return errors.Join(faults...)
}

// validateOverlap checks Size against Slide, both known to be positive.
func (d Definition) validateOverlap(need func(ok bool, format string, args ...any)) {
	if d.Kind == Tumbling {
		return
	}
	need(d.Size/d.Slide <= MaxOverlap, "size %v is %d times the slide %v: at most %d", d.Size, d.Size/d.Slide, d.Slide, MaxOverlap)
	switch d.Kind {
	case Cumulating:
		need(d.Size%d.Slide == 0, "size %v must be a multiple of the step %v", d.Size, d.Slide)
	case Hopping:
		need(d.Zone == nil || d.Slide >= day, "slide %v must be at least %v in zone %v: in spring shorter ones give two windows the same start",
			d.Slide, day, d.Zone)
	case Tumbling, Session:
	}
}

const day = 24 * time.Hour

// period is the distance after which the layout repeats.
func (d Definition) period() time.Duration {
	if d.Kind == Hopping {
		return d.Slide
	}
	return d.Size
}

// canonical is the same definition with the offset in [0, period), and no zone where it is UTC.
func (d Definition) canonical() Definition {
	if p := d.period(); p > 0 && d.Kind != Session {
		d.Offset %= p
		if d.Offset < 0 {
			d.Offset += p
		}
	}
	if d.Zone == time.UTC {
		d.Zone = nil
	}
	return d
}

// String is the definition's canonical text: equal layouts have equal texts, and ParseDefinition reads it back.
//
// Whole days are written in days, except in a hopping definition that does not slide by days: hopping:24h/1h, hopping:7d/1d.
func (d Definition) String() string {
	d = d.canonical()
	b := append([]byte(d.Kind.String()), ':')
	days := d.Kind != Hopping || d.Slide%day == 0 && d.Size%day == 0
	switch d.Kind {
	case Hopping:
		b = appendDuration(append(appendDuration(b, d.Size, days), '/'), d.Slide, days)
	case Cumulating:
		b = appendDuration(append(appendDuration(b, d.Slide, days), '/'), d.Size, days)
	case Session:
		return string(appendDuration(b, d.Gap, days))
	default:
		b = appendDuration(b, d.Size, days)
	}
	if d.Offset > 0 {
		b = appendDuration(append(b, '+'), d.Offset, days)
	}
	if d.Zone != nil {
		b = append(append(b, '@'), d.Zone.String()...)
	}
	return string(b)
}

// clip keeps an outsider's text short in a message.
func clip(text string) string {
	const limit = 64
	if len(text) > limit {
		return text[:limit] + "…"
	}
	return text
}
