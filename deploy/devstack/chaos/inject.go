package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// injector breaks things on an embedded broker and among the replicas.
type injector struct {
	broker  *embedded
	crew    crew
	slots   int
	group   string
	pending later
}

// inject lets one fault strike.
func (i *injector) inject(f Fault) error {
	key := int16(keyOf(f.Request))
	client := ""
	if f.Slot >= 0 {
		client = i.crew.client(f.Slot)
	}
	w := i.broker.wire
	switch f.Kind {
	case CutBefore:
		w.add(&rule{client: client, keys: []int16{key}, side: before, left: f.Count})
	case CutAfter:
		w.add(&rule{client: client, keys: []int16{key}, side: after, left: f.Count})
	case HoldBefore:
		w.add(&rule{client: client, keys: []int16{key}, side: before, left: f.Count, hold: f.Hold})
	case HoldAfter:
		w.add(&rule{client: client, keys: []int16{key}, side: after, left: f.Count, hold: f.Hold})
	case Refuse:
		i.refuse(f)
	case Slow:
		r := w.add(&rule{side: after, left: -1, hold: f.Hold})
		i.pending.after(time.Second, func() { w.lift(r) })
	case Stall:
		r := w.add(&rule{side: before, left: -1, hold: time.Hour})
		i.pending.after(f.Hold, func() { w.lift(r) })
	case Compact, MoveLeader, ShuffleLeaders, MoveCoordinator:
		return i.rearrange(f)
	case RestartBroker:
		return i.broker.restart()
	case Tail:
		return i.hideTail(f.Partition)
	default:
		return i.strike(f)
	}
	return nil
}

// refuse makes the broker answer with an error.
func (i *injector) refuse(f Fault) {
	fault := kfake.Fault{Keys: []kmsg.Key{keyOf(f.Request)}, Err: errorOf(f.Error), Count: f.Count}
	switch fault.Keys[0] {
	case kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata:
		fault.Topic = f.Topic
		if fault.Keys[0] != kmsg.Metadata {
			fault.Partitions = []int32{f.Partition}
		}
	case kmsg.InitProducerID:
	default:
		fault.Group = i.group
	}
	i.broker.fault(fault)
}

// rearrange changes the brokers' affairs.
func (i *injector) rearrange(f Fault) error {
	c := i.broker.cluster
	switch f.Kind {
	case Compact:
		c.Compact()
	case MoveLeader:
		return c.MoveTopicPartition(f.Topic, f.Partition, f.Node)
	case ShuffleLeaders:
		c.ShufflePartitionLeaders()
	case MoveCoordinator:
		c.RehashCoordinators()
	}
	return nil
}

// strike hits replicas.
func (i *injector) strike(f Fault) error {
	w := i.broker.wire
	switch f.Kind {
	case Stop:
		i.crew.stop(f.Slot, true)
	case Kill:
		i.crew.kill(f.Slot)
		return i.crew.start(f.Slot)
	case Pause:
		i.crew.pause(f.Slot)
		i.pending.after(f.Hold, func() { i.crew.resume(f.Slot) })
	case Zombie:
		r := w.add(&rule{client: i.crew.client(f.Slot), keys: []int16{int16(kmsg.Produce), int16(kmsg.Heartbeat)}, side: before, left: -1, hold: time.Hour})
		i.pending.after(f.Hold, func() { w.lift(r) })
	case Revoke:
		r := w.add(&rule{client: i.crew.client(f.Slot), keys: []int16{int16(kmsg.Produce)}, side: before, left: -1, hold: time.Hour})
		i.broker.fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: i.group, Err: errorOf("REBALANCE_IN_PROGRESS")})
		i.pending.after(f.Hold, func() { w.lift(r) })
	case Storm:
		storm := i.broker.fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.OffsetCommit, kmsg.SyncGroup}, Group: i.group, Err: errorOf("REBALANCE_IN_PROGRESS"), Count: -1, When: heartbeatsOfMembers(),
		})
		i.pending.after(f.Hold, storm.Remove)
	case StepClock:
		i.crew.step(f.Slot, f.Hold)
	case Join:
		return i.crew.start(f.Slot)
	case Leave:
		i.crew.stop(f.Slot, false)
	case RestartAll:
		for slot := range i.slots + 1 {
			i.crew.kill(slot)
		}
		i.broker.cluster.Compact()
		return i.fill()
	default:
		return fmt.Errorf("inject %q: unknown kind", f.Kind)
	}
	return nil
}

// heartbeatsOfMembers tells heartbeats of the group's generation from others'. A member of a former one is never told that the group
// rebalances, which would say that it is one still.
func heartbeatsOfMembers() func(kmsg.Request) bool {
	latest := int32(0)
	return func(r kmsg.Request) bool {
		switch r := r.(type) {
		case *kmsg.HeartbeatRequest:
			latest = max(latest, r.Generation)
			return r.Generation == latest
		case *kmsg.OffsetCommitRequest:
			latest = max(latest, r.Generation)
		case *kmsg.SyncGroupRequest:
			latest = max(latest, r.Generation)
		}
		return false
	}
}

// hideTail writes to the group table in a transaction that is aborted: behind the last record there is an end that nobody gets to see.
func (i *injector) hideTail(partition int32) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var last error
	err := await(ctx, 50*time.Millisecond, func() (bool, error) {
		last = i.abort(ctx, &kgo.Record{Topic: i.group + "-table", Partition: partition, Key: []byte("stranger"), Value: []byte("taken back")})
		return last == nil, nil // the faults strike here too: it is tried again
	})
	if err != nil {
		return fmt.Errorf("abort a write to the group table: %w", errors.Join(err, last))
	}
	return nil
}

// abort writes a record and takes it back.
func (i *injector) abort(ctx context.Context, r *kgo.Record) error {
	cl, err := connecting(i.broker.addrs())("stranger", kgo.TransactionalID("stranger"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		return err
	}
	return cl.EndTransaction(ctx, kgo.TryAbort)
}

// fill starts a replica in every slot that has none.
func (i *injector) fill() error {
	for slot := range i.slots {
		if err := i.crew.start(slot); err != nil {
			return err
		}
	}
	return nil
}

// heal ends all faults (X5).
func (i *injector) heal() error {
	i.pending.now()
	i.broker.wire.heal()
	i.broker.healFaults()
	for slot := range i.slots {
		i.crew.step(slot, 0)
	}
	return i.fill()
}

// later is what happens after a while, or at once when it is hurried.
type later struct {
	mu   sync.Mutex
	list []*appointment
}

type appointment struct {
	timer *time.Timer
	do    func()
	once  sync.Once
}

func (l *later) after(d time.Duration, do func()) {
	a := &appointment{do: do}
	l.mu.Lock()
	defer l.mu.Unlock()
	a.timer = time.AfterFunc(d, func() { a.once.Do(a.do) })
	l.list = append(l.list, a)
}

// now does everything that is still to come.
func (l *later) now() {
	l.mu.Lock()
	list := slices.Clone(l.list)
	l.list = nil
	l.mu.Unlock()
	for _, a := range list {
		a.timer.Stop()
		a.once.Do(a.do)
	}
}
