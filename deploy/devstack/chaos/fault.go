package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fault is one thing that is broken behind one publishing step.
type Fault struct {
	// Step is the publishing step behind which it strikes, from 0.
	Step int
	// Kind is what breaks; see the constants.
	Kind string
	// Slot is which replica it strikes; -1 is any.
	Slot int
	// Request is the kind of request, as Kafka names it, for faults of requests.
	Request string
	// Error is the code the broker answers, as Kafka names it, for faults of answers.
	Error string
	// Topic and Partition are where, for faults of partitions.
	Topic     string
	Partition int32
	// Node is the broker that becomes leader or is struck.
	Node int32
	// Count is how often it strikes.
	Count int
	// Hold is how long something is held, delayed or away.
	Hold time.Duration
}

// The kinds of faults.
const (
	// CutBefore cuts the connection before the broker sees a request, CutAfter before its answer arrives: a lost acknowledgement.
	CutBefore, CutAfter = "cut-before", "cut-after"
	// HoldBefore holds a request back and then lets it through, HoldAfter its answer.
	HoldBefore, HoldAfter = "hold-before", "hold-after"
	// Refuse answers a request with an error.
	Refuse = "refuse"
	// Slow delays every answer; Stall holds every request of everybody.
	Slow, Stall = "slow-broker", "stall-broker"
	// MoveLeader moves one partition, ShuffleLeaders all, MoveCoordinator the group.
	MoveLeader, ShuffleLeaders, MoveCoordinator = "move-leader", "shuffle-leaders", "move-coordinator"
	// Compact compacts the group table.
	Compact = "compact"
	// RestartBroker stops and starts the brokers on what they have on disk.
	RestartBroker = "restart-broker"
	// KillBroker, PauseBroker strike a broker's process with SIGKILL and SIGSTOP, and bring it back.
	KillBroker, PauseBroker = "kill-broker", "pause-broker"
	// Stop ends a replica in order, Kill at once; both start another in its place. Pause holds it longer or shorter than its session.
	Stop, Kill, Pause = "stop", "kill", "pause"
	// Zombie holds what a replica writes, and its heartbeats, until its partitions are another's; then lets it through.
	Zombie = "zombie"
	// Join starts one more replica, Leave stops it.
	Join, Leave = "join", "leave"
	// Revoke makes the group rebalance while a replica's write is held.
	Revoke = "revoke-in-flush"
	// RestartAll ends all replicas, compacts, and starts them with nothing.
	RestartAll = "restart-all"
	// KillSink, StopSink and PauseSink strike a sink as Kill, Stop and Pause strike a replica; FullDisk takes the room for its
	// store away from it, and gives it back.
	KillSink, StopSink, PauseSink, FullDisk = "kill-sink", "stop-sink", "pause-sink", "full-disk"
	// Storm makes the group rebalance again and again for a while.
	Storm = "rebalance-storm"
	// Retain deletes what the group has counted from the input and the loop, as retention does.
	Retain = "retention"
	// Tail leaves an end of the group table that no consumer gets to see: what was written there is taken back.
	Tail = "table-tail"
	// StepClock sets a replica's clock forward or back by Hold, which may be negative.
	StepClock = "step-clock"
)

// String is the fault on one line, as ParseSchedule reads it.
func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", f.Step, f.Kind)
	field := func(name string, value any, set bool) {
		if set {
			fmt.Fprintf(&b, " %s=%v", name, value)
		}
	}
	field("slot", f.Slot, f.Slot != 0)
	field("request", f.Request, f.Request != "")
	field("error", f.Error, f.Error != "")
	field("topic", f.Topic, f.Topic != "")
	field("partition", f.Partition, f.Partition != 0)
	field("node", f.Node, f.Node != 0)
	field("count", f.Count, f.Count != 0)
	field("hold", f.Hold, f.Hold != 0)
	return b.String()
}

// Schedule is faults in the order they strike.
type Schedule []Fault

