package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
)

// cut is what one partition has to write and commit in one checkpoint.
//
// Its states are encoded and written share by share, so that much to write takes little memory and folding waits for one share
// at most. A state written later than the first share may hold events behind the position of the cut: a replay finds them
// fenced (E3), as it finds those of a checkpoint that was broken off. Late events are published behind the last share, when all
// states that know of them are acknowledged.
type cut[E, S any] struct {
	p       *partition[E, S]
	spools  *spools     // what folding put there, and the first share
	entries []*entry[S] // to be written
	begun   int         // how many of them are encoded
	fresh   portion     // the last share encoded
	stated  portion     // the share before: its states are acknowledged, its results may not be
	settles []*entry[S] // had a late event before the cut
	at      position
	did     outcomes
}

// portion is one share of a cut.
type portion struct {
	spools   *spools // nil: there is none
	from, to int     // of the cut's entries
}

// longestPause bounds the time between two checkpoints when each takes longer than the commit interval, or when the input lies
// far behind.
const longestPause = time.Second

// A partition lies far behind when more than farBehind records are waiting, and more than were folded since the last checkpoint
// as long as those are less than veryFarBehind.
const farBehind, veryFarBehind = 10_000, 100_000

// checkpoints writes the session's partitions every commit interval until it is stopped or one fails.
func (r *run[E, S]) checkpoints(ctx context.Context, s *session[E, S]) {
	ticker := time.NewTicker(r.config.CommitInterval)
	defer ticker.Stop()
	// A write goes on when the session ends: finish waits for it.
	ctx = context.WithoutCancel(ctx)
	for {
		select {
		case <-ticker.C:
		case <-r.kicked:
		case <-s.stop:
			return
		}
		began := r.config.Now()
		if err := r.checkpoint(ctx, s); err != nil {
			r.fail(fmt.Errorf("checkpoint: %w", err))
			return
		}
		ended := r.config.Now()
		r.owner.beat(ended, len(s.partitions), r.unread(s, ended))
		ticker.Reset(r.interval(s, ended.Sub(began)))
	}
}

// smallCheckpoint is up to how many keys nothing is gained by putting a checkpoint off: what makes it slow is the broker or the machine.
const smallCheckpoint = 1000

// interval is the time to the next checkpoint. A large one that takes long is followed by a longer pause, in which more events of a
// key come together; and so is any while the input lies far behind: results are late by what waits before them, not by the pause,
// which ends when the backlog does.
func (r *run[E, S]) interval(s *session[E, S], took time.Duration) time.Duration {
	longest := max(r.config.CommitInterval, longestPause)
	if r.farBehind(s) {
		for _, p := range s.partitions {
			p.bePatient()
		}
		return longest
	}
	if took > r.config.CommitInterval && r.wrote.Keys > smallCheckpoint {
		return min(2*took, longest)
	}
	return r.config.CommitInterval
}

// farBehind reports whether every partition that has something to read lies far behind: the results of none are waited for.
func (r *run[E, S]) farBehind(s *session[E, S]) bool {
	far := false
	for _, p := range s.partitions {
		switch p.backlog() {
		case backlogNear:
			return false
		case backlogFar:
			far = true
		case backlogNone:
		}
	}
	return far
}

// backlog is how much of a partition's input waits.
type backlog int

const (
	backlogNone backlog = iota // nothing, and nothing came
	backlogNear
	backlogFar
)

// checkpoint is one micro-checkpoint of all partitions: cut, write states, write results, commit.
func (r *run[E, S]) checkpoint(ctx context.Context, s *session[E, S]) (err error) {
	began := r.config.Now()
	if err := r.probe(ctx, s, began); err != nil {
		return err
	}
	r.look(s, began)
	r.drop(s, began)
	cuts := s.cuts[:0]
	for _, p := range s.partitions {
		p.tick(began)
		if c, ok := p.cut(began); ok {
			cuts = append(cuts, c)
		}
	}
	s.cuts = cuts
	if len(cuts) == 0 {
		return nil
	}
	committed := false
	r.wrote = sized(cuts)
	defer func() { r.tell(began, committed, err) }()
	sound, err := r.write(ctx, s, cuts)
	if err != nil {
		return err
	}
	positions := make(map[int32]position, len(cuts))
	for i := range cuts {
		c := &cuts[i]
		c.at.clock.table, c.at.out = c.p.ends()
		c.at.writer = r.outbox.producer.id + 1
		positions[c.p.id] = c.at
	}
	if sound { // else the next checkpoint commits, when what was found is written over
		if committed, err = r.commit(ctx, s, positions); err != nil {
			return err
		}
	}
	for _, c := range cuts {
		c.p.settle(c, committed)
	}
	clear(cuts)
	return nil
}

