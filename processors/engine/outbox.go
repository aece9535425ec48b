package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// outbox is the only writer of a run: an idempotent producer that sends whole batches and returns when every one is
// acknowledged by all in-sync replicas (E7). Per partition at most one batch is in flight, and a batch is repeated with
// the same sequence numbers until the broker has it, so order is kept and a hole cannot arise. It is used by one
// goroutine at a time.
//
// sarama's own producers take a channel hop and several allocations per record; this one takes none per record beyond the
// record itself, and its barrier is what a checkpoint needs.
type outbox struct {
	client   sarama.Client
	config   *sarama.Config
	log      *slog.Logger
	now      func() time.Time
	patience time.Duration // how long a batch is repeated before the write fails
	maxBatch int           // bytes of one batch
	most     int           // bytes of one request, at most, unless a single batch has more

	producer sequencer
}

// maxRequest is far below what a broker takes in one request (socket.request.max.bytes, 100 MiB), and what sarama sends.
const maxRequest = 32 << 20

// sequencer numbers the batches of each partition for the broker's duplicate detection (KIP-98).
type sequencer struct {
	id    int64
	epoch int16
	next  map[topicPartition]int32
}

// advance moves a partition's sequence past n acknowledged records; it wraps to 0 after the largest int32.
func (s *sequencer) advance(tp topicPartition, n int) {
	s.next[tp] = int32((int64(s.next[tp]) + int64(n)) & 0x7fffffff)
}

// newOutbox asks a broker for a producer id.
func newOutbox(client sarama.Client, patience time.Duration, maxBatch int, log *slog.Logger, now func() time.Time) (*outbox, error) {
	o := &outbox{
		client: client, config: client.Config(), log: log, now: now, patience: patience, maxBatch: maxBatch, most: maxRequest,
	}
	broker := client.LeastLoadedBroker()
	if broker == nil {
		return nil, errors.New("open outbox: no broker is reachable")
	}
	if err := open(broker, o.config); err != nil {
		return nil, fmt.Errorf("open outbox: broker %s: %w", broker.Addr(), err)
	}
	resp, err := broker.InitProducerID(&sarama.InitProducerIDRequest{TransactionTimeout: time.Minute})
	if err == nil && resp.Err != sarama.ErrNoError {
		err = resp.Err
	}
	if err != nil {
		return nil, fmt.Errorf("open outbox: init producer id at %s: %w", broker.Addr(), err)
	}
	o.producer = sequencer{resp.ProducerID, resp.ProducerEpoch, make(map[topicPartition]int32)}
	return o, nil
}

// open connects a broker of the client if it is not connected.
func open(b *sarama.Broker, c *sarama.Config) error {
	if err := b.Open(c); err != nil && !errors.Is(err, sarama.ErrAlreadyConnected) {
		return err
	}
	return nil
}

// acked says at which offsets a partition's records were appended.
type acked map[topicPartition]appended

// appended is the offset of a write's first and last record whose offset the broker has told, -1 if it told none, and the stretches between
// its batches that others have appended, or where batches lie whose offset it did not tell (repeated ones).
type appended struct {
	first, last int64
	holes       []hole
}

// write sends all spools and returns when every record is acknowledged, or with the first failure that repeating cannot
// mend. permit is asked before each request; its error ends the write. After a failure the outbox must not be used again.
func (o *outbox) write(ctx context.Context, permit func() error, all []*spool) (acked, error) {
	queue := make(map[topicPartition][]*sarama.RecordBatch, len(all))
	now := o.now()
	for _, s := range all {
		queue[s.to] = append(queue[s.to], o.batches(s, now)...)
	}
	last := make(acked, len(queue))
	deadline := now.Add(o.patience)
	for attempt := 0; len(queue) > 0; {
		if err := permit(); err != nil && (!repeatable(err) || o.now().After(deadline)) {
			return nil, err
		} else if err != nil {
			o.log.Warn("asking for membership again", "error", err)
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return nil, err
			}
			continue
		}
		err := o.round(ctx, queue, last)
		if err == nil {
			attempt = 0
			continue
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("write %d partitions: %w", len(queue), context.Cause(ctx))
		}
		if !repeatable(err) || o.now().After(deadline) {
			return nil, err
		}
		attempt++
		o.log.Warn("repeating a write", "attempt", attempt, "error", err)
		if err := pause(ctx, min(time.Duration(attempt)*50*time.Millisecond, time.Second)); err != nil {
			return nil, err
		}
		_ = o.client.RefreshMetadata()
	}
	return last, nil
}

