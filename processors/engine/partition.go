package engine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// Reasons of letters that the engine itself gives; a topology's decoder has its own.
const (
	ReasonLate           = "late"
	ReasonFuture         = "future"
	ReasonWrongPartition = "wrong_partition"
	ReasonUndecodable    = "undecodable"
	ReasonLoop           = "foreign_loop_record"
	ReasonKeys           = "too_many_keys"
)

// entry is one key of a partition. A key no window of which is open, or that is not among those lately used, is kept as the
// bytes of its last record. What folding reads comes first: it is in few lines of the cache.
type entry[S any] struct {
	key     string
	live    *live[S] // nil while raw
	dirty   bool
	open    bool // while raw: a window is open
	gone    bool // it is forgotten
	stale   bool // the changelog's last record of it is older than this (E6)
	fires   bool // the watermark has closed a window of it, and it waits for the next cut
	waits   bool // a late event of it is in the next cut
	settles bool // a late event of it is in the cut being written
	name    [shortKey]byte
	alarm   window.Alarm
	seen    int64 // largest event time, ms; only with a state TTL
	raw     []byte
}

// shortKey is up to how many bytes a key is kept in its entry: who looks it up has read the entry then, and there is one object less.
const shortKey = 24

// call names an entry, once.
func (e *entry[S]) call(key []byte) {
	if len(key) > len(e.name) {
		e.key = string(key)
		return
	}
	e.key = unsafe.String(&e.name[0], copy(e.name[:], key)) //nolint:gosec // these bytes are written here and never again
}

// live is a key's decoded record.
type live[S any] struct {
	state     S
	fences    []codecs.Source // E3, ordered by partition
	purged    int64           // E4
	undecided []codecs.Source // late, and the late record may not be acknowledged: those owed, then those sent
	owed      int             // how many an earlier run left; their late records are written when they are delivered again
	inCut     int             // how many of those sent the cut being written holds

	fence [1]codecs.Source // memory of the first: most keys have events of one source
}

func newLive[S any]() *live[S] {
	l := &live[S]{purged: math.MinInt64}
	l.fences = l.fence[:0]
	return l
}

// partition is one partition of the job: its keys, their timers, its clock, and what it has to write. Folding (goka's
// partition loop), the checkpointer and readers share it under mu.
type partition[E, S any] struct {
	id      int32
	count   int32 // partitions of the input
	config  *Config
	topics  *topics
	metrics *partitionMetrics

	mu       sync.Mutex
	released *sync.Cond // a cut was taken, or the run has failed
	failed   error

	topology   Topology[E, S]
	event      E
	record     Record
	entries    map[string]*entry[S]
	table      int64 // changelog offset the entries reflect; -1 = none
	outFrom    int64 // end of the output when the partition was taken over
	generation int32 // the last that had it; 0: none
	outEnd     int64 // end of the output as far as it is known
	heir       int64 // whom the partition was taken over from, as position.writer

	claimed   bool                      // this generation folds it
	ended     time.Time                 // when the last one that did ended
	claim     sarama.ConsumerGroupClaim // of the input
	loopClaim sarama.ConsumerGroupClaim // of the loop
	at        position
	barren    hole      // of the input, from where at stood: no consumer gets to see what is there
	looked    time.Time // when that was last looked for
	timers    window.Timers[*entry[S]]
	hands     hands

	kick       func()
	dirty      []*entry[S]
	spareDirty []*entry[S]
	waiting    []*entry[S] // had a late event since the last cut
	open       *spools
	spare      *spools
	shares     [2]*spools // states and results of two shares of a large cut, in turn
	results    *spool     // where emit puts a result
	emitter    Emit
	pending    int  // bytes in open that folding put there
	room       int  // how many of them there may be
	moved      bool // a position moved since the last cut
	committed  position
	settled    int64     // watermark of the last cut all of which is acknowledged
	savedAt    time.Time // when the last cut was taken
	savedInput int64     // input position of the last cut
	patient    bool      // the next checkpoint waits until the backlog is gone

	near    [groupRecords]*entry[S] // of the records about to be folded
	next    *entry[S]               // of the one that is
	warm    func(s *S) int64        // the topology's Warm, or nil
	warmth  int64
	owns    func(key []byte) bool         // the topology's Owns, or nil
	newer   func(value, than []byte) bool // and its Newer
	shadow  bool                          // the topology is a Shadow
	crowded bool                          // it was told that it has as many keys as it may

	lives     int   // decoded entries
	packed    int   // bytes of the others
	usual     int   // mean bytes of a record written lately
	goal      int64 // end of the changelog when recovery began
	recovered int   // records of the changelog that recovery has read

	keep int        // how many of them may stay so when they are not in use
	idle []*live[S] // memory for further ones

	outcomes                outcomes
	stateBytes, recordBytes []byte // encode's scratch
	envelope                codecs.Envelope
}

