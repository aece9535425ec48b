package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// StateLog is a group's state as it lies in the log: for programs that look at it, and for those that move it while no
// processor runs. It is for one goroutine at a time.
//
// State moves to another number of partitions of the same input with Checkpoint, Records and Unread on the old group and, with
// Checkpoint.Spread, Vacant and Commit on the new one. What is exact before is exact after: partitions that were added to a
// topic leave offsets alone, so the fences (E3) of every key hold wherever the key lives, events that lie unread in partitions
// which are no longer their key's home are re-keyed to it, and no window closes before every source has spoken anew.
type StateLog struct {
	Client sarama.Client
	Group  string
	Input  string
}

func (l *StateLog) table() string { return l.Group + "-table" }
func (l *StateLog) loop() string  { return l.Group + "-loop" }

// Checkpoint is where a group stands.
type Checkpoint struct {
	Definition uint32          `json:"definition"` // fingerprint of what is counted
	Partitions int32           `json:"partitions"`
	Positions  []StatePosition `json:"positions"` // by partition
}

// StatePosition is where one partition of a group stands.
type StatePosition struct {
	Partition int32         `json:"partition"`
	Input     int64         `json:"input"`     // next offset to read of the input; -1 = nothing committed
	Loop      int64         `json:"loop"`      // next offset to read of the loop; -1 = nothing committed
	Table     int64         `json:"table"`     // end of the group table as committed
	Watermark int64         `json:"watermark"` // ms; math.MinInt64 = none
	Rekeys    bool          `json:"rekeys"`    // it has sent events to other partitions
	Sources   []StateSource `json:"sources,omitempty"`
}

// StateSource is one source's part in a partition's watermark.
type StateSource struct {
	Partition int32         `json:"partition"`
	Status    window.Status `json:"status"`
	Watermark int64         `json:"watermark"` // ms; math.MinInt64 = none
	Fence     int64         `json:"fence"`     // largest offset that came through the loop; -1 = none
}

// Members is how many members the group has, and what state the coordinator says it is in.
func (l *StateLog) Members() (n int, state string, err error) {
	coordinator, err := (&ledger{client: l.Client, group: l.Group}).coordinator()
	if err != nil {
		return 0, "", err
	}
	resp, err := coordinator.DescribeGroups(&sarama.DescribeGroupsRequest{Groups: []string{l.Group}})
	if err != nil {
		_ = coordinator.Close()
		return 0, "", fmt.Errorf("describe group %s: %w", l.Group, err)
	}
	if len(resp.Groups) != 1 {
		return 0, "", fmt.Errorf("describe group %s: %w", l.Group, sarama.ErrIncompleteResponse)
	}
	g := resp.Groups[0]
	if g.Err != sarama.ErrNoError && g.Err != sarama.ErrGroupIDNotFound {
		return 0, "", fmt.Errorf("describe group %s: %w", l.Group, g.Err)
	}
	return len(g.Members), g.State, nil
}

// Stopped refuses a group with members.
func (l *StateLog) Stopped() error {
	n, state, err := l.Members()
	if err != nil {
		return err
	}
	if n > 0 {
		return &RefusalError{
			fmt.Sprintf("group %s has %d members (%s)", l.Group, n, state),
			"stop every processor with SIGTERM and wait for the session timeout",
		}
	}
	return nil
}

// count is the number of partitions of a topic.
func (l *StateLog) count(topic string) (int32, error) {
	ps, err := l.Client.Partitions(topic)
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return 0, &RefusalError{fmt.Sprintf("topic %s does not exist", topic), "klgstream topics --group " + l.Group}
	} else if err != nil {
		return 0, fmt.Errorf("describe topic %s: %w", topic, err)
	}
	return int32(len(ps)), nil
}

// ledger reads and writes the group's positions; n is the number of partitions of its table.
func (l *StateLog) ledger() (led *ledger, n int32, err error) {
	if n, err = l.count(l.table()); err != nil {
		return nil, 0, err
	}
	led = &ledger{client: l.Client, group: l.Group, input: l.Input, loop: l.loop(), table: l.table()}
	if _, err := l.count(l.loop()); err != nil {
		led.loop = "" // a group that never re-keys has none
	}
	return led, n, nil
}

