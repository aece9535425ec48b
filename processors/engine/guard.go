package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// guard watches the changelogs of partitions that were taken over, for one session time-out (E7). A predecessor that was
// paused does not write any more once half a session time-out has passed since its last proof of membership, but a write
// it had begun may still arrive behind the recovered end of the changelog; compaction would then keep its state in place of
// the newer one. What did not come from this run's outbox is therefore written over: the key's own state is published
// again, and its results with it. What arrives later still shows at the next checkpoint, as a hole between its records and
// those before: see heal.
func (r *run[E, S]) guard(ctx context.Context, s *session[E, S]) {
	until := r.config.Now().Add(r.config.SessionTimeout)
	for _, p := range s.partitions {
		p.mu.Lock()
		from := p.table + 1
		p.mu.Unlock()
		s.stopped.Go(func() {
			if err := r.watch(ctx, p, from, until); err != nil && ctx.Err() == nil {
				r.fail(fmt.Errorf("watch changelog %s/%d: %w", r.topics.table, p.id, err))
			}
		})
	}
}

// glance is how long the guard waits before it looks again where it has seen nothing.
const glance = 250 * time.Millisecond

// watch reads the changelog's batches, which name their producer, until the time is up.
func (r *run[E, S]) watch(ctx context.Context, p *partition[E, S], next int64, until time.Time) error {
	for ctx.Err() == nil && r.config.Now().Before(until) {
		batches, err := fetch(r.reader, r.topics.table, p.id, next)
		if errors.Is(err, sarama.ErrOffsetOutOfRange) { // deleted meanwhile: go on from what is there
			next, err = r.reader.GetOffset(r.topics.table, p.id, sarama.OffsetOldest)
		}
		if err != nil {
			if !repeatable(err) {
				return err
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				return nil //nolint:nilerr // the session ended, and the watch with it
			}
			continue
		}
		if len(batches) == 0 && pause(ctx, glance) != nil {
			return nil //nolint:nilerr // as above
		}
		for _, b := range batches {
			if b.visible && b.ProducerID != r.outbox.producer.id {
				p.overwrite(b.Records)
			}
			next = max(next, b.LastOffset()+1)
		}
	}
	return nil
}

// heal writes over what others have appended to the changelog between two writes of this run.
func (r *run[E, S]) heal(ctx context.Context, p *partition[E, S], from, to int64) error {
	r.log.Warn("foreign records in the changelog", "partition", p.id, "from", from, "to", to)
	deadline := r.config.Now().Add(r.config.WriteTimeout)
	for from < to {
		batches, err := fetch(r.reader, r.topics.table, p.id, from)
		switch {
		case errors.Is(err, sarama.ErrOffsetOutOfRange): // they are deleted already
			return nil
		case err != nil && (!repeatable(err) || r.config.Now().After(deadline)):
			return fmt.Errorf("read changelog %s/%d@%d: %w", r.topics.table, p.id, from, err)
		case err != nil:
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			continue
		case len(batches) == 0:
			return nil
		}
		for _, b := range batches {
			if b.FirstOffset < to && b.visible {
				p.overwrite(b.Records)
			}
			from = max(from, b.LastOffset()+1)
		}
	}
	return nil
}

// overwrite publishes the own state of foreign records' keys again.
func (p *partition[E, S]) overwrite(records []*sarama.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rec := range records {
		e := p.entries[string(rec.Key)]
		if e == nil || !p.claimed {
			continue
		}
		l := p.liven(e)
		p.topology.Touch(&l.state)
		p.soil(e)
		p.metrics.all.overwritten.Inc()
	}
}