// write sends states, re-keyed events and dead letters, and when they are acknowledged results and late events: of several shares the
// states of one together with the results of the one before. It reports whether the changelogs held nothing of others.
func (r *run[E, S]) write(ctx context.Context, s *session[E, S], cuts []cut[E, S]) (sound bool, err error) {
	permit := func() error { return r.renew(s) }
	var all, late []*spool
	for _, c := range cuts {
		all, late = c.spools.first(all), appendFilled(late, &c.spools.late)
	}
	for sound = true; ; {
		r.weigh(all)
		acks, err := r.outbox.write(ctx, permit, all)
		if err != nil {
			return false, err
		}
		ok, err := r.unbroken(ctx, s, cuts, acks)
		if err != nil {
			return false, err
		}
		sound, all = sound && ok, all[:0]
		more := false
		for i := range cuts {
			c := &cuts[i]
			c.p.release(c)
			if c.stated.spools != nil {
				all = appendFilled(all, &c.stated.spools.out)
			}
			if c.begun < len(c.entries) {
				more = true
				c.p.nextShare(c)
				all = appendFilled(all, &c.fresh.spools.table)
			}
		}
		if !more {
			all = append(all, late...)
			r.weigh(all)
			acks, err := r.outbox.write(ctx, permit, all)
			if err != nil {
				return false, err
			}
			ok, err := r.unbroken(ctx, s, cuts, acks)
			return sound && ok, err
		}
	}
}

// sized is what a checkpoint is about to write, as far as that is known before.
func sized[E, S any](cuts []cut[E, S]) (c Checkpointed) {
	c.Partitions = len(cuts)
	for i := range cuts {
		c.Keys += len(cuts[i].entries)
	}
	return c
}

// weigh adds to what the checkpoint writes.
func (r *run[E, S]) weigh(spools []*spool) {
	for _, s := range spools {
		r.wrote.Records += len(s.records)
		r.wrote.Bytes += s.bytes
	}
}

// tell reports a checkpoint that is over.
func (r *run[E, S]) tell(began time.Time, committed bool, err error) {
	c := r.wrote
	c.Group, c.Began, c.Ended, c.Committed, c.Err = r.job.Group, began, r.config.Now(), committed, err
	r.owner.metrics.checkpointed(&c, r.began)
	if r.began = began; r.config.Checkpointed != nil {
		r.config.Checkpointed(c)
	}
}

// unbroken notes how far changelogs and outputs are written, and mends what others have appended between (see probe). False if that
// was states, which the next checkpoint writes over.
func (r *run[E, S]) unbroken(ctx context.Context, s *session[E, S], cuts []cut[E, S], acks acked) (bool, error) {
	sound := true
	for i := range cuts {
		p := cuts[i].p
		table, out := p.acknowledged(acks)
		for _, h := range table {
			sound = false
			if err := r.heal(ctx, p, h); err != nil {
				return false, err
			}
		}
		for _, h := range out {
			if err := r.repeat(ctx, s, p, h); err != nil {
				return false, err
			}
		}
	}
	return sound, nil
}

// renew proves the membership before a write if the last proof is older than half a session time-out (E7): whoever was
// paused longer may have lost its partitions to another member, and does not write.
func (r *run[E, S]) renew(s *session[E, S]) error {
	now := r.config.Now()
	if age := now.Sub(s.lease); age >= 0 && age < r.config.SessionTimeout/2 {
		return nil
	}
	err := r.ledger.heartbeat(s.member)
	switch {
	case err == nil:
		s.lease = now
	case errors.Is(err, sarama.ErrRebalanceInProgress): // it is a member still; for how long, nobody knows
	default:
		return &membershipError{err}
	}
	return nil
}

// membershipError is a member that may not write any more.
type membershipError struct{ err error }

func (e *membershipError) Error() string {
	return "this member may have lost its partitions, nothing more is written: " + e.err.Error()
}
func (e *membershipError) Unwrap() error { return e.err }