// topics are a job's topics with the number of partitions of those that letters are spread over.
type topics struct {
	input, loop, table, output, late, dead string
	latePartitions, deadPartitions         int32
}

func newPartition[E, S any](id, count int32, c *Config, t *topics, top Topology[E, S], m *partitionMetrics, kick func()) *partition[E, S] {
	p := &partition[E, S]{
		id: id, count: count, config: c, topics: t, metrics: m, topology: top, kick: kick,
		entries: make(map[string]*entry[S]), table: -1, keep: max(1, c.DecodedKeys/int(count)), room: max(1, c.MaxPending/int(count)),
	}
	p.released = sync.NewCond(&p.mu)
	p.open, p.spare, p.shares = p.newSpools(), p.newSpools(), [2]*spools{p.newSpools(), p.newSpools()}
	p.emitter = p.emit
	if w, ok := top.(Warmer[S]); ok {
		p.warm = w.Warm
	}
	if o, ok := top.(Owner); ok {
		p.owns, p.newer = o.Owns, o.Newer
	}
	_, p.shadow = top.(Shadow)
	return p
}

func (p *partition[E, S]) newSpools() *spools {
	s := &spools{loop: make(map[int32]*spool)}
	s.table.to = topicPartition{p.topics.table, p.id}
	s.out.to = topicPartition{p.topics.output, p.id}
	s.dead.to = topicPartition{p.topics.dead, p.id % p.topics.deadPartitions}
	s.late.to = topicPartition{p.topics.late, p.id % p.topics.latePartitions}
	return s
}

// begin makes the partition ready to fold from a committed position (E5). Its table is recovered afterwards.
func (p *partition[E, S]) begin(at position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.claimed, p.failed, p.barren = at, true, nil, hole{}
	p.timers = window.Timers[*entry[S]]{}
	p.hands.restore(p.id, p.count, p.config, at.clock)
	p.committed, p.moved, p.settled = at, false, at.clock.watermark
	p.savedInput, p.waiting, p.patient = at.input, nil, false
	for _, e := range p.entries { // kept from an earlier generation
		e.alarm, e.fires, e.waits, e.settles = window.Alarm{}, false, false, false
		p.revive(e)
		p.supersede(e)
	}
}

// appends notes where the own results of a generation will begin, at the end of the output. If the run had the partition in the generation
// before too, nobody else had it in between: what has come behind the own results since is a former owner's, and is looked into (see probe).
// Else it is what has come since the last commit: the one who committed may have died before it looked.
func (p *partition[E, S]) appends(at position, out int64, generation int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.generation > 0 && generation == p.generation+1 && p.outEnd <= out
	if p.generation = generation; kept {
		return
	}
	p.heir = at.writer
	if p.outFrom, p.outEnd = out, out; p.newer != nil && at.out > 0 {
		p.outEnd = min(at.out, out)
	}
}

// recovering notes how far the changelog reaches that is to be read.
func (p *partition[E, S]) recovering(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.goal = end
	p.metrics.recovery.Set(float64(max(0, end-1-p.table)))
}

// isRecovered notes that the changelog is read, and returns how many records that took.
func (p *partition[E, S]) isRecovered() (records int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	records, p.recovered = p.recovered, 0
	p.metrics.recovery.Set(0)
	p.metrics.offset.Set(float64(p.table))
	return records
}

