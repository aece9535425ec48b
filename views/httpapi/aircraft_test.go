package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"klgstream.dev/codecs"
)

// fakeRegistry is a registry in memory. While slow is set it publishes and decides nothing.
type fakeRegistry struct {
	clock *clock
	mu    sync.Mutex
	known map[string]Aircraft
	done  map[string]Outcome
	slow  bool
	fail  error
	heeds bool // the end of a request
	age   time.Duration
}

func newFakeRegistry(c *clock) *fakeRegistry {
	return &fakeRegistry{clock: c, known: map[string]Aircraft{}, done: map[string]Outcome{}}
}

func (f *fakeRegistry) List(_ context.Context, q AircraftQuery) (page []Aircraft, more bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.known {
		if (q.Exact == "" || q.Exact == a.Registration) && strings.HasPrefix(a.Registration, q.Prefix) && a.Registration > q.After && (q.Type == "" || q.Type == a.Type) {
			page = append(page, a)
		}
	}
	slices.SortFunc(page, func(a, b Aircraft) int { return strings.Compare(a.Registration, b.Registration) })
	if len(page) > q.Limit {
		return page[:q.Limit], true, f.fail
	}
	return page, false, f.fail
}

func (f *fakeRegistry) Find(_ context.Context, registration string) (Aircraft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.known[registration]
	if !ok {
		return a, errors.Join(ErrNotFound, f.fail)
	}
	return a, f.fail
}

func (f *fakeRegistry) Create(ctx context.Context, d Draft) (Aircraft, error) {
	return f.change(ctx, d, func(_ Aircraft, there bool) (int64, error) {
		if there {
			return 0, ErrTaken
		}
		return 1, nil
	})
}

func (f *fakeRegistry) Update(ctx context.Context, revision int64, d Draft) (Aircraft, error) {
	return f.change(ctx, d, func(old Aircraft, there bool) (int64, error) {
		if !there {
			return 0, ErrNotFound
		}
		if old.Revision != revision {
			return 0, ErrConflict
		}
		return revision + 1, nil
	})
}

func (f *fakeRegistry) change(ctx context.Context, d Draft, decide func(Aircraft, bool) (int64, error)) (Aircraft, error) {
	f.mu.Lock()
	slow := f.slow
	f.mu.Unlock()
	if slow {
		<-ctx.Done()
		return Aircraft{}, ErrPending
	}
	if f.heeds && ctx.Err() != nil {
		return Aircraft{}, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Aircraft{}, f.fail
	}
	old, there := f.known[d.Registration]
	revision, err := decide(old, there)
	if err != nil {
		return Aircraft{}, err
	}
	a := Aircraft{Registration: d.Registration, Type: d.Type, Revision: revision, Created: f.clock.now(), Updated: f.clock.now()}
	f.known[d.Registration], f.done[d.RequestID] = a, OutcomeApplied
	return a, nil
}

func (f *fakeRegistry) AsOf() time.Time { return f.clock.now().Add(-f.age) }

func (f *fakeRegistry) Outcome(_ context.Context, _, request string) (Outcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o, ok := f.done[request]; ok {
		return o, f.fail
	}
	return OutcomePending, f.fail
}

func withRegistry(f **fakeRegistry) func(*Config) {
	return func(c *Config) {
		*f = newFakeRegistry(newClock())
		c.Registry = *f
	}
}

func TestCreateAircraft(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	w := r.do("POST", aircraftPath, `{"registration_number":" ra/123 ","aircraft_type":"SU95"}`)
	body := want(t, w, http.StatusCreated)
	if body["registration_number"] != "RA/123" || body["aircraft_type"] != "SU95" || body["revision"] != 1.0 || w.Header().Get("ETag") != `"1"` {
		t.Errorf("answer is %v %v", w.Header(), body)
	}
	if got := want(t, r.do("GET", w.Header().Get("Location"), ""), http.StatusOK); got["id"] != "RA/123" {
		t.Errorf("location leads to %v", got)
	}
	want(t, r.do("POST", aircraftPath, `{"registration_number":"RA/123"}`), http.StatusConflict)
	want(t, r.do("POST", aircraftPath, `{"registration_number":"X1"}`), http.StatusCreated)
	for _, bad := range []string{`{"registration_number":""}`, `{"registration_number":"  "}`, `{}`, `{"registration_number":7}`, `{"registration_number":"` + strings.Repeat("x", 33) + `"}`} {
		want(t, r.do("POST", aircraftPath, bad), http.StatusUnprocessableEntity)
	}
	want(t, r.do("POST", aircraftPath, `{"registration_number"`), http.StatusBadRequest)
}

