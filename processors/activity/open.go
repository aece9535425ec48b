package activity

import (
	"fmt"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// OpenWindows makes a reader of the open windows in a record of the job's group table. The reader is for one goroutine at a time.
func OpenWindows(c Config) (func(registration string, record []byte) ([]codecs.Window, error), error) {
	definitions, err := c.definitions()
	if err != nil {
		return nil, fmt.Errorf("configure aircraft activity: %w", err)
	}
	o := c.options()
	o.Emit = 0 // whatever is emitted when, what is open is asked for now
	return func(registration string, record []byte) ([]codecs.Window, error) {
		t := newTopology(definitions, o, codecs.Decoder{})
		var env codecs.Envelope
		if err := env.Parse(record); err != nil {
			return nil, err
		}
		var s State
		if err := t.Parse(&s, env.State, env.Purged); err != nil {
			return nil, err
		}
		return t.open(registration, &s, env.Purged)
	}, nil
}

// open collects what a state has open at a watermark.
func (t *topology) open(registration string, s *State, watermark int64) ([]codecs.Window, error) {
	var out []codecs.Window
	var failed error
	t.Touch(s)
	t.Collect(registration, s, watermark, engine.Emit(func(_, value []byte) {
		var w codecs.Window
		if err := w.Parse(value, &t.names.types); err != nil {
			failed = err
			return
		}
		if !w.Final && !w.Withdrawn {
			out = append(out, w)
		}
	}))
	return out, failed
}
