package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// A predecessor that was paused does not write any more once half a session time-out has passed since its last proof of
// membership, but a write it had begun may still arrive behind what its successor has written (E7). In the changelog compaction
// would keep its state in place of the newer one; on the output topic its result would be the last word on a window.
//
// Of a partition's changelog and of its output this run is the only writer, so what did not come from its outbox shows as a hole
// between two of its writes. In case no own one follows, the ends of both logs are asked for: often for one session time-out after a
// takeover, when a stale write is to be expected, and once per session time-out later, for those who sleep long. Foreign states are
// written over: the key's own state is published again, and its results with it. Behind foreign results the newest own ones are repeated.
// Each commit tells up to where the output was looked into, and by whom, so that whoever takes over from one who died begins there: two who
// are gone may have left an older result behind a newer one.

// hole is a stretch of a log that was not appended by this run: [from, to).
type hole struct{ from, to int64 }

// probesAfterTakeover is how often the ends of the logs are asked for in the first session time-out.
const probesAfterTakeover = 40

// probe looks for foreign records behind what is known of the partitions' logs.
func (r *run[E, S]) probe(ctx context.Context, s *session[E, S], now time.Time) error {
	every := r.config.SessionTimeout
	if now.Before(s.guarded) {
		every /= probesAfterTakeover
	}
	if age := now.Sub(s.probed); age >= 0 && age < every {
		return nil
	}
	s.probed = now
	ends, err := r.ends(s)
	if err != nil && repeatable(err) {
		r.log.Debug("asking for the ends of the logs again", "error", err)
		_ = r.reader.RefreshMetadata(r.topics.table, r.topics.output) // a leader may have moved, and nobody else asks this client
		return nil
	} else if err != nil {
		return err
	}
	for _, p := range s.partitions {
		table, out := p.beyond(ends)
		if err := r.heal(ctx, p, table); err != nil {
			return err
		}
		if err := r.repeat(ctx, s, p, out); err != nil {
			return err
		}
	}
	return nil
}

// ends are the ends of the logs that the session's partitions write to, asked for with one request per broker.
func (r *run[E, S]) ends(s *session[E, S]) (map[topicPartition]int64, error) {
	requests := make(map[*sarama.Broker]*sarama.OffsetRequest)
	for _, p := range s.partitions {
		for _, topic := range []string{r.topics.table, r.topics.output} {
			leader, err := r.reader.Leader(topic, p.id)
			if err != nil {
				return nil, err
			}
			if requests[leader] == nil {
				requests[leader] = sarama.NewOffsetRequest(r.reader.Config().Version)
			}
			requests[leader].AddBlock(topic, p.id, sarama.OffsetNewest, 1)
		}
	}
	ends := make(map[topicPartition]int64, 2*len(s.partitions))
	for leader, req := range requests {
		if err := open(leader, r.reader.Config()); err != nil {
			return nil, unreachable(leader, err)
		}
		resp, err := leader.GetAvailableOffsets(req)
		if err != nil {
			_ = leader.Close()
			return nil, unreachable(leader, err)
		}
		for topic, blocks := range resp.Blocks {
			for id, b := range blocks {
				if b.Err != sarama.ErrNoError {
					return nil, fmt.Errorf("find end of %s/%d: %w", topic, id, b.Err)
				}
				ends[topicPartition{topic, id}] = b.Offset
			}
		}
	}
	return ends, nil
}

// beyond are the stretches behind what is known of a partition's changelog and output.
func (p *partition[E, S]) beyond(ends map[topicPartition]int64) (table, out hole) {
	p.mu.Lock()
	defer p.mu.Unlock()
	table = hole{p.table + 1, ends[topicPartition{p.topics.table, p.id}]}
	out = hole{p.outEnd, ends[topicPartition{p.topics.output, p.id}]}
	p.table, p.outEnd = max(p.table, table.to-1), max(p.outEnd, out.to)
	return table, out
}

