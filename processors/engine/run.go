package engine

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
)

// run is one life of a processor: its connections, its outbox and its partitions. A run that fails is thrown away with
// all it holds; the next one starts from the log (E2).
type run[E, S any] struct {
	owner  *Processor
	config *Config
	job    *Job[E, S]
	log    *slog.Logger
	kafka  *sarama.Config
	topics *topics
	count  int32

	client  sarama.Client // offsets and metadata
	reader  sarama.Client // of changelogs and outputs: fetches would hold up commits on the same connection
	outbox  *outbox
	ledger  *ledger
	frames  *frames // of input and loop
	records *frames // of changelogs
	healthy func()

	cancel context.CancelCauseFunc
	kicked chan struct{}

	wrote   Checkpointed // by the checkpoint under way
	began   time.Time    // when the last checkpoint did
	stalled time.Time    // since when nothing is folded

	unwritten error // why a generation's last checkpoint was not written, if so

	mu         sync.Mutex
	partitions map[int32]*partition[E, S]
	current    *session[E, S]
}

// newRun connects and checks the topics.
func newRun[E, S any](owner *Processor, c *Config, job *Job[E, S]) (*run[E, S], error) {
	r := &run[E, S]{
		owner: owner, config: c, job: job, kafka: c.sarama(), frames: &frames{}, records: &frames{}, kicked: make(chan struct{}, 1), stalled: c.Now(),
		log: c.Logger.With("group", job.Group), partitions: make(map[int32]*partition[E, S]),
	}
	if err := r.connect(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *run[E, S]) connect() (err error) {
	if r.client, err = sarama.NewClient(r.config.Brokers, r.kafka); err != nil {
		return fmt.Errorf("connect to %v: %w", r.config.Brokers, err)
	}
	if err := r.checkTopics(); err != nil {
		return err
	}
	if r.reader, err = sarama.NewClient(r.config.Brokers, r.kafka); err != nil {
		return fmt.Errorf("connect to %v: %w", r.config.Brokers, err)
	}
	writer, err := sarama.NewClient(r.config.Brokers, r.kafka)
	if err != nil {
		return fmt.Errorf("connect to %v: %w", r.config.Brokers, err)
	}
	r.outbox, err = newOutbox(writer, r.config.WriteTimeout, r.config.MaxBatch, r.log, r.config.Now)
	if err != nil {
		_ = writer.Close()
		return err
	}
	loop := r.topics.loop
	if r.config.RekeyOff {
		loop = ""
	}
	r.ledger = &ledger{r.client, r.job.Group, r.job.Input, loop, r.topics.table, newIdentity(r.job.Definition, r.count)}
	return nil
}

func (r *run[E, S]) close() {
	if r.outbox != nil {
		_ = r.outbox.close()
	}
	for _, c := range []sarama.Client{r.client, r.reader} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// checkTopics refuses to start without the topics, or with partitions that do not match.
func (r *run[E, S]) checkTopics() error {
	j := r.job
	n := make(map[string]int32, 6)
	for _, topic := range []string{j.Input, j.Table(), j.Loop(), j.Output, j.Late, j.Dead} {
		if topic == j.Loop() && r.config.RekeyOff {
			continue
		}
		ps, err := r.client.Partitions(topic)
		if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
			return &absentError{topic}
		} else if err != nil {
			return fmt.Errorf("describe topic %s: %w", topic, err)
		}
		n[topic] = int32(len(ps))
	}
	r.count = n[j.Input]
	for _, topic := range []string{j.Table(), j.Loop(), j.Output} {
		if got, ok := n[topic]; ok && got != r.count {
			return &RefusalError{
				fmt.Sprintf("topic %s has %d partitions, its input %s has %d", topic, got, j.Input, r.count),
				"klgstream topics (it tells what to do about a topic that is there already)",
			}
		}
	}
	r.topics = &topics{j.Input, j.Loop(), j.Table(), j.Output, j.Late, j.Dead, n[j.Late], n[j.Dead]}
	return nil
}

// run hands the job to goka and returns when it ends.
func (r *run[E, S]) run(ctx context.Context, healthy func()) error {
	defer r.close()
	r.healthy = healthy
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	p, err := goka.NewProcessor(r.config.Brokers, r.graph(), r.options()...)
	if err != nil {
		return fmt.Errorf("build goka processor: %w", err)
	}
	if failed := r.owner.Status().Restarts > 0; !failed { // else why it is started again says more
		r.owner.report(r.owner.unassigned("starting"))
	}
	defer r.owner.beat(time.Time{}, 0, nil)
	err = errors.Join(p.Run(ctx), r.unwritten)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // what failed first; goka's error follows from it
	}
	return err
}

