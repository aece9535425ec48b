package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"klgstream.dev/views"
)

// viewList is the answer to the list of views.
type viewList struct {
	Views []views.View `json:"views" doc:"What can be asked, by name"`
}

// The forms a page of a view can have.
const (
	formJSON   = "application/json"
	formNDJSON = "application/x-ndjson"
	formCSV    = "text/csv"
)

func (a *API) routeViews(api huma.API) {
	a.addRaw(api, &huma.Operation{
		OperationID: "list-views", Method: http.MethodGet, Path: "/api/v1/streaming/views",
		Summary: "List the views", Description: "Every view with its columns: what can be filtered, ordered and read.",
		Tags: []string{"views"},
		Responses: map[string]*huma.Response{
			"200": {Description: "The views", Content: map[string]*huma.MediaType{formJSON: {Schema: viewListSchema()}}},
		},
	}, a.listViews)
	op := &huma.Operation{
		OperationID: "query-view", Method: http.MethodGet, Path: "/api/v1/streaming/views/{view_name}",
		Summary: "Ask a view",
		Description: "One page of a view. Any column filters: `registration_number=N14228`, `event_count.ge=3` (comparisons: " + opList() + "). " +
			"The form follows Accept: JSON, NDJSON or CSV; in the latter two the next page's cursor is in the Link header.",
		Tags:       []string{"views"},
		Parameters: queryParameters(),
		Responses: map[string]*huma.Response{
			"200": {Description: "One page", Content: map[string]*huma.MediaType{
				formJSON: {Schema: pageSchema()}, formNDJSON: {Schema: &huma.Schema{Type: "string"}}, formCSV: {Schema: &huma.Schema{Type: "string"}},
			}, Headers: map[string]*huma.Param{
				"ETag": {Schema: &huma.Schema{Type: "string"}, Description: "Changes when the page does"},
				"Age":  {Schema: &huma.Schema{Type: "integer"}, Description: "Seconds since the store was asked, of an answer that takes it long and is given again: up to ten times as long as it took"},
				"Link": {Schema: &huma.Schema{Type: "string"}, Description: "The next page, rel=next"},
			}},
			"304": {Description: "The page is the one the client has"},
		},
		Errors: []int{400, 404, 406},
	}
	a.addRaw(api, op, a.queryView)
}

func opList() string {
	names := make([]string, len(views.Ops()))
	for i, op := range views.Ops() {
		names[i] = string(op)
	}
	return strings.Join(names, ", ")
}

func queryParameters() []*huma.Param {
	text := &huma.Schema{Type: "string"}
	return []*huma.Param{
		{Name: "view_name", In: "path", Required: true, Schema: text, Example: "aircraft_stats"},
		{Name: "limit", In: "query", Schema: &huma.Schema{Type: "integer", Minimum: new(1.0), Maximum: new(float64(views.MaxLimit)), Default: views.DefaultLimit}, Description: "Rows of the page; it has fewer if they are more than " + strconv.Itoa(views.MaxPageBytes>>20) + " MiB together."},
		{Name: "order", In: "query", Schema: text, Description: "Columns to sort by, separated by commas; descending behind a minus.", Example: "-total_events"},
		{Name: "cursor", In: "query", Schema: text, Description: "`next` of the page before."},
		{
			Name: "filter", In: "query", Style: "form", Explode: new(true), Description: "Columns as parameters: `column=value` or `column.comparison=value`.",
			Schema: &huma.Schema{Type: "object", AdditionalProperties: text},
		},
		{Name: "If-None-Match", In: "header", Schema: text, Description: "ETag of the page the client has."},
	}
}

func columnSchema() *huma.Schema {
	return &huma.Schema{Type: "object", Required: []string{"name", "type", "nullable", "description"}, Properties: map[string]*huma.Schema{
		"name": {Type: "string"}, "nullable": {Type: "boolean"}, "description": {Type: "string"},
		"type": {Type: "string", Enum: []any{"text", "integer", "number", "boolean", "timestamp", "json"}},
	}}
}

func viewListSchema() *huma.Schema {
	view := &huma.Schema{Type: "object", Required: []string{"name", "description", "columns", "key"}, Properties: map[string]*huma.Schema{
		"name": {Type: "string"}, "description": {Type: "string"},
		"columns": {Type: "array", Items: columnSchema()}, "key": {Type: "array", Items: &huma.Schema{Type: "string"}},
	}}
	return &huma.Schema{Type: "object", Required: []string{"views"}, Properties: map[string]*huma.Schema{"views": {Type: "array", Items: view}}}
}