// commit writes the positions. False without an error: a rebalance keeps the group from taking them; what was written
// stands, and the next owner's fences cover it.
func (r *run[E, S]) commit(ctx context.Context, s *session[E, S], positions map[int32]position) (bool, error) {
	deadline := r.config.Now().Add(r.config.WriteTimeout)
	for attempt := 1; ; attempt++ {
		sent := r.config.Now()
		err := r.ledger.commit(s.member, positions)
		var lost *unreachableError
		switch {
		case err == nil:
			s.lease = sent
			return true, nil
		case errors.Is(err, sarama.ErrRebalanceInProgress):
			return false, nil
		case (moved(err) || errors.As(err, &lost) || errors.Is(err, sarama.ErrRequestTimedOut)) && r.config.Now().Before(deadline):
			r.log.Warn("repeating a commit", "attempt", attempt, "error", err)
			_ = r.client.RefreshCoordinator(r.job.Group)
			if err := pause(ctx, min(time.Duration(attempt)*50*time.Millisecond, time.Second)); err != nil {
				return false, err
			}
		default:
			return false, err
		}
	}
}

// cut takes what is to be written. States are encoded after their results are collected, so that they carry what the
// collection marked.
func (p *partition[E, S]) cut(now time.Time) (cut[E, S], bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.speak(now)
	if len(p.dirty) == 0 && p.pending == 0 && !p.moved && !p.overdue(now) {
		return cut[E, S]{}, false
	}
	for _, e := range p.waiting {
		e.waits, e.settles = false, true
		e.live.inCut = len(e.live.undecided) - e.live.owed
	}
	c := cut[E, S]{p: p, spools: p.open, entries: p.dirty, settles: p.waiting, at: p.at, did: p.outcomes}
	p.outcomes, p.waiting = outcomes{}, nil
	p.encodeShare(&c, c.spools)
	c.at.clock = p.hands.clock()
	p.metrics.all.dirty.Observe(float64(len(p.dirty)))
	p.open, p.spare = p.spare, nil
	p.dirty, p.spareDirty, p.pending, p.moved = p.spareDirty[:0], nil, 0, false
	p.savedAt, p.savedInput = now, p.at.input
	p.released.Broadcast()
	return c, true
}

// nextShare encodes the next states of a cut.
func (p *partition[E, S]) nextShare(c *cut[E, S]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := p.shares[0]
	if c.stated.spools == to {
		to = p.shares[1]
	}
	p.encodeShare(c, to)
}

// encodeShare collects results and encodes states of as many keys as are written at a time: in one batch, if it can be.
func (p *partition[E, S]) encodeShare(c *cut[E, S], to *spools) {
	entries := c.entries[c.begun:min(len(c.entries), c.begun+p.config.ShareKeys)]
	enough := p.config.MaxBatch - p.config.MaxBatch/16
	p.results = &to.out
	n := 0
	for ; n < len(entries) && to.table.bytes < enough && to.out.bytes < enough; n++ {
		if n%groupRecords == 0 {
			p.heat(entries[n:min(len(entries), n+groupRecords)])
		}
		e := entries[n]
		if e.fires {
			p.advance(e)
		}
		l := p.liven(e) // recovery may have packed what an earlier generation left to write
		p.topology.Collect(e.key, &l.state, max(p.hands.watermark, l.purged), p.emitter)
		to.table.add([]byte(e.key), p.encode(e))
		e.dirty = false
	}
	c.fresh = portion{to, c.begun, c.begun + n}
	c.begun += n
	p.weigh(to.table.bytes, len(to.table.records))
}

// weigh takes the mean size of records from what was written last.
func (p *partition[E, S]) weigh(bytes, records int) {
	if records > 0 {
		p.usual = bytes / records
	}
}

// heat reads entries that are about to be encoded or settled.
func (p *partition[E, S]) heat(entries []*entry[S]) {
	if p.warm == nil {
		return
	}
	for _, e := range entries {
		if e.live != nil {
			p.warmth += p.warm(&e.live.state)
		}
	}
}

