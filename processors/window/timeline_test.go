package window

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "accept what the timelines show now")

// TestTimelines draws what happens, one column per millisecond. A file of testdata is scenes, parted by blank lines; a scene is a
// title, its input, a line of four dashes, and what came of it:
//
//	# a comment
//	tumbling:5ms lateness=2ms emit=close origin=-10
//	x            an event, at its column
//	    |        the watermark, at its column: it is advanced to, then what changed is collected
//	x   |        both, the event first
//	settle       the results up to the watermark are acknowledged
//	touch        everything unsettled is collected again
//	restart      the state is stored and read back, the results up to the last settled watermark are acknowledged, the watermark is there again
//	state        what the state holds
//	----
//
// In the answer a window is [==) over its columns, a slice {--}, and behind it stand the number of its events and what it is. Run go
// test -rewrite to accept what comes, then read the difference.
func TestTimelines(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) < 6 {
		t.Fatalf("%d files of timelines, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for i, scene := range strings.Split(strings.TrimSpace(string(want)), "\n\n") {
				if i > 0 {
					got.WriteString("\n")
				}
				play(t, scene, &got)
			}
			if *rewrite {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareLines(t, strings.Split(strings.TrimSuffix(got.String(), "\n"), "\n"), want)
		})
	}
}

// scene is one timeline as it is played.
type scene struct {
	rig
	origin, settled int64
	width           int
	out             *bytes.Buffer
}

func play(t *testing.T, text string, out *bytes.Buffer) {
	input, _, _ := strings.Cut(text, "\n----")
	s := &scene{out: out, settled: none}
	started := false
	for line := range strings.Lines(input + "\n") {
		line = strings.TrimRight(line, " \n")
		out.WriteString(line + "\n")
		if started || strings.HasPrefix(line, "#") {
			continue
		}
		started = true
		s.begin(t, line)
	}
	out.WriteString("----\n")
	_, steps, _ := strings.Cut(input, s.op.Definition().String())
	_, steps, _ = strings.Cut(steps, "\n")
	for line := range strings.Lines(steps) {
		s.width = max(s.width, len(strings.TrimRight(line, " \n"))+12)
	}
	for line := range strings.Lines(steps) {
		if line = strings.TrimRight(line, " \n"); !strings.HasPrefix(line, "#") {
			s.step(line)
		}
	}
}

// begin reads a title.
func (s *scene) begin(t *testing.T, title string) {
	fields := strings.Fields(title)
	d := mustParse(t, fields[0])
	if d.String() != fields[0] {
		t.Fatalf("definition %q is canonically %q", fields[0], d)
	}
	var o Options
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch {
		case name == "lateness":
			lateness, err := parseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			o.AllowedLateness = lateness
		case field == "emit=close":
			o.Emit = OnClose
		case name == "origin":
			origin, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			s.origin = origin
		default:
			t.Fatalf("%q is no setting", field)
		}
	}
	s.rig = *newRig(t, newBagOperator(t, d, o), o)
}

func (s *scene) step(line string) {
	switch line {
	case "settle":
		s.note(line, "")
		s.settled = s.watermark
		if s.op.Settle(&s.state, s.settled) {
			s.note("", "nothing left")
		}
	case "touch":
		s.note(line, "")
		s.op.Touch(&s.state)
		s.op.Collect(&s.state, s.watermark, s.draw)
	case "restart":
		s.note(line, "")
		s.restart(s.settled)
		s.watermark = s.settled
	case "state":
		s.note(line, "")
		s.drawState()
	default:
		s.move(line)
	}
}

// move plays a line of events and watermark.
func (s *scene) move(line string) {
	note := ""
	mark := strings.IndexByte(line, '|')
	if x := strings.IndexByte(line, 'x'); x >= 0 {
		note = s.add(s.watermark, event{s.yields, s.origin + int64(x)}).String()
	}
	s.note(line, note)
	if mark >= 0 {
		s.watermark = s.origin + int64(mark)
		s.op.Advance(&s.state, s.watermark, s.draw)
		s.op.Collect(&s.state, s.watermark, s.draw)
	}
}

func (s *scene) note(line, note string) {
	fmt.Fprintln(s.out, strings.TrimRight(fmt.Sprintf("%-*s %s", s.width, line, note), " "))
}

// draw is the yield function.
func (s *scene) draw(r *Result[bag]) {
	s.take(r)
	what := ""
	switch {
	case r.Withdrawn:
		what = " withdrawn"
	case r.Final:
		what = " final"
	}
	s.note(s.bar(r.Span, '[', '=', ')'), fmt.Sprintf("%d%s", r.Count, what))
}

func (s *scene) drawState() {
	for _, sl := range s.state.Slices {
		what := ""
		if sl.Closed {
			what = " closed"
		}
		s.note(s.bar(sl.Span, '{', '-', '}'), fmt.Sprintf("%d%s", sl.Count, what))
	}
	for _, w := range s.state.Withdrawn {
		s.note(s.bar(w.Span, '{', '~', '}'), "withdrawn")
	}
	due := "never"
	if at := s.op.Due(&s.state); at != Never {
		due = strconv.FormatInt(at, 10)
	}
	s.note("", "due "+due)
}

// bar is a span over its columns; what lies before the first column is cut off.
func (s *scene) bar(span Span, open, fill, end byte) string {
	b := bytes.Repeat([]byte{' '}, int(max(0, span.End-s.origin)))
	for at := max(span.Start, s.origin); at < span.End; at++ {
		c := fill
		switch at {
		case span.Start:
			c = open
		case span.End - 1:
			c = end
		}
		b[at-s.origin] = c
	}
	return string(b)
}
