package httpapi

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"klgstream.dev/codecs"
)

// aircraftEntry is one entry of the registry as clients see it.
type aircraftEntry struct {
	ID           string `json:"id" doc:"The registration number, by which the entry is addressed"`
	Registration string `json:"registration_number" example:"N14228"`
	Type         string `json:"aircraft_type" doc:"Empty if unknown" example:"B738"`
	AircraftID   *int64 `json:"aircraft_id" nullable:"true" doc:"Number given by the producers; null if none was"`
	Revision     int64  `json:"revision" doc:"Grows with every change; also the ETag"`
	Created      string `json:"created_at" format:"date-time"`
	Updated      string `json:"updated_at" format:"date-time"`
}

func entryOf(a Aircraft) aircraftEntry {
	e := aircraftEntry{
		ID: a.Registration, Registration: a.Registration, Type: a.Type, Revision: a.Revision,
		Created: a.Created.UTC().Format(stampLayout), Updated: a.Updated.UTC().Format(stampLayout),
	}
	if a.HasID {
		e.AircraftID = &a.AircraftID
	}
	return e
}

type aircraftListInput struct {
	Exact  string `query:"registration_number" maxLength:"32" doc:"Registration number, exactly"`
	Prefix string `query:"registration_number.prefix" maxLength:"32" doc:"Beginning of the registration number"`
	Type   string `query:"aircraft_type" maxLength:"64" doc:"Aircraft type, exactly"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Entries of the page"`
	Cursor string `query:"cursor" maxLength:"32" doc:"next of the page before"`
}

var _ huma.Resolver = (*aircraftListInput)(nil)

// Resolve refuses an empty limit, which huma takes for none.
func (*aircraftListInput) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	if q := u.Query(); q.Has("limit") && q.Get("limit") == "" {
		return []error{fault("query.limit", "must be a number, is empty", "")}
	}
	return nil
}

type aircraftListOutput struct {
	CacheControl string `header:"Cache-Control"`
	Age          string `header:"Age" doc:"Seconds since the registry's state was seen to be the newest"`
	Body         struct {
		Aircraft []aircraftEntry `json:"aircraft" nullable:"false" doc:"By registration number"`
		Next     *string         `json:"next" nullable:"true" doc:"Cursor of the next page; null on the last"`
	}
}

type aircraftInput struct {
	ID string `path:"registration_number" minLength:"1" maxLength:"32" doc:"Registration number" example:"N14228"`
}

type aircraftFindInput struct {
	ID          string `path:"registration_number" minLength:"1" maxLength:"32" doc:"Registration number" example:"N14228"`
	IfNoneMatch string `header:"If-None-Match" doc:"ETag of the entry the client has"`
}

type aircraftOutput struct {
	Status       int
	ETag         string `header:"ETag"`
	CacheControl string `header:"Cache-Control"`
	Age          string `header:"Age" doc:"Seconds since the registry's state was seen to be the newest"`
	Body         aircraftEntry
}

type aircraftCreateInput struct {
	Body struct {
		Registration string  `json:"registration_number" minLength:"1" maxLength:"32" doc:"Trimmed and upper-cased" example:"N14228"`
		Type         *string `json:"aircraft_type,omitempty" maxLength:"64" nullable:"true" doc:"Type of the aircraft; null is as good as none" example:"B738"`
	}
}

type aircraftUpdateInput struct {
	ID      string `path:"registration_number" minLength:"1" maxLength:"32" doc:"Registration number" example:"N14228"`
	IfMatch string `header:"If-Match" doc:"ETag of the entry the change is based on, several of them, or * for any; or say revision in the body"`
	Body    struct {
		Type     string `json:"aircraft_type" maxLength:"64" doc:"New type of the aircraft"`
		Revision int64  `json:"revision,omitempty" minimum:"1" maximum:"9007199254740991" nullable:"true" doc:"Revision the change is based on; or send If-Match"`
	}
}

// aircraftChanged is the answer to a change: the entry, or where to ask for the outcome.
type aircraftChanged struct {
	Status     int
	Location   string `header:"Location" doc:"The entry, or the request's outcome"`
	ETag       string `header:"ETag"`
	RetryAfter string `header:"Retry-After"`
	Body       any
}

type requestInput struct {
	ID      string `path:"registration_number" minLength:"1" maxLength:"32" doc:"Registration number" example:"N14228"`
	Request string `path:"request_id" minLength:"1" maxLength:"64"`
}

type requestOutcome struct {
	Request      string  `json:"request_id"`
	Registration string  `json:"registration_number"`
	Outcome      Outcome `json:"outcome" enum:"pending,applied,refused" doc:"pending also if the registry never heard of the request"`
	StatusURL    string  `json:"status_url"`
}