// batches cuts a spool into record batches of at most maxBatch bytes, at least one record each.
func (o *outbox) batches(s *spool, now time.Time) []*sarama.RecordBatch {
	ptrs := s.pointers[:0]
	for i := range s.records {
		ptrs = append(ptrs, &s.records[i])
	}
	s.pointers = ptrs
	var out []*sarama.RecordBatch
	start, size := 0, 0
	for i, r := range ptrs {
		n := recordSize(r.Key, r.Value, r.Headers)
		if i > start && size+n > o.maxBatch {
			out = append(out, o.batch(ptrs[start:i], now))
			start, size = i, 0
		}
		size += n
	}
	return append(out, o.batch(ptrs[start:], now))
}

func (o *outbox) batch(records []*sarama.Record, now time.Time) *sarama.RecordBatch {
	for i, r := range records {
		r.OffsetDelta = int64(i)
	}
	return &sarama.RecordBatch{
		Version: 2, Codec: o.config.Producer.Compression, CompressionLevel: o.config.Producer.CompressionLevel,
		FirstTimestamp: now, MaxTimestamp: now, LastOffsetDelta: int32(len(records) - 1), Records: records,
		ProducerID: o.producer.id, ProducerEpoch: o.producer.epoch,
	}
}

// round sends the first batch of every partition, as far as they fit in one request per leader, all leaders at once, and takes what was
// acknowledged off the queue. The error is one of those met.
func (o *outbox) round(ctx context.Context, queue map[topicPartition][]*sarama.RecordBatch, last acked) error {
	requests, err := o.requests(queue)
	type answer struct {
		request  *produceRequest
		response *sarama.ProduceResponse
	}
	answers := make(chan answer, len(requests))
	var g errgroup.Group
	for broker, req := range requests {
		g.Go(func() error {
			resp, err := o.produce(ctx, broker, req)
			if err != nil {
				return err
			}
			answers <- answer{req, resp}
			return nil
		})
	}
	if e := g.Wait(); e != nil {
		err = e
	}
	close(answers)
	for a := range answers {
		for _, tp := range a.request.partitions {
			if e := o.settle(tp, a.response, queue, last); e != nil {
				err = e
			}
		}
	}
	return err
}

// produceRequest is one request with the partitions it holds a batch for.
type produceRequest struct {
	*sarama.ProduceRequest
	partitions []topicPartition
	bytes      int
}

func (o *outbox) requests(queue map[topicPartition][]*sarama.RecordBatch) (map[*sarama.Broker]*produceRequest, error) {
	var failed error
	out := make(map[*sarama.Broker]*produceRequest)
	for tp, batches := range queue {
		leader, err := o.client.Leader(tp.topic, tp.partition)
		if err != nil {
			failed = fmt.Errorf("find leader of %s/%d: %w", tp.topic, tp.partition, err)
			continue
		}
		req := out[leader]
		if req == nil {
			req = &produceRequest{ProduceRequest: &sarama.ProduceRequest{
				RequiredAcks: sarama.WaitForAll, Timeout: int32(o.config.Producer.Timeout / time.Millisecond), Version: 7,
			}}
			out[leader] = req
		}
		b := batches[0]
		n := batchSize(b)
		if req.bytes > 0 && req.bytes+n > o.most {
			continue // in a later round
		}
		req.bytes += n
		b.FirstSequence = o.producer.next[tp]
		req.AddBatch(tp.topic, tp.partition, b)
		req.partitions = append(req.partitions, tp)
	}
	return out, failed
}

