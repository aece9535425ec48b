// Package activity is the aircraft-activity job: it counts the events of each registration number in the windows of one or
// more definitions, and keeps a summary of each aircraft.
package activity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
)

// Names of the job's group and topics.
const (
	Group  = "aircraft-activity"
	Input  = "aircraft-events"
	Output = "aircraft-windows"
	Late   = "aircraft-events-late"
	Dead   = "aircraft-events-dlq"
)

// DefaultWindow is the definition counted when none is given.
const DefaultWindow = "tumbling:1h"

// Config says what is counted. The zero value of a field is its documented default.
type Config struct {
	// Windows are the definitions, as window.ParseDefinition reads them. Default DefaultWindow.
	Windows []string
	// AllowedLateness keeps windows open past their end. Default 0.
	AllowedLateness time.Duration
	// Emit is when results are published. Default window.OnUpdate.
	Emit window.Emit
	// Zone is where timestamps without a zone are at home. Default UTC.
	Zone *time.Location
	// Group, Input, Output, Late and Dead replace the constants of that name.
	Group, Input, Output, Late, Dead string
}

// operator counts the events of one definition.
type operator = window.Operator[codecs.Event, tally]

// New is the job, or all that is wrong with the settings.
func New(c Config) (engine.Job[codecs.Event, State], error) {
	definitions, err := c.definitions()
	if err != nil {
		return engine.Job[codecs.Event, State]{}, fmt.Errorf("configure aircraft activity: %w", err)
	}
	names := make([]string, len(definitions))
	for i, d := range definitions {
		names[i] = d.String()
	}
	return engine.Job[codecs.Event, State]{
		Group: or(c.Group, Group), Input: or(c.Input, Input), Output: or(c.Output, Output), Late: or(c.Late, Late), Dead: or(c.Dead, Dead),
		Definition: fmt.Sprintf("%s lateness=%v", strings.Join(names, " "), c.AllowedLateness),
		New: func() engine.Topology[codecs.Event, State] {
			return newTopology(definitions, c.options(), codecs.Decoder{Zone: c.Zone})
		},
	}, nil
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func (c *Config) options() window.Options {
	return window.Options{AllowedLateness: c.AllowedLateness, Emit: c.Emit}
}

// definitions are in the order of their names: the order in which flags are given means nothing.
func (c *Config) definitions() ([]window.Definition, error) {
	texts := c.Windows
	if len(texts) == 0 {
		texts = []string{DefaultWindow}
	}
	var out []window.Definition
	faults := []error{c.options().Validate()}
	for _, text := range texts {
		d, err := parse(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if slices.ContainsFunc(out, func(o window.Definition) bool { return o.String() == d.String() }) {
			faults = append(faults, fmt.Errorf("window %q is given twice", text))
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b window.Definition) int { return strings.Compare(a.String(), b.String()) })
	return out, errors.Join(faults...)
}

func parse(text string) (window.Definition, error) {
	d, err := window.ParseDefinition(text)
	if err != nil {
		return d, err
	}
	if n := len(d.String()); n > codecs.MaxDefinitionBytes {
		return d, fmt.Errorf("window %.40q…: name of %d bytes, limit %d", text, n, codecs.MaxDefinitionBytes)
	}
	return d, nil
}
