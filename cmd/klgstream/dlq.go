package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/engine"
)

// Headers of a replayed event. The engine keeps them on whatever becomes of it.
const (
	headerReplayed     = engine.HistoryPrefix           // how often, decimal
	headerReplayedFrom = engine.HistoryPrefix + "-from" // the letter it was replayed from: topic/partition@offset
)

// box is one of the two topics that keep events that were not counted.
type box interface {
	topic(n *Names) string
	command() string
}

type (
	deadBox struct{}
	lateBox struct{}
)

func (deadBox) topic(n *Names) string { return n.Dead }
func (deadBox) command() string       { return "dlq" }
func (lateBox) topic(n *Names) string { return n.Late }
func (lateBox) command() string       { return "late" }

// lettersCmd looks after the events that were not counted.
type lettersCmd[B box] struct {
	List   lettersListCmd[B]   `cmd:"" help:"List events: where they are, why, and where they came from."`
	Show   lettersShowCmd[B]   `cmd:"" help:"Show one event with all that is known of it and its original bytes."`
	Replay lettersReplayCmd[B] `cmd:"" help:"Publish the original bytes to the input topic once more. Replaying one twice counts it twice: purge what was replayed."`
	Purge  lettersPurgeCmd[B]  `cmd:"" help:"Delete events up to a position."`
}

// Filter chooses letters.
type Filter struct {
	Reason       []string `placeholder:"WORD" help:"Only events with this reason, repeatable."`
	Registration []string `placeholder:"NUMBER" help:"Only events of this registration number, repeatable."`
	Since        string   `placeholder:"TIME" help:"Only events that arrived at or after this time: RFC 3339, or a duration before now, for example 24h."`
	Until        string   `placeholder:"TIME" help:"Only events that arrived before this time."`
	Partition    []int32  `placeholder:"N" help:"Only events of this partition, repeatable."`
}

func (f *Filter) check() error {
	_, err1 := moment("since", f.Since, time.Time{})
	_, err2 := moment("until", f.Until, time.Time{})
	return errors.Join(err1, err2)
}

// moment is a time as people write it: RFC 3339, or how long before now. Nothing is the zero time.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--%s: %q must be a time as 2026-01-31T12:00:00Z, or a duration before now as 24h", flag, text)
	}
	return at, nil
}

// letter is an event of one of the two topics.
type letter struct {
	codecs.Letter

	record  *sarama.ConsumerMessage
	replays int64  // how often it was replayed already
	from    string // the letter it was last replayed from
	foreign error  // it is no letter: what is wrong with it
}

func (l *letter) position() string { return fmt.Sprintf("%d@%d", l.record.Partition, l.record.Offset) }

// readLetter reads a record. One that is no letter keeps its key and value.
func readLetter(m *sarama.ConsumerMessage) *letter {
	l := &letter{record: m}
	headers := make([]codecs.Header, 0, len(m.Headers))
	for _, h := range m.Headers {
		switch string(h.Key) {
		case headerReplayed:
			l.replays, _ = strconv.ParseInt(string(h.Value), 10, 64)
		case headerReplayedFrom:
			l.from = string(h.Value)
		default:
			headers = append(headers, codecs.Header{Key: string(h.Key), Value: h.Value})
		}
	}
	var err error
	if l.Letter, err = codecs.ParseLetter(m.Key, m.Value, headers); err != nil {
		l.foreign = err
		l.Letter = codecs.Letter{Reason: "not_a_letter", Detail: err.Error(), EventTime: codecs.NoTime, Key: m.Key, Value: m.Value}
	}
	return l
}

// letters are the letters of one topic.
type letters struct {
	client       sarama.Client
	topic        string
	filter       *Filter
	since, until time.Time
	passed       func(*letter) // is told of letters that are not wanted; nil: nobody is
}

func openLetters(k Kafka, topic string, f *Filter, now time.Time) (*letters, error) {
	client, err := sarama.NewClient(k.Brokers, clientConfig(k))
	if err != nil {
		return nil, fmt.Errorf("connect to broker %q (set --brokers or REDPANDA_BROKERS): %w", k.Brokers, err)
	}
	l := &letters{client: client, topic: topic, filter: f}
	l.since, _ = moment("since", f.Since, now) // the settings are valid
	l.until, _ = moment("until", f.Until, now)
	return l, nil
}

