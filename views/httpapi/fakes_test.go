package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"klgstream.dev/views"
)

// fakePublisher keeps what was published. gate, if set, is called before each acknowledgement.
type fakePublisher struct {
	gate func(ctx context.Context, events []Event) error

	mu     sync.Mutex
	calls  int
	events []Event
}

func (p *fakePublisher) Publish(ctx context.Context, events []Event) error {
	if p.gate != nil {
		if err := p.gate(ctx, events); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	p.events = append(p.events, events...)
	return nil
}

func (p *fakePublisher) published() []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// fakeStore is a store of rows in memory that understands what the tests ask: equality, ge, lt and prefix filters, order,
// limit, and a cursor that is the number of rows to skip.
type fakeStore struct {
	mu   sync.Mutex
	list []views.View
	rows map[string][][]any
	fail error
}

var _ views.Store = (*fakeStore)(nil)

func (s *fakeStore) Name() string                             { return "fake" }
func (s *fakeStore) Migrate(context.Context) error            { return nil }
func (s *fakeStore) Write(context.Context, views.Batch) error { return errors.New("read only") }
func (s *fakeStore) Close() error                             { return nil }
func (s *fakeStore) Ping(context.Context) error               { s.mu.Lock(); defer s.mu.Unlock(); return s.fail }

func (s *fakeStore) Views(context.Context) ([]views.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list, s.fail
}

func (s *fakeStore) set(view string, rows ...[]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[view] = rows
}

func (s *fakeStore) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *fakeStore) Query(_ context.Context, q views.Query) (views.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return views.Result{}, s.fail
	}
	v, err := views.Find(s.list, q.View)
	if err != nil {
		return views.Result{}, err
	}
	var rows [][]any
	for _, row := range s.rows[q.View] {
		if keeps(v, q.Filters, row) {
			rows = append(rows, slices.Clone(row))
		}
	}
	slices.SortStableFunc(rows, func(a, b []any) int {
		for _, o := range q.Order {
			i := slices.IndexFunc(v.Columns, func(c views.Column) bool { return c.Name == o.Column })
			if c := compare(a[i], b[i]); c != 0 {
				if o.Desc {
					return -c
				}
				return c
			}
		}
		return 0
	})
	rows, err = behind(v, q, rows)
	if err != nil {
		return views.Result{}, err
	}
	return v.Page(q, rows[:min(len(rows), cmp.Or(q.Limit, views.DefaultLimit)+1)])
}

// behind drops the rows up to the one the cursor was made of.
func behind(v views.View, q views.Query, rows [][]any) ([][]any, error) {
	if q.Cursor == "" {
		return rows, nil
	}
	one := views.Query{View: q.View, Order: q.Order, Limit: 1}
	for i := range len(rows) - 1 {
		page, err := v.Page(one, rows[i:i+2])
		if err != nil {
			return nil, err
		}
		if page.Next == q.Cursor {
			return rows[i+1:], nil
		}
	}
	return nil, errors.New("cursor of no row")
}

func keeps(v views.View, filters []views.Filter, row []any) bool {
	for _, f := range filters {
		i := slices.IndexFunc(v.Columns, func(c views.Column) bool { return c.Name == f.Column })
		var want any = f.Value
		switch v.Columns[i].Type {
		case views.Integer:
			want, _ = strconv.ParseInt(f.Value, 10, 64)
		case views.Timestamp:
			want = instant(f.Value)
		default:
		}
		c := compare(row[i], want)
		switch f.Op {
		case views.GreaterOrEqual:
			if c < 0 {
				return false
			}
		case views.Less:
			if c >= 0 {
				return false
			}
		default:
			if c != 0 {
				return false
			}
		}
	}
	return true
}

func compare(a, b any) int {
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case int64:
		return cmp.Compare(a, b.(int64))
	case time.Time:
		return a.Compare(b.(time.Time))
	}
	return 0
}

// fakePipeline answers with what it was given last.
type fakePipeline struct {
	mu     sync.Mutex
	status Status
	err    error
	asked  int
	stuck  chan struct{} // not nil: an answer waits until it is closed, whatever the context says
}

func (p *fakePipeline) Status(context.Context) (Status, error) {
	if p.stuck != nil {
		<-p.stuck
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.status, p.err
}

func (p *fakePipeline) set(s Status, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.err = s, err
}

// clock is a clock that stands until it is moved. It starts far ahead, so that deadlines made of it never pass by themselves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2100, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is an API over fakes.
type rig struct {
	t         *testing.T
	api       *API
	store     *fakeStore
	publisher *fakePublisher
	pipeline  *fakePipeline
	clock     *clock
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, store: sampleStore(), publisher: &fakePublisher{}, pipeline: &fakePipeline{status: sampleStatus()}, clock: newClock()}
	cfg := Config{Store: r.store, Publisher: r.publisher, Pipeline: r.pipeline, Now: r.clock.now, Version: "1.2.3"}
	for _, c := range change {
		c(&cfg)
	}
	api, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.api = api
	return r
}