// revive schedules an entry that was recovered or kept, once what is committed counts as published.
func (p *partition[E, S]) revive(e *entry[S]) {
	if e.live != nil {
		p.topology.Settle(&e.live.state, p.hands.start)
		p.schedule(e)
	} else if p.envelope.Parse(e.raw) == nil {
		p.restore(e, &p.envelope)
	}
}

// restore schedules an entry that is kept as bytes, which env has parsed.
func (p *partition[E, S]) restore(e *entry[S], env *codecs.Envelope) {
	if env.Purged > p.hands.start { // the run that wrote it may not have published what it closed
		p.liven(e)
		p.schedule(e)
		return
	}
	e.seen = p.hands.start // not known better
	if e.open = env.Due != codecs.NoDue; e.open {
		e.seen = env.Due // a window is open until then
	}
	p.timers.Move(e, &e.alarm, min(env.Due, p.expiry(e)))
}

func (p *partition[E, S]) schedule(e *entry[S]) {
	if e.fires {
		return // advance schedules it
	}
	p.timers.Schedule(e, &e.alarm, p.topology.Due(&e.live.state))
}

// end stops folding; what was folded and not written stays dirty.
func (p *partition[E, S]) end() {
	p.mu.Lock()
	p.claimed, p.claim, p.loopClaim, p.ended = false, nil, nil, p.config.Now()
	p.mu.Unlock()
}

// left is for how long others may have folded the partition.
func (p *partition[E, S]) left(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed || p.ended.IsZero() {
		return 0
	}
	return now.Sub(p.ended)
}

// unwritten reports whether there is anything that a cut would take.
func (p *partition[E, S]) unwritten() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moved || len(p.dirty) > 0 || p.pending > 0
}

// fail wakes whoever waits for a cut (E2).
func (p *partition[E, S]) fail(err error) {
	p.mu.Lock()
	p.failed = err
	p.released.Broadcast()
	p.mu.Unlock()
}

var errNotClaimed = errors.New("fold: the partition is not claimed")

// process folds one frame.
func (p *partition[E, S]) process(fr *frame, loop bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.claimed {
		return errNotClaimed
	}
	take := p.takeInput
	if loop {
		take = p.takeLoop
	}
	p.hands.heard(p.config.Now(), loop)
	for left := fr.records; len(left) > 0; {
		group := left[:min(len(left), groupRecords)]
		left = left[len(group):]
		p.approach(group)
		for i, m := range group {
			p.next = p.near[i]
			take(m)
			if p.full() {
				if err := p.wait(); err != nil {
					return err
				}
			}
		}
	}
	p.next = nil
	if p.patient && p.behind() <= int64(p.config.FrameRecords) {
		p.patient = false
		p.kick()
	}
	return nil
}

// groupRecords are approached together.
const groupRecords = 16

// find looks up the keys of records, as far as the records' own keys tell, and reads their entries: memory that is in no cache
// is then waited for once for all, not for each in turn.
func (p *partition[E, S]) find(group []*sarama.ConsumerMessage) {
	for i, m := range group {
		p.near[i] = nil
		if len(m.Key) > 0 {
			p.near[i] = p.entries[string(m.Key)]
		}
	}
	for _, e := range p.near[:len(group)] {
		switch {
		case e == nil:
		case e.live != nil:
			p.warmth += e.live.purged + int64(len(e.live.fences))
		case len(e.raw) > 0:
			p.warmth += int64(e.raw[0])
		}
	}
}

// approach finds the entries of records that are about to be folded, and reads their states.
func (p *partition[E, S]) approach(group []*sarama.ConsumerMessage) {
	p.find(group)
	if p.warm == nil {
		return
	}
	for _, e := range p.near[:len(group)] {
		if e != nil && e.live != nil {
			p.warmth += p.warm(&e.live.state)
		}
	}
}

// entry is a key's, or nil.
func (p *partition[E, S]) entry(key []byte) *entry[S] {
	if e := p.next; e != nil && e.key == string(key) && !e.gone {
		return e
	}
	return p.entries[string(key)]
}

func (p *partition[E, S]) full() bool {
	return len(p.dirty) >= p.config.MaxDirty || p.pending >= p.room
}

