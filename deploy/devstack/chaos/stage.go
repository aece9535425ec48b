package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// createTopics makes a round's topics, each with so many copies, as `klgstream topics` makes them.
func createTopics(ctx context.Context, connect connector, w *Workload, copies int16) error {
	cl, err := connect("topics")
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	for topic, settings := range w.topicSettings() {
		config := make(map[string]*string, len(settings))
		for k, v := range settings {
			config[k] = &v
		}
		if _, err := admin.CreateTopic(ctx, w.Partitions, copies, config, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %q: %w", topic, err)
		}
	}
	return await(ctx, 20*time.Millisecond, func() (bool, error) { return w.created(ctx, admin) })
}

// created reports whether the brokers tell of all topics.
func (w *Workload) created(ctx context.Context, admin *kadm.Client) (bool, error) {
	found, err := admin.ListTopics(ctx)
	if err != nil {
		return false, fmt.Errorf("list topics: %w", err)
	}
	for topic := range w.topicSettings() {
		if d, ok := found[topic]; !ok || d.Err != nil || len(d.Partitions) != int(w.Partitions) {
			return false, nil //nolint:nilerr // not there yet: it is asked again
		}
	}
	return true, nil
}

func (w *Workload) topicSettings() map[string]map[string]string {
	events := func(more ...string) map[string]string {
		m := map[string]string{"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": strconv.Itoa(8 << 20)}
		for i := 0; i+1 < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	return map[string]map[string]string{
		w.input(): events("message.timestamp.type", "LogAppendTime"), w.loop(): events(), w.output(): events(), w.late(): events(), w.dead(): events(),
		w.table(): {"cleanup.policy": "compact", "segment.bytes": strconv.Itoa(1 << 20)},
	}
}

// embedded is a kfake cluster behind a wire.
type embedded struct {
	wire    *wire
	cluster *kfake.Cluster
	ports   []int
	dir     string // "" without

	mu     sync.Mutex
	faults []*kfake.FaultHandle
}

// fault lets the brokers answer with an error until healFaults.
func (e *embedded) fault(f kfake.Fault) *kfake.FaultHandle {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.cluster.Fault(f)
	e.faults = append(e.faults, h)
	return h
}

func (e *embedded) healFaults() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.faults {
		h.Remove()
	}
	e.faults = nil
}

// newEmbedded starts a cluster of so many brokers, with its log in a directory if one is given.
func newEmbedded(brokers int, dir string) (*embedded, error) {
	e := &embedded{wire: &wire{}, dir: dir, ports: make([]int, brokers)}
	return e, e.launch()
}

// launch starts the brokers and notes their ports.
func (e *embedded) launch() error {
	if err := e.start(); err != nil {
		return err
	}
	for i, addr := range e.cluster.ListenAddrs() {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		if e.ports[i], err = strconv.Atoi(port); err != nil {
			return err
		}
	}
	return nil
}

func (e *embedded) start() (err error) {
	opts := []kfake.Opt{
		kfake.Ports(e.ports...), kfake.ClusterID("chaos"), kfake.DefaultNumPartitions(1),
		kfake.GroupMinSessionTimeout(time.Millisecond),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
			if err != nil {
				return nil, err
			}
			return e.wire.listen(l), nil
		}),
	}
	if e.dir != "" {
		// Members of the previous life are gone: kfake would wait for their sessions.
		if err := os.Remove(filepath.Join(e.dir, "session_state.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		opts = append(opts, kfake.DataDir(e.dir))
	}
	e.cluster, err = kfake.NewCluster(opts...)
	if err != nil {
		return fmt.Errorf("start embedded brokers: %w", err)
	}
	return nil
}

// restart closes the brokers and starts them again on what they left, at the same addresses.
func (e *embedded) restart() error {
	e.mu.Lock()
	e.faults = nil
	e.mu.Unlock()
	e.cluster.Close()
	e.wire.cut(func(*conn) bool { return true })
	return e.start()
}

func (e *embedded) addrs() []string {
	out := make([]string, len(e.ports))
	for i, p := range e.ports {
		out[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
	}
	return out
}

func (e *embedded) close() { e.cluster.Close() }

// connector makes a client of a round's own, which the faults of the network spare.
type connector func(id string, opts ...kgo.Opt) (*kgo.Client, error)

// connecting makes clients of the brokers.
func connecting(addrs []string) connector {
	return func(id string, opts ...kgo.Opt) (*kgo.Client, error) {
		opts = append(opts, kgo.SeedBrokers(addrs...), kgo.ClientID(id), kgo.MetadataMinAge(20*time.Millisecond),
			kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }))
		cl, err := kgo.NewClient(opts...)
		if err != nil {
			return nil, fmt.Errorf("connect %s to %v: %w", id, addrs, err)
		}
		return cl, nil
	}
}

// publisher writes records where they are meant to be and waits until all are acknowledged.
type publisher struct{ cl *kgo.Client }

