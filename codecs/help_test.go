package codecs

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// equal compares values; empty and nil slices are the same.
func equal[T any](t testing.TB, want, got T) {
	t.Helper()
	w, g := plain(reflect.ValueOf(want)), plain(reflect.ValueOf(got))
	if !reflect.DeepEqual(w, g) {
		t.Errorf("want %+v\n got %+v", want, got)
	}
}

// plain turns a value into nested slices and scalars in which empty and nil are the same.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		out := make([]any, v.NumField())
		for i := range out {
			out[i] = plain(v.Field(i))
		}
		return out
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return string(v.Bytes())
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Bool:
		return v.Bool()
	case reflect.String:
		return v.String()
	case reflect.Uint8, reflect.Uint32:
		return v.Uint()
	default:
		return v.Int()
	}
}

// reasonOf is the reason of a FieldError; "" of none.
func reasonOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var f *FieldError
	if !errors.As(err, &f) {
		t.Fatalf("%T is no *FieldError: %v", err, err)
	}
	checkError(t, f)
	return f.Reason
}

// checkError holds every error met in any test to the grammar: a known reason, a clipped value, one printable line.
func checkError(t testing.TB, f *FieldError) {
	t.Helper()
	known := false
	for _, r := range Reasons() {
		known = known || r == f.Reason
	}
	if !known || len(f.Value) > maxShown || f.Record == "" {
		t.Errorf("error out of form: %+v", *f)
	}
	for _, r := range f.Error() {
		if r < ' ' {
			t.Errorf("error of more than one line: %q", f.Error())
		}
	}
	if !strings.Contains(f.Error(), f.Reason) || !strings.Contains(f.Error(), f.Field) || !strings.Contains(f.Error(), f.Limit) {
		t.Errorf("%q does not say all of %+v", f.Error(), *f)
	}
}

// state is an ActivityState in memory.
type state struct {
	total       int64
	summary     Aggregate
	definitions []definitionState
}

type definitionState struct {
	name      string
	slices    []sliceState
	withdrawn []Withdrawn
}

type sliceState struct {
	Slice
	Aggregate
}

func writeState(s *state) []byte {
	var w StateWriter
	w.Reset(nil)
	if s.total != 0 || !s.summary.Empty() {
		w.Summary(s.total, &s.summary)
	}
	for i := range s.definitions {
		d := &s.definitions[i]
		w.BeginDefinition(d.name)
		for j := range d.slices {
			w.Slice(d.slices[j].Slice, &d.slices[j].Aggregate)
		}
		for _, v := range d.withdrawn {
			w.Withdrawn(v)
		}
		w.EndDefinition()
	}
	return w.Bytes()
}

func parseState(data []byte) (state, error) {
	r := recorder{}
	err := ParseState(data, new(Interner), &r)
	return r.state, err
}

// recorder is the visitor that keeps everything.
type recorder struct {
	state
	skip bool // of definitions and aggregates
}

func (r *recorder) Summary(total int64) *Aggregate {
	r.total = total
	if r.skip {
		return nil
	}
	return &r.summary
}

func (r *recorder) Definition(name []byte) bool {
	r.definitions = append(r.definitions, definitionState{name: string(name)})
	return !r.skip
}

func (r *recorder) Slice(s Slice) *Aggregate {
	d := &r.definitions[len(r.definitions)-1]
	d.slices = append(d.slices, sliceState{Slice: s})
	return &d.slices[len(d.slices)-1].Aggregate
}

func (r *recorder) Withdrawn(w Withdrawn) {
	d := &r.definitions[len(r.definitions)-1]
	d.withdrawn = append(d.withdrawn, w)
}
