package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/deploy/devstack"
	"klgstream.dev/views/sqlite"
)

// patient is a set-up that the doctor examines.
type patient struct {
	*testing.T
	outside *outside
	broker  *devstack.Broker
	kafka   Kafka
	file    string // of the store
	args    []string
	machine machine
}

// newPatient is in good health, but for processors and sinks, which do not run.
func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{T: t, outside: newOutside(), file: filepath.Join(t.TempDir(), "windows.db")}
	p.broker, p.kafka = broker(t)
	p.machine = machine{
		disk:   func(string) (uint64, uint64, error) { return 10 << 30, 20 << 30, nil },
		nofile: func() (uint64, error) { return 65536, nil },
	}
	store, err := sqlite.Open(t.Context(), sqlite.Config{Path: p.file})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.Migrate(t.Context()), store.Close()); err != nil {
		t.Fatal(err)
	}
	p.args = []string{"--brokers=" + p.kafka.Brokers[0], "--store-url=sqlite:" + p.file}
	return p
}

// examine returns the findings and the error.
func (p *patient) examine() ([]finding, error) {
	p.Helper()
	l, err := load(append([]string{"doctor", "--json"}, p.args...), p.outside.environment)
	if err != nil {
		p.Fatal(err)
	}
	p.outside.out.Reset()
	cmd, ok := l.command.(*doctorCmd)
	if !ok {
		p.Fatalf("command %T", l.command)
	}
	err = cmd.examine(p.Context(), &app{environment: p.outside.environment}, p.machine)
	var all []finding
	for dec := json.NewDecoder(&p.outside.out); dec.More(); {
		var f finding
		if err := dec.Decode(&f); err != nil {
			p.Fatal(err)
		}
		all = append(all, f)
	}
	return all, err
}

// imported gives the group positions.
func (p *patient) imported() {
	p.Helper()
	p.outside.stdin = strings.NewReader(stateExport(p.T, nil))
	if code := run(p.Context(), []string{"state", "import", "-", "--brokers", p.kafka.Brokers[0]}, p.outside.environment); code != exitOK {
		p.Fatalf("exit code %d: %s", code, p.outside.errs.String())
	}
}

// recreate removes a topic, and makes it anew with so many partitions.
func (p *patient) recreate(topic string, partitions int32, config map[string]string) {
	p.Helper()
	admin, err := newTopicAdmin(p.kafka)
	if err != nil {
		p.Fatal(err)
	}
	defer admin.Close()
	if err := admin.DeleteTopic(topic); err != nil {
		p.Fatal(err)
	}
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: pointers(config)}, false); err != nil {
		p.Fatal(err)
	}
}

func pointers(config map[string]string) map[string]*string {
	out := map[string]*string{}
	for key, value := range config {
		out[key] = &value
	}
	return out
}