// fail ends the run: nothing more is written or committed, whoever waits is woken (E2).
func (r *run[E, S]) fail(err error) {
	r.cancel(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.partitions {
		p.fail(err)
	}
}

func (r *run[E, S]) kick() {
	select {
	case r.kicked <- struct{}{}:
	default:
	}
}

func (r *run[E, S]) graph() *goka.GroupGraph {
	codec := frameCodec{r.frames}
	edges := []goka.Edge{
		goka.Input(goka.Stream(r.job.Input), codec, r.callback(false)),
		goka.Persist(bytesCodec{}),
	}
	if !r.config.RekeyOff {
		edges = append(edges, goka.Loop(codec, r.callback(true)))
	}
	return goka.DefineGroup(goka.Group(r.job.Group), edges...)
}

// callback folds a frame. Its goka context has no promises, so goka never waits for it.
func (r *run[E, S]) callback(loop bool) goka.ProcessCallback {
	return func(ctx goka.Context, msg any) {
		fr := msg.(*frame)
		err := r.partition(ctx.Partition()).process(fr, loop)
		r.frames.recycle(fr)
		if err != nil {
			r.fail(err)
		}
	}
}

func (r *run[E, S]) options() []goka.ProcessorOption {
	opts := []goka.ProcessorOption{
		goka.WithClientID(r.kafka.ClientID),
		goka.WithLogger(gokaLogger{r.log}),
		goka.WithHasher(Hasher),
		// A nil value is a record like any other: goka's default would drop it.
		goka.WithNilHandling(goka.NilDecode),
		// Frames are large already; a deep channel only adds memory and work lost at a rebalance.
		goka.WithPartitionChannelSize(2),
		goka.WithStorageBuilder(func(topic string, partition int32) (storage.Storage, error) {
			if topic != r.topics.table {
				return nil, fmt.Errorf("build store: unexpected table %q", topic)
			}
			return store[E, S]{r.partition(partition), r.records, r.fail}, nil
		}),
		goka.WithConsumerGroupBuilder(r.consumerGroup),
		goka.WithConsumerSaramaBuilder(func(brokers []string, _ string) (sarama.Consumer, error) {
			return newTableConsumer(brokers, r.kafka, r.records, r.config.FrameRecords)
		}),
		goka.WithTopicManagerBuilder(func(brokers []string) (goka.TopicManager, error) {
			tm, err := goka.NewTopicManager(brokers, r.kafka, goka.NewTopicManagerConfig())
			return checkedTopics{tm, r.copied}, err
		}),
		goka.WithProducerBuilder(func([]string, string, func() hash.Hash32) (goka.Producer, error) { return noProducer{}, nil }),
	}
	if r.config.HotStandby {
		opts = append(opts, goka.WithHotStandby())
	}
	return opts
}

func (r *run[E, S]) consumerGroup(brokers []string, name, _ string) (sarama.ConsumerGroup, error) {
	cg, err := sarama.NewConsumerGroup(brokers, name, r.config.groupSarama())
	if err != nil {
		return nil, err
	}
	return &group{cg, r, r.frames, r.config.FrameRecords}, nil
}

// partition is the one of that number, made when first asked for.
func (r *run[E, S]) partition(id int32) *partition[E, S] {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.partitions[id]
	if p == nil {
		p = newPartition(id, r.count, r.config, r.topics, r.job.New(), r.owner.metrics.partition(id), r.kick)
		r.partitions[id] = p
	}
	return p
}

// session is one generation's part of a run.
type session[E, S any] struct {
	member     member
	partitions []*partition[E, S]
	lease      time.Time // when the group last confirmed the membership
	recovered  bool      // the tables are
	guarded    time.Time // until then writes of former owners are to be expected
	probed     time.Time // when the ends of the logs were last looked at
	stop       chan struct{}
	stopped    sync.WaitGroup
	cuts       []cut[E, S]
}

// begin reads where the claimed partitions stand and prepares them.
func (r *run[E, S]) begin(s sarama.ConsumerGroupSession) error {
	claimed := s.Claims()[r.job.Input]
	r.frames.drop()
	// All partitions, not only the claimed ones: what contradicts the log anywhere is refused everywhere.
	all := make([]int32, r.count)
	for i := range all {
		all[i] = int32(i)
	}
	positions, err := r.ledger.load(all)
	if err == nil {
		err = r.checkLoop(positions)
	}
	if err != nil {
		return err
	}
	next := &session[E, S]{
		member: member{s.GenerationID(), s.MemberID(), nil}, lease: r.config.Now(), stop: make(chan struct{}),
	}
	if id := r.config.InstanceID; id != "" {
		next.member.instance = &id
	}
	for _, id := range claimed {
		at, err := r.locate(id, positions[id])
		if err != nil {
			return err
		}
		out, err := r.bound(r.topics.output, id, sarama.OffsetNewest)
		if err != nil {
			return fmt.Errorf("find end of %s/%d: %w", r.topics.output, id, err)
		}
		p := r.partition(id)
		p.begin(at)
		p.appends(at, out, s.GenerationID())
		next.partitions = append(next.partitions, p)
	}
	r.mu.Lock()
	r.current = next
	for id, p := range r.partitions {
		if !slices.Contains(claimed, id) {
			p.metrics.leave()
		}
	}
	r.mu.Unlock()
	r.owner.metrics.rebalances.Inc()
	r.owner.report(&recovering[E, S]{next.partitions})
	r.log.Info("partitions assigned", "generation", next.member.generation, "partitions", claimed)
	return nil
}

// checkLoop refuses a loop without positions of a group that has passed events on: what was in it, and not counted yet, is lost (E6).
func (r *run[E, S]) checkLoop(positions map[int32]position) error {
	rekeys := false
	for _, at := range positions {
		rekeys = rekeys || at.clock.rekeys
	}
	for id, at := range positions {
		if rekeys && at.input >= 0 && at.loop < 0 && r.ledger.loop != "" && !r.config.AcceptLoss {
			return &RefusalError{
				fmt.Sprintf("group %s has passed events on through %s, but has no position in %s/%d: the topic was deleted and created anew, and with it may be events that were not counted",
					r.job.Group, r.topics.loop, r.topics.loop, id),
				"count anew under another --group, or accept the loss with --accept-loss",
			}
		}
	}
	return nil
}

// keptFor is how long the tables of partitions that others have now are kept, in case they come back at the next rebalance.
const keptFor = time.Minute

// drop forgets the tables of partitions that others have had for some time. Copies for a hot standby stay.
func (r *run[E, S]) drop(s *session[E, S], now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.config.HotStandby || len(r.partitions) <= len(s.partitions) {
		return
	}
	maps.DeleteFunc(r.partitions, func(_ int32, p *partition[E, S]) bool { return p.left(now) > keptFor })
}

// locate checks a position against the log (E6) and fills in where an uncommitted one starts.
func (r *run[E, S]) locate(id int32, at position) (position, error) {
	var err error
	if at.input, err = r.within(r.topics.input, id, at.input); err != nil {
		return at, err
	}
	if r.ledger.loop != "" {
		if at.loop, err = r.within(r.topics.loop, id, at.loop); err != nil {
			return at, err
		}
	}
	end, err := r.bound(r.topics.table, id, sarama.OffsetNewest)
	if err != nil {
		return at, fmt.Errorf("find end of %s/%d: %w", r.topics.table, id, err)
	}
	r.partition(id).recovering(end)
	if end < at.clock.table {
		return at, &RefusalError{
			fmt.Sprintf("the group table %s/%d ends at %d, but %d was written to it: the topic was deleted or truncated, and its counts with it",
				r.topics.table, id, end, at.clock.table),
			fmt.Sprintf("restore the topic, or count anew: delete group %s and its topics %s and %s, then klgstream topics",
				r.job.Group, r.topics.table, r.topics.loop),
		}
	}
	return at, nil
}

// within compares a committed offset with the log's bounds.
func (r *run[E, S]) within(topic string, id int32, offset int64) (int64, error) {
	oldest, err := r.bound(topic, id, sarama.OffsetOldest)
	if err != nil {
		return 0, fmt.Errorf("find start of %s/%d: %w", topic, id, err)
	}
	newest, err := r.bound(topic, id, sarama.OffsetNewest)
	if err != nil {
		return 0, fmt.Errorf("find end of %s/%d: %w", topic, id, err)
	}
	switch {
	case offset < 0:
		return oldest, nil
	case offset > newest:
		return 0, &RefusalError{
			fmt.Sprintf("group %s stands at %s/%d@%d, but the log ends at %d: the topic was deleted and created anew, or truncated",
				r.job.Group, topic, id, offset, newest),
			fmt.Sprintf("count the new topic under another --group, or delete group %s and its topics %s and %s, then klgstream topics",
				r.job.Group, r.topics.table, r.topics.loop),
		}
	case offset < oldest && !r.config.AcceptLoss:
		return 0, &RefusalError{
			fmt.Sprintf("group %s stands at %s/%d@%d, but the log starts at %d: retention deleted %d records that were not counted",
				r.job.Group, topic, id, offset, oldest, oldest-offset),
			"restore them, or accept the loss with --accept-loss; and raise the topic's retention",
		}
	}
	return max(offset, oldest), nil
}

// claim remembers a claim: it knows how far the log reaches.
func (r *run[E, S]) claim(c sarama.ConsumerGroupClaim) {
	p := r.partition(c.Partition())
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Topic() == r.topics.input {
		p.claim = c
	} else {
		p.loopClaim = c
	}
}

// trouble notes that a partition of the input or the loop cannot be read now.
func (r *run[E, S]) trouble(partition int32) {
	if partition >= 0 && partition < r.count {
		r.partition(partition).trouble(r.config.Now())
	}
}

// ready starts the checkpoints of a generation whose tables are recovered.
func (r *run[E, S]) ready(s sarama.ConsumerGroupSession) {
	r.log.Info("partitions recovered", "generation", s.GenerationID())
	cur := r.current
	cur.recovered, cur.guarded = true, r.config.Now().Add(r.config.SessionTimeout)
	r.owner.metrics.stall.Observe(r.config.Now().Sub(r.stalled).Seconds())
	for _, p := range cur.partitions {
		r.owner.metrics.recovered.Add(float64(p.isRecovered()))
	}
	r.owner.beat(r.config.Now(), len(cur.partitions), nil)
	cur.stopped.Go(func() { r.checkpoints(s.Context(), cur) })
	r.healthy()
}

// finish writes what was folded and not written yet, while the generation may still commit.
func (r *run[E, S]) finish(sarama.ConsumerGroupSession) error {
	r.mu.Lock()
	cur := r.current
	r.current = nil
	r.mu.Unlock()
	if cur == nil {
		return nil
	}
	r.owner.beat(time.Time{}, 0, nil)
	r.owner.report(r.owner.unassigned("rebalancing"))
	r.stalled = r.config.Now()
	close(cur.stop)
	cur.stopped.Wait()
	defer func() { r.began = time.Time{} }()
	if !cur.recovered {
		r.forsake(cur)
		return nil
	}
	err := r.failure(cur)
	if err == nil {
		// The session's context has ended, and perhaps the run's; what is folded is written all the same.
		ctx, cancel := context.WithTimeout(context.Background(), r.config.SessionTimeout)
		if err = r.checkpoint(ctx, cur); err == nil && slices.ContainsFunc(cur.partitions, (*partition[E, S]).unwritten) {
			err = r.checkpoint(ctx, cur) // it found what is to be written over, and has committed nothing
		}
		cancel()
	}
	for _, p := range cur.partitions {
		p.end()
	}
	if err != nil {
		r.fail(err)
		r.unwritten = err
	}
	return err
}

// forsake ends a generation whose recovery was broken off. Its partitions may be behind their changelog, so nothing of them is
// written; one that was worked on all the same is recovered from the start next time.
func (r *run[E, S]) forsake(s *session[E, S]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range s.partitions {
		if p.end(); p.unwritten() {
			delete(r.partitions, p.id)
		}
	}
}

// failure is why the session's partitions may not be written any more.
func (r *run[E, S]) failure(s *session[E, S]) error {
	for _, p := range s.partitions {
		p.mu.Lock()
		err := p.failed
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// noProducer is goka's producer: nothing is emitted through goka, so that order and acknowledgement are the outbox's alone.
type noProducer struct{}

var errNoProducer = errors.New("emit: nothing is emitted through goka")

func (noProducer) EmitWithHeaders(string, string, []byte, goka.Headers) *goka.Promise {
	p, finish := goka.NewPromiseWithFinisher()
	finish(nil, errNoProducer)
	return p
}

func (n noProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return n.EmitWithHeaders(topic, key, value, nil)
}
func (noProducer) Close() error { return nil }

// checkedTopics keeps goka from creating topics with settings of its own: checkTopics has seen that they exist. And it keeps a generation
// from waiting for copies of partitions that are another's.
type checkedTopics struct {
	goka.TopicManager
	copied func(topic string, partition int32) (end int64, ok bool)
}

func (checkedTopics) EnsureStreamExists(string, int) error                        { return nil }
func (checkedTopics) EnsureTableExists(string, int) error                         { return nil }
func (checkedTopics) EnsureTopicExists(string, int, int, map[string]string) error { return nil }

// GetOffset is a bound of a log. Goka recovers all tables up to the end of their log before it hands out a record, those of hot
// standbys too (processor.go, Setup). For them that end is told to be where they are: they catch up afterwards, and nobody waits.
func (t checkedTopics) GetOffset(topic string, partition int32, time int64) (int64, error) {
	if end, ok := t.copied(topic, partition); ok && time == sarama.OffsetNewest {
		if end == 0 {
			time = sarama.OffsetOldest
		} else {
			return end, nil
		}
	}
	return patiently(func() (int64, error) { return t.TopicManager.GetOffset(topic, partition, time) })
}

// bound is a bound of a log.
func (r *run[E, S]) bound(topic string, id int32, time int64) (int64, error) {
	return patiently(func() (int64, error) { return r.client.GetOffset(topic, id, time) })
}

// patiently asks for an offset again that a broker does not tell yet, as when a leader was just elected: a run that ends for that recovers
// all its tables anew.
func patiently(get func() (int64, error)) (offset int64, err error) {
	for attempt := 1; ; attempt++ {
		if offset, err = get(); err == nil || !repeatable(err) || attempt == readAttempts {
			return offset, err
		}
		_ = pause(context.Background(), time.Duration(attempt)*50*time.Millisecond) // it does not end early
	}
}

// copied is how far the copy of another replica's table has come; false of an own one.
func (r *run[E, S]) copied(topic string, id int32) (end int64, ok bool) {
	if topic != r.topics.table {
		return 0, false
	}
	p := r.partition(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table + 1, !p.claimed
}