// do sends a request through the handler. Headers are name, value pairs.
func (r *rig) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(r.t.Context(), method, "http://localhost:8080"+target, reader)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	return w
}

// want fails the test unless the answer has the status; it returns the body decoded.
func want(t *testing.T, w *httptest.ResponseRecorder, status int) map[string]any {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status is %d, want %d: %s", w.Code, status, w.Body)
	}
	if status >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("content type of a problem is %q", w.Header().Get("Content-Type"))
	}
	var body map[string]any
	if strings.Contains(w.Header().Get("Content-Type"), "json") && w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("decode answer %q: %v", w.Body, err)
		}
	}
	return body
}

// places lists "location: message" of a problem's faults.
func places(body map[string]any) []string {
	var out []string
	list, _ := body["errors"].([]any)
	for _, e := range list {
		m, _ := e.(map[string]any)
		location, _ := m["location"].(string)
		message, _ := m["message"].(string)
		out = append(out, location+": "+message)
	}
	return out
}

func instant(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func sampleStore() *fakeStore {
	text := func(name string) views.Column { return views.Column{Name: name, Type: views.Text, Description: name} }
	number := func(name string) views.Column {
		return views.Column{Name: name, Type: views.Integer, Description: name}
	}
	stamp := func(name string) views.Column {
		return views.Column{Name: name, Type: views.Timestamp, Description: name}
	}
	letters := []views.Column{
		text("source_topic"), number("source_partition"), number("source_offset"), text("reason"), text("detail"),
		{Name: "event_time", Type: views.Timestamp, Nullable: true, Description: "time"},
		{Name: "registration_number", Type: views.Text, Nullable: true, Description: "registration"},
		{Name: "record_key", Type: views.Text, Nullable: true, Description: "key"},
		{Name: "payload", Type: views.Text, Nullable: true, Description: "payload"},
		{Name: "payload_base64", Type: views.Text, Nullable: true, Description: "payload"},
	}
	letterKey := []string{"source_topic", "source_partition", "source_offset"}
	return &fakeStore{
		list: []views.View{
			{Name: "aircraft_stats", Description: "Aircraft", Key: []string{"registration_number"}, Columns: []views.Column{
				text("registration_number"), number("total_events"), stamp("first_event"), stamp("last_event"),
			}},
			{Name: "aircraft_windows", Description: "Windows", Key: []string{"registration_number", "window_definition", "window_start", "window_end"}, Columns: []views.Column{
				text("registration_number"), text("window_definition"), text("window_kind"), stamp("window_start"), stamp("window_end"), number("event_count"),
				{Name: "event_types", Type: views.JSON, Description: "types"},
				stamp("first_event_time"), stamp("last_event_time"), text("last_event_type"),
				{Name: "final", Type: views.Boolean, Description: "final"},
				number("revision"),
			}},
			{Name: "dead_letters", Description: "Dead", Key: letterKey, Columns: letters},
			{Name: "late_events", Description: "Late", Key: letterKey, Columns: letters},
		},
		rows: map[string][][]any{
			"aircraft_stats": {
				{"N14228", int64(12), instant("2013-01-01T10:00:00Z"), instant("2013-01-02T10:00:00Z")},
				{"N24211", int64(7), instant("2013-01-01T11:00:00Z"), instant("2013-01-02T11:00:00Z")},
				{"N619AA", int64(3), instant("2013-01-01T12:00:00Z"), instant("2013-01-02T12:00:00Z")},
			},
		},
	}
}

func sampleStatus() Status {
	return Status{
		Topics: []Topic{
			{Name: "aircraft-events", Role: RoleInput, Reader: "aircraft-activity", Partitions: []Partition{
				{ID: 0, Committed: 90, End: 100, Lag: 10, Watermark: instant("2013-01-01T10:00:00Z").UnixMilli()},
				{ID: 1, Committed: Unknown, End: 5, Lag: 5, Watermark: Unknown},
			}},
			{Name: "aircraft-windows", Role: RoleOutput, Reader: "klgstream-sink", Partitions: []Partition{{ID: 0, Committed: 40, End: 40, Watermark: Unknown}}},
			{Name: "aircraft-events-late", Role: RoleLate, Partitions: []Partition{{ID: 0, Committed: Unknown, End: 2, Watermark: Unknown}}},
		},
		Totals: Totals{Counted: 88, Late: 2, Dead: 1, Fenced: 0, Rekeyed: -1},
	}
}

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