// Close gives the connection back.
func (l *letters) Close() error { return l.client.Close() }

// errEnough ends a scan that has seen all it wants.
var errEnough = errors.New("enough")

// scan yields the letters that are wanted, partition by partition, up to the topic's end as it is now.
func (l *letters) scan(ctx context.Context, yield func(*letter) error) error {
	partitions, err := l.client.Partitions(l.topic)
	if err != nil {
		return fmt.Errorf("describe topic %q: %w", l.topic, err)
	}
	for _, p := range l.filter.Partition {
		if err := l.has(p, partitions); err != nil {
			return err
		}
	}
	for _, p := range partitions {
		if len(l.filter.Partition) > 0 && !slices.Contains(l.filter.Partition, p) {
			continue
		}
		switch err := l.scanPartition(ctx, p, yield); {
		case errors.Is(err, errEnough):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// has refuses a partition that the topic does not have.
func (l *letters) has(p int32, partitions []int32) error {
	if slices.Contains(partitions, p) {
		return nil
	}
	return fmt.Errorf("find %s/%d: the topic has partitions 0 to %d", l.topic, p, len(partitions)-1)
}

func (l *letters) scanPartition(ctx context.Context, p int32, yield func(*letter) error) error {
	end, err := l.client.GetOffset(l.topic, p, sarama.OffsetNewest)
	if err != nil {
		return fmt.Errorf("find end of %s/%d: %w", l.topic, p, err)
	}
	return engine.ReadPartition(ctx, l.client, l.topic, p, 0, end, func(m *sarama.ConsumerMessage) error {
		letter := readLetter(m)
		if l.wants(letter) {
			return yield(letter)
		}
		if l.passed != nil {
			l.passed(letter)
		}
		return nil
	})
}

func (l *letters) wants(x *letter) bool {
	f, at := l.filter, x.record.Timestamp
	return (len(f.Reason) == 0 || slices.Contains(f.Reason, x.Reason)) &&
		(len(f.Registration) == 0 || slices.ContainsFunc(f.Registration, x.isOf)) &&
		(l.since.IsZero() || !at.Before(l.since)) && (l.until.IsZero() || at.Before(l.until))
}

// isOf tells whether the letter is of a registration number, which people write in lower case, too.
func (l *letter) isOf(registration string) bool {
	return strings.EqualFold(strings.TrimSpace(registration), l.Registration)
}

// lettersListCmd lists letters.
type lettersListCmd[B box] struct {
	Filter `group:"letters"`
	Limit  int  `default:"100" placeholder:"N" help:"At most this many events; 0: all. Default ${default}." group:"letters"`
	JSON   bool `name:"json" help:"One JSON object per line instead of a table." group:"letters"`
	Kafka  `group:"kafka"`
	Names  `group:"names"`
}

func (c *lettersListCmd[B]) check() error {
	return errors.Join(checkAll(&c.Filter, &c.Kafka, &c.Names), atLeast("limit", c.Limit, 0))
}

// Run lists.
func (c *lettersListCmd[B]) Run(ctx context.Context, a *app) error {
	var b B
	from, err := openLetters(c.Kafka, b.topic(&c.Names), &c.Filter, a.now())
	if err != nil {
		return err
	}
	defer from.Close()
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	show := func(l *letter) error { return l.row(table) }
	if c.JSON {
		out := json.NewEncoder(a.stdout)
		show = func(l *letter) error { return out.Encode(l.view(false)) }
	} else {
		fmt.Fprintln(table, "POSITION\tARRIVED\tREASON\tREGISTRATION\tSOURCE\tREPLAYED\tDETAIL")
	}
	n := 0
	err = from.scan(ctx, func(l *letter) error {
		if c.Limit > 0 && n == c.Limit {
			fmt.Fprintf(a.stderr, "there are more than %d: raise --limit\n", n)
			return errEnough
		}
		n++
		return show(l)
	})
	return errors.Join(err, table.Flush())
}

func (l *letter) row(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", l.position(), l.record.Timestamp.UTC().Format(time.RFC3339),
		l.Reason, cmp.Or(l.Registration, "-"), l.source(), l.replays, oneLine(l.Detail))
	return err
}

func (l *letter) source() string {
	if l.foreign != nil {
		return "-"
	}
	return fmt.Sprintf("%s/%d@%d", l.Topic, l.Partition, l.Offset)
}

// oneLine keeps what strangers wrote from breaking a table or a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// letterView is a letter as JSON.
type letterView struct {
	Position     string  `json:"position"`
	Arrived      string  `json:"arrived"`
	Reason       string  `json:"reason"`
	Detail       string  `json:"detail"`
	Source       string  `json:"source,omitempty"`
	EventTime    string  `json:"event_time,omitempty"`
	Registration string  `json:"registration_number,omitempty"`
	Replayed     int64   `json:"replayed"`
	ReplayedFrom string  `json:"replayed_from,omitempty"`
	Key          *string `json:"key,omitempty"`
	Value        *string `json:"value,omitempty"`       // as text, if it is UTF-8
	Bytes        []byte  `json:"value_bytes,omitempty"` // base64 otherwise
}

func (l *letter) view(whole bool) letterView {
	v := letterView{
		Position: l.position(), Arrived: l.record.Timestamp.UTC().Format(time.RFC3339Nano), Reason: l.Reason, Detail: l.Detail,
		Registration: l.Registration, Replayed: l.replays, ReplayedFrom: l.from,
	}
	if l.foreign == nil {
		v.Source = l.source()
	}
	if l.EventTime != codecs.NoTime {
		v.EventTime = string(codecs.AppendTime(nil, l.EventTime))
	}
	if !whole {
		return v
	}
	if l.Key != nil {
		key := string(l.Key)
		v.Key = &key
	}
	if text := string(l.Value); utf8.ValidString(text) {
		v.Value = &text
	} else {
		v.Bytes = l.Value
	}
	return v
}

// parsePosition reads partition@offset.
func parsePosition(text string) (partition int32, offset int64, err error) {
	p, o, ok := strings.Cut(text, "@")
	n, err1 := strconv.ParseInt(p, 10, 32)
	offset, err2 := strconv.ParseInt(o, 10, 64)
	if !ok || err1 != nil || err2 != nil || n < 0 || offset < 0 {
		return 0, 0, fmt.Errorf("position %q must be partition@offset, for example 0@17", text)
	}
	return int32(n), offset, nil
}

// lettersShowCmd shows one letter.
type lettersShowCmd[B box] struct {
	Position string `arg:"" help:"Which one: partition@offset, as list shows it."`
	Raw      bool   `help:"Only the original bytes." group:"letters"`
	Kafka    `group:"kafka"`
	Names    `group:"names"`
}

func (c *lettersShowCmd[B]) check() error {
	_, _, err := parsePosition(c.Position)
	return errors.Join(err, checkAll(&c.Kafka, &c.Names))
}

// Run shows it as indented JSON, or its bytes.
func (c *lettersShowCmd[B]) Run(ctx context.Context, a *app) error {
	var b B
	from, err := openLetters(c.Kafka, b.topic(&c.Names), &Filter{}, a.now())
	if err != nil {
		return err
	}
	defer from.Close()
	partition, offset, _ := parsePosition(c.Position) // it is valid
	partitions, err := from.client.Partitions(from.topic)
	if err != nil {
		return fmt.Errorf("describe topic %q: %w", from.topic, err)
	}
	if err := from.has(partition, partitions); err != nil {
		return err
	}
	var found *letter
	err = engine.ReadPartition(ctx, from.client, from.topic, partition, offset, offset+1, func(m *sarama.ConsumerMessage) error {
		found = readLetter(m)
		return nil
	})
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("show %s/%s: there is no such event (any more)", from.topic, c.Position)
	case c.Raw:
		_, err := a.stdout.Write(found.Value)
		return err
	}
	out := json.NewEncoder(a.stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(found.view(true))
}

// lettersReplayCmd publishes letters to the input once more.
type lettersReplayCmd[B box] struct {
	Filter     `group:"letters"`
	Limit      int     `default:"0" placeholder:"N" help:"At most this many events; 0: all. Default ${default}." group:"letters"`
	Rate       float64 `default:"0" placeholder:"N" help:"At most this many events a second; 0: no limit. Default ${default}." group:"letters"`
	MaxReplays int64   `default:"3" placeholder:"N" help:"Refuse events that were replayed so often already. Default ${default}." group:"letters"`
	DryRun     bool    `help:"Only say what would be published." group:"letters"`
	Kafka      `group:"kafka"`
	Names      `group:"names"`
}

func (c *lettersReplayCmd[B]) check() error {
	faults := []error{checkAll(&c.Filter, &c.Kafka, &c.Names), atLeast("limit", c.Limit, 0), atLeast("rate", c.Rate, 0)}
	if c.MaxReplays < 1 {
		faults = append(faults, fmt.Errorf("--max-replays: %d must be at least 1", c.MaxReplays))
	}
	return errors.Join(faults...)
}

// Run publishes what the filter chooses, up to the end the topic has now: what comes back is not replayed by the same run.
func (c *lettersReplayCmd[B]) Run(ctx context.Context, a *app) error {
	var b B
	from, err := openLetters(c.Kafka, b.topic(&c.Names), &c.Filter, a.now())
	if err != nil {
		return err
	}
	defer from.Close()
	r := &redelivery{
		topic: from.topic, results: c.Output, limit: c.Limit, most: c.MaxReplays, through: map[int32]int64{}, left: map[int32]bool{},
		pace: pacer{now: a.now, began: a.now(), rate: c.Rate},
	}
	from.passed = r.leave
	if c.DryRun {
		err = from.scan(ctx, r.pretend(a.stdout))
		return errors.Join(err, r.report(a.stdout, b.command(), "would be replayed"))
	}
	p, err := newPublisher(c.Kafka, c.Input)
	if err != nil {
		return err
	}
	r.counts = &replayer{to: p, now: a.now, began: a.now()}
	stop := a.showProgress(ctx, r.counts, &countingReader{}, -1)
	err = from.scan(ctx, r.publish(ctx))
	_ = p.Close() // always nil: what was not acknowledged is counted
	stop()
	r.counts.ended = a.now()
	fmt.Fprintln(a.stdout, r.counts.report())
	return errors.Join(err, r.counts.failure(), r.report(a.stdout, b.command(), "replayed"))
}

// redelivery is one replay of letters.
type redelivery struct {
	topic          string
	results        string // topic whose letters are no events, but the sink's
	limit          int
	most           int64
	pace           pacer
	counts         *replayer
	taken          int
	worn, foreign  int
	refused        int             // results the store did not take
	through        map[int32]int64 // per partition, the last offset taken with all before it
	left           map[int32]bool  // partitions with a letter that is not taken
	behind         int             // letters taken behind such a one
	wornPositions  []string        // the first few
	foreignFirstAt string
}

// take decides whether a letter is replayed.
func (r *redelivery) take(l *letter) (bool, error) {
	switch {
	case r.limit > 0 && r.taken == r.limit:
		return false, errEnough
	case l.foreign != nil:
		r.leave(l)
		r.foreign++
		r.foreignFirstAt = cmp.Or(r.foreignFirstAt, l.position())
		return false, nil //nolint:nilerr // told in the end, all together
	case l.Topic == r.results:
		r.leave(l)
		r.refused++
		return false, nil
	case l.replays >= r.most:
		r.leave(l)
		if r.worn++; len(r.wornPositions) < 5 {
			r.wornPositions = append(r.wornPositions, l.position())
		}
		return false, nil
	}
	r.taken++
	if r.left[l.record.Partition] {
		r.behind++
	} else {
		r.through[l.record.Partition] = l.record.Offset
	}
	return true, nil
}

// leave remembers that a letter is not replayed: a purge up to one behind it would delete it.
func (r *redelivery) leave(l *letter) { r.left[l.record.Partition] = true }

func (r *redelivery) pretend(w io.Writer) func(*letter) error {
	return func(l *letter) error {
		ok, err := r.take(l)
		if ok {
			fmt.Fprintf(w, "%s %s %s %s\n", l.position(), l.Reason, cmp.Or(l.Registration, "-"), l.source())
		}
		return err
	}
}

func (r *redelivery) publish(ctx context.Context) func(*letter) error {
	return func(l *letter) error {
		ok, err := r.take(l)
		if !ok || err != nil {
			return err
		}
		if err := r.pace.wait(ctx, codecs.NoTime); err != nil {
			return err
		}
		rec := record{key: cmp.Or(l.Registration, string(l.Key)), value: l.Value, headers: []sarama.RecordHeader{
			{Key: []byte(headerReplayed), Value: strconv.AppendInt(nil, l.replays+1, 10)},
			{Key: []byte(headerReplayedFrom), Value: []byte(r.topic + "/" + l.position())},
		}}
		if err := r.counts.to.send(ctx, rec, r.counts.done); err != nil {
			return err
		}
		r.counts.sent.Add(1)
		return nil
	}
}

// report says what was done and what was refused, and how the replayed are removed. What was refused is an error.
func (r *redelivery) report(w io.Writer, command, did string) error {
	fmt.Fprintf(w, "%d events %s\n", r.taken, did)
	if did == "replayed" && r.counts.acknowledged.Load() == int64(r.taken) {
		r.advise(w, command)
	}
	var faults []error
	if r.worn > 0 {
		faults = append(faults, fmt.Errorf("%d events were refused, replayed %d times before (%s, …): mend their cause, then raise --max-replays",
			r.worn, r.most, strings.Join(r.wornPositions, ", ")))
	}
	if r.refused > 0 {
		faults = append(faults, fmt.Errorf("%d are results of %s that the store did not take, and no events: load them again by klgstream sink --from-beginning", r.refused, r.results))
	}
	if r.foreign > 0 {
		faults = append(faults, fmt.Errorf("%d records of %s are no letters of this program and were left alone, the first %s", r.foreign, r.topic, r.foreignFirstAt))
	}
	return errors.Join(faults...)
}

// advise says how the replayed are kept from being counted twice. Only the beginning of a partition can be deleted.
func (r *redelivery) advise(w io.Writer, command string) {
	if len(r.through) > 0 {
		fmt.Fprintf(w, "to keep them from being counted twice by another replay, delete everything up to them: klgstream %s purge", command)
		for _, p := range sortedKeys(r.through) {
			fmt.Fprintf(w, " %d@%d", p, r.through[p])
		}
		fmt.Fprintln(w)
	}
	if r.behind > 0 {
		fmt.Fprintf(w, "%d of them stand behind events that were not replayed, and cannot be deleted without those: keep another replay from them, for example with --since\n", r.behind)
	}
}

func sortedKeys[V any](m map[int32]V) []int32 {
	keys := make([]int32, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// lettersPurgeCmd deletes letters.
type lettersPurgeCmd[B box] struct {
	Positions []string `arg:"" optional:"" help:"Last event to delete of a partition, with all before it: partition@offset, repeatable."`
	All       bool     `help:"Delete all events there are now." group:"letters"`
	Until     string   `placeholder:"TIME" help:"Delete all events that arrived before this time: RFC 3339, or a duration before now, for example 720h." group:"letters"`
	Partition []int32  `placeholder:"N" help:"With --all or --until: only events of this partition, repeatable." group:"letters"`
	DryRun    bool     `help:"Only say what would be deleted." group:"letters"`
	Yes       bool     `help:"Do delete: they cannot be brought back." group:"letters"`
	Kafka     `group:"kafka"`
	Names     `group:"names"`
}

func (c *lettersPurgeCmd[B]) check() error {
	_, when := moment("until", c.Until, time.Time{})
	faults := []error{checkAll(&c.Kafka, &c.Names), when}
	ways := 0
	for _, given := range []bool{c.All, c.Until != "", len(c.Positions) > 0} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		faults = append(faults, errors.New("purge needs either positions, or --until, or --all"))
	}
	if len(c.Partition) > 0 && len(c.Positions) > 0 {
		faults = append(faults, errors.New("--partition: positions name their partitions"))
	}
	seen := map[int32]bool{}
	for _, text := range c.Positions {
		p, _, err := parsePosition(text)
		if err == nil && seen[p] {
			err = fmt.Errorf("position %q: partition %d is given twice", text, p)
		}
		seen[p] = true
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Run deletes, if it is told to with --yes.
func (c *lettersPurgeCmd[B]) Run(ctx context.Context, a *app) error {
	var b B
	from, err := openLetters(c.Kafka, b.topic(&c.Names), &Filter{}, a.now())
	if err != nil {
		return err
	}
	defer from.Close()
	before, total, err := c.plan(from, a.now(), a.stdout)
	if err != nil {
		return err
	}
	switch {
	case c.DryRun || total == 0:
		fmt.Fprintf(a.stdout, "%d events would be deleted\n", total)
		return nil
	case !c.Yes:
		return fmt.Errorf("purge %s: %d events would be deleted for ever; add --yes to do it", from.topic, total)
	}
	admin, err := newTopicAdmin(c.Kafka)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.DeleteRecords(from.topic, before); err != nil {
		return fmt.Errorf("delete records of %q: %w", from.topic, err)
	}
	fmt.Fprintf(a.stdout, "%d events deleted\n", total)
	return ctx.Err()
}

// plan is the first offset to keep of each partition that loses events, and how many it is in all.
func (c *lettersPurgeCmd[B]) plan(from *letters, now time.Time, w io.Writer) (before map[int32]int64, total int64, err error) {
	wanted := map[int32]int64{}
	for _, text := range c.Positions {
		p, offset, _ := parsePosition(text) // it is valid
		wanted[p] = offset + 1
	}
	partitions, err := from.client.Partitions(from.topic)
	if err != nil {
		return nil, 0, fmt.Errorf("describe topic %q: %w", from.topic, err)
	}
	for _, p := range c.Partition {
		if err := from.has(p, partitions); err != nil {
			return nil, 0, err
		}
	}
	before = map[int32]int64{}
	for _, p := range partitions {
		oldest, err1 := from.client.GetOffset(from.topic, p, sarama.OffsetOldest)
		newest, err2 := from.client.GetOffset(from.topic, p, sarama.OffsetNewest)
		if err := errors.Join(err1, err2); err != nil {
			return nil, 0, fmt.Errorf("find bounds of %s/%d: %w", from.topic, p, err)
		}
		to, ok := wanted[p]
		delete(wanted, p)
		if len(c.Positions) == 0 {
			if to, err = c.first(from, p, newest, now); err != nil {
				return nil, 0, err
			}
			ok = len(c.Partition) == 0 || slices.Contains(c.Partition, p)
		}
		if to > newest {
			return nil, 0, fmt.Errorf("purge %s/%d@%d: the last event is %d@%d", from.topic, p, to-1, p, newest-1)
		}
		if ok && to > oldest {
			before[p] = to
			total += to - oldest
			fmt.Fprintf(w, "%s/%d: %d events, %d to %d\n", from.topic, p, to-oldest, oldest, to-1)
		}
	}
	if len(wanted) > 0 {
		return nil, 0, fmt.Errorf("purge %s: there is no partition %d", from.topic, sortedKeys(wanted)[0])
	}
	return before, total, nil
}

// first is the first offset of a partition to keep.
func (c *lettersPurgeCmd[B]) first(from *letters, p int32, newest int64, now time.Time) (int64, error) {
	if c.All {
		return newest, nil
	}
	until, _ := moment("until", c.Until, now) // it is valid
	offset, err := from.client.GetOffset(from.topic, p, until.UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("find %s in %s/%d: %w", until.Format(time.RFC3339), from.topic, p, err)
	}
	if offset < 0 { // all are older
		return newest, nil
	}
	return min(offset, newest), nil
}
