package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"klgstream.dev/codecs"
)

// receipt is the answer to accepted events.
type receipt struct {
	Accepted int `json:"accepted" doc:"Events the broker has acknowledged" example:"1" minimum:"1"`
}

// publishLimit is for how many times the patience of a client the publisher's answer is waited for. By then it has one.
const publishLimit = 5

// taken is what became of the events of one request.
type taken struct {
	first   *attempt // not nil: it is to be settled
	answer  receipt
	problem *huma.ErrorModel
	sure    bool         // the broker has acknowledged the events
	later   <-chan error // not nil: it still may; this tells
}

// postEvents takes one event or an array of them.
func (a *API) postEvents(w http.ResponseWriter, r *http.Request) {
	body, size, p := a.readBody(w, r)
	if p != nil {
		writeProblem(w, p)
		return
	}
	t := &taken{}
	// Also when the handler panics: a key nobody can use again would be worse than an event sent twice.
	defer func() { a.finish(t, size) }()
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		a.once(w, r, key, body, t)
		return
	}
	a.takeEvents(w, r, body, t)
	reply(w, t.answer, t.problem)
}

// finish lets the body go and settles the attempt, once it is known what became of the events.
func (a *API) finish(t *taken, size int64) {
	end := func(acknowledged bool) {
		if t.first != nil {
			a.repeat.settle(t.first, acknowledged, t.answer)
		}
		a.bodies.Release(size)
	}
	if t.later == nil {
		end(t.sure)
		return
	}
	go func() { end(<-t.later == nil) }() // it ends with the call of the publisher
}

func reply(w http.ResponseWriter, answer receipt, p *huma.ErrorModel) {
	if p != nil {
		writeProblem(w, p)
		return
	}
	raw := make([]byte, 0, 32)
	raw = append(strconv.AppendInt(append(raw, `{"accepted":`...), int64(answer.Accepted), 10), "}\n"...)
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(raw))}
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(raw)
}

var jsonType = []string{formJSON}

// once takes the events of a request with an Idempotency-Key, unless it did before.
func (a *API) once(w http.ResponseWriter, r *http.Request, key string, body []byte, t *taken) {
	if len(key) > 255 {
		writeProblem(w, problem(http.StatusUnprocessableEntity, "request is not acceptable",
			fault("header.Idempotency-Key", "must have at most 255 bytes, has "+strconv.Itoa(len(key)), nil)))
		return
	}
	verdict, first := a.repeat.begin(exchangeOf(w).client(), key, body)
	switch verdict {
	case verdictRepeat:
		w.Header().Set("Idempotency-Replayed", "true")
		answer, _ := first.answer.(receipt)
		a.metrics.repeated.Add(float64(answer.Accepted))
		reply(w, answer, nil)
	case verdictBusy:
		writeProblem(w, busy(w, http.StatusConflict, time.Second, "the first request with this Idempotency-Key is still under way"))
	case verdictMisuse:
		writeProblem(w, problem(http.StatusUnprocessableEntity, "this Idempotency-Key was used with another body"))
	case verdictFull:
		writeProblem(w, busy(w, http.StatusServiceUnavailable, time.Second, "too many requests with an Idempotency-Key are under way"))
	case verdictFirst:
		t.first = first
		a.takeEvents(w, r, body, t)
		reply(w, t.answer, t.problem)
	}
}

// intake is what one request's events need, used again for the next one's.
type intake struct {
	parts  [][]byte
	events []Event
	check  checker
	post   post
}

// maxKept is the largest number of events an intake is kept for.
const maxKept = 1024

func (a *API) newIntake() *intake {
	if in, ok := a.intakes.Get().(*intake); ok {
		return in
	}
	return &intake{check: checker{decoder: codecs.Decoder{Zone: a.cfg.Zone}}, post: post{done: make(chan error, 1)}}
}

// keep gives an intake back. The caller makes sure that nobody else holds its events.
func (a *API) keep(in *intake) {
	if cap(in.events) > maxKept {
		return
	}
	clear(in.parts)
	clear(in.events)
	in.parts, in.events, in.post.events = in.parts[:0], in.events[:0], nil
	in.check.faults, in.check.batch = nil, false
	a.intakes.Put(in)
}

// takeEvents checks and publishes a body.
func (a *API) takeEvents(w http.ResponseWriter, r *http.Request, body []byte, t *taken) {
	in := a.newIntake()
	if t.problem = in.decode(body, a.limits.BatchEvents); t.problem != nil {
		a.metrics.refused.Add(float64(max(1, len(in.parts))))
		a.keep(in)
		return
	}
	t.answer.Accepted = len(in.events)
	in.post.events = in.events
	if err := a.commit.publish(r.Context(), &in.post); err != nil {
		a.metrics.failed.Add(float64(len(in.events))) // the publisher may hold the events still: they are not used again
		t.problem = a.publishProblem(w, err)
		if errors.Is(err, errSlow) {
			t.later = in.post.done
		}
		return
	}
	a.metrics.accepted.Add(float64(len(in.events)))
	a.keep(in)
	t.sure = true
}

