package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// storing is a stage whose results end in a store.
type storing interface {
	// Stored are the pages of the store's views as JSON, one a line; nothing if the round has no store.
	Stored(ctx context.Context) ([]byte, error)
}

// stock is what a store shows.
type stock struct {
	best       map[windowID]*result
	late, dead map[coordinate]letter
}

// page is as much of a page of a view as is looked at.
type page struct {
	View string            `json:"view"`
	Rows []json.RawMessage `json:"rows"`
}

// storedLetter is a row of late events or dead letters.
type storedLetter struct {
	Topic     string  `json:"source_topic"`
	Partition int32   `json:"source_partition"`
	Offset    int64   `json:"source_offset"`
	Reason    string  `json:"reason"`
	Detail    string  `json:"detail"`
	Payload   *string `json:"payload"`
}

// parseStock reads pages.
func parseStock(pages []byte) (*stock, error) {
	s := &stock{best: make(map[windowID]*result), late: make(map[coordinate]letter), dead: make(map[coordinate]letter)}
	lines := bufio.NewScanner(bytes.NewReader(pages))
	lines.Buffer(nil, maxFrame)
	for lines.Scan() {
		var p page
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("read a page of the store: %w", err)
		}
		for _, row := range p.Rows {
			if err := s.put(p.View, row); err != nil {
				return nil, fmt.Errorf("read a row of %s: %w: %s", p.View, err, row)
			}
		}
	}
	return s, lines.Err()
}

func (s *stock) put(view string, row []byte) error {
	if view == "aircraft_windows" {
		r := &result{}
		err := json.Unmarshal(row, r)
		s.best[r.id()] = r
		return err
	}
	var l storedLetter
	err := json.Unmarshal(row, &l)
	into := s.late
	if view == "dead_letters" {
		into = s.dead
	}
	at := coordinate{l.Partition, l.Offset}
	into[at] = letter{reason: l.Reason, detail: l.Detail, at: at, topic: l.Topic}
	if l.Payload != nil {
		into[at] = letter{reason: l.Reason, detail: l.Detail, at: at, topic: l.Topic, value: []byte(*l.Payload)}
	}
	return err
}

// stored is what the store shows now, nil if the round has none.
func (p *play) stored(ctx context.Context) (*stock, error) {
	s, ok := p.stage.(storing)
	if !ok || p.round.Workload.Sinks == 0 {
		return nil, nil //nolint:nilnil // a round without a store is none that fails
	}
	pages, err := s.Stored(ctx)
	if err != nil || pages == nil {
		return nil, err
	}
	return parseStock(pages)
}

// glance looks whether a row of the store has gone back to an older revision. The store may be out of reach just now.
func (p *play) glance(ctx context.Context) {
	if s, err := p.stored(ctx); err == nil && s != nil {
		p.report.Violations = append(p.report.Violations, p.receded(s)...)
	}
}

func (p *play) receded(s *stock) []Violation {
	var wrong []Violation
	if p.seen == nil {
		p.seen = make(map[windowID]int64)
	}
	for id, r := range s.best {
		if r.Revision < p.seen[id] {
			wrong = append(wrong, Violation{"stale", fmt.Sprintf("store: %s: revision %d was there, now it is %d", id, p.seen[id], r.Revision)})
		}
		p.seen[id] = max(p.seen[id], r.Revision)
	}
	return wrong
}

// lookStore compares the store with the truth.
func (p *play) lookStore(ctx context.Context) ([]Violation, error) {
	s, err := p.stored(ctx)
	if err != nil || s == nil {
		return nil, err
	}
	return append(p.receded(s), checkStock(&p.round.Workload, p.truth, s, p.shelf, p.source.flushed())...), nil
}

// settleStore waits until the store has come to the truth, or patience ends.
func (p *play) settleStore(ctx context.Context) ([]Violation, error) {
	limited, cancel := context.WithTimeout(ctx, p.patience())
	defer cancel()
	var wrong []Violation
	err := await(limited, 100*time.Millisecond, func() (bool, error) {
		if len(p.stage.Troubles()) > 0 {
			return true, nil
		}
		w, err := p.lookStore(limited)
		if err != nil {
			wrong = []Violation{{"stuck", "store: " + err.Error()}}
			return false, nil //nolint:nilerr // it is asked again
		}
		wrong = w
		return len(wrong) == 0, nil
	})
	if err != nil && ctx.Err() == nil {
		return append(wrong, Violation{"stuck", fmt.Sprintf("store: after %v", p.patience())}), nil
	}
	return wrong, err
}

// checkStock compares what a store shows with the truth, and with the best of the output topic.
func checkStock(w *Workload, t *Truth, s *stock, topic *shelf, flushed int64) []Violation {
	wrong := append(fates(t, s.late, s.dead), checkExact(w, t, &shelf{best: s.best}, s.late, flushed)...)
	for at, l := range s.dead {
		if l.value != nil && string(l.value) != string(t.all[at]) {
			wrong = append(wrong, Violation{"foreign", fmt.Sprintf("%s: %q is not what the input holds: %q", at, l.value, t.all[at])})
		}
	}
	for id, best := range topic.best {
		if got := s.best[id]; got != nil && got.Revision != best.Revision {
			wrong = append(wrong, Violation{"stale", fmt.Sprintf("%s: revision %d, the topic has %d", id, got.Revision, best.Revision)})
		}
	}
	for i := range wrong {
		wrong[i].What = "store: " + wrong[i].What
	}
	return wrong
}
