package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
)

// fakeLog is a client that knows how far logs reach, and can do nothing else.
type fakeLog struct {
	sarama.Client
	bounds map[topicPartition][2]int64
	err    error
}

func (f *fakeLog) GetOffset(topic string, partition int32, at int64) (int64, error) {
	b := f.bounds[topicPartition{topic, partition}]
	if at == sarama.OffsetOldest {
		return b[0], f.err
	}
	return b[1], f.err
}

func refusal(err error) bool {
	_, ok := errors.AsType[*RefusalError](err)
	return ok
}

// E6: a committed offset must lie in the log, its ends included; one that is behind the log's start is accepted if the loss is, and nothing committed
// begins where the log does.
func TestPositionWithinTheLog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		offset  int64
		accept  bool
		want    int64
		refused string
	}{
		{-1, false, 10, ""},
		{10, false, 10, ""},
		{15, false, 15, ""},
		{20, false, 20, ""},
		{21, false, 0, "stands at in/0@21, but the log ends at 20"},
		{21, true, 0, "ends at 20"},
		{9, false, 0, "the log starts at 10: retention deleted 1 records"},
		{0, false, 0, "deleted 10 records"},
		{9, true, 10, ""},
	} {
		r := &run[tick, tally]{
			config: &Config{AcceptLoss: c.accept}, client: &fakeLog{bounds: map[topicPartition][2]int64{{"in", 0}: {10, 20}}},
			job: &Job[tick, tally]{Group: "g"}, topics: &topics{table: "table", loop: "loop"},
		}
		got, err := r.within("in", 0, c.offset)
		if refusal(err) != (c.refused != "") || got != c.want {
			t.Errorf("offset %d, loss accepted %v: %d, %v", c.offset, c.accept, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("offset %d: %v, want %q", c.offset, err, c.refused)
		}
	}
}

// E6: a loop without a position of a group that has passed events on is refused: it is not the one that they were passed on through.
func TestLoopWithoutAPosition(t *testing.T) {
	t.Parallel()
	at := func(input, loop int64, rekeys bool) position {
		return position{input: input, loop: loop, clock: clock{rekeys: rekeys}}
	}
	for name, c := range map[string]struct {
		positions   map[int32]position
		off, accept bool
		refused     bool
	}{
		"in place":                   {map[int32]position{0: at(5, 6, true), 1: at(0, 0, true)}, false, false, false},
		"gone":                       {map[int32]position{0: at(5, -1, true)}, false, false, true},
		"gone, at the input's start": {map[int32]position{0: at(0, -1, true)}, false, false, true},
		"gone, of another partition": {map[int32]position{0: at(5, -1, false), 1: at(5, 6, true)}, false, false, true},
		"nothing was passed on":      {map[int32]position{0: at(5, -1, false)}, false, false, false},
		"nothing is committed":       {map[int32]position{0: at(-1, -1, true)}, false, false, false},
		"no loop":                    {map[int32]position{0: at(5, -1, true)}, true, false, false},
		"the loss is accepted":       {map[int32]position{0: at(5, -1, true)}, false, true, false},
	} {
		loop := "loop"
		if c.off {
			loop = ""
		}
		r := &run[tick, tally]{
			config: &Config{AcceptLoss: c.accept}, job: &Job[tick, tally]{Group: "g"}, topics: &topics{loop: "loop"}, ledger: &ledger{loop: loop},
		}
		if err := r.checkLoop(c.positions); refusal(err) != c.refused || !c.refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// E6: a group table that ends before what was written to it is refused; input and loop are compared with their logs likewise.
func TestLocate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name               string
		input, loop, table int64
		off                bool
		refused            string
	}{
		{"all in place", 5, 5, 7, false, ""},
		{"table too short", 5, 5, 8, false, "table/0 ends at 7, but 8 was written"},
		{"input too short", 11, 5, 7, false, "in/0@11"},
		{"loop too short", 5, 11, 7, false, "loop/0@11"},
		{"no loop", 5, 11, 7, true, ""},
	} {
		rig := newRig(t)
		rig.begin(fresh())
		loop := "loop"
		if c.off {
			loop = ""
		}
		r := &run[tick, tally]{
			config: &rig.config, job: &Job[tick, tally]{Group: "g"}, topics: &rig.topics, ledger: &ledger{loop: loop},
			client:     &fakeLog{bounds: map[topicPartition][2]int64{{"in", 0}: {0, 10}, {"loop", 0}: {0, 10}, {"table", 0}: {0, 7}}},
			partitions: map[int32]*partition[tick, tally]{0: rig.p},
		}
		at, err := r.locate(0, position{input: c.input, loop: c.loop, clock: clock{table: c.table}})
		if refusal(err) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && (at.input != c.input || at.loop != c.loop || rig.p.goal != 7) {
			t.Errorf("%s: begins at %+v, recovers up to %d", c.name, at, rig.p.goal)
		}
		r.client = &fakeLog{err: sarama.ErrBrokerNotAvailable}
		if _, err = r.locate(0, position{}); !errors.Is(err, sarama.ErrBrokerNotAvailable) || refusal(err) {
			t.Errorf("%s: a broker that does not answer: %v", c.name, err)
		}
	}
}