// batchSize is an upper bound of a batch's bytes.
func batchSize(b *sarama.RecordBatch) (n int) {
	for _, r := range b.Records {
		n += recordSize(r.Key, r.Value, r.Headers)
	}
	return n
}

// produce sends one request. A connection that failed is closed, so that the next try opens a new one.
func (o *outbox) produce(ctx context.Context, b *sarama.Broker, req *produceRequest) (*sarama.ProduceResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := open(b, o.config); err != nil {
		return nil, unreachable(b, err)
	}
	resp, err := b.Produce(req.ProduceRequest)
	if err != nil {
		_ = b.Close()
		return nil, unreachable(b, err)
	}
	return resp, nil
}

// settle takes one partition's answer.
func (o *outbox) settle(tp topicPartition, resp *sarama.ProduceResponse, queue map[topicPartition][]*sarama.RecordBatch, last acked) error {
	block := resp.Blocks[tp.topic][tp.partition]
	if block == nil {
		return &writeError{tp, sarama.ErrIncompleteResponse}
	}
	n := len(queue[tp][0].Records)
	switch block.Err {
	case sarama.ErrNoError:
		last.add(tp, block.Offset, n)
	case sarama.ErrDuplicateSequenceNumber: // the answer to an earlier try was lost; the records are there
		last.add(tp, -1, n)
	default:
		return &writeError{tp, block.Err}
	}
	o.producer.advance(tp, n)
	if queue[tp] = queue[tp][1:]; len(queue[tp]) == 0 {
		delete(queue, tp)
	}
	return nil
}

// add notes one acknowledged batch of n records.
func (a acked) add(tp topicPartition, offset int64, n int) {
	all, ok := a[tp]
	if !ok {
		all.first, all.last = -1, -1
	}
	switch {
	case offset < 0: // it lies behind the last one, and before the next
	case all.first < 0:
		all.first = offset
	case offset > all.last+1:
		all.holes = append(all.holes, hole{all.last + 1, offset})
	}
	if offset >= 0 {
		all.last = offset + int64(n) - 1
	}
	a[tp] = all
}

// holes are the stretches of a log, known up to next, that others have appended before and between this write's batches; next is
// moved behind the write.
func (a acked) holes(tp topicPartition, next *int64) (found []hole) {
	of, ok := a[tp]
	if !ok {
		return nil
	}
	if of.first > *next {
		found = append(found, hole{*next, of.first})
	}
	*next = max(*next, of.last+1)
	return append(found, of.holes...)
}

func (o *outbox) close() error { return o.client.Close() }

// writeError is a broker's refusal of one partition's batch.
type writeError struct {
	tp  topicPartition
	err error
}

func (e *writeError) Error() string {
	return fmt.Sprintf("write %s/%d: %s", e.tp.topic, e.tp.partition, e.err)
}
func (e *writeError) Unwrap() error { return e.err }

// unreachableError is a broker that did not answer.
type unreachableError struct {
	addr string
	err  error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("write to broker %s: %s", e.addr, e.err)
}
func (e *unreachableError) Unwrap() error { return e.err }

func unreachable(b *sarama.Broker, err error) error { return &unreachableError{b.Addr(), err} }

// repeatable reports whether the same write may succeed later. What it does not name ends the run: a producer the broker
// has forgotten or that lost its sequence must start anew from the log (E2).
func repeatable(err error) bool {
	var kerr sarama.KError
	if !errors.As(err, &kerr) || moved(err) {
		return true // no answer: broken connection, no leader known, time-out; or the group's coordinator moves
	}
	switch kerr {
	case sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrReplicaNotAvailable, sarama.ErrUnknownTopicOrPartition,
		sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrRequestTimedOut, sarama.ErrNetworkException,
		sarama.ErrKafkaStorageError, sarama.ErrUnknown, sarama.ErrIncompleteResponse, sarama.ErrBrokerNotAvailable,
		sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrOffsetNotAvailable, sarama.ErrThrottlingQuotaExceeded:
		return true
	}
	return false
}

// pause waits or returns why the context ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
