package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// tableConsumer reads changelogs for goka's recovery. goka waits for the record before the end of the log; where compaction
// or retention has taken that record, it would wait for ever (goka: partition_table.go, loadMessages). A consumer of this
// kind asks the broker when nothing comes, and if there is nothing up to the end, says so by a tombstone of the empty key.
type tableConsumer struct {
	sarama.Consumer
	client sarama.Client
	frames *frames // records are handed out in frames of up to limit; nil: one by one
	limit  int
}

// TableConsumer makes such a consumer, for goka's views.
func TableConsumer(brokers []string, c *sarama.Config) (sarama.Consumer, error) {
	return newTableConsumer(brokers, c, nil, 1)
}

func newTableConsumer(brokers []string, c *sarama.Config, f *frames, limit int) (sarama.Consumer, error) {
	client, err := sarama.NewClient(brokers, c)
	if err != nil {
		return nil, err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return tableConsumer{consumer, client, f, limit}, nil
}

func (c tableConsumer) Close() error { return errors.Join(c.Consumer.Close(), c.client.Close()) }

// ConsumePartition reads from an offset on.
func (c tableConsumer) ConsumePartition(topic string, partition int32, offset int64) (sarama.PartitionConsumer, error) {
	end, err := c.client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil {
		return nil, fmt.Errorf("find end of %s/%d: %w", topic, partition, err)
	}
	pc, err := c.Consumer.ConsumePartition(topic, partition, offset)
	if err != nil {
		return nil, err
	}
	t := &tableReader{
		PartitionConsumer: pc, client: c.client, topic: topic, partition: partition, next: offset, end: end,
		frames: c.frames, limit: c.limit, out: make(chan *sarama.ConsumerMessage, max(1, 256/c.limit)),
		errors: make(chan *sarama.ConsumerError, 1), closed: make(chan struct{}),
	}
	go t.pass()
	go t.passErrors()
	return t, nil
}

// tableReader passes one changelog partition on.
type tableReader struct {
	sarama.PartitionConsumer
	client    sarama.Client
	topic     string
	partition int32
	next, end int64
	frames    *frames
	limit     int
	sent      [][]byte // frames that may not be taken yet
	out       chan *sarama.ConsumerMessage
	errors    chan *sarama.ConsumerError
	closed    chan struct{}
	once      sync.Once
}

// silence is how long recovery waits for a record before it asks whether there is one.
const silence = 250 * time.Millisecond

// Messages are the changelog's records.
func (t *tableReader) Messages() <-chan *sarama.ConsumerMessage { return t.out }

// Errors are what went wrong, and that the reading has ended if that was not asked for: goka takes a channel that is closed for the end of
// the changelog, and would go on with a part of the state.
func (t *tableReader) Errors() <-chan *sarama.ConsumerError { return t.errors }

var errReadingEnded = errors.New("reading has ended before it was told to")

func (t *tableReader) passErrors() {
	defer close(t.errors)
	for err := range t.PartitionConsumer.Errors() {
		t.tell(err)
	}
	t.tell(&sarama.ConsumerError{Topic: t.topic, Partition: t.partition, Err: errReadingEnded})
	<-t.closed
}

// tell passes an error on unless the reading is to end anyway.
func (t *tableReader) tell(err *sarama.ConsumerError) {
	select {
	case <-t.closed:
		return
	default:
	}
	select {
	case t.errors <- err:
	case <-t.closed:
	}
}

// AsyncClose ends the reading; Messages and Errors are closed then, and not before.
func (t *tableReader) AsyncClose() {
	t.once.Do(func() { close(t.closed) })
	t.PartitionConsumer.AsyncClose()
}

func (t *tableReader) pass() {
	defer t.takeBack()
	defer close(t.out)
	quiet := time.NewTicker(silence)
	defer quiet.Stop()
	for {
		select {
		case m, ok := <-t.PartitionConsumer.Messages():
			if !ok {
				<-t.closed
				return
			}
			if !t.hand(m) {
				return
			}
			quiet.Reset(silence)
		case <-quiet.C:
			if t.next < t.end && t.nothingLeft() {
				t.next = t.end
				if !t.send(&sarama.ConsumerMessage{Topic: t.topic, Partition: t.partition, Offset: t.end - 1}) {
					return
				}
			}
		}
	}
}

// hand passes a record on, or with it what is there already.
func (t *tableReader) hand(m *sarama.ConsumerMessage) bool {
	if t.frames != nil {
		m = t.frames.message(t.frames.pack(m, t.PartitionConsumer.Messages(), t.limit))
		t.lend(m.Value)
	}
	t.next = m.Offset + 1
	return t.send(m)
}

// lend remembers the last frames: those that goka may leave behind are taken back at the end.
func (t *tableReader) lend(token []byte) {
	if t.sent = append(t.sent, token); len(t.sent) > cap(t.out)+2 { // on the channel, in goka's hands, and this one
		t.sent = slices.Delete(t.sent, 0, 1)
	}
}

// takeBack waits until goka reads no more and forgets the frames that it left.
func (t *tableReader) takeBack() {
	<-t.closed
	for _, token := range t.sent {
		_, _ = t.frames.take(token)
	}
}

func (t *tableReader) send(m *sarama.ConsumerMessage) bool {
	select {
	case t.out <- m:
		return true
	case <-t.closed:
		return false
	}
}

// nothingLeft reports whether the broker has no record to deliver from next up to the end: an answer without any is proof,
// because a fetch below the end of the log returns the first batch there is.
func (t *tableReader) nothingLeft() bool {
	for from := t.next; from < t.end; {
		batches, err := fetch(t.client, t.topic, t.partition, from, t.end)
		if err != nil {
			return false
		}
		if len(batches) == 0 {
			return true
		}
		for _, b := range batches {
			if b.shows(from) {
				return false
			}
			from = max(from, b.LastOffset()+1)
		}
	}
	return true
}

// barren is the end of what a log has from an offset on, up to another one at most, that no consumer gets to see. Records of a transaction
// that is still open are none of that.
func barren(client sarama.Client, topic string, partition int32, from, end int64) (int64, error) {
	for from < end {
		batches, err := fetch(client, topic, partition, from, end)
		if err != nil || len(batches) == 0 {
			return from, err
		}
		for _, b := range batches {
			if b.shows(from) {
				return from, nil
			}
			from = max(from, b.LastOffset()+1)
		}
	}
	return from, nil
}

// shows reports whether a consumer sees a record of the batch at an offset or behind it: compaction may have taken the last ones, and
// leaves the batch's end where it was.
func (b fetched) shows(from int64) bool {
	n := len(b.Records)
	return b.visible && n > 0 && b.FirstOffset+b.Records[n-1].OffsetDelta >= from
}

// fetched is a batch as it lies in the log.
type fetched struct {
	*sarama.RecordBatch
	visible bool // neither a control record nor of an aborted transaction
}

// errLeaderBehind is a leader that has just been elected and does not know yet how far the log is replicated: until it does, it delivers
// less than there is.
var errLeaderBehind = errors.New("the leader does not know yet that the log reaches so far")

// fetch is one fetch of a partition from an offset on, of what is there: it does not wait for more. Sarama locks a broker for the time of
// a request, so one that waited would hold up those of all other partitions. That there is nothing is told only of a log that
// reaches to end, as it did when that was asked for.
func fetch(client sarama.Client, topic string, partition int32, from, end int64) ([]fetched, error) {
	leader, err := client.Leader(topic, partition)
	if err != nil {
		return nil, err
	}
	if err := open(leader, client.Config()); err != nil {
		return nil, err
	}
	req := &sarama.FetchRequest{Version: 7, MinBytes: 1, MaxBytes: 1 << 20, Isolation: sarama.ReadCommitted, SessionEpoch: -1} // the broker is to keep no session
	req.AddBlock(topic, partition, from, 1<<20, -1)
	resp, err := leader.Fetch(req)
	if err != nil {
		_ = leader.Close()
		return nil, err
	}
	block := resp.GetBlock(topic, partition)
	switch {
	case block == nil:
		return nil, sarama.ErrIncompleteResponse
	case block.Err != sarama.ErrNoError:
		return nil, block.Err
	}
	aborted := make(map[int64]bool)
	for _, tx := range block.AbortedTransactions {
		aborted[tx.ProducerID] = true
	}
	var out []fetched
	for _, set := range block.RecordsSet {
		if b := set.RecordBatch; b != nil && b.LastOffset() >= from {
			out = append(out, fetched{b, !b.Control && (!b.IsTransactional || !aborted[b.ProducerID])})
		}
	}
	if len(out) == 0 && block.HighWaterMarkOffset < end {
		return nil, errLeaderBehind
	}
	return out, nil
}