// fetched is a broker's answer about what a group has committed.
func committed(blocks map[string]*sarama.OffsetFetchResponseBlock) *sarama.OffsetFetchResponse {
	resp := &sarama.OffsetFetchResponse{}
	for topic, b := range blocks {
		resp.AddBlock(topic, 0, b)
	}
	return resp
}

func block(t *testing.T, offset int64, id identity, c clock) *sarama.OffsetFetchResponseBlock {
	t.Helper()
	meta, err := c.pack(id)
	if err != nil {
		t.Fatal(err)
	}
	return &sarama.OffsetFetchResponseBlock{Offset: offset, Metadata: meta}
}

// E5, E6: what a group has committed is read as it was written, nothing as nothing, and what is not of this job is refused.
func TestCommittedPositions(t *testing.T) {
	t.Parallel()
	id := identity{7, 1}
	none := func() *sarama.OffsetFetchResponseBlock { return &sarama.OffsetFetchResponseBlock{Offset: -1} }
	own, others := clock{watermark: 1000, sources: []sourceClock{{0, 0, 1000, -1}}}, clock{watermark: 1000, table: 34, sources: []sourceClock{{1, 0, 2000, 3}}}
	of := func(in, table, loop *sarama.OffsetFetchResponseBlock) map[string]*sarama.OffsetFetchResponseBlock {
		return map[string]*sarama.OffsetFetchResponseBlock{"in": in, "table": table, "loop": loop}
	}
	end := clock{watermark: 34, table: 12}
	for _, c := range []struct {
		name    string
		loop    string
		blocks  map[string]*sarama.OffsetFetchResponseBlock
		want    string // input, loop, table, watermark, sources
		refused string
		err     error
	}{
		{"nothing", "loop", of(none(), none(), none()), fmt.Sprint(-1, -1, -1, int64(math.MinInt64), 0), "", nil},
		{"all", "loop", of(block(t, 5, id, own), block(t, 9, id, end), block(t, 6, id, others)), fmt.Sprint(5, 6, 9, 1000, 2), "", nil},
		{"the start of everything", "loop", of(block(t, 0, id, own), block(t, 0, id, end), block(t, 0, id, others)), fmt.Sprint(0, 0, 0, 1000, 2), "", nil},
		{"no loop", "", of(block(t, 5, id, own), block(t, 9, id, end), nil), fmt.Sprint(5, -1, 9, 1000, 1), "", nil},
		{"a table and no input", "loop", of(none(), block(t, 0, id, end), none()), "", "has state in table/0 but no position in in/0", nil},
		{"another definition", "loop", of(block(t, 5, identity{8, 1}, own), none(), none()), "", "under other definitions", nil},
		{"another number of partitions", "loop", of(block(t, 5, identity{7, 2}, own), none(), none()), "", "with 2 partitions", nil},
		{"somebody else's", "loop", of(&sarama.OffsetFetchResponseBlock{Offset: 5, Metadata: "x"}, none(), none()), "", "with metadata \"x\"", nil},
		{"a later format", "loop", of(&sarama.OffsetFetchResponseBlock{Offset: 5, Metadata: "klg99:x"}, none(), none()), "", "format klg99", nil},
		{"an error", "loop", of(&sarama.OffsetFetchResponseBlock{Err: sarama.ErrTopicAuthorizationFailed}, none(), none()), "", "", sarama.ErrTopicAuthorizationFailed},
	} {
		l := &ledger{group: "g", input: "in", loop: c.loop, table: "table", id: id}
		at, err := l.read(committed(c.blocks), 0)
		if refusal(err) != (c.refused != "") || c.err != nil && !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := fmt.Sprint(at.input, at.loop, at.table, at.clock.watermark, len(at.clock.sources)); err == nil && got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if err == nil && (at.table >= 0 != (at.out == 12) || (at.loop >= 0 || c.loop == "") != (at.writer == 34)) {
			t.Errorf("%s: the output is known up to %d, by %d", c.name, at.out, at.writer)
		}
	}
	l := &ledger{group: "g", input: "in", table: "table", id: id}
	if _, err := l.read(&sarama.OffsetFetchResponse{}, 0); err == nil || !strings.Contains(err.Error(), "no answer for table/0") {
		t.Errorf("no answer: %v", err)
	}
}