func (a *API) publishProblem(w http.ResponseWriter, err error) *huma.ErrorModel {
	if errors.Is(err, errBusy) {
		return busy(w, http.StatusServiceUnavailable, time.Second, "too many events wait for the broker; nothing was published")
	}
	a.log.Warn("publish posted events", "error", err)
	if errors.Is(err, errSlow) {
		return busy(w, http.StatusServiceUnavailable, 5*time.Second,
			"the broker has not acknowledged the events in time; they may still be published: with the same Idempotency-Key they can be sent again, without one they may be there twice then")
	}
	return busy(w, http.StatusServiceUnavailable, 5*time.Second,
		"the broker has not taken the events; of several some may be published, and would be there twice if they are sent again")
}

// readBody reads a JSON body within the limits. When it returns no problem, the caller releases the bytes that are set aside for it.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) (body []byte, size int64, p *huma.ErrorModel) {
	if t := r.Header.Get("Content-Type"); t != "" && t != "application/json" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return nil, 0, problem(http.StatusUnsupportedMediaType, "send Content-Type: application/json")
		}
	}
	if r.ContentLength > a.limits.BodyBytes {
		return nil, 0, a.tooLarge()
	}
	body, size, err := a.readAll(http.MaxBytesReader(w, r.Body, a.limits.BodyBytes), r.ContentLength)
	if err == nil {
		return body, size, nil
	}
	a.bodies.Release(size)
	if errors.Is(err, errNoRoom) {
		return nil, 0, busy(w, http.StatusServiceUnavailable, time.Second, "too many bytes are under way")
	}
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, 0, a.tooLarge()
	}
	return nil, 0, problem(http.StatusBadRequest, "the body ends too early or came too slowly")
}

func (a *API) tooLarge() *huma.ErrorModel {
	return problem(http.StatusRequestEntityTooLarge, "the body must have at most "+strconv.FormatInt(a.limits.BodyBytes, 10)+" bytes")
}

// firstRoom is how many bytes are set aside for a body before any of it has come. Announcing more costs a client nothing, so that for more it
// has to send what there is room for.
const firstRoom = 128 << 10

var errNoRoom = errors.New("no room for more bytes")

// readAll reads a body of a length, negative if that is not told, and sets the bytes aside that it takes as they come.
func (a *API) readAll(r io.Reader, length int64) (body []byte, size int64, err error) {
	most := a.limits.BodyBytes
	if length >= 0 {
		most = length
	}
	for {
		room := min(most, max(firstRoom, 4*size))
		if !a.bodies.TryAcquire(room - size) {
			return nil, size, errNoRoom
		}
		body, size = append(make([]byte, 0, room), body...), room
		if body, err = fill(r, body); errors.Is(err, io.EOF) && (length < 0 || int64(len(body)) == length) {
			return body, size, nil
		}
		if err == nil && int64(len(body)) == most {
			err = a.ended(r, length)
			return body, size, err
		}
		if err != nil {
			return nil, size, err
		}
	}
}

// fill reads until there is no room in b, or an error. io.EOF is the end of what was sent whole; a body that was cut off ends otherwise.
func fill(r io.Reader, b []byte) ([]byte, error) {
	for len(b) < cap(b) {
		n, err := r.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; err != nil {
			return b, err
		}
	}
	return b, nil
}