type requestOutput struct {
	CacheControl string `header:"Cache-Control"`
	Age          string `header:"Age" doc:"Seconds since the registry's state was seen to be the newest"`
	Body         requestOutcome
}

const aircraftPath = "/api/v1/aircraft"

func (a *API) routeAircraft(api huma.API) {
	tags := []string{"aircraft"}
	errs := func(more ...int) []int { return append(a.commonErrors(), more...) }
	changed := func(status, what string) map[string]*huma.Response {
		return map[string]*huma.Response{
			status: {Description: what, Content: jsonContent(api, aircraftEntry{})},
			"202":  {Description: "The registry has not decided yet", Content: jsonContent(api, requestOutcome{})},
		}
	}
	huma.Register(api, huma.Operation{
		OperationID: "list-aircraft", Method: http.MethodGet, Path: aircraftPath, Tags: tags, Errors: errs(), RejectUnknownQueryParameters: true,
		Summary: "List aircraft", Description: "The registry's entries, by registration number.",
	}, a.listAircraft)
	huma.Register(api, huma.Operation{
		OperationID: "get-aircraft", Method: http.MethodGet, Path: aircraftPath + "/{registration_number}", Tags: tags, Errors: errs(404),
		Summary: "One aircraft", Responses: map[string]*huma.Response{
			"200": {Description: "The entry", Content: jsonContent(api, aircraftEntry{})}, "304": {Description: "The entry is the one the client has"},
		},
	}, a.findAircraft)
	huma.Register(api, huma.Operation{
		OperationID: "create-aircraft", Method: http.MethodPost, Path: aircraftPath, Tags: tags, Errors: errs(400, 409, 413, 415), DefaultStatus: http.StatusCreated,
		Summary: "Create an aircraft", Responses: changed("201", "Created"),
		Description: "Publishes a created event and answers 201 when the registry has taken it. Of two requests for one registration the first in the log wins, the other gets 409. " +
			"If the registry takes longer than " + plain(a.limits.DecideTimeout) + " the answer is 202 with a link to the outcome.",
	}, a.createAircraft)
	huma.Register(api, huma.Operation{
		OperationID: "update-aircraft", Method: http.MethodPut, Path: aircraftPath + "/{registration_number}", Tags: tags, Errors: errs(400, 404, 412, 413, 415, 428), DefaultStatus: http.StatusOK,
		Summary: "Change an aircraft", Responses: changed("200", "Changed"),
		Description: "Publishes an updated event if the entry still has the revision the client knows, else answers 412.",
	}, a.updateAircraft)
	huma.Register(api, huma.Operation{
		OperationID: "get-aircraft-request", Method: http.MethodGet, Path: aircraftPath + "/{registration_number}/requests/{request_id}", Tags: tags, Errors: errs(404),
		Summary: "Outcome of a request", Description: "What became of a request that was answered with 202.",
	}, a.aircraftRequest)
	huma.Register(api, huma.Operation{
		OperationID: "get-live-windows", Method: http.MethodGet, Path: "/api/v1/streaming/live/{registration_number}", Tags: []string{"views"}, Errors: errs(404),
		Summary: "Open windows of an aircraft", Description: "Straight from the processor's state, so also what the store does not have yet. Newest first; empty if there are none.",
	}, a.liveWindows)
}

// canonical is a registration number as events are keyed by it.
func canonical(registration string) string { return strings.ToUpper(strings.TrimSpace(registration)) }