// E5: what is known of the sources of a group of many partitions fits in its commits. Of 256 it did so until their offsets were large, and
// then no position could be committed any more.
func TestPositionOfManySources(t *testing.T) {
	t.Parallel()
	for n, fits := range map[int32]bool{200: true, 256: true, 400: true, 1000: false} {
		l := &ledger{group: "g", input: "in", loop: "loop", table: "table", id: identity{7, n}}
		at := position{input: 5, loop: 6, table: 9, clock: clock{watermark: 1_770_000_000_000, table: 9, rekeys: true}}
		for i := range n {
			at.clock.sources = append(at.clock.sources, sourceClock{i, 0, at.clock.watermark + 3_600_000 + int64(i), 1e9 + int64(i)})
		}
		req := &sarama.OffsetCommitRequest{Version: 7}
		if err := l.add(req, 0, at); (err == nil) != fits {
			t.Errorf("%d sources: %v", n, err)
		}
		if !fits {
			continue
		}
		blocks := make(map[string]*sarama.OffsetFetchResponseBlock)
		for _, topic := range []string{"in", "loop", "table"} {
			offset, meta, err := req.Offset(topic, 0)
			if err != nil || len(meta) > maxMetadata {
				t.Fatalf("%d sources: %d bytes for %s, %v", n, len(meta), topic, err)
			}
			blocks[topic] = &sarama.OffsetFetchResponseBlock{Offset: offset, Metadata: meta}
		}
		if got, err := l.read(committed(blocks), 0); err != nil || !reflect.DeepEqual(got, at) {
			t.Errorf("%d sources: read %+v, %v", n, got, err)
		}
	}
}

// The group's coordinator has moved since it was last asked. sarama's group finds the new one by itself and begins a generation; the ledger
// asked the former one once, and the run ended and recovered all its tables anew.
func TestPositionsAtACoordinatorThatMoved(t *testing.T) {
	t.Parallel()
	answer := func(err sarama.KError) *sarama.OffsetFetchResponse {
		resp := &sarama.OffsetFetchResponse{Version: 7, Err: err}
		for _, topic := range []string{"in", "table", "loop"} {
			resp.AddBlock(topic, 0, &sarama.OffsetFetchResponseBlock{Offset: -1})
		}
		return resp
	}
	for last, tries := range map[sarama.KError]int{sarama.ErrNoError: 2, sarama.ErrNotCoordinatorForConsumer: readAttempts, sarama.ErrGroupAuthorizationFailed: 2} {
		s := newScripted(t, map[string]sarama.MockResponse{"OffsetFetchRequest": sarama.NewMockSequence(answer(sarama.ErrNotCoordinatorForConsumer), answer(last))})
		r, _ := s.membership()
		at, err := r.ledger.load([]int32{0})
		if last == sarama.ErrNoError && (err != nil || at[0].input != -1) || last != sarama.ErrNoError && !errors.Is(err, last) {
			t.Errorf("%v: %v, %v", last, at, err)
		}
		if n := s.requests("OffsetFetchRequest"); n != tries {
			t.Errorf("%v: asked %d times, want %d", last, n, tries)
		}
	}
}