// Broken set-ups, one by one: the doctor finds what is wrong, and says what mends it.
func TestDoctorFinds(t *testing.T) {
	for name, c := range map[string]struct {
		spoil               func(p *patient)
		check, detail, mend string
		verdict             verdict
	}{
		"no broker":          {func(p *patient) { p.args[0] = "--brokers=127.0.0.1:1" }, "brokers", "none of 127.0.0.1:1", "REDPANDA_BROKERS", fail},
		"one address of two": {func(p *patient) { p.args[0] += ",127.0.0.1:1" }, "brokers", "127.0.0.1:1 cannot be reached", "REDPANDA_BROKERS", warn},
		"no topics":          {func(p *patient) { p.args = append(p.args, "--group=other") }, "topics", "other-table: does not exist", "klgstream topics", fail},
		"a table that forgets": {func(p *patient) {
			p.recreate("aircraft-activity-table", 4, map[string]string{"cleanup.policy": "delete"})
		}, "topics", "cleanup.policy is delete", "cleanup.policy=compact", fail},
		"partitions that differ": {func(p *patient) { p.recreate("aircraft-windows", 3, nil) }, "topics", "has 3 partitions, must have 4", "--alter --topic aircraft-windows --partitions 4", fail},
		"small records only": {func(p *patient) {
			p.recreate("aircraft-windows", 4, map[string]string{"max.message.bytes": "1000"})
		}, "limits", "at most 1000 bytes", "max.message.bytes=", warn},
		"no right to the group": {func(p *patient) {
			p.broker.Cluster().ControlKey(int16(kmsg.DescribeGroups), func(r kmsg.Request) (kmsg.Response, error, bool) {
				p.broker.Cluster().KeepControl()
				resp := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
				for _, g := range r.(*kmsg.DescribeGroupsRequest).Groups {
					resp.Groups = append(resp.Groups, kmsg.DescribeGroupsResponseGroup{Group: g, ErrorCode: int16(sarama.ErrGroupAuthorizationFailed)})
				}
				return resp, nil, true
			})
		}, "group", "not authorized", "kafka-acls.sh", fail},
		"no right to the topics": {func(p *patient) {
			p.broker.Cluster().ControlKey(int16(kmsg.DescribeConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
				p.broker.Cluster().KeepControl()
				resp := r.ResponseKind().(*kmsg.DescribeConfigsResponse)
				for _, x := range r.(*kmsg.DescribeConfigsRequest).Resources {
					resp.Resources = append(resp.Resources, kmsg.DescribeConfigsResponseResource{
						ResourceType: x.ResourceType, ResourceName: x.ResourceName, ErrorCode: int16(sarama.ErrTopicAuthorizationFailed),
					})
				}
				return resp, nil, true
			})
		}, "topics", "authorized", "kafka-acls.sh", fail},
		"a clock that is fast": {func(p *patient) {
			p.outside.now = func() time.Time { return time.Now().Add(10 * time.Minute) }
		}, "clock", "differs", "NTP", fail},
		"a clock that is a little slow": {func(p *patient) {
			p.outside.now = func() time.Time { return time.Now().Add(-20 * time.Second) }
		}, "clock", "differs", "NTP", warn},
		"another's group": {func(p *patient) { commitAt(p.T, p.kafka, "aircraft-activity", "aircraft-events", 0, 0) }, "positions", "not written by this version", "rpk group delete", fail},
		"an input made anew": {func(p *patient) {
			put(p.T, p.kafka, &kgo.Record{Topic: "aircraft-activity-table", Key: []byte("x")})
			p.args = append(p.args, "--group=moved")
			on(p.T, p.kafka, exitOK, "topics", "--group=moved")
			p.outside.stdin = strings.NewReader(stateExport(p.T, func(l []stateLine) []stateLine { l[0].Checkpoint.Positions[0].Input = 1; return l }))
			put(p.T, p.kafka, &kgo.Record{Topic: "aircraft-events", Partition: 0, Value: []byte("x")})
			if code := run(p.Context(), []string{"state", "import", "-", "--group=moved", "--brokers", p.kafka.Brokers[0]}, p.outside.environment); code != exitOK {
				p.Fatalf("exit code %d: %s", code, p.outside.errs.String())
			}
			p.recreate("aircraft-events", 4, map[string]string{"message.timestamp.type": "LogAppendTime"})
		}, "positions", "moved", "", fail},
		"a table made anew": {func(p *patient) {
			p.imported()
			p.recreate("aircraft-activity-table", 4, map[string]string{"cleanup.policy": "compact"})
		}, "positions", "it was deleted or truncated", "another --group", fail},
		"more partitions than before": {func(p *patient) {
			p.imported()
			widen(p.T, p.kafka, 5, "aircraft-events")
		}, "positions", "has 5 now", "klgstream state export", fail},
		"far behind": {func(p *patient) {
			p.imported()
			put(p.T, p.kafka, &kgo.Record{Topic: "aircraft-events", Value: []byte("x")}, &kgo.Record{Topic: "aircraft-events", Value: []byte("x")})
			p.args = append(p.args, "--max-lag=2")
		}, "lag", "2 records behind", "more processors", warn},
		"nobody works": {func(*patient) {}, "group", "has no members", "klgstream processor", warn},
		"no database":  {func(p *patient) { p.args[1] = "--store-url=postgresql://u:secret@127.0.0.1:1/x" }, "store", "127.0.0.1:1", "RISINGWAVE_URL", fail},
		"no file":      {func(p *patient) { p.args[1] += "x" }, "store", "no such file", "klgstream sink", fail},
		"an empty database": {func(p *patient) {
			p.args[1] = "--store-url=sqlite:" + write(p.T, "empty.db", "")
		}, "store", "is not migrated", "klgstream sink", fail},
		"a foreign writer": {func(p *patient) {
			file, err := sql.Open("sqlite", p.file)
			if err == nil {
				_, err = file.ExecContext(p.Context(), "INSERT INTO last_events VALUES ('N1', 'tumbling:1h', 0, 0, NULL, NULL)")
			}
			if err = errors.Join(err, file.Close()); err != nil {
				p.Fatal(err)
			}
		}, "totals", "last_events in 1 rows", "--from-beginning", fail},
		"a full disk": {func(p *patient) {
			p.machine.disk = func(string) (uint64, uint64, error) { return 1 << 20, 1 << 40, nil }
		}, "disk", "1 of 1048576 MiB free", "make room", fail},
		"no directory":   {func(p *patient) { p.machine = thisMachine(); p.args = append(p.args, "--data-dir=/does/not/exist") }, "disk", "/does/not/exist", "--data-dir", fail},
		"few files":      {func(p *patient) { p.machine.nofile = func() (uint64, error) { return 64, nil } }, "limits", "64 files", "ulimit", fail},
		"not many files": {func(p *patient) { p.machine.nofile = func() (uint64, error) { return 1024, nil } }, "limits", "1024 files", "ulimit", warn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			c.spoil(p)
			found, err := p.examine()
			if (err != nil) != (c.verdict == fail) {
				t.Errorf("error %v with a finding that is to be %s", err, c.verdict)
			}
			for _, f := range found {
				if strings.Contains(f.Detail, "secret") {
					t.Errorf("%v tells the password", f)
				}
				if f.Check == c.check && f.Verdict == c.verdict && strings.Contains(f.Detail, c.detail) && strings.Contains(f.Mend, c.mend) {
					return
				}
			}
			t.Errorf("found %v, want %s of %s with %q and %q", found, c.verdict, c.check, c.detail, c.mend)
		})
	}
}

