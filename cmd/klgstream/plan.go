package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// topic is one topic of the plan: how it is made, and how it must be if it exists.
type topic struct {
	name        string
	partitions  int32  // 0: as many as the first topic of the plan has; must be equal
	free        bool   // partitions need not be equal to the others'
	moves       string // how what it holds gets into another number of partitions; empty: it need not
	replication int16  // 0: any
	config      map[string]string
	rules       []rule
}

// rule is one setting that must hold.
type rule struct {
	key  string
	want string                   // what to set
	ok   func(actual string) bool // is what is there good enough?
	why  string
}

// found is a topic as the broker describes it.
type found struct {
	partitions  int32
	replication int16
	config      map[string]string
}

// fault is a topic that is not as it must be.
type fault struct {
	topic, what, why string
	mend             []string // commands, any one of which mends it
}

func (f fault) Error() string {
	return fmt.Sprintf("topic %s: %s (%s); mend: %s", f.topic, f.what, f.why, strings.Join(f.mend, " or "))
}

// topicMissing is what is wrong with a topic that is not there.
const topicMissing = "does not exist"

// plan lists the topics of the flow, the input first. With a zero p it only says what no result can be right without.
func plan(n Names, p TopicPlan) []topic {
	replication := p.ReplicationFactor
	events := []rule{
		policy("delete", "events without a key, and several of one aircraft, must all stay"),
		atLeastBytes(),
	}
	loop := append(slices.Clone(events), keeps(max(p.LoopRetention, minLoop), p.LoopRetention < 0, "a re-keyed event is not counted before it was read from here"))
	const moves = "klgstream state export FILE, then klgstream state import FILE with a new --group, which keeps what was counted"
	const anew = "a new --registry-group, which is made of what the input holds"
	input := events[:1] // of another's topic only this is asked
	if p.Partitions > 0 {
		input = append(slices.Clone(events), arrival(), keeps(p.InputRetention, p.InputRetention < 0, "so long an outage of the processor loses nothing"))
	}
	all := []topic{
		{name: n.Input, rules: input},
		{name: n.table(), moves: moves, rules: []rule{policy("compact", "the newest state of every aircraft must stay, for ever")}},
		{name: n.loop(), moves: moves, rules: loop},
		{name: n.Output, rules: []rule{keeps(p.OutputRetention, p.OutputRetention < 0, "so long an outage of the sink loses nothing")}},
		{name: n.Late, free: true, rules: append(slices.Clone(events), keeps(p.LetterRetention, p.LetterRetention < 0, "so long late events can be looked at"))},
		{name: n.Dead, free: true, rules: append(slices.Clone(events), keeps(p.LetterRetention, p.LetterRetention < 0, "so long dead letters can be looked at"))},
	}
	compacted := []string{n.table()}
	if g := n.registry(); g != "" {
		newest := []rule{policy("compact", "the newest state of every aircraft must stay, for ever")}
		all = append(all,
			topic{name: g + "-table", moves: anew, rules: newest},
			topic{name: g + "-loop", moves: anew, rules: loop},
			topic{name: g, moves: anew, rules: newest})
		compacted = append(compacted, g+"-table")
	}
	for i := range all {
		t := &all[i]
		t.partitions, t.replication = p.Partitions, replication
		if replication >= 3 {
			t.rules = append(t.rules, rule{"min.insync.replicas", "2", number(2), "an acknowledged write must survive its leader"})
		}
		t.config = map[string]string{}
		for _, r := range t.rules {
			t.config[r.key] = r.want
		}
		if t.name == n.Output {
			t.config["cleanup.policy"] = "delete"
		}
		if slices.Contains(compacted, t.name) {
			t.config["min.compaction.lag.ms"] = "600000"       // a stale record of a paused predecessor must not displace the newer one before it is written over
			t.config["segment.bytes"] = strconv.Itoa(64 << 20) // only closed segments are compacted: recovery reads less
		}
	}
	return all
}

// policy is that records are deleted by age, or that the newest of a key stay.
func policy(want, why string) rule {
	return rule{"cleanup.policy", want, func(actual string) bool { return actual == want }, why}
}

// arrival makes retention count from a record's arrival. A producer's own time, that of a replayed event for example,
// may be years back, and the record would be deleted at once.
func arrival() rule {
	const want = "LogAppendTime"
	return rule{"message.timestamp.type", want, func(actual string) bool { return actual == want }, "old events must not be deleted on arrival"}
}

