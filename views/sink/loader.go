package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
)

// maxBatchBytes ends a batch of large records, so that a write stays within what databases take at once.
const maxBatchBytes = 16 << 20

// mostRecords is how many times its rows a batch may hold in records, where several are revisions of one window: a sink that is
// behind writes each window once instead of as often as it changed.
const mostRecords = 4

// kind is which table a row is for.
type kind uint8

const (
	kindNone   kind = iota // no row: a tombstone, or a record that cannot be read
	kindWindow             // table windows
	kindLate               // table late_events
	kindDead               // table dead_letters
)

// row is one record on its way to the store.
type row struct {
	message *sarama.ConsumerMessage
	kind    kind
	window  codecs.Window
	stale   bool // another row of the batch has a revision of the window that is at least as high
	letter  *codecs.Letter
	bad     error // why the record is no row
}

// windowKey tells a window from all others.
type windowKey struct {
	registration, definition string
	anchor                   int64
}

// loader loads one partition. It is used by one goroutine.
type loader struct {
	sink  *Sink
	at    partition
	names *codecs.Interner
	delay prometheus.Observer
	rows  []row
	bytes int
	fresh map[windowKey]int   // the row that is not stale, of each window in rows
	stale int                 // how many of the rows are
	wrote time.Time           // when the last write began
	room  *semaphore.Weighted // bytes of records that wait; nil without a queue
	batch views.Batch         // scratch
}

func newLoader(s *Sink, topic string, number int32) *loader {
	return &loader{
		sink: s, at: partition{topic, number}, names: new(codecs.Interner), fresh: map[windowKey]int{},
		delay: s.metrics.delay.WithLabelValues(topic),
	}
}

// end takes the partition out of what Ready tells.
func (l *loader) end() { l.sink.mend(l.at) }

// run loads batches until there are no more records or ctx ends; mark is told the offset behind each durable batch.
func (l *loader) run(ctx context.Context, messages <-chan *sarama.ConsumerMessage, mark func(next int64)) {
	for l.gather(ctx, messages) {
		l.wrote = l.sink.config.Now()
		if err := l.load(ctx, l.rows); err != nil {
			return // ctx ended; what was not marked is delivered again
		}
		mark(l.rows[len(l.rows)-1].message.Offset + 1)
		l.delay.Observe(l.sink.config.Now().Sub(l.rows[0].message.Timestamp).Seconds())
		l.clear()
	}
}

// clear keeps the memory of the rows and lets their records go.
func (l *loader) clear() {
	for i := range l.rows {
		l.rows[i].message, l.rows[i].letter, l.rows[i].bad = nil, nil, nil
	}
	l.rows, l.bytes, l.stale = l.rows[:0], 0, 0
	clear(l.fresh)
}

// add reads a record into the next row.
func (l *loader) add(m *sarama.ConsumerMessage) {
	if l.room != nil {
		l.room.Release(weight(m))
	}
	if len(l.rows) < cap(l.rows) {
		l.rows = l.rows[:len(l.rows)+1] // keeps what its window allocated
	} else {
		l.rows = append(l.rows, row{})
	}
	r := &l.rows[len(l.rows)-1]
	r.message, r.kind, r.stale = m, kindNone, false
	l.bytes += len(m.Key) + len(m.Value)
	switch m.Topic {
	case l.sink.config.Topics.Windows:
		l.addWindow(r)
	case l.sink.config.Topics.Late:
		r.kind, r.letter = kindLate, readLetter(m)
	case l.sink.config.Topics.Dead:
		r.kind, r.letter = kindDead, readLetter(m)
	}
}

// addWindow reads a window. A record without value is a tombstone of a compacted topic: nothing to keep.
func (l *loader) addWindow(r *row) {
	if r.message.Value == nil {
		return
	}
	if r.bad = r.window.Parse(r.message.Value, l.names); r.bad != nil {
		return
	}
	r.kind = kindWindow
	key := windowKey{r.window.Registration, r.window.Definition, r.window.Anchor()}
	if i, twice := l.fresh[key]; twice {
		l.stale++
		if r.window.Revision < l.rows[i].window.Revision {
			r.stale = true
			return
		}
		l.rows[i].stale = true
	}
	l.fresh[key] = len(l.rows) - 1
}

