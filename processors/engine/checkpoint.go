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
type cut[E, S any] struct {
	p       *partition[E, S]
	spools  *spools
	entries []*entry[S]
	at      position
	did     outcomes
}

// longestPause bounds the time between two checkpoints when each takes longer than the commit interval.
const longestPause = time.Second

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
		// A checkpoint that takes long is followed by a longer pause, in which more events of a key come together.
		if took := r.config.Now().Sub(began); took > r.config.CommitInterval {
			ticker.Reset(min(2*took, max(r.config.CommitInterval, longestPause)))
		} else {
			ticker.Reset(r.config.CommitInterval)
		}
	}
}

// checkpoint is one micro-checkpoint of all partitions: cut, write states, write results, commit.
func (r *run[E, S]) checkpoint(ctx context.Context, s *session[E, S]) error {
	began := r.config.Now()
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
	acks, err := r.write(ctx, s, cuts)
	if err != nil {
		return err
	}
	positions := make(map[int32]position, len(cuts))
	sound := true
	for i := range cuts {
		c := &cuts[i]
		from, to := c.p.acknowledged(acks)
		if from < to {
			sound = false
			if err := r.heal(ctx, c.p, from, to); err != nil {
				return err
			}
		}
		c.at.clock.table = c.p.tableEnd()
		positions[c.p.id] = c.at
	}
	committed := false
	if sound { // else the next checkpoint commits, when what was found is written over
		if committed, err = r.commit(ctx, s, positions); err != nil {
			return err
		}
	}
	for _, c := range cuts {
		c.p.settle(c, committed)
	}
	clear(cuts)
	r.owner.metrics.checkpointed(r.config.Now().Sub(began))
	return nil
}

// write sends states, re-keyed events and dead letters, and when they are acknowledged results and late events.
func (r *run[E, S]) write(ctx context.Context, s *session[E, S], cuts []cut[E, S]) (acked, error) {
	permit := func() error { return r.renew(s) }
	var first, second []*spool
	for _, c := range cuts {
		first, second = c.spools.first(first), c.spools.second(second)
	}
	acks, err := r.outbox.write(ctx, permit, first)
	if err != nil {
		return nil, err
	}
	_, err = r.outbox.write(ctx, permit, second)
	return acks, err
}

// renew proves the membership before a write if the last proof is older than half a session time-out (E7): whoever was
// paused longer may have lost its partitions to another member, and does not write.
func (r *run[E, S]) renew(s *session[E, S]) error {
	now := r.config.Now()
	if age := now.Sub(s.lease); age >= 0 && age < r.config.SessionTimeout/2 {
		return nil
	}
	err := r.ledger.heartbeat(s.member)
	if err != nil && !errors.Is(err, sarama.ErrRebalanceInProgress) {
		return &membershipError{err}
	}
	s.lease = now
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
	for _, e := range p.dirty {
		p.topology.Collect(e.key, &e.live.state, max(p.hands.watermark, e.live.purged), p.emit)
		e.live.inCut = len(e.live.undecided) - e.live.owed
		p.open.table.add([]byte(e.key), p.encode(e))
		e.dirty = false
	}
	c := cut[E, S]{p: p, spools: p.open, entries: p.dirty, at: p.at, did: p.outcomes}
	p.outcomes = outcomes{}
	c.at.clock = p.hands.clock()
	p.metrics.all.dirty.Observe(float64(len(p.dirty)))
	p.open, p.spare = p.spare, nil
	p.dirty, p.spareDirty, p.pending, p.moved = p.spareDirty[:0], nil, 0, false
	p.savedAt = now
	p.released.Broadcast()
	return c, true
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

// acknowledged notes how far the changelog is written. Between from and to lie records that are not of this run: its first
// was not appended right behind the last one known.
func (p *partition[E, S]) acknowledged(acks acked) (from, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := acks[topicPartition{p.topics.table, p.id}]
	from, to = p.table+1, p.table+1
	if ok && a.first > from {
		to = a.first
	}
	if ok {
		p.table = max(p.table, a.last)
	}
	return from, to
}

// tableEnd is the offset behind what is known of the changelog.
func (p *partition[E, S]) tableEnd() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table + 1
}

// settle forgets what the cut's acknowledgement made needless, and gives its memory back.
func (p *partition[E, S]) settle(c cut[E, S], committed bool) {
	p.metrics.acknowledged(c.did, c.spools)
	c.spools.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spare = c.spools
	p.moved = p.moved || !committed
	for _, e := range c.entries {
		l := e.live
		p.topology.Settle(&l.state, c.at.clock.watermark)
		l.undecided = slices.Delete(l.undecided, l.owed, l.owed+l.inCut)
		l.inCut = 0
		if !e.dirty && len(l.undecided) == 0 && p.topology.Idle(&l.state) {
			e.raw, e.live = append(make([]byte, 0, len(p.encode(e))), p.recordBytes...), nil
			p.timers.Schedule(e, &e.alarm, p.expiry(e))
		}
	}
	clear(c.entries)
	p.spareDirty = c.entries[:0]
	if committed {
		p.committed = c.at
	}
	p.show()
}

// show sets the partition's gauges.
func (p *partition[E, S]) show() {
	p.metrics.keys.Set(float64(len(p.entries)))
	if w := p.committed.clock.watermark; w != math.MinInt64 {
		p.metrics.watermark.Set(float64(w) / 1000)
	}
	if p.claim != nil {
		p.metrics.lag.Set(float64(max(0, p.claim.HighWaterMarkOffset()-p.committed.input)))
	}
}