// wait blocks until a cut has made room or the run has failed.
func (p *partition[E, S]) wait() error {
	for p.full() && p.failed == nil {
		p.kick()
		p.released.Wait()
	}
	return p.failed
}

// takeInput handles one record of the input topic.
func (p *partition[E, S]) takeInput(m *sarama.ConsumerMessage) {
	p.at.input, p.moved = m.Offset+1, true
	src := source{p.id, m.Offset}
	if err := p.decode(m); err == ErrSkip { //nolint:errorlint // never wrapped, and per record
		p.outcomes.skipped++
		return
	} else if err != nil {
		p.bury(src, m, reasonOf(err), err.Error(), math.MinInt64)
		return
	}
	t := p.topology.Time(&p.event)
	if limit, ok := p.skewed(t, m.Timestamp); ok {
		p.bury(src, m, ReasonFuture, limit, t)
		return
	}
	key := p.topology.Key(&p.event)
	if home := PartitionOf(key, p.count); home != p.id {
		p.forward(home, key, src, m, t)
	} else {
		p.fold(key, t, src, m)
	}
	p.observe(t)
}

// decode reads a record. One that its decoder panics of is a dead letter like others that cannot be read, and not the end of the process,
// which would come back to it for ever.
func (p *partition[E, S]) decode(m *sarama.ConsumerMessage) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			p.config.Logger.Error("the decoder panicked", "topic", m.Topic, "partition", m.Partition, "offset", m.Offset, "panic", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("the decoder panicked: %v", fault)
		}
	}()
	p.record = Record{m.Key, m.Value, m.Timestamp}
	return p.topology.Decode(&p.event, &p.record)
}

// takeLoop handles one record of the loop topic: a re-keyed event or another partition's watermark.
func (p *partition[E, S]) takeLoop(m *sarama.ConsumerMessage) {
	p.at.loop, p.moved = m.Offset+1, true
	src, ann, err := parseLoop(m)
	switch {
	case err == nil && ann != nil:
		p.hear(ann)
		return
	case err == nil && (src.partition < 0 || src.partition >= p.count):
		err = errors.New("source partition out of range")
	}
	if err != nil {
		p.bury(source{-1, m.Offset}, m, ReasonLoop, err.Error(), math.MinInt64)
		return
	}
	if src.offset <= p.hands.fences[src.partition] { // a repeat of what came through already (E7)
		p.outcomes.fenced++
		return
	}
	p.hands.fences[src.partition] = src.offset
	if err := p.decode(m); err != nil {
		p.bury(src, m, reasonOf(err), err.Error(), math.MinInt64)
		return
	}
	p.fold(p.topology.Key(&p.event), p.topology.Time(&p.event), src, m)
}

// fold adds the decoded event to its key's state.
func (p *partition[E, S]) fold(key []byte, t int64, src source, m *sarama.ConsumerMessage) {
	e := p.entry(key)
	if e == nil {
		if limit := p.config.MaxKeys; limit > 0 && len(p.entries) >= limit {
			p.bury(src, m, ReasonKeys, fmt.Sprintf("the partition keeps %d keys already, limit %d (--max-keys, --state-ttl)", len(p.entries), limit), t)
			return
		}
		e = p.create(key)
	}
	l := p.liven(e)
	if f := fenceOf(l, src.partition); f != nil && src.offset <= f.Offset {
		p.refold(e, t, src, m)
		return
	} else if f != nil {
		f.Offset = src.offset
	} else {
		l.fences = insertSource(l.fences, codecs.Source{Partition: src.partition, Offset: src.offset})
	}
	if p.topology.Fold(&l.state, max(p.hands.watermark, l.purged), &p.event) {
		p.outcomes.counted++
		e.seen = max(e.seen, t)
		p.schedule(e)
	} else {
		l.undecided = append(l.undecided, codecs.Source{Partition: src.partition, Offset: src.offset})
		p.late(src, m, t)
		p.await(e)
	}
	p.soil(e)
}

// refold is the fence (E3): a redelivered event changes nothing, but all it may have caused is published again.
func (p *partition[E, S]) refold(e *entry[S], t int64, src source, m *sarama.ConsumerMessage) {
	p.outcomes.fenced++
	if e.live.send(codecs.Source{Partition: src.partition, Offset: src.offset}) {
		p.late(src, m, t)
		p.await(e)
	}
	p.topology.Touch(&e.live.state)
	p.soil(e)
}