// readLetter reads a late event or a dead letter. What somebody else put on the topic is kept under its own coordinates.
func readLetter(m *sarama.ConsumerMessage) *codecs.Letter {
	headers := make([]codecs.Header, len(m.Headers))
	for i, h := range m.Headers {
		headers[i] = codecs.Header{Key: string(h.Key), Value: h.Value}
	}
	letter, err := codecs.ParseLetter(m.Key, m.Value, headers)
	if err != nil {
		return &codecs.Letter{
			Reason: ReasonNoLetter, Detail: err.Error(), Topic: m.Topic, Partition: m.Partition, Offset: m.Offset,
			EventTime: codecs.NoTime, Key: m.Key, Value: m.Value,
		}
	}
	return &letter
}

// load makes the rows durable, in the store or as dead letters. The error is ctx's end.
func (l *loader) load(ctx context.Context, rows []row) error {
	for i := range rows {
		if rows[i].bad != nil {
			if err := l.bury(ctx, &rows[i], reasonOf(rows[i].bad), rows[i].bad); err != nil {
				return err
			}
		}
	}
	return l.write(ctx, rows, l.stale > 0)
}

func reasonOf(err error) string {
	if fault, ok := errors.AsType[*codecs.FieldError](err); ok {
		return fault.Reason
	}
	return codecs.ReasonBadRecord
}

// write brings rows into the store. If it refuses them for good, the halves are tried, the earlier one first so that the
// order of a key stays, until the rows that it refuses stand alone (K3). Without the stale rows as long as all goes well: what
// made one stale may be what the store refuses.
func (l *loader) write(ctx context.Context, rows []row, withoutStale bool) error {
	batch := l.batchOf(rows, withoutStale)
	if batch.Len() == 0 {
		return nil
	}
	what := fmt.Sprintf("%s@%d: write %d rows", l.at, rows[0].message.Offset, batch.Len())
	err := l.sink.insist(ctx, l.at, what, func(ctx context.Context) error {
		start := l.sink.config.Now()
		err := l.sink.config.Store.Write(ctx, batch)
		end := l.sink.config.Now()
		l.sink.metrics.write(batch, end.Sub(start), err)
		if tell := l.sink.config.Written; tell != nil {
			tell(Written{l.at.topic, l.at.number, rows[0].message.Offset, batch.Len(), start, end, err})
		}
		return err
	})
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case len(rows) == 1:
		return l.refused(ctx, &rows[0], err)
	}
	half := len(rows) / 2
	if err := l.write(ctx, rows[:half], false); err != nil {
		return err
	}
	return l.write(ctx, rows[half:], false)
}

// batchOf gathers the rows by table, in memory that the next call uses again.
func (l *loader) batchOf(rows []row, withoutStale bool) views.Batch {
	b := &l.batch
	b.Windows, b.Late, b.Dead = b.Windows[:0], b.Late[:0], b.Dead[:0]
	for i := range rows {
		if withoutStale && rows[i].stale {
			continue
		}
		switch rows[i].kind {
		case kindNone:
		case kindWindow:
			b.Windows = append(b.Windows, rows[i].window)
		case kindLate:
			b.Late = append(b.Late, *rows[i].letter)
		case kindDead:
			b.Dead = append(b.Dead, *rows[i].letter)
		}
	}
	return *b
}

// refused deals with a row that the store will never take.
func (l *loader) refused(ctx context.Context, r *row, why error) error {
	if r.kind == kindDead { // K4
		l.sink.metrics.refused.WithLabelValues("left").Inc()
		l.sink.log.Error("dead letter stays on its topic only", "topic", r.message.Topic, "partition", r.message.Partition, "offset", r.message.Offset, "error", why)
		return nil
	}
	return l.bury(ctx, r, ReasonRefused, why)
}

// bury publishes the record as a dead letter, as it came.
func (l *loader) bury(ctx context.Context, r *row, reason string, why error) error {
	m := r.message
	letter := codecs.Letter{
		Reason: reason, Detail: strings.ToValidUTF8(why.Error(), "\uFFFD"), Topic: m.Topic, Partition: m.Partition, Offset: m.Offset,
		EventTime: codecs.NoTime, Key: m.Key, Value: m.Value,
	}
	what := fmt.Sprintf("%s@%d: publish dead letter", l.at, m.Offset)
	if err := l.sink.insist(ctx, l.at, what, func(context.Context) error { return l.sink.letters.put(&letter) }); err != nil {
		return err
	}
	l.sink.metrics.refused.WithLabelValues("dead_lettered").Inc()
	l.sink.log.Error("record is dead-lettered", "topic", m.Topic, "partition", m.Partition, "offset", m.Offset, "reason", reason, "error", why)
	return nil
}