func (a *API) listAircraft(ctx context.Context, in *aircraftListInput) (*aircraftListOutput, error) {
	if a.cfg.Registry == nil {
		return nil, unavailable("this process has no aircraft registry")
	}
	asOf := a.cfg.Registry.AsOf()
	page, more, err := a.cfg.Registry.List(ctx, AircraftQuery{Exact: canonical(in.Exact), Prefix: canonical(in.Prefix), Type: in.Type, After: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, a.registryProblem(ctx, "list aircraft", err)
	}
	out := &aircraftListOutput{CacheControl: "no-store", Age: a.age(asOf)}
	out.Body.Aircraft = make([]aircraftEntry, len(page))
	for i := range page {
		out.Body.Aircraft[i] = entryOf(page[i])
	}
	if more && len(page) > 0 {
		out.Body.Next = &page[len(page)-1].Registration
	}
	return out, nil
}

func (a *API) findAircraft(ctx context.Context, in *aircraftFindInput) (*aircraftOutput, error) {
	if a.cfg.Registry == nil {
		return nil, unavailable("this process has no aircraft registry")
	}
	asOf := a.cfg.Registry.AsOf()
	entry, err := a.cfg.Registry.Find(ctx, canonical(in.ID))
	if err != nil {
		return nil, a.registryProblem(ctx, "find aircraft", err)
	}
	out := &aircraftOutput{Status: http.StatusOK, ETag: revisionTag(entry.Revision), CacheControl: "no-cache", Age: a.age(asOf), Body: entryOf(entry)}
	if matches(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
	}
	return out, nil
}

func (a *API) createAircraft(ctx context.Context, in *aircraftCreateInput) (*aircraftChanged, error) {
	if a.cfg.Registry == nil {
		return nil, unavailable("this process has no aircraft registry")
	}
	d := Draft{Registration: canonical(in.Body.Registration), RequestID: rand.Text()}
	if in.Body.Type != nil {
		d.Type = strings.TrimSpace(*in.Body.Type)
	}
	if p := unacceptable(d); p != nil {
		return nil, p
	}
	decided, cancel := a.decide(ctx)
	defer cancel()
	entry, err := a.cfg.Registry.Create(decided, d)
	return a.changed(ctx, http.StatusCreated, d, entry, err)
}

// unacceptable is what is wrong with a draft, nil if nothing: it becomes an event, so the decoder of events is the judge, and what
// it or the registry would refuse would never be decided.
func unacceptable(d Draft) *huma.ErrorModel {
	e := codecs.Event{Registration: []byte(d.Registration), Type: []byte("created")}
	var c checker
	c.event(0, e.AppendJSON(nil, nil))
	if len(d.Type) > codecs.MaxAircraftTypeBytes {
		c.faults = append(c.faults, fault("body.aircraft_type", "must have at most "+strconv.Itoa(codecs.MaxAircraftTypeBytes)+" bytes, has "+strconv.Itoa(len(d.Type)), nil))
	}
	switch d.Registration {
	case "/", ".", "..": // no router finds such a segment of a path, escaped or not
		c.faults = append(c.faults, fault("body.registration_number", "must be more than "+strconv.Quote(d.Registration)+": the entry would have no address", d.Registration))
	}
	if len(c.faults) == 0 {
		return nil
	}
	return problem(http.StatusUnprocessableEntity, "the aircraft is not acceptable", c.faults...)
}

func (a *API) updateAircraft(ctx context.Context, in *aircraftUpdateInput) (*aircraftChanged, error) {
	if a.cfg.Registry == nil {
		return nil, unavailable("this process has no aircraft registry")
	}
	revision, err := a.basedOn(ctx, in)
	if err != nil {
		return nil, err
	}
	d := Draft{Registration: canonical(in.ID), Type: strings.TrimSpace(in.Body.Type), RequestID: rand.Text()}
	if p := unacceptable(d); p != nil {
		return nil, p
	}
	decided, cancel := a.decide(ctx)
	defer cancel()
	entry, err := a.cfg.Registry.Update(decided, revision, d)
	return a.changed(ctx, http.StatusOK, d, entry, err)
}

// basedOn is the revision that a change is based on.
func (a *API) basedOn(ctx context.Context, in *aircraftUpdateInput) (int64, error) {
	said := in.Body.Revision
	if in.IfMatch == "" {
		if said == 0 {
			return 0, problem(http.StatusPreconditionRequired, "say which revision the change is based on: send If-Match with the entry's ETag, or revision")
		}
		return said, nil
	}
	if n, err := strconv.ParseInt(strings.Trim(in.IfMatch, `"`), 10, 64); err == nil && (said == 0 || said == n) {
		return n, nil // whether it still has that one, the registry decides
	}
	entry, err := a.cfg.Registry.Find(ctx, canonical(in.ID))
	if err != nil {
		return 0, a.registryProblem(ctx, "find aircraft", err)
	}
	for tag := range strings.SplitSeq(in.IfMatch, ",") {
		if tag = strings.TrimSpace(tag); (tag == "*" || tag == revisionTag(entry.Revision)) && (said == 0 || said == entry.Revision) {
			return entry.Revision, nil
		}
	}
	return 0, problem(http.StatusPreconditionFailed, "If-Match is not the entry's ETag", fault("header.If-Match", "must be the ETag of the entry", in.IfMatch))
}

// decide bounds how long a decision is waited for. That the client leaves, or has only closed its half, does not end it: what it asked
// for may be in the log already.
func (a *API) decide(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), a.limits.DecideTimeout)
}

// changed answers for what the registry said to a change.
func (a *API) changed(ctx context.Context, status int, d Draft, entry Aircraft, err error) (*aircraftChanged, error) {
	entryURL := aircraftPath + "/" + url.PathEscape(d.Registration)
	if errors.Is(err, ErrPending) {
		statusURL := entryURL + "/requests/" + d.RequestID
		return &aircraftChanged{
			Status: http.StatusAccepted, Location: statusURL, RetryAfter: "1",
			Body: requestOutcome{d.RequestID, d.Registration, OutcomePending, statusURL},
		}, nil
	}
	if err != nil {
		return nil, a.registryProblem(ctx, "change aircraft", err)
	}
	return &aircraftChanged{Status: status, Location: entryURL, ETag: revisionTag(entry.Revision), Body: entryOf(entry)}, nil
}