// What the decoder would refuse as an event is refused at once, instead of waited for for ever.
func TestAircraftThatIsNoEvent(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	for _, bad := range []string{
		`{"registration_number":"` + strings.Repeat("Ö", 17) + `"}`, // 34 bytes
		`{"registration_number":"N\u00001"}`,
		`{"registration_number":" / "}`, `{"registration_number":"."}`, `{"registration_number":".."}`,
		`{"registration_number":"N1","aircraft_type":"` + strings.Repeat("Ö", 33) + `"}`, // 66 bytes
	} {
		body := want(t, r.do("POST", aircraftPath, bad), http.StatusUnprocessableEntity)
		if faults, _ := body["errors"].([]any); len(faults) != 1 {
			t.Errorf("%s: faults %v, want one", bad, body)
		}
	}
	want(t, r.do("POST", aircraftPath, `{"registration_number":"`+strings.Repeat("Ö", 16)+`","aircraft_type":"`+strings.Repeat("Ö", 32)+`"}`), http.StatusCreated)
	url := aircraftPath + "/" + strings.Repeat("%C3%96", 16)
	want(t, r.do("PUT", url, `{"revision":1,"aircraft_type":"`+strings.Repeat("Ö", 33)+`"}`), http.StatusUnprocessableEntity)
	if len(registry.known) != 1 {
		t.Errorf("known are %v", registry.known)
	}
}

// TestFindAircraftAgain: who has the entry is told so.
func TestFindAircraftAgain(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	want(t, r.do("POST", aircraftPath, `{"registration_number":"N1"}`), http.StatusCreated)
	for tags, status := range map[string]int{`"1"`: 304, `W/"1"`: 304, `"7", "1"`: 304, "*": 304, `"2"`: 200, "1": 200, "": 200} {
		w := r.do("GET", aircraftPath+"/N1", "", "If-None-Match", tags)
		if want(t, w, status); (w.Body.Len() == 0) != (status == 304) || w.Header().Get("ETag") != `"1"` {
			t.Errorf("If-None-Match %s: %v %q", tags, w.Header(), w.Body)
		}
	}
}

// TestChangesOutliveTheirClient: that a client is gone, or has only closed its half, is no word about the registry.
func TestChangesOutliveTheirClient(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	send := func(method, target, body string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(gone, method, "http://localhost:8080"+target, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		r.api.ServeHTTP(w, req)
		return w
	}
	registry.heeds = true
	want(t, send("POST", aircraftPath, `{"registration_number":"N1"}`), http.StatusCreated)
	want(t, send("PUT", aircraftPath+"/N1", `{"aircraft_type":"A320","revision":1}`), http.StatusOK)
	want(t, send("GET", "/api/v1/streaming/health", ""), http.StatusOK)
}

// TestEchoIsBrief: a fault gives the value back, but not all of a body.
func TestEchoIsBrief(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	long := strings.Repeat("x", 100_000)
	for _, body := range []string{`{"registration_number":"` + long, `{"registration_number":"N1","more":"` + long + `"}`, `{"registration_number":"` + long + `"}`, `{"registration_number":["` + long + `"]}`} {
		w := r.do("POST", aircraftPath, body)
		if faults, _ := want(t, w, w.Code)["errors"].([]any); w.Code < 400 || w.Code > 422 || len(faults) == 0 || w.Body.Len() > 1000 {
			t.Errorf("%.60s… is answered %d with %d bytes: %.300s", body, w.Code, w.Body.Len(), w.Body)
		}
	}
}

// What may be left out may be null, and the document says so.
func TestNullsOfAircraft(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	want(t, r.do("POST", aircraftPath, `{"registration_number":"N1","aircraft_type":null}`), http.StatusCreated)
	want(t, r.do("PUT", aircraftPath+"/N1", `{"aircraft_type":"B738","revision":null}`), http.StatusPreconditionRequired)
	var document struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Type any }
			}
		}
	}
	if err := json.Unmarshal(r.do("GET", "/openapi.json", "").Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	for schema, property := range map[string]string{"AircraftCreateInputBody": "aircraft_type", "AircraftUpdateInputBody": "revision"} {
		if types, _ := document.Components.Schemas[schema].Properties[property].Type.([]any); !slices.Contains(types, any("null")) {
			t.Errorf("%s of %s is documented as %v", property, schema, types)
		}
	}
}