// String is one fault a line.
func (s Schedule) String() string {
	lines := make([]string, len(s))
	for i, f := range s {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// ParseSchedule reads what Schedule.String writes; faults may also be divided by semicolons.
func ParseSchedule(text string) (Schedule, error) {
	var out Schedule
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == ';' }) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		f, err := parseFault(line)
		if err != nil {
			return nil, fmt.Errorf("parse fault %q: %w", line, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func parseFault(line string) (Fault, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return Fault{}, fmt.Errorf("want a step and a kind")
	}
	step, err := strconv.Atoi(words[0])
	if err != nil {
		return Fault{}, err
	}
	f := Fault{Step: step, Kind: words[1]}
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		if err := f.set(name, value); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *Fault) set(name, value string) (err error) {
	number := func() int64 {
		n, e := strconv.ParseInt(value, 10, 32)
		err = e
		return n
	}
	switch name {
	case "slot":
		f.Slot = int(number())
	case "request":
		f.Request = value
	case "error":
		f.Error = value
	case "topic":
		f.Topic = value
	case "partition":
		f.Partition = int32(number())
	case "node":
		f.Node = int32(number())
	case "count":
		f.Count = int(number())
	case "hold":
		f.Hold, err = time.ParseDuration(value)
	default:
		err = fmt.Errorf("unknown field %q", name)
	}
	return err
}

// requests are those that a replica makes.
var requests = []kmsg.Key{
	kmsg.Produce, kmsg.Produce, kmsg.Produce, kmsg.Fetch, kmsg.Fetch, kmsg.OffsetCommit, kmsg.OffsetCommit, kmsg.JoinGroup,
	kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.Metadata, kmsg.InitProducerID, kmsg.FindCoordinator,
	kmsg.ListOffsets, kmsg.OffsetFetch, kmsg.ApiVersions,
}

// refusals are the errors a broker may answer each request with.
var refusals = map[kmsg.Key][]*kerr.Error{
	kmsg.Produce: {
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
		kerr.RequestTimedOut, kerr.KafkaStorageError, kerr.UnknownServerError, kerr.UnknownTopicOrPartition,
		kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch,
	},
	kmsg.Fetch: {
		kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.KafkaStorageError, kerr.UnknownLeaderEpoch,
		kerr.FencedLeaderEpoch, kerr.ReplicaNotAvailable, kerr.OffsetNotAvailable,
	},
	kmsg.OffsetCommit: {
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.NotCoordinator,
		kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.RequestTimedOut,
	},
	kmsg.OffsetFetch:     {kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnknownServerError},
	kmsg.Heartbeat:       {kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
	kmsg.JoinGroup:       {kerr.UnknownMemberID, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.RebalanceInProgress},
	kmsg.SyncGroup:       {kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.NotCoordinator},
	kmsg.InitProducerID:  {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownServerError},
	kmsg.FindCoordinator: {kerr.CoordinatorNotAvailable},
	kmsg.ListOffsets:     {kerr.NotLeaderForPartition, kerr.UnknownServerError, kerr.LeaderNotAvailable},
	kmsg.Metadata:        {kerr.LeaderNotAvailable},
}

// topicOf are the topics a request of a replica may concern.
func topicOf(r *rand.Rand, w *Workload, key kmsg.Key) string {
	switch key {
	case kmsg.Produce:
		return pick(r, w.table(), w.table(), w.output(), w.output(), w.loop(), w.late(), w.dead())
	case kmsg.Fetch:
		return pick(r, w.input(), w.loop(), w.table())
	case kmsg.ListOffsets, kmsg.Metadata:
		return pick(r, w.input(), w.loop(), w.table())
	}
	return ""
}

// firstClocked is the first seed whose schedules step clocks: what the seeds below it found once must be found again.
const firstClocked = 10_000

// firstWider is the first seed whose rounds have faults and settings that were added later still.
const firstWider = 100_000

// FreshSeed is a seed of the moment, whose rounds have every fault there is.
func FreshSeed(now time.Time) uint64 {
	return firstWider + uint64(now.UnixNano())%(1_000_000-firstWider)
}

// NewSchedule draws so many faults for an embedded broker.
func NewSchedule(w *Workload, seed uint64, faults int) Schedule {
	r, clocks, wider := rand.New(rand.NewPCG(seed, 3)), rand.New(rand.NewPCG(seed, 5)), rand.New(rand.NewPCG(seed, 6))
	out := make(Schedule, 0, faults)
	for range faults {
		f := draw(r, w)
		f.Step = r.IntN(w.Steps)
		if seed >= firstClocked && clocks.IntN(20) == 0 {
			f = stepClock(clocks, f.Step, max(0, min(f.Slot, w.Replicas-1)))
		} else if seed >= firstWider && wider.IntN(10) == 0 {
			f = drawWider(wider, w, f.Step)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Fault) int { return a.Step - b.Step })
	return out
}

// stepClock is by up to twelve hours, forward or back.
func stepClock(r *rand.Rand, step, slot int) Fault {
	return Fault{Step: step, Kind: StepClock, Slot: slot, Hold: time.Duration(r.IntN(24*60)-12*60) * time.Minute}
}

// drawWider is one of the faults that were added later.
func drawWider(r *rand.Rand, w *Workload, step int) Fault {
	switch r.IntN(3) {
	case 0:
		return Fault{Step: step, Kind: Storm, Slot: -1, Hold: time.Duration(300+r.IntN(1500)) * time.Millisecond}
	case 1:
		return Fault{Step: step, Kind: Tail, Slot: -1, Partition: r.Int32N(w.Partitions)}
	}
	return Fault{Step: step, Kind: Retain, Slot: -1}
}

// draw is one fault.
func draw(r *rand.Rand, w *Workload) Fault {
	slot := r.IntN(w.Replicas)
	key := requests[r.IntN(len(requests))]
	ms := func(from, to int) time.Duration { return time.Duration(from+r.IntN(to-from)) * time.Millisecond }
	switch n := r.IntN(100); {
	case n < 14:
		return Fault{Kind: CutBefore, Slot: pick(r, -1, slot), Request: key.Name(), Count: pick(r, 1, 1, 2, 5)}
	case n < 28:
		return Fault{Kind: CutAfter, Slot: pick(r, -1, slot), Request: key.Name(), Count: pick(r, 1, 1, 2, 5)}
	case n < 34:
		return Fault{Kind: pick(r, HoldBefore, HoldAfter), Slot: slot, Request: key.Name(), Count: 1, Hold: ms(50, 1500)}
	case n < 50:
		return refusal(r, w)
	case n < 53:
		return Fault{Kind: Slow, Slot: -1, Hold: ms(2, 40)}
	case n < 56:
		return Fault{Kind: Stall, Slot: -1, Hold: ms(100, 1800)}
	case n < 63:
		return drawMove(r, w)
	case n < 67:
		return Fault{Kind: Compact}
	case n < 70 && w.DataDir:
		return Fault{Kind: RestartBroker}
	case n < 76:
		return Fault{Kind: Stop, Slot: slot}
	case n < 83:
		return Fault{Kind: Kill, Slot: slot}
	case n < 87:
		return Fault{Kind: Pause, Slot: slot, Hold: ms(200, 2500)}
	case n < 91:
		return Fault{Kind: Zombie, Slot: slot, Hold: ms(1200, 3000)}
	case n < 94:
		return Fault{Kind: pick(r, Join, Leave), Slot: w.Replicas}
	case n < 98:
		return Fault{Kind: Revoke, Slot: slot, Hold: ms(100, 700)}
	}
	return Fault{Kind: RestartAll}
}

func refusal(r *rand.Rand, w *Workload) Fault {
	keys := []kmsg.Key{
		kmsg.Produce, kmsg.Produce, kmsg.Produce, kmsg.Fetch, kmsg.OffsetCommit, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.Heartbeat,
		kmsg.JoinGroup, kmsg.SyncGroup, kmsg.InitProducerID, kmsg.FindCoordinator, kmsg.ListOffsets, kmsg.Metadata,
	}
	key := pick(r, keys...)
	return Fault{
		Kind: Refuse, Slot: -1, Request: key.Name(), Error: pick(r, refusals[key]...).Message, Topic: topicOf(r, w, key),
		Partition: r.Int32N(w.Partitions), Count: pick(r, 1, 1, 2, 5),
	}
}

func drawMove(r *rand.Rand, w *Workload) Fault {
	if w.Brokers == 1 {
		return Fault{Kind: Compact}
	}
	topics := []string{w.input(), w.table(), w.loop(), w.output(), w.late(), w.dead()}
	switch r.IntN(4) {
	case 0:
		return Fault{Kind: ShuffleLeaders}
	case 1:
		return Fault{Kind: MoveCoordinator}
	}
	return Fault{Kind: MoveLeader, Topic: pick(r, topics...), Partition: r.Int32N(w.Partitions), Node: r.Int32N(int32(w.Brokers))}
}

// keyOf is the API key of a request's name.
func keyOf(name string) kmsg.Key {
	for k := range kmsg.Key(kmsg.MaxKey) + 1 {
		if k.Name() == name {
			return k
		}
	}
	return -1
}

// errorOf is the error of a code's name.
func errorOf(name string) *kerr.Error {
	for _, list := range refusals {
		for _, e := range list {
			if e.Message == name {
				return e
			}
		}
	}
	return kerr.UnknownServerError
}