// ended looks, where a body's length was not told, whether something follows.
func (a *API) ended(r io.Reader, length int64) error {
	if length >= 0 {
		return nil
	}
	_, err := fill(r, make([]byte, 0, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err // of http.MaxBytesReader
}

// decode cuts a body into events and checks every one of them (H2).
func (in *intake) decode(body []byte, limit int) *huma.ErrorModel {
	var err error
	if in.parts, in.check.batch, err = split(in.parts, body, limit); err != nil {
		return splitProblem(err)
	}
	if len(in.parts) == 0 {
		return problem(http.StatusUnprocessableEntity, "events are not acceptable", fault("body", "must have at least one event", nil))
	}
	in.events = slices.Grow(in.events, len(in.parts))
	for i, part := range in.parts {
		in.events = append(in.events, Event{Key: in.check.event(i, part), Value: part})
	}
	if len(in.check.faults) > 0 {
		return problem(http.StatusUnprocessableEntity, "events are not acceptable; none was published", in.check.faults...)
	}
	return nil
}

func splitProblem(err error) *huma.ErrorModel {
	if s, ok := errors.AsType[*syntaxError](err); ok {
		return problem(http.StatusBadRequest, "the body is not valid JSON", fault("body", s.Error(), nil))
	}
	return problem(http.StatusUnprocessableEntity, "events are not acceptable", fault("body", err.Error(), nil))
}

// checker decodes events and gathers their faults.
type checker struct {
	decoder codecs.Decoder
	batch   bool
	scratch codecs.Event
	faults  []*huma.ErrorDetail
}

// event returns the key of event i, "" if it has faults.
func (c *checker) event(i int, data []byte) string {
	err := c.decoder.Decode(&c.scratch, data)
	if err == nil {
		return string(c.scratch.Registration)
	}
	place := "body"
	if c.batch {
		place = "body[" + strconv.Itoa(i) + "]"
	}
	found, ok := errors.AsType[*codecs.FieldError](err)
	if !ok {
		c.faults = append(c.faults, fault(place, err.Error(), nil))
		return ""
	}
	c.add(place, found)
	if len(c.faults) <= maxFaults {
		c.others(place, found.Field, data)
	}
	return ""
}

func (c *checker) add(place string, e *codecs.FieldError) {
	if e.Field != "" {
		place += "." + e.Field
	}
	var value any
	if e.Value != "" {
		value = e.Value
	}
	message := e.Reason
	if e.Limit != "" {
		message += ": must be " + e.Limit
	}
	if e.Field == "" && e.Offset >= 0 {
		message += " (byte " + strconv.Itoa(e.Offset) + ")"
	}
	c.faults = append(c.faults, fault(place, message, value))
}

// others finds what else is wrong with an event whose first fault is known: each field is put alone beside good ones,
// so that the decoder stays the only judge.
func (c *checker) others(place, known string, data []byte) {
	var members map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil {
		return // not an object: there are no fields
	}
	for _, f := range fields {
		if f.snake == known {
			continue
		}
		if e, ok := errors.AsType[*codecs.FieldError](c.decoder.Decode(&c.scratch, f.probe(members))); ok && e.Field == f.snake {
			c.add(place, e)
		}
	}
}

// field is one field of an event in both spellings, and a value that is always good.
type field struct{ snake, camel, good string }

var fields = [...]field{
	{"event_type", "eventType", `"x"`},
	{"aircraft_id", "aircraftId", `1`},
	{"registration_number", "registrationNumber", `"x"`},
	{"timestamp", "timestamp", `"2000-01-01T00:00:00Z"`},
}

// probe is an event that has the client's value in this field only.
func (f *field) probe(members map[string]json.RawMessage) []byte {
	event := make(map[string]json.RawMessage, len(fields))
	for _, other := range fields {
		event[other.snake] = json.RawMessage(other.good)
	}
	delete(event, f.snake)
	for _, name := range []string{f.snake, f.camel} {
		if value, ok := members[name]; ok {
			event[name] = value
		}
	}
	raw, err := json.Marshal(event)
	if err != nil {
		return nil
	}
	return raw
}

// routeEvents registers the route past huma's reflection: it is the one that must be fast.
func (a *API) routeEvents(api huma.API) {
	op := &huma.Operation{
		OperationID: "post-events",
		Method:      http.MethodPost,
		Path:        "/api/v1/streaming/events",
		Summary:     "Publish one event or a batch",
		Description: "Takes one event object or an array of them, with snake_case or camelCase names. Further fields are kept. " +
			"Answers 202 after the broker has acknowledged all events. One faulty event refuses the whole batch; every fault is listed with its place.",
		Tags: []string{"events"},
		Parameters: []*huma.Param{{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: "string", MaxLength: new(255)},
			Description: "A repeat with the same key and body gets the first answer and is not published again; another body is refused. " +
				"Remembered per client for " + plain(a.limits.IdempotencyTTL) + " by this process.",
		}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: eventsSchema(a.limits.BatchEvents), Examples: eventExamples()}}},
		Responses: map[string]*huma.Response{
			"202": {Description: "Acknowledged by the broker", Content: jsonContent(api, receipt{})},
		},
		Errors: []int{400, 409, 413, 415, 422},
	}
	a.addRaw(api, op, a.postEvents)
}

// addRaw registers a plain handler and documents it with the errors it and the layers around it can answer.
func (a *API) addRaw(api huma.API, op *huma.Operation, handler http.HandlerFunc) {
	content := map[string]*huma.MediaType{"application/problem+json": {Schema: schemaOf(api, huma.ErrorModel{})}}
	op.Errors = append(op.Errors, a.commonErrors()...)
	for _, code := range op.Errors {
		op.Responses[strconv.Itoa(code)] = &huma.Response{Description: http.StatusText(code), Content: content}
	}
	api.OpenAPI().AddOperation(op)
	api.Adapter().Handle(op, func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		handler(w, r)
	})
}

// commonErrors are what any route can answer before its handler is reached.
func (a *API) commonErrors() []int {
	errs := []int{http.StatusForbidden, http.StatusMisdirectedRequest, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}
	if len(a.secrets) > 0 {
		errs = append(errs, http.StatusUnauthorized)
	}
	return errs
}