// send moves an undecided event from those owed to those sent; false if it is not undecided.
func (l *live[S]) send(s codecs.Source) bool {
	i := slices.Index(l.undecided, s)
	if i >= 0 && i < l.owed {
		l.undecided = append(slices.Delete(l.undecided, i, i+1), s)
		l.owed--
	}
	return i >= 0
}

// published reports whether the committed position has passed an event: then what it caused is acknowledged (E1).
func (p *partition[E, S]) published(s codecs.Source) bool {
	if s.Partition == p.id {
		return s.Offset < p.committed.input
	}
	i := slices.IndexFunc(p.committed.clock.sources, func(c sourceClock) bool { return c.partition == s.Partition })
	return i >= 0 && s.Offset <= p.committed.clock.sources[i].fence
}

func fenceOf[S any](l *live[S], partition int32) *codecs.Source {
	for i := range l.fences {
		if l.fences[i].Partition == partition {
			return &l.fences[i]
		}
	}
	return nil
}

// insertSource keeps fences ordered by partition.
func insertSource(fences []codecs.Source, s codecs.Source) []codecs.Source {
	i, _ := slices.BinarySearchFunc(fences, s, func(a, b codecs.Source) int { return cmp.Compare(a.Partition, b.Partition) })
	return slices.Insert(fences, i, s)
}

func (p *partition[E, S]) create(key []byte) *entry[S] {
	e := &entry[S]{live: newLive[S](), seen: math.MinInt64}
	e.call(key)
	p.entries[e.key] = e
	p.lives++
	return e
}

// liven decodes an entry that is kept as bytes.
func (p *partition[E, S]) liven(e *entry[S]) *live[S] {
	if e.live != nil {
		return e.live
	}
	l := p.unshelve()
	env := &p.envelope
	if err := env.Parse(e.raw); err != nil {
		// The store has parsed these bytes before it took them in.
		panic("engine: entry " + e.key + ": " + err.Error())
	}
	l.fences = append(l.fences, env.Sources...)
	l.undecided = slices.DeleteFunc(append(l.undecided, env.Undecided...), p.published)
	l.owed = len(l.undecided)
	l.purged = env.Purged
	if err := p.topology.Parse(&l.state, env.State, env.Purged); err != nil {
		panic("engine: entry " + e.key + ": " + err.Error())
	}
	p.topology.Settle(&l.state, p.settled)
	p.packed -= len(e.raw)
	e.live, e.raw, e.open = l, nil, false
	p.lives++
	return l
}

// pack keeps an entry as the bytes of its record. Nothing of it may be unwritten or unsettled: to decode it is then as good as a
// restart behind its last checkpoint.
func (p *partition[E, S]) pack(e *entry[S], record []byte) {
	due := p.topology.Due(&e.live.state)
	if e.open = due != math.MaxInt64; e.open {
		e.seen = max(e.seen, due)
	}
	p.shelve(e.live)
	e.raw, e.live = append(make([]byte, 0, len(record)), record...), nil
	p.packed += len(e.raw)
	p.lives--
	p.timers.Move(e, &e.alarm, min(due, p.expiry(e)))
}

// spareLives are always kept on the shelf.
const spareLives = 1024

// shelve keeps the memory of a decoded entry for the next, and unshelve takes it. No more is kept than there are decoded entries, and
// some: keys that come and go leave it behind, and nobody takes it.
func (p *partition[E, S]) shelve(l *live[S]) {
	if len(p.idle) < min(p.keep, p.lives+spareLives) {
		p.idle = append(p.idle, l)
	}
}

func (p *partition[E, S]) unshelve() *live[S] {
	n := len(p.idle) - 1
	if n < 0 {
		return newLive[S]()
	}
	l := p.idle[n]
	p.idle[n], p.idle = nil, p.idle[:n]
	l.fences, l.undecided, l.owed, l.inCut = l.fences[:0], l.undecided[:0], 0, 0
	return l
}