// keeps is that records stay at least so long.
func keeps(atLeast time.Duration, forEver bool, why string) rule {
	if forEver {
		return rule{"retention.ms", "-1", func(actual string) bool { return actual == "-1" }, why}
	}
	ms := atLeast.Milliseconds()
	return rule{"retention.ms", strconv.FormatInt(ms, 10), func(actual string) bool { return actual == "-1" || number(ms)(actual) }, why}
}

// atLeastBytes lets a record in that is too large for an event, so that it can become a dead letter.
func atLeastBytes() rule {
	want := int64(maxRecord + 2*recordOverhead)
	return rule{"max.message.bytes", strconv.FormatInt(want, 10), number(want), "too large an event must arrive to become a dead letter"}
}

func number(least int64) func(string) bool {
	return func(actual string) bool {
		n, err := strconv.ParseInt(actual, 10, 64)
		return err == nil && n >= least
	}
}

// compare says everything that is not as planned. brokers go into the commands.
func compare(plan []topic, actual map[string]found, brokers []string) []fault {
	bootstrap := strings.Join(brokers, ",")
	var faults []fault
	want := plan[0].partitions
	if first, ok := actual[plan[0].name]; ok && want == 0 {
		want = first.partitions
	}
	for _, t := range plan {
		f, ok := actual[t.name]
		if !ok {
			faults = append(faults, fault{t.name, topicMissing, "it is part of the flow", []string{"klgstream topics --brokers " + bootstrap}})
			continue
		}
		faults = append(faults, t.compareCounts(f, want, actual[plan[0].name].partitions, bootstrap)...)
		faults = append(faults, t.compareRules(f, bootstrap)...)
	}
	return faults
}

func (t *topic) compareCounts(f found, want, input int32, bootstrap string) (faults []fault) {
	if !t.free && want > 0 && f.partitions != want {
		faults = append(faults, fault{
			t.name, fmt.Sprintf("has %d partitions, must have %d", f.partitions, want), "an aircraft has the same partition everywhere", t.mendCount(f, want, input, bootstrap),
		})
	}
	if f.replication < t.replication {
		faults = append(faults, fault{t.name, fmt.Sprintf("has %d replicas, must have %d", f.replication, t.replication), "a lost broker must not lose events", []string{
			fmt.Sprintf("rpk topic alter-config %s --set replication.factor=%d", t.name, t.replication),
			fmt.Sprintf("kafka-reassign-partitions.sh --bootstrap-server %s --execute with %d replicas for each partition of %s", bootstrap, t.replication, t.name),
		}})
	}
	return faults
}

// mendCount says what gives a topic its number of partitions: another number asked for where the topic agrees with the input, and
// never a topic deleted whose state can be moved.
func (t *topic) mendCount(f found, want, input int32, bootstrap string) []string {
	if f.partitions == input {
		return []string{fmt.Sprintf("klgstream topics --brokers %s --partitions %d", bootstrap, f.partitions)}
	}
	again := fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --delete --topic %s, then klgstream topics --brokers %s --partitions %d", bootstrap, t.name, bootstrap, want)
	switch {
	case t.moves != "":
		return []string{t.moves, "if nothing in it is needed, " + again}
	case f.partitions < want:
		return []string{
			fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --alter --topic %s --partitions %d", bootstrap, t.name, want),
			fmt.Sprintf("rpk topic add-partitions %s --num %d", t.name, want-f.partitions),
		}
	}
	return []string{again, fmt.Sprintf("rpk topic delete %s, likewise", t.name)}
}

func (t *topic) compareRules(f found, bootstrap string) (faults []fault) {
	for _, r := range t.rules {
		actual, known := f.config[r.key]
		if !known || r.ok(actual) { // a broker that does not know a setting cannot break it
			continue
		}
		faults = append(faults, fault{t.name, fmt.Sprintf("%s is %s, must be %s", r.key, cmp.Or(actual, `""`), r.want), r.why, []string{
			fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s", bootstrap, t.name, r.key, r.want),
			fmt.Sprintf("rpk topic alter-config %s --set %s=%s", t.name, r.key, r.want),
		}})
	}
	return faults
}

// joinFaults is one error of several faults.
func joinFaults(faults []fault) error {
	all := make([]error, 0, len(faults))
	for _, f := range faults {
		all = append(all, f)
	}
	return errors.Join(all...)
}
