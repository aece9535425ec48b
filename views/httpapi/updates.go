package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/views"
)

const (
	backlog   = 16               // frames a listener may be behind before it is cut off
	heartbeat = 15 * time.Second // of a stream on which nothing else happens
	patience  = 10               // the feeds are asked again after this many times what the last answers took, at the earliest
)

// broadcaster hands every frame to every listener (H4).
type broadcaster struct {
	limit int
	gauge prometheus.Gauge
	wake  chan struct{} // capacity 1: somebody came who has not seen anything

	mu        sync.Mutex
	listeners map[*listener]struct{}
	whole     map[string][]byte // the whole picture per kind of frame, for who comes next
	kinds     []string          // keys of whole, in order of appearance
	closed    bool
}

// listener is one client of the stream. Its channel is closed when it is cut off.
type listener struct{ frames chan []byte }

func newBroadcaster(limit int, gauge prometheus.Gauge) *broadcaster {
	return &broadcaster{limit: limit, gauge: gauge, wake: make(chan struct{}, 1), listeners: map[*listener]struct{}{}, whole: map[string][]byte{}}
}

// join adds a listener and returns the whole picture; nil if there is no room.
func (b *broadcaster) join() (*listener, [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.listeners) >= b.limit {
		return nil, nil
	}
	l := &listener{frames: make(chan []byte, backlog)}
	b.listeners[l] = struct{}{}
	b.gauge.Set(float64(len(b.listeners)))
	select {
	case b.wake <- struct{}{}:
	default:
	}
	frames := make([][]byte, len(b.kinds))
	for i, kind := range b.kinds {
		frames[i] = b.whole[kind]
	}
	return l, frames
}

// leave removes a listener; one that was cut off is gone already.
func (b *broadcaster) leave(l *listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(l)
}

func (b *broadcaster) drop(l *listener) {
	if _, ok := b.listeners[l]; ok {
		delete(b.listeners, l)
		close(l.frames)
		b.gauge.Set(float64(len(b.listeners)))
	}
}

// send gives a frame to all, and keeps whole for who comes next. A nil frame only does the latter.
func (b *broadcaster) send(kind string, frame, whole []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if whole != nil {
		if b.whole[kind] == nil {
			b.kinds = append(b.kinds, kind)
		}
		b.whole[kind] = whole
	}
	if frame == nil {
		return
	}
	for l := range b.listeners {
		select {
		case l.frames <- frame:
		default:
			b.drop(l)
		}
	}
}

func (b *broadcaster) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.listeners)
}

// close ends all streams and lets none begin.
func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for l := range b.listeners {
		b.drop(l)
	}
}

// frame is one server-sent event.
func frame(event string, data []byte) []byte {
	out := make([]byte, 0, len(event)+len(data)+16)
	out = append(out, "event: "...)
	out = append(out, event...)
	out = append(out, "\ndata: "...)
	out = append(out, data...)
	return append(out, "\n\n"...)
}

func (a *API) routeUpdates(api huma.API) {
	a.addRaw(api, &huma.Operation{
		OperationID: "stream-updates", Method: http.MethodGet, Path: "/api/v1/streaming/updates",
		Summary: "Stream of updates",
		Description: "Server-sent events. `pipeline` is the state of the pipeline whenever it changed; `rows` has the rows of a view that changed: " +
			"`{\"view\", \"whole\", \"rows\"}`, where whole tells that they are all there are. A client that cannot keep up is cut off; it begins again with the whole picture.",
		Tags:      []string{"pipeline"},
		Responses: map[string]*huma.Response{"200": {Description: "The stream", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}}}},
	}, a.streamUpdates)
}