// An empty limit is none of the numbers that the document names.
func TestListAircraftWithAnEmptyLimit(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	want(t, r.do("GET", aircraftPath+"?limit=", ""), http.StatusUnprocessableEntity)
	want(t, r.do("GET", aircraftPath+"?limit=5", ""), http.StatusOK)
	want(t, r.do("GET", aircraftPath, ""), http.StatusOK)
}

// A path with a segment that no router finds is answered as the document says.
func TestPathsOfLoneSlashes(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	for _, path := range []string{"/%2F", "/%2F/requests/r", "/N1/requests/%2F"} {
		want(t, r.do("GET", aircraftPath+path, ""), http.StatusNotFound)
	}
	var document struct {
		Paths map[string]map[string]struct{ Responses map[string]any }
	}
	if err := json.Unmarshal(r.do("GET", "/openapi.json", "").Body.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	found := 0
	for path, operations := range document.Paths {
		for method, o := range operations {
			if strings.Contains(path, "{") && o.Responses["404"] == nil {
				t.Errorf("%s %s does not say 404", method, path)
			}
			found++
		}
	}
	if found < 10 {
		t.Errorf("%d operations", found)
	}
}

func TestCreateAircraftThatIsNotDecided(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var registry *fakeRegistry
		r := newRig(t, withRegistry(&registry))
		registry.slow = true
		w := r.do("POST", aircraftPath, `{"registration_number":"N1"}`)
		body := want(t, w, http.StatusAccepted)
		status := w.Header().Get("Location")
		if body["outcome"] != "pending" || body["status_url"] != status {
			t.Fatalf("answer is %v, location %q", body, status)
		}
		if got := want(t, r.do("GET", status, ""), http.StatusOK); got["outcome"] != "pending" {
			t.Errorf("outcome is %v", got)
		}
		request, _ := body["request_id"].(string)
		registry.done[request] = OutcomeRefused
		if got := want(t, r.do("GET", status, ""), http.StatusOK); got["outcome"] != "refused" {
			t.Errorf("outcome is %v", got)
		}
	})
}

func TestUpdateAircraft(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	want(t, r.do("POST", aircraftPath, `{"registration_number":"N1"}`), http.StatusCreated)
	url := aircraftPath + "/n1"
	want(t, r.do("PUT", url, `{"aircraft_type":"B738"}`), http.StatusPreconditionRequired)
	want(t, r.do("PUT", url, `{"aircraft_type":"B738"}`, "If-Match", `"7"`), http.StatusPreconditionFailed)
	want(t, r.do("PUT", url, `{"aircraft_type":"B738"}`, "If-Match", "what"), http.StatusPreconditionFailed)
	w := r.do("PUT", url, `{"aircraft_type":"B738"}`, "If-Match", `"1"`)
	if body := want(t, w, http.StatusOK); body["aircraft_type"] != "B738" || w.Header().Get("ETag") != `"2"` {
		t.Errorf("answer is %v", body)
	}
	want(t, r.do("PUT", url, `{"aircraft_type":"A320","revision":2}`), http.StatusOK)
	for _, c := range []struct {
		tags, body string
		status     int
	}{ // it has revision 3
		{`W/"3"`, `{"aircraft_type":"A"}`, 412},
		{`"3"`, `{"aircraft_type":"A","revision":2}`, 412},
		{`*`, `{"aircraft_type":"A","revision":2}`, 412},
		{`"1", "2"`, `{"aircraft_type":"A"}`, 412},
		{`"1", "3"`, `{"aircraft_type":"A"}`, 200},
		{`*`, `{"aircraft_type":"A"}`, 200},
		{`*`, `{"aircraft_type":"A","revision":5}`, 200},
		{``, `{"aircraft_type":"A","revision":99999999999999999999}`, 422},
	} {
		w := r.do("PUT", url, c.body, "If-Match", c.tags)
		if want(t, w, c.status); strings.Contains(w.Body.String(), "Go struct") {
			t.Errorf("the answer is for who knows the code: %s", w.Body)
		}
	}
	want(t, r.do("PUT", aircraftPath+"/N2", `{"aircraft_type":"A"}`, "If-Match", "*"), http.StatusNotFound)
	want(t, r.do("PUT", url, `{"aircraft_type":"A320","revision":2}`), http.StatusPreconditionFailed)
	want(t, r.do("PUT", aircraftPath+"/N2", `{"aircraft_type":"A320","revision":2}`), http.StatusNotFound)
}