// heal writes over what others have appended to the changelog.
func (r *run[E, S]) heal(ctx context.Context, p *partition[E, S], h hole) error {
	if h.from >= h.to {
		return nil
	}
	tp := topicPartition{r.topics.table, p.id}
	r.log.Warn("foreign records in the changelog", "partition", p.id, "from", h.from, "to", h.to)
	return r.scan(ctx, tp, h, func(b fetched) {
		if b.ProducerID != r.outbox.producer.id {
			p.overwrite(b.Records)
		}
	})
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
		p.restate(e)
	}
}

// restate publishes a key's state again, and its results with it.
func (p *partition[E, S]) restate(e *entry[S]) {
	p.topology.Touch(&p.liven(e).state)
	p.soil(e)
	p.metrics.all.overwritten.Inc()
}

// repeat appends the newest own results once more that lie before foreign ones of their keys. It is called between two writes: none
// of this run can come between what it finds and what it repeats.
func (r *run[E, S]) repeat(ctx context.Context, s *session[E, S], p *partition[E, S], h hole) error {
	for more := []hole{h}; len(more) > 0; more = more[1:] {
		again, err := r.overtaken(ctx, s, p, more[0])
		if errors.Is(err, sarama.ErrTopicAuthorizationFailed) {
			r.log.Warn("others have written to the output, perhaps a former owner behind newer results, and this client may not read it: allow it to", "partition", p.id, "error", err)
			return nil
		} else if err != nil {
			return err
		}
		if len(again.records) == 0 {
			continue
		}
		r.log.Warn("results of a former owner behind newer ones", "partition", p.id, "keys", len(again.records))
		acks, err := r.outbox.write(ctx, func() error { return r.renew(s) }, []*spool{again})
		if err != nil {
			return err
		}
		p.metrics.all.repeated.Add(float64(len(again.records)))
		_, holes := p.acknowledged(acks)
		more = append(more, holes...)
	}
	return nil
}

// word is a key's last result in a hole, and the newest one before it.
type word struct {
	offset       int64
	last, newest []byte
	own          bool // the newest is
}

// overtaken are the newest results, own ones or others', before foreign ones of their keys. A topology that cannot tell its results from
// those of other jobs on the same topic is asked to only after a takeover; one that cannot tell which is newer, for own ones only.
func (r *run[E, S]) overtaken(ctx context.Context, s *session[E, S], p *partition[E, S], h hole) (*spool, error) {
	to := topicPartition{r.topics.output, p.id}
	again := &spool{to: to}
	if h.from >= h.to || p.owns == nil && !r.config.Now().Before(s.guarded) {
		return again, nil
	}
	words, since, err := r.foreign(ctx, p, h)
	if err != nil || len(words) == 0 {
		return again, err
	}
	before := hole{p.outFrom, max(h.to, p.outEnd)}
	if p.newer != nil {
		if before.from, err = r.writtenSince(ctx, to, since, p.outFrom); err != nil {
			return again, err
		}
	}
	err = r.scan(ctx, to, before, func(b fetched) {
		each(b, func(rec *sarama.Record, offset int64) {
			p.compares(words, rec, offset, b.ProducerID == r.outbox.producer.id)
		})
	})
	for key, w := range words {
		if p.overtook(w) {
			again.add([]byte(key), w.newest)
		}
	}
	return again, err
}

// foreign are the last words of the keys of which others have appended results to the output, and when the first of those was written. Whom
// the partition was taken over from is no other up to there, except behind others.
func (r *run[E, S]) foreign(ctx context.Context, p *partition[E, S], h hole) (words map[string]*word, since time.Time, err error) {
	words = make(map[string]*word)
	err = r.scan(ctx, topicPartition{r.topics.output, p.id}, h, func(b fetched) {
		if b.ProducerID == r.outbox.producer.id {
			return
		}
		other := b.ProducerID+1 != p.heir || b.FirstOffset >= p.outFrom
		if other && (since.IsZero() || b.FirstTimestamp.Before(since)) {
			since = b.FirstTimestamp
		}
		each(b, func(rec *sarama.Record, offset int64) {
			w := words[string(rec.Key)]
			if w == nil && other && (p.owns == nil || p.owns(rec.Key)) {
				w = &word{}
				words[string(rec.Key)] = w
			}
			if w != nil {
				w.offset, w.last = offset, rec.Value
			}
		})
	})
	return words, since, err
}

