package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views/httpapi"
)

// Registry is the aircraft registry: it reads the group table, and changes by events.
type Registry struct {
	table   *Table
	publish httpapi.Publisher
	now     func() time.Time
}

var _ httpapi.Registry = (*Registry)(nil)

// NewRegistry reads aircraft from a table and publishes changes.
func NewRegistry(table *Table, publish httpapi.Publisher, now func() time.Time) *Registry {
	return &Registry{table, publish, now}
}

// AsOf implements httpapi.Registry.
func (r *Registry) AsOf() time.Time { return r.table.AsOf() }

// List implements httpapi.Registry.
func (r *Registry) List(_ context.Context, q httpapi.AircraftQuery) ([]httpapi.Aircraft, bool, error) {
	if err := r.table.Ready(); err != nil {
		return nil, false, fmt.Errorf("%w: %w", httpapi.ErrUnavailable, err)
	}
	var page []httpapi.Aircraft
	var more bool
	var failed error
	r.table.Ascend(max(q.Exact, q.Prefix, q.After), func(key string, value []byte) bool {
		if key == q.After {
			return true
		}
		if !strings.HasPrefix(key, q.Prefix) || q.Exact != "" && key != q.Exact {
			return false
		}
		a, err := decode(value)
		if err != nil {
			failed = fmt.Errorf("decode aircraft %q: %w", key, err)
			return false
		}
		if a.Revision == 0 || q.Type != "" && a.Type != q.Type {
			return true
		}
		if more = len(page) == q.Limit; more {
			return false
		}
		page = append(page, entry(key, a))
		return true
	})
	return page, more, failed
}

// Find implements httpapi.Registry.
func (r *Registry) Find(_ context.Context, registration string) (httpapi.Aircraft, error) {
	if err := r.table.Ready(); err != nil {
		return httpapi.Aircraft{}, fmt.Errorf("%w: %w", httpapi.ErrUnavailable, err)
	}
	a, err := decode(r.table.Find(registration))
	if err != nil {
		return httpapi.Aircraft{}, fmt.Errorf("decode aircraft %q: %w", registration, err)
	}
	if a.Revision == 0 {
		return httpapi.Aircraft{}, httpapi.ErrNotFound
	}
	return entry(registration, a), nil
}

// Create implements httpapi.Registry.
func (r *Registry) Create(ctx context.Context, d httpapi.Draft) (httpapi.Aircraft, error) {
	_, err := r.Find(ctx, d.Registration)
	if err == nil {
		return httpapi.Aircraft{}, httpapi.ErrTaken
	}
	if !errors.Is(err, httpapi.ErrNotFound) {
		return httpapi.Aircraft{}, err
	}
	return r.change(ctx, "created", d, 0, httpapi.ErrTaken)
}

// Update implements httpapi.Registry.
func (r *Registry) Update(ctx context.Context, revision int64, d httpapi.Draft) (httpapi.Aircraft, error) {
	a, err := r.Find(ctx, d.Registration)
	if err != nil {
		return httpapi.Aircraft{}, err
	}
	if a.Revision != revision {
		return httpapi.Aircraft{}, httpapi.ErrConflict
	}
	return r.change(ctx, "updated", d, revision, httpapi.ErrConflict)
}

// change publishes an event and waits for the registry's decision.
func (r *Registry) change(ctx context.Context, kind string, d httpapi.Draft, revision int64, refused error) (httpapi.Aircraft, error) {
	payload, err := json.Marshal(codecs.Change{Type: &d.Type, Request: d.RequestID, Expected: revision})
	if err != nil {
		return httpapi.Aircraft{}, fmt.Errorf("encode change of %q: %w", d.Registration, err)
	}
	e := codecs.Event{Registration: []byte(d.Registration), Type: []byte(kind), Time: r.now().UnixMilli()}
	err = r.publish.Publish(ctx, []httpapi.Event{{Key: d.Registration, Value: e.AppendJSON(nil, payload)}})
	if err != nil && ctx.Err() != nil {
		return httpapi.Aircraft{}, httpapi.ErrPending // it may be in the topic already, or soon
	}
	if err != nil {
		return httpapi.Aircraft{}, fmt.Errorf("publish change of %q: %w", d.Registration, err)
	}
	var now codecs.Aircraft
	var decision *codecs.Decision
	var broken error
	err = r.table.Await(ctx, d.Registration, func(value []byte) bool {
		if now, broken = decode(value); broken != nil {
			return true
		}
		decision = find(&now, d.RequestID)
		return decision != nil
	})
	switch {
	case broken != nil:
		return httpapi.Aircraft{}, fmt.Errorf("decode aircraft %q: %w", d.Registration, broken)
	case err != nil:
		return httpapi.Aircraft{}, httpapi.ErrPending
	case !decision.Applied:
		return httpapi.Aircraft{}, refused
	}
	return entry(d.Registration, now), nil
}

// Outcome implements httpapi.Registry.
func (r *Registry) Outcome(_ context.Context, registration, request string) (httpapi.Outcome, error) {
	if err := r.table.Ready(); err != nil {
		return "", fmt.Errorf("%w: %w", httpapi.ErrUnavailable, err)
	}
	a, err := decode(r.table.Find(registration))
	if err != nil {
		return "", fmt.Errorf("decode aircraft %q: %w", registration, err)
	}
	switch d := find(&a, request); {
	case d == nil:
		return httpapi.OutcomePending, nil
	case d.Applied:
		return httpapi.OutcomeApplied, nil
	}
	return httpapi.OutcomeRefused, nil
}

func find(a *codecs.Aircraft, request string) *codecs.Decision {
	for i := range a.Decisions {
		if a.Decisions[i].Request == request {
			return &a.Decisions[i]
		}
	}
	return nil
}

// decode reads an aircraft from a record of the group table; of no record it is one that was never created.
func decode(record []byte) (codecs.Aircraft, error) {
	var a codecs.Aircraft
	if record == nil {
		return a, nil
	}
	var env codecs.Envelope
	if err := env.Parse(record); err != nil {
		return a, err
	}
	return a, a.Parse(env.State)
}

func entry(registration string, a codecs.Aircraft) httpapi.Aircraft {
	return httpapi.Aircraft{
		Registration: registration, Type: a.Type, AircraftID: a.AircraftID, HasID: a.HasAircraftID, Revision: a.Revision,
		Created: time.UnixMilli(a.Created), Updated: time.UnixMilli(a.Updated),
	}
}