func TestListAircraft(t *testing.T) {
	t.Parallel()
	var registry *fakeRegistry
	r := newRig(t, withRegistry(&registry))
	for _, n := range []string{"N3", "N1", "X9", "N2"} {
		want(t, r.do("POST", aircraftPath, `{"registration_number":"`+n+`","aircraft_type":"T"}`), http.StatusCreated)
	}
	body := want(t, r.do("GET", aircraftPath+"?registration_number.prefix=n&limit=2", ""), http.StatusOK)
	if list, _ := body["aircraft"].([]any); len(list) != 2 || body["next"] != "N2" {
		t.Fatalf("page is %v", body)
	}
	body = want(t, r.do("GET", aircraftPath+"?registration_number.prefix=n&limit=2&cursor=N2", ""), http.StatusOK)
	if list, _ := body["aircraft"].([]any); len(list) != 1 || body["next"] != nil {
		t.Errorf("second page is %v", body)
	}
	body = want(t, r.do("GET", aircraftPath+"?registration_number=n2", ""), http.StatusOK)
	if list, _ := body["aircraft"].([]any); len(list) != 1 {
		t.Errorf("of one aircraft there is %v", body)
	}
	want(t, r.do("GET", aircraftPath+"?registration=n2", ""), http.StatusUnprocessableEntity)
	want(t, r.do("GET", aircraftPath+"?limit=0", ""), http.StatusUnprocessableEntity)
	want(t, r.do("GET", aircraftPath+"/nope", ""), http.StatusNotFound)
	registry.age = 75 * time.Second
	for _, path := range []string{aircraftPath, aircraftPath + "/N1", aircraftPath + "/N1/requests/r"} {
		if got := r.do("GET", path, "").Header().Get("Age"); got != "75" {
			t.Errorf("%s is %q seconds old", path, got)
		}
	}
	registry.fail = errors.New("recovering")
	want(t, r.do("GET", aircraftPath, ""), http.StatusServiceUnavailable)
	want(t, newRig(t).do("GET", aircraftPath, ""), http.StatusServiceUnavailable)
}

type fakeLive map[string][]codecs.Window

func (f fakeLive) Windows(_ context.Context, registration string) ([]codecs.Window, error) {
	if w, ok := f[registration]; ok {
		return w, nil
	}
	return nil, ErrNotFound
}

func (fakeLive) AsOf() time.Time { return instant("2100-03-01T11:58:30Z") }

func TestLiveWindows(t *testing.T) {
	t.Parallel()
	start := instant("2013-01-01T10:00:00Z").UnixMilli()
	open := codecs.Window{Registration: "N1", Definition: "tumbling:1h", Kind: "tumbling", Start: start, End: start + 3_600_000, Count: 3, Revision: 6}
	open.Types = []codecs.TypeCount{{Type: "departed", Count: 2}, {Type: "landed", Count: 1}}
	r := newRig(t, func(c *Config) { c.Live = fakeLive{"N1": {open}} })
	answer := r.do("GET", "/api/v1/streaming/live/n1", "")
	body := want(t, answer, http.StatusOK)
	if body["at"] != "2100-03-01T11:58:30.000Z" || body["age_seconds"] != 90.0 || answer.Header().Get("Age") != "90" {
		t.Errorf("they are as of %v, %q seconds old", body["at"], answer.Header().Get("Age"))
	}
	list, _ := body["windows"].([]any)
	if len(list) != 1 {
		t.Fatalf("windows are %v", body)
	}
	w, _ := list[0].(map[string]any)
	types, _ := w["event_types"].(map[string]any)
	if w["event_count"] != 3.0 || w["window_start"] != "2013-01-01T10:00:00.000Z" || types["departed"] != 2.0 || w["aircraft_id"] != nil {
		t.Errorf("window is %v", w)
	}
	body = want(t, r.do("GET", "/api/v1/streaming/live/N2", ""), http.StatusOK)
	if list, ok := body["windows"].([]any); !ok || len(list) != 0 {
		t.Errorf("windows of an unknown aircraft are %v", body)
	}
	want(t, newRig(t).do("GET", "/api/v1/streaming/live/N1", ""), http.StatusServiceUnavailable)
}