// What a commit says of the watermark is for others to read; what is not a commit of ours, or has none, says nothing.
func TestWatermarkOfACommit(t *testing.T) {
	t.Parallel()
	with, _ := (&clock{watermark: 1000}).pack(identity{})
	without, _ := (&clock{watermark: math.MinInt64}).pack(identity{})
	for meta, want := range map[string]bool{with: true, without: false, "x": false, "": false} {
		if w, ok := WatermarkOf(meta); ok != want || ok && w != 1000 {
			t.Errorf("%q: %d, %v", meta, w, ok)
		}
	}
}

// The state of a group is only moved if its table ends at the checkpoint, and only along an input that reaches to it.
func TestStateLogBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		input, table  int64
		bounds, clean bool
	}{
		{10, 7, true, true}, {20, 7, true, true}, {21, 7, false, true}, {9, 7, false, true}, {-1, 7, true, true}, {15, 6, true, false}, {15, 8, true, false},
	} {
		l := &StateLog{Group: "g", Input: "in", Client: &fakeLog{bounds: map[topicPartition][2]int64{{"in", 0}: {10, 20}, {"g-table", 0}: {0, 7}}}}
		cp := Checkpoint{Positions: []StatePosition{{Input: c.input, Table: c.table}}}
		if err := l.Bounds(cp); (err == nil) != c.bounds || err != nil && !refusal(err) {
			t.Errorf("input at %d: %v", c.input, err)
		}
		if err := l.Clean(cp); (err == nil) != c.clean || err != nil && !refusal(err) {
			t.Errorf("table at %d: %v", c.table, err)
		}
	}
	l := &StateLog{Group: "g", Input: "in", Client: &fakeLog{bounds: map[topicPartition][2]int64{{"in", 0}: {0, 5}}}}
	if err := l.Bounds(Checkpoint{Positions: []StatePosition{{Input: 0}}}); err != nil {
		t.Errorf("an input at its start: %v", err)
	}
	if err := l.empty("in", 1); !refusal(err) || !strings.Contains(err.Error(), "in/0 has had 5 records") {
		t.Errorf("a topic with records passes for an empty one: %v", err)
	}
	if err := l.empty("other", 1); err != nil {
		t.Errorf("an empty topic: %v", err)
	}
	l.Client = &fakeLog{err: sarama.ErrBrokerNotAvailable}
	for _, err := range []error{l.Bounds(Checkpoint{Positions: []StatePosition{{}}}), l.Clean(Checkpoint{Positions: []StatePosition{{}}}), l.empty("in", 1)} {
		if !errors.Is(err, sarama.ErrBrokerNotAvailable) || refusal(err) {
			t.Errorf("a broker that does not answer: %v", err)
		}
	}
}

// A late event is published when the position has passed it: the own input's by its offset, another's by what came through the loop (E1).
func TestPublished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.count = 3
	r.begin(position{input: 5, clock: clock{watermark: 1000, sources: []sourceClock{{1, 0, 1000, 7}}}})
	at := StatePosition{Input: 5, Sources: []StateSource{{Partition: 1, Fence: 7}}}
	for s, want := range map[codecs.Source]bool{
		{Partition: 0, Offset: 4}: true, {Partition: 0, Offset: 5}: false, {Partition: 1, Offset: 7}: true, {Partition: 1, Offset: 8}: false,
		{Partition: 2, Offset: 0}: false,
	} {
		if got := r.p.published(s); got != want {
			t.Errorf("%+v is published: %v, by the partition", s, got)
		}
		if got := at.published(s); got != want {
			t.Errorf("%+v is published: %v, by the checkpoint", s, got)
		}
	}
}

