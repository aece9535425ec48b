package codecs

import (
	"context"
	"sync"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// schema is state.proto, compiled.
var schema = sync.OnceValues(func() (protoreflect.FileDescriptor, error) {
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}, SourceInfoMode: protocompile.SourceInfoStandard}
	files, err := c.Compile(context.Background(), "state.proto")
	if err != nil {
		return nil, err
	}
	return files[0], nil
})

// message is one message type of state.proto.
func message(t testing.TB, name protoreflect.Name) protoreflect.MessageDescriptor {
	t.Helper()
	file, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName(name)
}

// record is a message as any protobuf library sees it, read by field name.
type record struct{ protoreflect.Message }

// parseProto reads data as protobuf does.
func parseProto(t testing.TB, name protoreflect.Name, data []byte) (record, error) {
	t.Helper()
	m := dynamicpb.NewMessage(message(t, name))
	err := proto.Unmarshal(data, m)
	return record{m}, err
}

func (r record) field(name protoreflect.Name) protoreflect.FieldDescriptor {
	return r.Descriptor().Fields().ByName(name)
}
func (r record) value(name protoreflect.Name) protoreflect.Value { return r.Get(r.field(name)) }
func (r record) int(name protoreflect.Name) int64                { return r.value(name).Int() }
func (r record) text(name protoreflect.Name) string              { return r.value(name).String() }
func (r record) has(name protoreflect.Name) bool                 { return r.Has(r.field(name)) }
func (r record) message(name protoreflect.Name) record           { return record{r.value(name).Message()} }

func (r record) each(name protoreflect.Name) (out []record) {
	for list, i := r.value(name).List(), 0; i < list.Len(); i++ {
		out = append(out, record{list.Get(i).Message()})
	}
	return out
}

// envelope is a GroupTableRecord as protobuf understands it.
func (r record) envelope() Envelope {
	e := Envelope{Purged: NoTime, Due: NoDue, State: r.value("state").Bytes()}
	if r.has("purged_watermark") {
		e.Purged = r.int("purged_watermark")
	}
	if r.has("due") {
		e.Due = r.int("due")
	}
	for _, s := range r.each("sources") {
		e.Sources = append(e.Sources, Source{int32(s.int("partition")), s.int("offset")})
	}
	for _, s := range r.each("undecided") {
		e.Undecided = append(e.Undecided, Source{int32(s.int("partition")), s.int("offset")})
	}
	return e
}

// activity is an ActivityState as protobuf understands it.
func (r record) activity() state {
	s := state{}
	if r.has("summary") {
		s.total, s.summary = r.message("summary").int("total"), r.message("summary").message("aggregate").aggregate()
	}
	for _, d := range r.each("definitions") {
		out := definitionState{name: d.text("definition")}
		for _, x := range d.each("slices") {
			out.slices = append(out.slices, sliceState{
				Slice{
					Start: x.int("start"), End: x.int("end"), Count: x.int("count"), Closed: x.value("closed").Bool(),
				},
				x.message("aggregate").aggregate(),
			})
		}
		for _, x := range d.each("withdrawn") {
			out.withdrawn = append(out.withdrawn, Withdrawn{x.int("start"), x.int("end"), x.int("revision")})
		}
		s.definitions = append(s.definitions, out)
	}
	return s
}

// aggregate is an Aggregate as protobuf understands it, its types brought into order.
func (r record) aggregate() Aggregate {
	a := Aggregate{
		First: r.int("first"), Last: r.int("last"), LastType: r.text("last_type"),
		AircraftID: r.int("aircraft_id"), HasAircraftID: r.has("aircraft_id"),
	}
	for _, x := range r.each("types") {
		a.addType(x.text("type"), x.int("count"))
	}
	return a
}

func TestSchemaPackage(t *testing.T) {
	t.Parallel()
	file := message(t, "GroupTableRecord").ParentFile()
	if file.Package() != "klgstream.v1" {
		t.Errorf("package %s", file.Package())
	}
	// Every message and field says what it is to whoever reads it in another language.
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		if file.SourceLocations().ByDescriptor(m).LeadingComments == "" {
			t.Errorf("%s has no comment", m.FullName())
		}
	}
}

// Our bytes are the ones a protobuf library writes, and it reads the values we wrote (C3).
func TestProtobufReadsAndWritesTheSameBytes(t *testing.T) {
	t.Parallel()
	ours := goldenRecord()
	for _, name := range []protoreflect.Name{"GroupTableRecord", "ActivityRecord"} {
		m, err := parseProto(t, name, ours)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		if err != nil {
			t.Fatal(err)
		}
		if string(ours) != string(theirs) {
			t.Errorf("%s: protobuf writes\n%x, not\n%x", name, theirs, ours)
		}
	}
	m, err := parseProto(t, "GroupTableRecord", ours)
	if err != nil {
		t.Fatal(err)
	}
	var e Envelope
	if err := e.Parse(ours); err != nil {
		t.Fatal(err)
	}
	equal(t, m.envelope(), e)
	inner, err := parseProto(t, "ActivityState", e.State)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseState(e.State)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, inner.activity(), got)
}