// A broker too old for what this program sends is told apart.
func TestMissingVersions(t *testing.T) {
	var keys []sarama.ApiVersionsResponseKey
	for _, n := range needed {
		keys = append(keys, sarama.ApiVersionsResponseKey{ApiKey: n.key, MaxVersion: n.version})
	}
	if lacks := missing(keys); lacks != "" {
		t.Errorf("lacks %s", lacks)
	}
	keys[0].MaxVersion--
	if lacks := missing(keys[:len(keys)-1]); lacks != "Produce version 7, InitProducerId version 0" {
		t.Errorf("lacks %s", lacks)
	}
}

// What works is left alone: no failure, no topic left behind, and nothing written when asked not to.
func TestDoctorOnAHealthySetUp(t *testing.T) {
	p := newPatient(t)
	launch(t, "processor", "--brokers", p.kafka.Brokers[0], "--ops-url=http://127.0.0.1:0", "--registry-group=none", "--commit-interval=5ms").errs.await(t, "partitions recovered")
	launch(t, "sink", "--brokers", p.kafka.Brokers[0], "--store-url=sqlite:"+p.file, "--sink-ops-addr=127.0.0.1:0")
	eventually(t, func() bool {
		found, err := p.examine()
		if err != nil {
			t.Fatalf("%v: %v", err, found)
		}
		for _, f := range found {
			if f.Verdict != well {
				return false
			}
		}
		return len(found) >= 11
	})
	admin, err := newTopicAdmin(p.kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if topics, err := admin.ListTopics(); err != nil || topics[probeTopic].NumPartitions != 0 {
		t.Errorf("%s was left behind: %v", probeTopic, err)
	}
	p.broker.Cluster().ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
		p.broker.Cluster().KeepControl()
		t.Error("a topic was made")
		return nil, nil, false
	})
	p.args = append(p.args, "--read-only")
	if _, err := p.examine(); err != nil {
		t.Error(err)
	}
}

// The exit code says whether there is something to mend; people get lines.
func TestDoctorForPeople(t *testing.T) {
	o := newOutside()
	code := run(t.Context(), []string{"doctor", "--brokers=127.0.0.1:1", "--store-url=sqlite:/does/not/exist.db"}, o.environment)
	if code != exitFailed || !strings.Contains(o.out.String(), "FAIL  brokers") || !strings.Contains(o.out.String(), "mend: ") || !strings.Contains(o.errs.String(), "must be mended") {
		t.Errorf("exit code %d, printed\n%s\nsaid %s", code, o.out.String(), o.errs.String())
	}
	if code := run(t.Context(), []string{"doctor", "--max-lag=0"}, newOutside().environment); code != exitConfig {
		t.Errorf("exit code %d, want %d", code, exitConfig)
	}
}
