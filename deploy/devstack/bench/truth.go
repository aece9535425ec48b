package bench

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"klgstream.dev/processors/window"
)

// hour in ms.
const hour = int64(3_600_000)

// windowOf is one window of one key.
type windowOf struct {
	definition string
	key        int
	start, end int64 // ms
}

// truth counts the shape's events in every window of the definitions. It shares no code with the product: it counts
// events by key and slide, then lays windows over the slides.
func (s Shape) truth(definitions []window.Definition) map[windowOf]int64 {
	out := make(map[windowOf]int64)
	for _, d := range definitions {
		if d.Kind == window.Session {
			s.sessions(d, out)
		} else {
			s.aligned(d, out)
		}
	}
	return out
}

// cell is one key's events in one slide.
type cell struct {
	key  int
	slot int64
}

// aligned counts tumbling, hopping and cumulating windows.
func (s Shape) aligned(d window.Definition, out map[windowOf]int64) {
	name, slide := d.String(), slideOf(d)
	offset := d.Offset.Milliseconds()
	cells := make(map[cell]int64)
	s.inner(func(_ int, e event) { cells[cell{e.key, floorDiv(e.time-offset, slide)}]++ })
	n := d.Size.Milliseconds() / slide
	for c, count := range cells {
		for i := range n {
			start, end := c.slot-i, c.slot-i+n // hopping and tumbling: every window that begins at most size before
			if d.Kind == window.Cumulating {   // those of its own period that end behind it
				start = c.slot - floorMod(c.slot, n)
				if end = c.slot + 1 + i; end > start+n {
					break
				}
			}
			out[windowOf{name, c.key, start*slide + offset, end*slide + offset}] += count
		}
	}
}

func slideOf(d window.Definition) int64 {
	if d.Kind == window.Tumbling {
		return d.Size.Milliseconds()
	}
	return d.Slide.Milliseconds()
}

func floorMod(a, b int64) int64 { return (a%b + b) % b }

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

// sessions counts runs of events at most a gap apart.
func (s Shape) sessions(d window.Definition, out map[windowOf]int64) {
	times := make(map[int][]int64)
	s.inner(func(_ int, e event) { times[e.key] = append(times[e.key], e.time) })
	gap, name := d.Gap.Milliseconds(), d.String()
	for key, at := range times {
		slices.Sort(at)
		first := 0
		for i := range at {
			if i+1 == len(at) || at[i+1]-at[i] > gap {
				out[windowOf{name, key, at[first], at[i] + gap}] = int64(i + 1 - first)
				first = i + 1
			}
		}
	}
}

// parseWindows reads definitions and refuses those whose truth is not known here.
func parseWindows(texts []string, bound time.Duration) ([]window.Definition, error) {
	var faults []error
	var out []window.Definition
	for _, text := range texts {
		d, err := window.ParseDefinition(text)
		switch {
		case err != nil:
			faults = append(faults, err)
		case d.Zone != nil:
			faults = append(faults, fmt.Errorf("window %q: windows of a time zone cannot be verified here", text))
		case d.Size+d.Gap+bound > horizon-24*time.Hour:
			faults = append(faults, fmt.Errorf("window %q with bound %v must span at most %v", text, bound, horizon-24*time.Hour))
		}
		out = append(out, d)
	}
	return out, errors.Join(faults...)
}