func pageSchema() *huma.Schema {
	return &huma.Schema{Type: "object", Required: []string{"view", "columns", "rows", "next"}, Properties: map[string]*huma.Schema{
		"view": {Type: "string"}, "columns": {Type: "array", Items: columnSchema()},
		"rows": {Type: "array", Items: &huma.Schema{Type: "object", AdditionalProperties: true}},
		"next": {Type: "string", Nullable: true, Description: "Cursor of the next page; null on the last."},
	}}
}

func (a *API) listViews(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.limits.QueryTimeout)
	defer cancel()
	list, err := a.cfg.Store.Views(ctx)
	if err != nil {
		writeProblem(w, a.storeProblem(w, r, err))
		return
	}
	writeJSON(w, formJSON, http.StatusOK, viewList{Views: list})
}

// queryView answers one page of a view in the form the client accepts.
func (a *API) queryView(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	form := accepted(exchangeOf(w).accept)
	if form == "" {
		writeProblem(w, problem(http.StatusNotAcceptable, "there is "+formJSON+", "+formNDJSON+" and "+formCSV))
		return
	}
	result, view, p := a.ask(w, r)
	if p != nil {
		writeProblem(w, p)
		return
	}
	var body bytes.Buffer
	if err := encode(&body, form, view, result); err != nil {
		a.log.Error("encode page of a view", "view", view.Name, "error", err)
		writeProblem(w, problem(http.StatusInternalServerError, "the page cannot be encoded"))
		return
	}
	if size := min(int64(body.Len()), a.limits.AnswersInFlight); size > smallAnswer {
		if !a.answers.TryAcquire(size) {
			writeProblem(w, busy(w, http.StatusServiceUnavailable, time.Second, "too many bytes of answers wait for their clients; ask for less with limit"))
			return
		}
		defer a.answers.Release(size)
	}
	writePage(w, r, form, result.Next, body.Bytes())
}

// smallAnswer is the size up to which pages are not counted: whoever reads slowly may be in the way of other large pages only.
const smallAnswer = 64 << 10

func writePage(w http.ResponseWriter, r *http.Request, form, cursor string, body []byte) {
	sum := sha256.Sum256(body)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	h := w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "no-cache")
	if cursor != "" {
		next := r.URL.Query()
		next.Set("cursor", cursor)
		h.Set("Link", "<"+r.URL.EscapedPath()+"?"+next.Encode()+`>; rel="next"`)
	}
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if form == formCSV {
		form += "; charset=utf-8; header=present"
	}
	h.Set("Content-Type", form)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// matches tells whether a list of entity tags has this one, weak or not.
func matches(list, tag string) bool {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == tag || item == "*" {
			return true
		}
	}
	return false
}

// accepted picks the form the client likes best, of several the one it names first; "" if it takes none. No header takes all.
func accepted(accept string) string {
	if accept == "" {
		return formJSON
	}
	best, bestQuality, bestPlace := "", 0.0, 0
	for _, form := range []string{formJSON, formNDJSON, formCSV} {
		if q, place := wanted(accept, form); q > bestQuality || q > 0 && q == bestQuality && place < bestPlace {
			best, bestQuality, bestPlace = form, q, place
		}
	}
	return best
}

// wanted is how much the client likes a form, as the range says that names it most closely, and where that stands.
func wanted(accept, form string) (q float64, place int) {
	closest, i := 0, 0
	for item := range strings.SplitSeq(accept, ",") {
		media, parameters, _ := strings.Cut(item, ";")
		if n := closeness(strings.ToLower(strings.TrimSpace(media)), form); n > closest {
			closest, q, place = n, quality(parameters), i
		}
		i++
	}
	return q, place
}

// closeness tells how closely a media range names a form; 0 if it does not.
func closeness(media, form string) int {
	kind, _, _ := strings.Cut(form, "/")
	switch {
	case media == form, form == formNDJSON && (media == "application/ndjson" || media == "application/jsonl"):
		return 3
	case media == kind+"/*":
		return 2
	case media == "*/*":
		return 1
	}
	return 0
}

func quality(parameters string) float64 {
	for p := range strings.SplitSeq(parameters, ";") {
		if text, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
			q, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return 0
			}
			return q
		}
	}
	return 1
}

