package main

import (
	"maps"
	"strings"
	"testing"
	"time"
)

var testNames = Names{
	Input: "aircraft-events", Output: "aircraft-windows", Late: "aircraft-events-late", Dead: "aircraft-events-dlq",
	Group: "aircraft-activity", SinkGroup: "aircraft-sink",
}

func testPlan() TopicPlan {
	return TopicPlan{
		Partitions: 4, ReplicationFactor: 3, InputRetention: 7 * 24 * time.Hour, OutputRetention: 30 * 24 * time.Hour,
		LetterRetention: 30 * 24 * time.Hour, LoopRetention: 7 * 24 * time.Hour,
	}
}

// asPlanned is what a broker tells of topics made to the plan.
func asPlanned(plan []topic) map[string]found {
	actual := map[string]found{}
	for _, t := range plan {
		actual[t.name] = found{t.partitions, t.replication, maps.Clone(t.config)}
	}
	return actual
}

func TestPlan(t *testing.T) {
	want := map[string]string{
		"aircraft-events":         "4 partitions 3 replicas cleanup.policy=delete max.message.bytes=4194816 message.timestamp.type=LogAppendTime min.insync.replicas=2 retention.ms=604800000",
		"aircraft-activity-table": "4 partitions 3 replicas cleanup.policy=compact min.compaction.lag.ms=600000 min.insync.replicas=2 segment.bytes=67108864",
		"aircraft-activity-loop":  "4 partitions 3 replicas cleanup.policy=delete max.message.bytes=4194816 min.insync.replicas=2 retention.ms=604800000",
		"aircraft-windows":        "4 partitions 3 replicas cleanup.policy=delete min.insync.replicas=2 retention.ms=2592000000",
		"aircraft-events-late":    "4 partitions 3 replicas cleanup.policy=delete max.message.bytes=4194816 min.insync.replicas=2 retention.ms=2592000000",
		"aircraft-events-dlq":     "4 partitions 3 replicas cleanup.policy=delete max.message.bytes=4194816 min.insync.replicas=2 retention.ms=2592000000",
	}
	got := plan(testNames, testPlan())
	for _, topic := range got {
		if summary := topic.summary(); summary != want[topic.name] {
			t.Errorf("%s: %s\nwant %s", topic.name, summary, want[topic.name])
		}
	}
	if len(got) != len(want) || got[0].name != testNames.Input {
		t.Errorf("%d topics, the first %s; want %d, the first %s", len(got), got[0].name, len(want), testNames.Input)
	}
	if faults := compare(got, asPlanned(got), []string{"b:1"}); len(faults) > 0 {
		t.Errorf("topics made to the plan do not match it: %v", faults)
	}
}

func TestPlanForEver(t *testing.T) {
	p := testPlan()
	p.InputRetention, p.LoopRetention, p.ReplicationFactor = -1, -1, 1
	wanted := plan(testNames, p)
	for _, topic := range []topic{wanted[0], wanted[2]} {
		if topic.config["retention.ms"] != "-1" || topic.config["min.insync.replicas"] != "" {
			t.Errorf("%s: %s", topic.name, topic.summary())
		}
	}
	actual := asPlanned(plan(testNames, testPlan()))
	if faults := compare(wanted, actual, nil); len(faults) != 2 {
		t.Errorf("retention for ever wanted of two topics that have less: %v", faults)
	}
}