// identity is what the group's commits say of who wrote them; false if nothing is committed.
func (l *ledger) identity(n int32) (identity, bool, error) {
	coordinator, err := l.coordinator()
	if err != nil {
		return identity{}, false, err
	}
	all := numbers(n)
	resp, err := coordinator.FetchOffset(sarama.NewOffsetFetchRequest(l.client.Config().Version, l.group, map[string][]int32{l.input: all, l.table: all}))
	if err != nil {
		_ = coordinator.Close()
		return identity{}, false, fmt.Errorf("fetch offsets of group %s: %w", l.group, err)
	}
	for _, topic := range []string{l.table, l.input} {
		for _, p := range all {
			b := resp.GetBlock(topic, p)
			if b == nil || b.Err != sarama.ErrNoError || b.Offset < 0 {
				continue // an error is told by load
			}
			id, _, err := unpack(b.Metadata)
			if err != nil {
				return id, false, fmt.Errorf("read position of group %s at %s/%d: %w", l.group, topic, p, err)
			}
			return id, true, nil
		}
	}
	return identity{}, false, nil
}

func numbers(n int32) []int32 {
	all := make([]int32, n)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// ErrNothingCommitted is the error of reading the positions of a group that has not begun.
var ErrNothingCommitted = errors.New("nothing is committed")

// Checkpoint reads where the group stands.
func (l *StateLog) Checkpoint() (Checkpoint, error) {
	led, n, err := l.ledger()
	if err != nil {
		return Checkpoint{}, err
	}
	var any bool
	if led.id, any, err = led.identity(n); err != nil {
		return Checkpoint{}, err
	}
	if !any {
		return Checkpoint{}, fmt.Errorf("read positions of group %s in %s: %w", l.Group, l.Input, ErrNothingCommitted)
	}
	if led.id.partitions != n {
		return Checkpoint{}, led.id.check(identity{led.id.definition, n}, l.Group)
	}
	positions, err := led.load(numbers(n))
	if err != nil {
		return Checkpoint{}, err
	}
	c := Checkpoint{Definition: led.id.definition, Partitions: n}
	for _, p := range numbers(n) {
		c.Positions = append(c.Positions, describe(p, positions[p]))
	}
	return c, nil
}

func describe(p int32, at position) StatePosition {
	s := StatePosition{Partition: p, Input: at.input, Loop: at.loop, Table: max(at.table, at.clock.table), Watermark: at.clock.watermark, Rekeys: at.clock.rekeys}
	for _, c := range at.clock.sources {
		s.Sources = append(s.Sources, StateSource{c.partition, window.Status(c.status), c.watermark, c.fence})
	}
	return s
}

// Clean refuses a group that was not stopped at a checkpoint: what its table holds beyond it would be taken for granted.
func (l *StateLog) Clean(c Checkpoint) error {
	for _, at := range c.Positions {
		end, err := l.Client.GetOffset(l.table(), at.Partition, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("find end of %s/%d: %w", l.table(), at.Partition, err)
		}
		if end != max(at.Table, 0) {
			return &RefusalError{
				fmt.Sprintf("group %s was not stopped at a checkpoint: %s/%d ends at %d, the checkpoint at %d", l.Group, l.table(), at.Partition, end, max(at.Table, 0)),
				"start a processor, wait until it is ready, and stop it with SIGTERM",
			}
		}
	}
	return nil
}

// Records yields the newest record of every key of a partition of the table, in no order. Of two records of one key the one with
// the higher applied offset wins (E6).
func (l *StateLog) Records(ctx context.Context, partition int32, yield func(key string, record []byte) error) error {
	newest := make(map[string][]byte)
	err := ReadPartition(ctx, l.Client, l.table(), partition, 0, math.MaxInt64, func(m *sarama.ConsumerMessage) error {
		key := string(m.Key)
		if m.Value == nil {
			delete(newest, key)
			return nil
		}
		var env, known codecs.Envelope
		if err := env.Parse(m.Value); err != nil {
			return fmt.Errorf("read %s/%d@%d key %q: %w", m.Topic, m.Partition, m.Offset, key, err)
		}
		if old, ok := newest[key]; ok && known.Parse(old) == nil && behind(&env, known.Sources) {
			return nil
		}
		newest[key] = m.Value
		return nil
	})
	if err != nil {
		return err
	}
	for key, record := range newest {
		if err := yield(key, record); err != nil {
			return err
		}
	}
	return nil
}

// Settled is a record without the late events whose late record is acknowledged by a checkpoint; that others are left is an error.
func (c Checkpoint) Settled(partition int32, key string, record []byte) ([]byte, error) {
	var env codecs.Envelope
	if err := env.Parse(record); err != nil {
		return nil, fmt.Errorf("read state of %q: %w", key, err)
	}
	if len(env.Undecided) == 0 {
		return record, nil
	}
	for _, s := range env.Undecided {
		if !c.Positions[partition].published(s) {
			return nil, &RefusalError{
				fmt.Sprintf("the late event %d@%d of %q may not be on the late topic yet", s.Partition, s.Offset, key),
				"start a processor, wait until it has read to the end, and stop it with SIGTERM",
			}
		}
	}
	env.Undecided = nil
	return env.Append(nil), nil
}

// published reports whether a position has passed an event.
func (at *StatePosition) published(s codecs.Source) bool {
	if s.Partition == at.Partition {
		return s.Offset < at.Input
	}
	for _, source := range at.Sources {
		if source.Partition == s.Partition {
			return s.Offset <= source.Fence
		}
	}
	return false
}

// LoopEvent is a re-keyed event that its key's partition has not read yet.
type LoopEvent struct {
	Source     codecs.Source // where it was first read from
	Key, Value []byte
	History    []codecs.Header
}

// Unread yields the re-keyed events behind a partition's position in the loop.
func (l *StateLog) Unread(ctx context.Context, at StatePosition, yield func(LoopEvent) error) error {
	if _, err := l.count(l.loop()); err != nil && at.Loop < 0 {
		return nil // a group that never re-keys has no loop
	} else if err != nil {
		return err
	}
	return ReadPartition(ctx, l.Client, l.loop(), at.Partition, max(at.Loop, 0), math.MaxInt64, func(m *sarama.ConsumerMessage) error {
		src, ann, err := parseLoop(m)
		if err != nil {
			return fmt.Errorf("read %s/%d@%d: %w", m.Topic, m.Partition, m.Offset, err)
		}
		e := LoopEvent{Source: codecs.Source{Partition: src.partition, Offset: src.offset}, Key: m.Key, Value: m.Value}
		if ann != nil || at.Partition != src.partition && at.published(e.Source) { // a repeat of what came through already (E7)
			return nil
		}
		for _, h := range history(m) {
			e.History = append(e.History, codecs.Header{Key: string(h.Key), Value: h.Value})
		}
		return yield(e)
	})
}

// Headers are the headers of the event on the loop topic.
func (e *LoopEvent) Headers() []codecs.Header {
	h := source{e.Source.Partition, e.Source.Offset}.header()
	return append([]codecs.Header{{Key: string(h.Key), Value: bytes.Clone(h.Value)}}, e.History...)
}

// Spread is the checkpoint for n partitions, at least as many as before, of the same input: partitions keep their position, added ones start
// at theirs. The watermark of each is the least of all, so nothing that one would have counted is late for its key's new
// partition; windows that were closed behind it say the same once more. Of the sources only the own one is kept: the others
// hold the watermark until they speak, behind what they have to pass on.
func (c Checkpoint) Spread(n int32) (Checkpoint, error) {
	if n < c.Partitions {
		return Checkpoint{}, fmt.Errorf("spread %d partitions over %d: the input can only have gained partitions", c.Partitions, n)
	}
	out := Checkpoint{Definition: c.Definition, Partitions: n}
	least, rekeys := int64(math.MaxInt64), false
	for _, at := range c.Positions {
		least, rekeys = min(least, at.Watermark), rekeys || at.Rekeys
	}
	for _, p := range numbers(n) {
		at := StatePosition{Partition: p, Watermark: least, Rekeys: rekeys || p < c.Partitions && n > c.Partitions}
		if p < c.Partitions {
			at.Input = max(c.Positions[p].Input, 0)
			for _, s := range c.Positions[p].Sources {
				if s.Partition == p {
					at.Sources = append(at.Sources, StateSource{p, s.Status, s.Watermark, -1})
				}
			}
		}
		out.Positions = append(out.Positions, at)
	}
	return out, nil
}

// Vacant refuses a group that state cannot be moved to: one that has state or members, or whose topics do not match the
// checkpoint or its input.
func (l *StateLog) Vacant(c Checkpoint) error {
	if err := l.Stopped(); err != nil {
		return err
	}
	for _, topic := range []string{l.Input, l.table(), l.loop()} {
		n, err := l.count(topic)
		if err != nil {
			return err
		}
		if n != c.Partitions {
			return &RefusalError{
				fmt.Sprintf("topic %s has %d partitions, the state is to have %d", topic, n, c.Partitions),
				"give the input, output, table and loop topics the same number of partitions",
			}
		}
		if topic == l.Input {
			continue
		}
		if err := l.empty(topic, n); err != nil {
			return err
		}
	}
	led, n, err := l.ledger()
	if err != nil {
		return err
	}
	if _, any, err := led.identity(n); err != nil || any {
		return errors.Join(err, l.taken("it has committed positions"))
	}
	return l.Bounds(c)
}

func (l *StateLog) taken(why string) error {
	return &RefusalError{
		fmt.Sprintf("group %s cannot take state: %s", l.Group, why),
		fmt.Sprintf("choose another --group, or delete group %s and its topics %s and %s, then klgstream topics", l.Group, l.table(), l.loop()),
	}
}

func (l *StateLog) empty(topic string, n int32) error {
	for _, p := range numbers(n) {
		end, err := l.Client.GetOffset(topic, p, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("find end of %s/%d: %w", topic, p, err)
		}
		if end > 0 {
			return l.taken(fmt.Sprintf("%s/%d has had %d records", topic, p, end))
		}
	}
	return nil
}

// Bounds refuses an input that does not reach to the checkpoint: it is not the one that was counted. A partition of which nothing
// is committed yet stands nowhere.
func (l *StateLog) Bounds(c Checkpoint) error {
	for _, at := range c.Positions {
		oldest, err1 := l.Client.GetOffset(l.Input, at.Partition, sarama.OffsetOldest)
		newest, err2 := l.Client.GetOffset(l.Input, at.Partition, sarama.OffsetNewest)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("find bounds of %s/%d: %w", l.Input, at.Partition, err)
		}
		if at.Input >= 0 && (at.Input > newest || at.Input < oldest) {
			return &RefusalError{
				fmt.Sprintf("the state stands at %s/%d@%d, but the log reaches from %d to %d: it is another topic, or retention was faster",
					l.Input, at.Partition, at.Input, oldest, newest),
				"name the topic that was counted with --input-topic; the state of another one cannot go on",
			}
		}
	}
	return nil
}

// Commit writes the positions of a group whose table and loop are written, and with it makes the group.
func (l *StateLog) Commit(c Checkpoint) error {
	led, _, err := l.ledger()
	if err != nil {
		return err
	}
	led.id = identity{c.Definition, c.Partitions}
	positions := make(map[int32]position, len(c.Positions))
	for _, at := range c.Positions {
		end, err := l.Client.GetOffset(l.table(), at.Partition, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("find end of %s/%d: %w", l.table(), at.Partition, err)
		}
		pos := position{input: at.Input, loop: at.Loop, clock: clock{watermark: at.Watermark, rekeys: at.Rekeys, table: end}}
		for _, s := range at.Sources {
			pos.clock.sources = append(pos.clock.sources, sourceClock{s.Partition, byte(s.Status), s.Watermark, s.Fence})
		}
		positions[at.Partition] = pos
	}
	return led.commit(member{generation: -1}, positions)
}