func newPublisher(connect connector, topic string) (*publisher, error) {
	cl, err := connect("publisher", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic),
		kgo.RecordDeliveryTimeout(time.Minute), kgo.ProducerLinger(0), kgo.AllowIdempotentProduceCancellation())
	if err != nil {
		return nil, err
	}
	return &publisher{cl}, nil
}

func (p *publisher) publish(ctx context.Context, records []record) error {
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Partition: r.partition, Key: r.key, Value: r.value}
	}
	if err := p.cl.ProduceSync(ctx, out...).FirstErr(); err != nil {
		return fmt.Errorf("publish %d events: %w", len(records), err)
	}
	return nil
}

func (p *publisher) close() { p.cl.Close() }

// reader reads topics from their start to what is their end when asked.
type reader struct {
	cl    *kgo.Client
	admin *kadm.Client
}

func newReader(connect connector) (*reader, error) {
	cl, err := connect("reader")
	if err != nil {
		return nil, err
	}
	return &reader{cl, kadm.NewClient(cl)}, nil
}

func (r *reader) close() { r.cl.Close() }

// ends is where a topic's partitions end now.
func (r *reader) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	offsets, err := r.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find end of %s: %w", topic, err)
	}
	out := make(map[int32]int64)
	offsets.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// tail follows a topic.
type tail struct {
	cl      *kgo.Client
	next    map[int32]int64
	records []logRecord
}

func newTail(connect connector, topic string) (*tail, error) {
	cl, err := connect("reader", kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &tail{cl: cl, next: make(map[int32]int64)}, nil
}

func (t *tail) close() { t.cl.Close() }

// to reads until the given ends. What was compacted away is not waited for: a log never loses its last record.
func (t *tail) to(ctx context.Context, ends map[int32]int64) error {
	for !t.reached(ends) {
		fetches := t.cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read to %v, at %v: %w", ends, t.next, context.Cause(ctx))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < t.next[r.Partition] {
				return // a client that takes a new leader of an emptied log for one that has lost something reads it again
			}
			t.next[r.Partition] = r.Offset + 1
			l := logRecord{partition: r.Partition, offset: r.Offset, producer: r.ProducerID, key: r.Key, value: r.Value}
			for _, h := range r.Headers {
				l.headers = append(l.headers, logHeader{h.Key, h.Value})
			}
			t.records = append(t.records, l)
		})
	}
	return nil
}

func (t *tail) reached(ends map[int32]int64) bool {
	for p, end := range ends {
		if t.next[p] < end {
			return false
		}
	}
	return true
}

// progress is how far the group has committed its input and its loop, and whether that is all there is.
func (r *reader) progress(ctx context.Context, w *Workload) (committed int64, all bool, err error) {
	offsets, err := r.admin.FetchOffsets(ctx, w.group())
	if err != nil {
		return 0, false, fmt.Errorf("fetch offsets of %s: %w", w.group(), err)
	}
	all = true
	for _, topic := range []string{w.input(), w.loop()} {
		ends, err := r.ends(ctx, topic)
		if err != nil {
			return 0, false, err
		}
		for p, end := range ends {
			o, ok := offsets.Lookup(topic, p)
			if ok {
				committed += max(0, o.At)
			}
			all = all && (end == 0 || ok && o.At >= end)
		}
	}
	return committed, all, nil
}

// retain deletes what the group has committed from its input and its loop, and returns how many records that were. Where the broker may be
// killed the last record of a log stays: the embedded one forgets where an empty log ended, which no Kafka does.
func (r *reader) retain(ctx context.Context, w *Workload) (deleted int64, err error) {
	offsets, err := r.admin.FetchOffsets(ctx, w.group())
	if err != nil {
		return 0, fmt.Errorf("fetch offsets of %s: %w", w.group(), err)
	}
	var upTo kadm.Offsets
	for _, topic := range []string{w.input(), w.loop()} {
		starts, err := r.admin.ListStartOffsets(ctx, topic)
		if err == nil {
			err = starts.Error()
		}
		if err != nil {
			return 0, fmt.Errorf("find start of %s: %w", topic, err)
		}
		ends, err := r.ends(ctx, topic)
		if err != nil {
			return 0, err
		}
		for p := range w.Partitions {
			start, there := starts.Lookup(topic, p)
			o, ok := offsets.Lookup(topic, p)
			if to := min(o.At, ends[p]-w.lastStays()); ok && there && to > start.Offset {
				upTo.AddOffset(topic, p, to, -1)
				deleted += to - start.Offset
			}
		}
	}
	if deleted == 0 {
		return 0, nil
	}
	done, err := r.admin.DeleteRecords(ctx, upTo)
	if err == nil {
		err = done.Error()
	}
	return deleted, err
}

// await asks again and again until the condition holds or the context ends.
func await(ctx context.Context, every time.Duration, holds func() (bool, error)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sortRecords orders records by partition and offset.
func sortRecords(records []logRecord) {
	slices.SortFunc(records, func(a, b logRecord) int {
		if a.partition != b.partition {
			return int(a.partition - b.partition)
		}
		return int(a.offset - b.offset)
	})
}