// Each way in which a topic can be wrong is refused with a command that mends exactly it.
func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(actual map[string]found)
		want  []string // of each fault, in order
	}{
		"missing": {func(a map[string]found) { delete(a, "aircraft-activity-loop") }, []string{
			"topic aircraft-activity-loop: does not exist", "klgstream topics --brokers b:1,c:2",
		}},
		"input has other partitions": {func(a map[string]found) { set(a, "aircraft-events", func(f *found) { f.partitions = 6 }) }, []string{
			"topic aircraft-events: has 6 partitions, must have 4", "mend: klgstream topics --brokers b:1,c:2 --partitions 6",
		}},
		"table has other partitions": {func(a map[string]found) { set(a, "aircraft-activity-table", func(f *found) { f.partitions = 1 }) }, []string{
			"topic aircraft-activity-table: has 1 partitions, must have 4", "mend: klgstream state export FILE, then", "with a new --group", "if nothing in it is needed, kafka-topics.sh --bootstrap-server b:1,c:2 --delete --topic aircraft-activity-table",
		}},
		"registry has other partitions": {func(a map[string]found) { set(a, "aircraft-registry", func(f *found) { f.partitions = 1 }) }, []string{
			"topic aircraft-registry: has 1 partitions, must have 4", "mend: a new --registry-group",
		}},
		"results have fewer partitions": {func(a map[string]found) { set(a, "aircraft-windows", func(f *found) { f.partitions = 1 }) }, []string{
			"topic aircraft-windows: has 1 partitions, must have 4", "kafka-topics.sh --bootstrap-server b:1,c:2 --alter --topic aircraft-windows --partitions 4",
			"rpk topic add-partitions aircraft-windows --num 3",
		}},
		"results have more partitions": {func(a map[string]found) { set(a, "aircraft-windows", func(f *found) { f.partitions = 6 }) }, []string{
			"topic aircraft-windows: has 6 partitions, must have 4", "--delete --topic aircraft-windows",
		}},
		"dead letters have other partitions": {func(a map[string]found) { set(a, "aircraft-events-dlq", func(f *found) { f.partitions = 1 }) }, nil},
		"too few copies": {func(a map[string]found) { set(a, "aircraft-windows", func(f *found) { f.replication = 1 }) }, []string{
			"topic aircraft-windows: has 1 replicas, must have 3", "rpk topic alter-config aircraft-windows --set replication.factor=3",
		}},
		"table is deleted by age": {func(a map[string]found) { a["aircraft-activity-table"].config["cleanup.policy"] = "delete" }, []string{
			"topic aircraft-activity-table: cleanup.policy is delete, must be compact",
			"kafka-configs.sh --bootstrap-server b:1,c:2 --alter --entity-type topics --entity-name aircraft-activity-table --add-config cleanup.policy=compact",
			"rpk topic alter-config aircraft-activity-table --set cleanup.policy=compact",
		}},
		"events are compacted": {func(a map[string]found) { a["aircraft-events"].config["cleanup.policy"] = "compact,delete" }, []string{
			"topic aircraft-events: cleanup.policy is compact,delete, must be delete",
		}},
		"results are compacted": {func(a map[string]found) { a["aircraft-windows"].config["cleanup.policy"] = "compact" }, nil},
		"retention counts from the event's own time": {func(a map[string]found) { a["aircraft-events"].config["message.timestamp.type"] = "CreateTime" }, []string{
			"message.timestamp.type is CreateTime, must be LogAppendTime (old events must not be deleted on arrival)",
		}},
		"short loop":   {func(a map[string]found) { a["aircraft-activity-loop"].config["retention.ms"] = "3600000" }, []string{"retention.ms is 3600000, must be 604800000"}},
		"long loop":    {func(a map[string]found) { a["aircraft-activity-loop"].config["retention.ms"] = "999999999999" }, nil},
		"endless loop": {func(a map[string]found) { a["aircraft-activity-loop"].config["retention.ms"] = "-1" }, nil},
		"small records": {func(a map[string]found) { a["aircraft-events-late"].config["max.message.bytes"] = "1048588" }, []string{
			"topic aircraft-events-late: max.message.bytes is 1048588, must be 4194816",
		}},
		"one copy in sync":        {func(a map[string]found) { a["aircraft-events"].config["min.insync.replicas"] = "1" }, []string{"min.insync.replicas is 1, must be 2"}},
		"no number":               {func(a map[string]found) { a["aircraft-events"].config["min.insync.replicas"] = "" }, []string{`min.insync.replicas is "", must be 2`}},
		"not known to the broker": {func(a map[string]found) { delete(a["aircraft-events"].config, "min.insync.replicas") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			names := testNames
			names.Registry = "aircraft-registry"
			wanted := plan(names, testPlan())
			actual := asPlanned(wanted)
			c.spoil(actual)
			faults := compare(wanted, actual, []string{"b:1", "c:2"})
			err := refuse(faults)
			if len(c.want) == 0 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if len(faults) != 1 {
				t.Fatalf("%d faults, want 1: %v", len(faults), err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %s", err, want)
				}
			}
		})
	}
}

// A role asks less of topics others have made: what no result can be right without.
func TestCompareAtStart(t *testing.T) {
	wanted := plan(testNames, TopicPlan{})
	actual := asPlanned(plan(testNames, testPlan()))
	for name, f := range actual {
		f.partitions, f.replication = 9, 1
		actual[name] = f
	}
	actual["aircraft-events"].config["message.timestamp.type"] = "CreateTime"
	actual["aircraft-events"].config["max.message.bytes"] = "1048588"
	actual["aircraft-windows"].config["retention.ms"] = "1000"
	if err := refuse(compare(wanted, actual, nil)); err != nil {
		t.Errorf("refused: %v", err)
	}
	set(actual, "aircraft-activity-table", func(f *found) { f.partitions = 4 })
	actual["aircraft-activity-loop"].config["retention.ms"] = "1000"
	actual["aircraft-activity-table"].config["cleanup.policy"] = "delete"
	if faults := compare(wanted, actual, nil); len(faults) != 3 {
		t.Errorf("want faults of partitions, loop and table: %v", faults)
	}
}

func set(actual map[string]found, name string, change func(f *found)) {
	f := actual[name]
	change(&f)
	actual[name] = f
}