// streamUpdates is one client's stream.
func (a *API) streamUpdates(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return // its client is done with the headers, and sends the next request
	}
	x := exchangeOf(w)
	if !a.watchers.enter(x.counted) {
		writeProblem(w, busy(w, http.StatusServiceUnavailable, 10*time.Second, "too many streams of this client are open"))
		return
	}
	l, frames := a.stream.join()
	if l == nil {
		a.watchers.leave(x.counted)
		writeProblem(w, busy(w, http.StatusServiceUnavailable, 10*time.Second, "too many streams are open"))
		return
	}
	defer a.stream.leave(l)
	defer a.watchers.leave(x.counted)
	a.leave(x)
	x.streaming = true
	out := &streamWriter{w: w, control: http.NewResponseController(w), now: a.cfg.Now, timeout: a.limits.WriteTimeout}
	if out.write([]byte("retry: 2000\n\n")) != nil || out.write(frames...) != nil {
		return
	}
	for {
		select {
		case f, ok := <-l.frames:
			if !ok || out.write(f) != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// streamWriter writes frames, each within the time-out: a client that stops reading does not hold its place.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	now     func() time.Time
	timeout time.Duration
}

func (s *streamWriter) write(frames ...[]byte) error {
	_ = s.control.SetWriteDeadline(s.now().Add(s.timeout))
	for _, f := range frames {
		if _, err := s.w.Write(f); err != nil {
			return err
		}
	}
	return s.control.Flush()
}

// feed is a query whose changed rows go on the stream.
type feed struct {
	query views.Query
	rows  map[string]string // what was sent last: key of a row → its JSON
	whole bool
}

func newFeeds() []*feed {
	return []*feed{
		{query: views.Query{View: "aircraft_stats", Order: []views.Order{{Column: "total_events", Desc: true}}, Limit: 20}},
		{query: views.Query{View: "aircraft_windows", Order: []views.Order{{Column: "window_start", Desc: true}}, Limit: 60}},
	}
}

// Run feeds the event stream until ctx ends, then ends all streams. It returns ctx's error.
func (a *API) Run(ctx context.Context) error {
	defer a.stream.close()
	pump := a.newPump()
	tick := time.NewTicker(a.limits.Interval)
	defer tick.Stop()
	for {
		pump.turn(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-a.stream.wake:
		}
	}
}

// pump looks for what is new and sends it.
type pump struct {
	api      *API
	feeds    []*feed
	pipeline []byte // what was sent last, without its time
	sent     time.Time
	next     time.Time       // the feeds are not asked again before
	failed   map[string]bool // what is logged as failing already
}

func (a *API) newPump() *pump {
	return &pump{api: a, feeds: newFeeds(), sent: a.cfg.Now(), failed: map[string]bool{}}
}

// turn sends what changed since the last turn. Nothing is asked while nobody listens.
func (p *pump) turn(ctx context.Context) {
	if p.api.stream.count() == 0 {
		return
	}
	p.pipelineTurn(ctx)
	if start := p.api.cfg.Now(); !start.Before(p.next) {
		for _, f := range p.feeds {
			p.feedTurn(ctx, f)
		}
		end := p.api.cfg.Now()
		p.next = end.Add(patience * end.Sub(start))
	}
	if now := p.api.cfg.Now(); now.Sub(p.sent) >= heartbeat {
		p.send("", []byte(":\n\n"), nil)
	}
}

func (p *pump) send(kind string, frame, whole []byte) {
	p.api.stream.send(kind, frame, whole)
	p.sent = p.api.cfg.Now()
}

func (p *pump) pipelineTurn(ctx context.Context) {
	if p.api.cfg.Pipeline == nil {
		return
	}
	asked, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	picture, err := p.api.gauge.read(asked)
	if p.failing(ctx, "pipeline", err) {
		return
	}
	at := picture.At
	picture.At = time.Time{}
	same, err := json.Marshal(picture)
	if err != nil || bytes.Equal(same, p.pipeline) {
		return
	}
	p.pipeline = same
	picture.At = at
	data, err := json.Marshal(picture)
	if p.failing(ctx, "pipeline", err) {
		return
	}
	f := frame("pipeline", data)
	p.send("pipeline", f, f)
}

// failing logs the first of several failures, and the recovery.
func (p *pump) failing(ctx context.Context, what string, err error) bool {
	failed := err != nil
	if failed != p.failed[what] && ctx.Err() == nil {
		p.failed[what] = failed
		if failed {
			p.api.log.Warn("update stream", "source", what, "error", err)
		} else {
			p.api.log.Info("update stream goes on", "source", what)
		}
	}
	return failed
}

// feedTurn asks a feed's query and sends what changed.
func (p *pump) feedTurn(ctx context.Context, f *feed) {
	asked, cancel := context.WithTimeout(ctx, p.api.limits.QueryTimeout)
	defer cancel()
	result, err := p.api.cfg.Store.Query(asked, f.query)
	if p.failing(ctx, f.query.View, err) {
		return
	}
	view, err := p.api.find(asked, f.query.View)
	if p.failing(ctx, f.query.View, err) {
		return
	}
	changed, whole, err := f.changes(view.Key, result)
	if p.failing(ctx, f.query.View, err) || changed == nil && whole == nil {
		return
	}
	p.send("rows "+f.query.View, changed, whole)
}

// changes compares a result with what was sent last and returns a frame with the rows that are new or changed, or with all if
// one is gone, and one with all rows; both nil if nothing changed.
func (f *feed) changes(key []string, result views.Result) (changed, whole []byte, err error) {
	rows := make(map[string]string, len(result.Rows))
	all, some := make([]json.RawMessage, 0, len(result.Rows)), []json.RawMessage{}
	for _, row := range result.Rows {
		id, text, err := encodeRow(key, result.Columns, row)
		if err != nil {
			return nil, nil, err
		}
		rows[id] = text
		all = append(all, json.RawMessage(text))
		if f.rows[id] != text {
			some = append(some, json.RawMessage(text))
		}
	}
	gone := 0
	for id := range f.rows {
		if _, there := rows[id]; !there {
			gone++
		}
	}
	if f.whole && len(some) == 0 && gone == 0 {
		return nil, nil, nil
	}
	if whole, err = rowsFrame(f.query.View, true, all); err != nil {
		return nil, nil, err
	}
	changed = whole
	if f.whole && gone == 0 {
		changed, err = rowsFrame(f.query.View, false, some)
	}
	f.rows, f.whole = rows, true
	return changed, whole, err
}

func rowsFrame(view string, whole bool, rows []json.RawMessage) ([]byte, error) {
	data, err := json.Marshal(struct {
		View  string            `json:"view"`
		Whole bool              `json:"whole"`
		Rows  []json.RawMessage `json:"rows"`
	}{view, whole, rows})
	if err != nil {
		return nil, fmt.Errorf("encode rows of view %q: %w", view, err)
	}
	return frame("rows", data), nil
}

// encodeRow is a row as JSON and what tells it from the others.
func encodeRow(key []string, columns []views.Column, row []any) (id, text string, err error) {
	object := make(map[string]any, len(row))
	for i, c := range columns {
		object[c.Name] = jsonValue(row[i])
		if slices.Contains(key, c.Name) {
			id += fmt.Sprint(object[c.Name]) + "\x00"
		}
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return "", "", fmt.Errorf("encode row: %w", err)
	}
	return id, string(raw), nil
}