// ask reads the query from the URL and asks the store.
func (a *API) ask(w http.ResponseWriter, r *http.Request) (views.Result, views.View, *huma.ErrorModel) {
	ctx, cancel := context.WithTimeout(r.Context(), a.limits.QueryTimeout)
	defer cancel()
	view, err := a.find(ctx, r.PathValue("view_name"))
	if err != nil {
		return views.Result{}, view, a.storeProblem(w, r, err)
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return views.Result{}, view, problem(http.StatusBadRequest, "the query of the URL cannot be read", fault("query", err.Error(), nil))
	}
	query, err := views.ParseQuery(view, values)
	if err != nil {
		return views.Result{}, view, a.storeProblem(w, r, err)
	}
	result, age, err := a.slow.query(ctx, a.cfg.Store, view.Name+"?"+values.Encode(), query)
	if err != nil {
		return views.Result{}, view, a.storeProblem(w, r, err)
	}
	if age > 0 {
		w.Header().Set("Age", strconv.FormatInt(int64(age/time.Second), 10))
	}
	return result, view, nil
}

// storeProblem answers for an error of the store.
func (a *API) storeProblem(w http.ResponseWriter, r *http.Request, err error) *huma.ErrorModel {
	if bad, ok := errors.AsType[*views.QueryError](err); ok {
		faults := make([]*huma.ErrorDetail, len(bad.Faults))
		for i, f := range bad.Faults {
			faults[i] = fault("query."+f.Parameter, f.Reason+"; "+f.Mend, f.Value)
		}
		return problem(http.StatusBadRequest, "the query cannot be asked", faults...)
	}
	if errors.Is(err, views.ErrUnknownView) {
		return problem(http.StatusNotFound, err.Error())
	}
	if r.Context().Err() != nil { // who has closed only its half hears this
		return busy(w, http.StatusServiceUnavailable, time.Second, "the connection was closed, at least by half, before the store had answered: keep it open")
	}
	a.log.Warn("query store", "error", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return busy(w, http.StatusServiceUnavailable, a.limits.QueryTimeout, "the store did not answer within "+plain(a.limits.QueryTimeout)+": ask for less")
	}
	if views.Retryable(err) {
		return busy(w, http.StatusServiceUnavailable, 5*time.Second, "the store does not answer")
	}
	return problem(http.StatusInternalServerError, "the store cannot answer this")
}

func encode(w io.Writer, form string, view views.View, result views.Result) error {
	switch form {
	case formCSV:
		return encodeCSV(w, result)
	case formNDJSON:
		return encodeNDJSON(w, result)
	}
	if result.Columns == nil {
		result.View, result.Columns = view.Name, view.Columns
	}
	body, err := result.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = w.Write(append(body, '\n'))
	return err
}

// encodeNDJSON writes one object per row and line, members in the order of the columns.
func encodeNDJSON(w io.Writer, result views.Result) error {
	out := bufio.NewWriter(w)
	for _, row := range result.Rows {
		separator := byte('{')
		for i, value := range row {
			member, err := json.Marshal(jsonValue(value))
			if err != nil {
				return fmt.Errorf("encode column %q: %w", result.Columns[i].Name, err)
			}
			_ = out.WriteByte(separator)
			_, _ = fmt.Fprintf(out, "%q:%s", result.Columns[i].Name, member)
			separator = ','
		}
		_, _ = out.WriteString("}\n")
	}
	return out.Flush()
}

func jsonValue(value any) any {
	if t, ok := value.(time.Time); ok {
		return t.UTC().Format(views.TimeLayout)
	}
	return value
}

// encodeCSV writes a header and one line per row (RFC 4180). Text a spreadsheet would run as a formula is quoted with an
// apostrophe: event types and registrations come from outsiders. All other text is given as it is; encoding/csv would make
// the line ends in it its own.
func encodeCSV(w io.Writer, result views.Result) error {
	var line []byte
	out := bufio.NewWriter(w)
	for i, c := range result.Columns {
		line = appendCSV(line, i, c.Name)
	}
	_, _ = out.Write(append(line, "\r\n"...))
	for _, row := range result.Rows {
		line = line[:0]
		for i, value := range row {
			line = appendCSV(line, i, csvValue(value))
		}
		_, _ = out.Write(append(line, "\r\n"...))
	}
	return out.Flush()
}

// appendCSV appends the i-th field of a line.
func appendCSV(line []byte, i int, text string) []byte {
	if i > 0 {
		line = append(line, ',')
	}
	if !strings.ContainsAny(text, "\",\r\n") && !strings.HasPrefix(text, " ") {
		return append(line, text...)
	}
	line = append(line, '"')
	line = append(line, strings.ReplaceAll(text, `"`, `""`)...)
	return append(line, '"')
}

func csvValue(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		if v != "" && strings.ContainsRune("=+-@\t\r", rune(v[0])) {
			return "'" + v
		}
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.UTC().Format(views.TimeLayout)
	case json.RawMessage:
		return string(v)
	}
	return fmt.Sprint(value)
}
