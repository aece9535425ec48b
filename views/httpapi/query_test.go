package httpapi

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"klgstream.dev/views"
)

const viewsURL = "/api/v1/streaming/views"

func TestListViews(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := want(t, r.do("GET", viewsURL, ""), http.StatusOK)
	list, _ := body["views"].([]any)
	if len(list) != 4 {
		t.Fatalf("views are %v", list)
	}
	first, _ := list[0].(map[string]any)
	columns, _ := first["columns"].([]any)
	column, _ := columns[1].(map[string]any)
	if first["name"] != "aircraft_stats" || column["name"] != "total_events" || column["type"] != "integer" || column["description"] == "" {
		t.Errorf("first view is %v", first)
	}
}

func registrations(body map[string]any) []string {
	var out []string
	rows, _ := body["rows"].([]any)
	for _, row := range rows {
		m, _ := row.(map[string]any)
		name, _ := m["registration_number"].(string)
		out = append(out, name)
	}
	return out
}

func TestQueryView(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		query string
		rows  []string
	}{
		{"", []string{"N14228", "N24211", "N619AA"}},
		{"?registration_number=N24211", []string{"N24211"}},
		{"?total_events.ge=7", []string{"N14228", "N24211"}},
		{"?registration_number=N14228&total_events.ge=13", nil},
		{"?order=total_events", []string{"N619AA", "N24211", "N14228"}},
		{"?order=-registration_number&limit=1", []string{"N619AA"}},
	} {
		body := want(t, r.do("GET", viewsURL+"/aircraft_stats"+c.query, ""), http.StatusOK)
		if got := registrations(body); !slices.Equal(got, c.rows) {
			t.Errorf("%s: rows are %v, want %v", c.query, got, c.rows)
		}
	}
}

func TestQueryViewPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var all []string
	next := viewsURL + "/aircraft_stats?limit=2&order=total_events"
	for pages := 0; next != ""; pages++ {
		if pages > 3 {
			t.Fatal("pages do not end")
		}
		w := r.do("GET", next, "")
		body := want(t, w, http.StatusOK)
		all = append(all, registrations(body)...)
		next, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		if (next == "") != (body["next"] == nil) {
			t.Errorf("link %q, next %v", next, body["next"])
		}
	}
	if !slices.Equal(all, []string{"N619AA", "N24211", "N14228"}) {
		t.Errorf("pages have %v", all)
	}
}

func TestQueryViewForms(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.rows["aircraft_stats"][2][0] = "=2+3"
	url := viewsURL + "/aircraft_stats"

	w := r.do("GET", url, "", "Accept", "text/csv")
	lines, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(lines) != 4 || lines[0][1] != "total_events" || lines[1][0] != "N14228" || lines[1][2] != "2013-01-01T10:00:00.000Z" {
		t.Errorf("CSV is %q, %v", lines, err)
	}
	if lines[3][0] != "'=2+3" {
		t.Errorf("a formula is written as %q", lines[3][0])
	}
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/csv") {
		t.Errorf("content type is %q", got)
	}

	w = r.do("GET", url+"?limit=2", "", "Accept", "application/x-ndjson, text/csv;q=0.1")
	rows := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	if len(rows) != 2 || rows[1] != `{"registration_number":"N24211","total_events":7,"first_event":"2013-01-01T11:00:00.000Z","last_event":"2013-01-02T11:00:00.000Z"}` {
		t.Errorf("NDJSON is %q", rows)
	}
	if w.Header().Get("Link") == "" {
		t.Error("no link to the next page")
	}

	want(t, r.do("GET", url, "", "Accept", "*/*"), http.StatusOK)
	want(t, r.do("GET", url, "", "Accept", "image/png"), http.StatusNotAcceptable)
}

func TestQueryViewETag(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	url := viewsURL + "/aircraft_stats"
	tag := r.do("GET", url, "").Header().Get("ETag")
	if w := r.do("GET", url, "", "If-None-Match", `"x", W/`+tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("unchanged page is answered %d %q", w.Code, w.Body)
	}
	r.store.rows["aircraft_stats"][0][1] = int64(13)
	if w := r.do("GET", url, "", "If-None-Match", tag); w.Code != http.StatusOK {
		t.Errorf("changed page is answered %d", w.Code)
	}
}

func TestQueryViewRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want(t, r.do("GET", viewsURL+"/nope", ""), http.StatusNotFound)
	body := want(t, r.do("GET", viewsURL+"/aircraft_stats?color=red&limit=0&total_events=many", ""), http.StatusBadRequest)
	if faults := places(body); len(faults) != 3 {
		t.Errorf("faults are %q", faults)
	}
	want(t, r.do("GET", viewsURL+"/aircraft_stats?%zz", ""), http.StatusBadRequest)
	want(t, r.do("DELETE", viewsURL+"/aircraft_stats", ""), http.StatusMethodNotAllowed)
	want(t, r.do("GET", "/api/v1/nothing", ""), http.StatusNotFound)
}

func TestQueryViewWhenStoreFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.failWith(errors.New("connection refused to secret-host"))
	w := r.do("GET", viewsURL+"/aircraft_stats", "")
	want(t, w, http.StatusServiceUnavailable)
	if strings.Contains(w.Body.String(), "secret-host") {
		t.Errorf("answer tells %s", w.Body)
	}
	r.store.failWith(views.Permanent(errors.New("no such column")))
	want(t, r.do("GET", viewsURL, ""), http.StatusInternalServerError)
}

// stuckStore never answers.
type stuckStore struct{ *fakeStore }

func (s stuckStore) Query(ctx context.Context, _ views.Query) (views.Result, error) {
	<-ctx.Done()
	return views.Result{}, fmt.Errorf("query: %w", ctx.Err())
}

func TestQueryViewWhenStoreIsStuck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.api.cfg.Store = stuckStore{r.store}
		start := time.Now()
		w := r.do("GET", viewsURL+"/aircraft_stats", "")
		if body := want(t, w, http.StatusServiceUnavailable); !contains(fmt.Sprint(body["detail"]), "10s", "ask for less") || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), body)
		}
	})
}

// TestOpenAPI reads the document and holds it against the routes: every operation answers, and none has an error that is
// not described.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.do("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("version is %q", doc.OpenAPI)
	}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if path == "/api/v1/streaming/updates" {
				continue // never ends by itself
			}
			target := strings.NewReplacer("{view_name}", "aircraft_stats", "{registration}", "N14228", "{registration_number}", "N14228", "{request_id}", "r1").Replace(path)
			got := r.do(strings.ToUpper(method), target, "")
			if _, ok := op.Responses[http.StatusText(got.Code)]; !ok && op.Responses[codeText(got.Code)] == nil && op.Responses["default"] == nil {
				t.Errorf("%s %s answers %d, which is not described", method, path, got.Code)
			}
		}
	}
	if len(doc.Paths) < 6 {
		t.Errorf("paths are %v", doc.Paths)
	}
}

func codeText(code int) string {
	return string(rune('0'+code/100)) + string(rune('0'+code/10%10)) + string(rune('0'+code%10))
}

// unread is an answer that its client does not take before it is told to.
type unread struct {
	*httptest.ResponseRecorder
	begun, goOn chan struct{}
	once        sync.Once
}

func (u *unread) Write(b []byte) (int, error) {
	u.once.Do(func() { close(u.begun) })
	<-u.goOn
	return u.ResponseRecorder.Write(b)
}

// TestPagesThatNobodyTakes: clients that ask for large pages and do not read them cannot make the process hold any number; small pages are
// answered all the while.
func TestPagesThatNobodyTakes(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *Config) { c.Limits.AnswersInFlight = 300 << 10 })
	when := instant("2013-01-01T10:00:00Z")
	r.store.set("aircraft_stats", []any{"BIG", int64(1), when, when}, []any{strings.Repeat("x", 100<<10), int64(2), when, when})
	goOn := make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		u := &unread{ResponseRecorder: httptest.NewRecorder(), begun: make(chan struct{}), goOn: goOn}
		all.Go(func() {
			r.api.ServeHTTP(u, httptest.NewRequestWithContext(t.Context(), "GET", "http://localhost:8080"+viewsURL+"/aircraft_stats", nil))
			if u.Code != http.StatusOK {
				t.Errorf("the page is answered %d", u.Code)
			}
		})
		<-u.begun
	}
	body := want(t, r.do("GET", viewsURL+"/aircraft_stats", ""), http.StatusServiceUnavailable)
	if detail, _ := body["detail"].(string); !strings.Contains(detail, "limit") {
		t.Errorf("the answer is %v", body)
	}
	want(t, r.do("GET", viewsURL+"/aircraft_stats?registration_number=BIG", ""), http.StatusOK)
	close(goOn)
	all.Wait()
	want(t, r.do("GET", viewsURL+"/aircraft_stats", ""), http.StatusOK)
}

// TestQueryOfAHalfClosedClient: that the query was given up with the client is not put down to the store.
func TestQueryOfAHalfClosedClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.failWith(context.Canceled)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, httptest.NewRequestWithContext(gone, "GET", "http://localhost:8080"+viewsURL+"/aircraft_stats", nil))
	if body := want(t, w, http.StatusServiceUnavailable); !strings.Contains(fmt.Sprint(body["detail"]), "keep it open") {
		t.Errorf("the answer is %v", body)
	}
}