func revisionTag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

func (a *API) aircraftRequest(ctx context.Context, in *requestInput) (*requestOutput, error) {
	if a.cfg.Registry == nil {
		return nil, unavailable("this process has no aircraft registry")
	}
	registration := canonical(in.ID)
	asOf := a.cfg.Registry.AsOf()
	outcome, err := a.cfg.Registry.Outcome(ctx, registration, in.Request)
	if err != nil {
		return nil, a.registryProblem(ctx, "ask outcome of a request", err)
	}
	at := aircraftPath + "/" + url.PathEscape(registration) + "/requests/" + url.PathEscape(in.Request)
	return &requestOutput{CacheControl: "no-store", Age: a.age(asOf), Body: requestOutcome{in.Request, registration, outcome, at}}, nil
}

// age is how old what was read from a group table is, in seconds; empty if that is not known.
func (a *API) age(asOf time.Time) string {
	if asOf.IsZero() {
		return ""
	}
	return strconv.FormatInt(a.seconds(asOf), 10)
}

// seconds are those that have passed since then.
func (a *API) seconds(then time.Time) int64 { return max(0, int64(a.cfg.Now().Sub(then)/time.Second)) }

// registryProblem answers for an error of the registry.
func (a *API) registryProblem(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return problem(http.StatusNotFound, "no aircraft has this registration number")
	case errors.Is(err, ErrTaken):
		return problem(http.StatusConflict, "this registration number is taken", fault("body.registration_number", "is taken", nil))
	case errors.Is(err, ErrConflict):
		return problem(http.StatusPreconditionFailed, "the aircraft was changed meanwhile: get it again")
	}
	if ctx.Err() == nil {
		a.log.Warn("aircraft registry", "request", what, "error", err)
	}
	return unavailable("the aircraft registry does not answer")
}

// liveWindow is one open window.
type liveWindow struct {
	Definition string           `json:"window_definition" example:"tumbling:1h"`
	Kind       string           `json:"window_kind" example:"tumbling"`
	Start      string           `json:"window_start" format:"date-time"`
	End        string           `json:"window_end" format:"date-time"`
	Count      int64            `json:"event_count"`
	Types      map[string]int64 `json:"event_types" nullable:"false" doc:"Events by type"`
	First      string           `json:"first_event_time" format:"date-time"`
	Last       string           `json:"last_event_time" format:"date-time"`
	LastType   string           `json:"last_event_type"`
	AircraftID *int64           `json:"aircraft_id" nullable:"true"`
	Revision   int64            `json:"revision"`
}

type liveOutput struct {
	CacheControl string `header:"Cache-Control"`
	Age          string `header:"Age" doc:"Seconds since then"`
	Body         struct {
		Registration string       `json:"registration_number"`
		At           *string      `json:"at" format:"date-time" nullable:"true" doc:"Everything the processor had written by then is in the answer; null if that is not known. Old while the broker is away"`
		Age          *int64       `json:"age_seconds" nullable:"true" doc:"How long ago that was"`
		Windows      []liveWindow `json:"windows" nullable:"false" doc:"Open windows, newest first"`
	}
}

func (a *API) liveWindows(ctx context.Context, in *aircraftInput) (*liveOutput, error) {
	if a.cfg.Live == nil {
		return nil, unavailable("this process does not see open windows")
	}
	registration := canonical(in.ID)
	asOf := a.cfg.Live.AsOf()
	open, err := a.cfg.Live.Windows(ctx, registration)
	if err != nil && !errors.Is(err, ErrNotFound) {
		if ctx.Err() == nil {
			a.log.Warn("read open windows", "error", err)
		}
		return nil, unavailable("the processor's state cannot be read now")
	}
	out := &liveOutput{CacheControl: "no-store", Age: a.age(asOf)}
	out.Body.Registration = registration
	if !asOf.IsZero() {
		out.Body.At, out.Body.Age = new(asOf.UTC().Format(stampLayout)), new(a.seconds(asOf))
	}
	out.Body.Windows = make([]liveWindow, len(open))
	for i := range open {
		out.Body.Windows[i] = liveOf(&open[i])
	}
	return out, nil
}

func liveOf(w *codecs.Window) liveWindow {
	v := liveWindow{
		Definition: w.Definition, Kind: w.Kind, Start: ms(w.Start), End: ms(w.End), Count: w.Count, Types: make(map[string]int64, len(w.Types)),
		First: ms(w.First), Last: ms(w.Last), LastType: w.LastType, Revision: w.Revision,
	}
	for _, t := range w.Types {
		v.Types[t.Type] += t.Count
	}
	if w.HasAircraftID {
		v.AircraftID = &w.AircraftID
	}
	return v
}

func ms(t int64) string { return time.UnixMilli(t).UTC().Format(stampLayout) }