// await puts an entry on the list of those whose late events, or closed windows, the next cut's acknowledgement settles.
func (p *partition[E, S]) await(e *entry[S]) {
	if !e.waits {
		e.waits = true
		p.waiting = append(p.waiting, e)
	}
}

// soil puts an entry on the list of the next cut.
func (p *partition[E, S]) soil(e *entry[S]) {
	if !e.dirty {
		e.dirty = true
		p.dirty = append(p.dirty, e)
	}
}

// forward passes an event on to the partition of its key.
func (p *partition[E, S]) forward(home int32, key []byte, src source, m *sarama.ConsumerMessage, t int64) {
	if p.config.RekeyOff {
		p.bury(src, m, ReasonWrongPartition, "the producer's partitioner does not place keys as Kafka's default does, and re-keying is off", t)
		return
	}
	p.hands.rekeys = true
	p.spoolFor(home).add(key, m.Value, history(m, src.header())...)
	p.pending += footprint(key, m.Value, nil)
	p.outcomes.rekeyed++
}

func (p *partition[E, S]) spoolFor(home int32) *spool {
	s := p.open.loop[home]
	if s == nil {
		s = &spool{to: topicPartition{p.topics.loop, home}}
		p.open.loop[home] = s
	}
	return s
}

// emit takes a result of the topology.
func (p *partition[E, S]) emit(key, value []byte) { p.results.add(key, value) }

// bury writes a dead letter. A shadow only writes those of its own loop.
func (p *partition[E, S]) bury(src source, m *sarama.ConsumerMessage, reason, detail string, t int64) {
	if p.shadow && src.partition >= 0 {
		if p.outcomes.skipped++; reason == ReasonKeys && !p.crowded { // the other job may have room
			p.crowded = true
			p.config.Logger.Warn("events of further keys are passed over", "topic", p.topics.table, "partition", p.id, "offset", src.offset, "reason", detail)
		}
		return
	}
	p.outcomes.dead++
	p.post(&p.open.dead, src, m, reason, detail, t)
}

// late writes a late event.
func (p *partition[E, S]) late(src source, m *sarama.ConsumerMessage, t int64) {
	p.outcomes.late++
	p.post(&p.open.late, src, m, ReasonLate, lateDetail(t, p.hands.watermark), t)
}

// post keeps the original bytes of a record, with where it came from and why it is where it goes.
func (p *partition[E, S]) post(to *spool, src source, m *sarama.ConsumerMessage, reason, detail string, t int64) {
	topic := p.topics.input
	if src.partition < 0 {
		topic, src.partition = p.topics.loop, p.id
	}
	letter := codecs.Letter{
		Reason: reason, Detail: detail, Topic: topic, Partition: src.partition, Offset: src.offset, EventTime: t,
		Key: m.Key, Value: m.Value,
	}
	if t != math.MinInt64 {
		letter.Registration = string(p.topology.Key(&p.event))
	}
	headers := history(m, letterHeaders(&letter)...)
	to.add(m.Key, m.Value, headers...)
	p.pending += footprint(m.Key, m.Value, headers)
}

// HistoryPrefix begins the names of headers that stay with an event wherever the engine passes it on: what was replayed tells so.
const HistoryPrefix = "klg-replayed"

// history adds what a record carries of its history to the headers of what becomes of it.
func history(m *sarama.ConsumerMessage, headers ...*sarama.RecordHeader) []*sarama.RecordHeader {
	for _, h := range m.Headers {
		if h != nil && strings.HasPrefix(string(h.Key), HistoryPrefix) {
			headers = append(headers, h)
		}
	}
	return headers
}

func letterHeaders(l *codecs.Letter) []*sarama.RecordHeader {
	hs := l.Headers()
	out := make([]*sarama.RecordHeader, len(hs))
	for i, h := range hs {
		out[i] = &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value}
	}
	return out
}

// reasonOf is the machine-readable reason of a decoder's error.
func reasonOf(err error) string {
	if field, ok := errors.AsType[*codecs.FieldError](err); ok {
		return field.Reason
	}
	var r interface{ Reason() string }
	if errors.As(err, &r) {
		return r.Reason()
	}
	return ReasonUndecodable
}