// release ends the share whose results are acknowledged; the one whose states are is next.
func (p *partition[E, S]) release(c *cut[E, S]) {
	p.empty(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest(c)
}

// empty makes the spools of the share whose results are acknowledged ready for another one; those of the cut itself stay to its end.
func (p *partition[E, S]) empty(c *cut[E, S]) {
	if s := c.stated.spools; s != nil && s != c.spools {
		p.metrics.wrote("table", &s.table)
		p.metrics.wrote("output", &s.out)
		s.table.reset()
		s.out.reset()
	}
}

// rest settles the share whose results are acknowledged, and packs the keys that nothing is left to be done for, if they have no
// window open or too many are decoded. They are settled to the watermark that this checkpoint commits and no further: a restart
// begins there, and tells what closed behind it again, for which it needs the slices. What a later share closed behind it is settled
// with the next checkpoint.
func (p *partition[E, S]) rest(c *cut[E, S]) {
	to := c.at.clock.watermark
	p.settled = max(p.settled, to)
	entries := c.entries[c.stated.from:c.stated.to]
	for i, e := range entries {
		if i%groupRecords == 0 {
			p.heat(entries[i:min(len(entries), i+groupRecords)])
		}
		p.topology.Settle(&e.live.state, to)
		if e.live.purged > to {
			p.await(e)
		}
		p.retire(e)
	}
	c.stated, c.fresh = c.fresh, portion{}
}

// retire packs an entry that has been settled.
func (p *partition[E, S]) retire(e *entry[S]) {
	if e.dirty || e.waits || e.settles || len(e.live.undecided) > 0 {
		return
	}
	switch {
	case p.topology.Idle(&e.live.state):
		p.pack(e, p.encode(e))
	case p.lives <= p.keep:
	case e.live.purged > p.committed.clock.watermark:
		// If the group does not take the commit, the next generation begins before what was settled. A decoded key knows what it
		// has told; from its bytes it would tell it again, without the slices that were settled.
		p.await(e)
	default:
		p.pack(e, p.encode(e))
	}
}

// backlog says how much of the input waits.
func (p *partition[E, S]) backlog() backlog {
	p.mu.Lock()
	defer p.mu.Unlock()
	folded := p.at.input - p.savedInput
	switch behind := p.behind(); {
	case behind > max(farBehind, min(folded, veryFarBehind)):
		return backlogFar
	case behind > 0 || folded > 0:
		return backlogNear
	}
	return backlogNone
}

// bePatient lets folding tell when the backlog is gone.
func (p *partition[E, S]) bePatient() {
	p.mu.Lock()
	p.patient = true
	p.mu.Unlock()
}

// encode is an entry's record; the bytes are valid until the next encode.
func (p *partition[E, S]) encode(e *entry[S]) []byte {
	if e.live == nil {
		return e.raw
	}
	p.stateBytes = p.topology.Append(p.stateBytes[:0], &e.live.state)
	env := codecs.Envelope{
		Sources: e.live.fences, Purged: e.live.purged, Undecided: e.live.undecided,
		Due: p.topology.Due(&e.live.state), State: p.stateBytes,
	}
	p.recordBytes = env.Append(p.recordBytes[:0])
	return p.recordBytes
}

// acknowledged notes how far the changelog and the output are written, and returns what of them lies before or between what was
// acknowledged and is not of this run.
func (p *partition[E, S]) acknowledged(acks acked) (table, out []hole) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.table + 1
	table = acks.holes(topicPartition{p.topics.table, p.id}, &next)
	p.table = next - 1
	return table, acks.holes(topicPartition{p.topics.output, p.id}, &p.outEnd)
}

// ends are the offsets behind what is known of the changelog and of the output.
func (p *partition[E, S]) ends() (table, out int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table + 1, p.outEnd
}

// settle forgets what the cut's acknowledgement made needless, and gives its memory back.
func (p *partition[E, S]) settle(c cut[E, S], committed bool) {
	p.mu.Lock()
	p.moved = p.moved || !committed
	if committed {
		p.committed = c.at
	}
	p.mu.Unlock()
	for c.stated.spools != nil || c.fresh.spools != nil {
		p.release(&c)
	}
	p.metrics.acknowledged(c.did, c.spools)
	c.spools.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = c.spools
	for _, e := range c.settles {
		l := e.live
		p.topology.Settle(&l.state, p.settled)
		l.undecided = slices.Delete(l.undecided, l.owed, l.owed+l.inCut)
		l.inCut, e.settles = 0, false
		p.retire(e)
	}
	clear(c.entries)
	p.spareDirty = c.entries[:0]
	p.show()
}

// show sets the partition's gauges.
func (p *partition[E, S]) show() {
	p.metrics.keys.Set(float64(len(p.entries)))
	p.metrics.decoded.Set(float64(p.lives))
	p.metrics.unwritten.Set(float64(len(p.dirty)))
	p.metrics.state.Set(float64(p.packed + p.lives*p.usual))
	p.metrics.offset.Set(float64(p.table))
	if w := p.committed.clock.watermark; w != math.MinInt64 {
		p.metrics.watermark.Set(float64(w) / 1000)
		p.metrics.eventLag.Set(p.savedAt.Sub(time.UnixMilli(w)).Seconds())
	}
	if p.claim != nil {
		p.metrics.lag.Set(float64(max(0, p.claim.HighWaterMarkOffset()-p.past(p.committed.input))))
	}
	if p.loopClaim != nil {
		p.metrics.loopLag.Set(float64(max(0, p.loopClaim.HighWaterMarkOffset()-p.committed.loop)))
	}
}