// writtenSince is where in a log the records begin that may have been written since a writer, whose clock may be wrong by a session time-out,
// began to write; no further on than latest.
func (r *run[E, S]) writtenSince(ctx context.Context, tp topicPartition, since time.Time, latest int64) (int64, error) {
	if since.Unix() <= 0 { // it did not tell
		return latest, nil
	}
	for deadline := r.config.Now().Add(r.config.WriteTimeout); ; {
		offset, err := r.reader.GetOffset(tp.topic, tp.partition, since.Add(-r.config.SessionTimeout).UnixMilli())
		switch {
		case err == nil && offset < 0: // nothing was
			return latest, nil
		case err == nil:
			return min(offset, latest), nil
		case !repeatable(err) || r.config.Now().After(deadline):
			return 0, fmt.Errorf("find what was written to %s/%d since %v: %w", tp.topic, tp.partition, since, err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// compares takes a result that others' of its key are looked at for: an own one behind them is the last word.
func (p *partition[E, S]) compares(words map[string]*word, rec *sarama.Record, offset int64, own bool) {
	w := words[string(rec.Key)]
	switch {
	case w == nil:
	case offset > w.offset:
		if own {
			delete(words, string(rec.Key))
		}
	case own && (p.newer == nil || w.newest == nil || !p.newer(w.newest, rec.Value)), !own && p.newer != nil && (w.newest == nil || p.newer(rec.Value, w.newest)):
		w.newest, w.own = rec.Value, own
	}
}

// overtook reports whether the last result must not be the last word. Of two that say the same none is repeated: two owners who do not know
// of each other would repeat each other's for ever.
func (p *partition[E, S]) overtook(w *word) bool {
	if w.own { // and not older than the last, which compares has taken too
		return !bytes.Equal(w.newest, w.last)
	}
	return p.newer != nil && p.newer(w.newest, w.last)
}

// each yields a batch's records with their offsets.
func each(b fetched, yield func(rec *sarama.Record, offset int64)) {
	for _, rec := range b.Records {
		yield(rec, b.FirstOffset+rec.OffsetDelta)
	}
}

// scan reads the batches of a stretch of a log that consumers see. What the broker has deleted is passed over.
func (r *run[E, S]) scan(ctx context.Context, tp topicPartition, h hole, yield func(fetched)) error {
	deadline := r.config.Now().Add(r.config.WriteTimeout)
	for from := h.from; from < h.to; {
		batches, err := fetch(r.reader, tp.topic, tp.partition, from, h.to)
		if errors.Is(err, sarama.ErrOffsetOutOfRange) { // the first of them are deleted already, perhaps all
			var oldest int64
			if oldest, err = r.reader.GetOffset(tp.topic, tp.partition, sarama.OffsetOldest); err == nil && oldest <= from {
				return nil
			} else if err == nil {
				from = oldest
				continue
			}
		}
		switch {
		case err != nil && (!repeatable(err) || r.config.Now().After(deadline)):
			return fmt.Errorf("read %s/%d@%d: %w", tp.topic, tp.partition, from, err)
		case err != nil:
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			_ = r.reader.RefreshMetadata(tp.topic)
			continue
		case len(batches) == 0:
			return nil
		}
		for _, b := range batches {
			if b.FirstOffset < h.to && b.visible {
				yield(b)
			}
			from = max(from, b.LastOffset()+1)
		}
	}
	return nil
}
