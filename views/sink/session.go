package sink

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/semaphore"
)

// handler is one session of the group: from one rebalance to the next.
type handler struct {
	sink *Sink
	ran  bool // the session began

	committing sync.WaitGroup
}

// Setup begins the session.
func (h *handler) Setup(session sarama.ConsumerGroupSession) error {
	h.ran = true
	h.sink.setJoined(true)
	h.sink.log.Info("session begins", "group", h.sink.config.Group, "generation", session.GenerationID(), "claims", session.Claims())
	h.committing.Go(func() { h.commitRegularly(session) })
	return nil
}

// Cleanup ends the session: all claims have stopped, and what they made durable is committed while the partitions are
// still this sink's.
func (h *handler) Cleanup(session sarama.ConsumerGroupSession) error {
	h.committing.Wait()
	session.Commit()
	h.sink.setJoined(false)
	return nil
}

// ConsumeClaim loads one partition until it is taken away.
func (h *handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	l := newLoader(h.sink, claim.Topic(), claim.Partition())
	h.sink.lags.arrive(l.at, claim.InitialOffset())
	defer h.sink.lags.leave(l.at)
	defer l.end()
	l.run(session.Context(), l.queue(session.Context(), claim.Messages()), func(next int64) {
		session.MarkOffset(claim.Topic(), claim.Partition(), next, "")
		h.sink.lags.arrive(l.at, next)
		h.sink.lags.set(l.at, claim.HighWaterMarkOffset()-next)
	})
	return nil
}

// arrivals is how many records the client holds of a partition, of any size, and mostWaiting how many more wait for the next
// batch while one is written: those within maxBatchBytes.
const (
	arrivals    = 32
	mostWaiting = 8192
)

// queue lets the next batch arrive while one is written, bounded in bytes as well as in number. It ends with the records, or ctx.
func (l *loader) queue(ctx context.Context, from <-chan *sarama.ConsumerMessage) <-chan *sarama.ConsumerMessage {
	waiting := make(chan *sarama.ConsumerMessage, min(mostRecords*l.sink.config.BatchRows, mostWaiting))
	l.room = semaphore.NewWeighted(maxBatchBytes)
	go func() {
		defer close(waiting)
		for m := range from {
			if l.room.Acquire(ctx, weight(m)) != nil {
				return
			}
			select {
			case waiting <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return waiting
}

// weight is what a record counts in bytes.
func weight(m *sarama.ConsumerMessage) int64 {
	return int64(min(len(m.Key)+len(m.Value)+256, maxBatchBytes))
}

// commitRegularly commits the marked offsets, which are those of durable rows only (K1), and waits for each answer. One
// commit is for all partitions, so their number does not matter; it costs nothing when nothing was marked, and what one
// fails to commit goes with the next.
func (h *handler) commitRegularly(session sarama.ConsumerGroupSession) {
	ticker := time.NewTicker(h.sink.config.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-session.Context().Done():
			return
		case <-ticker.C:
			session.Commit()
		}
	}
}

// gather takes the next batch from the channel into the loader: the first record whenever it comes, then all that come
// while the batch may wait, up to the batch size, and then what has arrived as long as it brings only further revisions. It
// returns false when there will be no more.
func (l *loader) gather(ctx context.Context, messages <-chan *sarama.ConsumerMessage) bool {
	select {
	case m, ok := <-messages:
		if !ok {
			return false
		}
		l.add(m)
	case <-ctx.Done():
		return false
	}
	timer := time.NewTimer(l.wait(l.sink.config.Now()))
	defer timer.Stop()
	for {
		l.take(messages)
		if l.full() || len(l.rows) >= l.sink.config.BatchRows {
			return true
		}
		select {
		case m, ok := <-messages:
			if !ok {
				return true // what was gathered is still written; the next call ends
			}
			l.add(m)
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// take adds what has arrived, without the cost of waiting for more, until the batch is full.
func (l *loader) take(messages <-chan *sarama.ConsumerMessage) {
	for !l.full() {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			l.add(m)
		default:
			return
		}
	}
}

// full tells whether the batch takes no more.
func (l *loader) full() bool {
	most := l.sink.config.BatchRows
	return len(l.rows)-l.stale >= most || len(l.rows) >= mostRecords*most || l.bytes >= maxBatchBytes
}

// wait is how long the first record of a batch waits for more: what is left of the batch wait since the write before began,
// because records that came during that have waited already; but a tenth, in which the rest of a checkpoint arrives.
func (l *loader) wait(now time.Time) time.Duration {
	most := l.sink.config.BatchWait
	return min(most, max(most/10, most-now.Sub(l.wrote)))
}