// A group's members and state are asked of its coordinator; a group that is unknown has none, and an answer without one is no answer.
func TestMembersOfAGroup(t *testing.T) {
	t.Parallel()
	describe := func(groups ...*sarama.GroupDescription) sarama.MockResponse {
		return sarama.NewMockWrapper(&sarama.DescribeGroupsResponse{Groups: groups})
	}
	two := map[string]*sarama.GroupMemberDescription{"a": {MemberId: "a"}, "b": {MemberId: "b"}}
	for _, c := range []struct {
		name    string
		answer  sarama.MockResponse
		members int
		err     error
		stopped bool
	}{
		{"running", describe(&sarama.GroupDescription{GroupId: "g", State: "Stable", Members: two}), 2, nil, false},
		{"empty", describe(&sarama.GroupDescription{GroupId: "g", State: "Empty"}), 0, nil, true},
		{"unknown", describe(&sarama.GroupDescription{GroupId: "g", ErrorCode: int16(sarama.ErrGroupIDNotFound), State: "Dead"}), 0, nil, true},
		{"forbidden", describe(&sarama.GroupDescription{GroupId: "g", ErrorCode: int16(sarama.ErrGroupAuthorizationFailed)}), 0, sarama.ErrGroupAuthorizationFailed, false},
		{"no answer", describe(), 0, sarama.ErrIncompleteResponse, false},
	} {
		s := newScripted(t, map[string]sarama.MockResponse{"DescribeGroupsRequest": c.answer})
		l := &StateLog{Client: s.client, Group: "g"}
		if n, _, err := l.Members(); n != c.members || !errors.Is(err, c.err) {
			t.Errorf("%s: %d members, %v", c.name, n, err)
		}
		if err := l.Stopped(); (err == nil) != c.stopped || c.err == nil && err != nil && !refusal(err) {
			t.Errorf("%s: stopped: %v", c.name, err)
		}
	}
}

// A run that was refused is not started again, one without a topic after a while, one that failed always.
func TestRefusalsOfAStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := &Processor{config: r.config}
	now := r.config.Now()
	for _, c := range []struct {
		err     error
		refused bool
	}{
		{&RefusalError{}, true},
		{fmt.Errorf("run: %w", &RefusalError{}), true},
		{&absentError{"in"}, false},
		{errors.New("broken"), false},
		{sarama.ErrInvalidSessionTimeout, true},
		{context.Canceled, false},
		{nil, false},
	} {
		if got := p.refusal(c.err, now) != nil; got != c.refused {
			t.Errorf("%v: refused %v", c.err, got)
		}
	}
	if p.refusal(&absentError{"in"}, now.Add(1-absentPatience)) != nil {
		t.Error("a topic that is missing for less than 10 s is refused")
	}
	if got := p.refusal(&absentError{"in"}, now.Add(-absentPatience)); got == nil || !strings.Contains(got.Error(), "topic in does not exist") {
		t.Errorf("a topic that is missing for 10 s: %v", got)
	}
}

// The pause before a restart doubles up to its limit, spread by a quarter to both sides.
func TestBackoff(t *testing.T) {
	t.Parallel()
	p := &Processor{config: Config{Backoff: 1000, MaxBackoff: 10_000}}
	for failures, mean := range map[int]int64{0: 1000, 1: 2000, 3: 8000, 4: 10_000, 63: 10_000, 1000: 10_000} {
		least, most := int64(math.MaxInt64), int64(0)
		for range 2000 {
			d := int64(p.backoff(failures))
			least, most = min(least, d), max(most, d)
		}
		if least < mean*3/4 || most > mean*5/4 || least > mean*8/10 || most < mean*12/10 {
			t.Errorf("%d failures: from %d to %d, want %d to %d", failures, least, most, mean*3/4, mean*5/4)
		}
	}
	p.config.Backoff = 1 << 62 // whose double does not exist
	if d := p.backoff(1); d < 7500 || d > 12_500 {
		t.Errorf("a pause of %d", d)
	}
}
