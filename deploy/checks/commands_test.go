package checks

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestDocumentsCommands runs the commands of those documents that speak to an operator, on a broker of their own. What
// changes the machine or a cluster (docker, kubectl, systemctl, install, make) is only looked at, by TestDocumentsCommandLines.
func TestDocumentsCommands(t *testing.T) {
	o := newOperator(t)
	last := "" // it ends what the other commands need
	for _, name := range []string{"operations.md", "troubleshooting.md", "migrating-from-flink.md"} {
		for _, b := range blocks(read(t, deployed("docs", name))) {
			switch {
			case b.language != "sh":
			case strings.Contains(b.text, "state export"):
				last = b.text
			default:
				o.follow(t, fmt.Sprintf("%s:%d", name, b.line), b.text)
			}
		}
	}
	o.roles["processor"].end(t)
	o.follow(t, "More partitions", last)
	if o.ran < 20 {
		t.Errorf("only %d commands were run: where are the others?", o.ran)
	}
}

// operator does what documents say.
type operator struct {
	flow  *process // of which the broker is used
	roles map[string]*process
	dir   string
	env   []string
	ran   int
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir(), roles: map[string]*process{}}
	o.flow = launch(t, "processor", nil, "dev", "--file=none")
	if err := os.Symlink(absolute(t, binary), filepath.Join(o.dir, "klgstream")); err != nil {
		t.Fatal(err)
	}
	// The usual names are those of the flow that has the broker.
	o.env = []string{
		"REDPANDA_BROKERS=" + o.flow.broker, "RISINGWAVE_URL=sqlite:" + filepath.Join(o.dir, "windows.db"),
		"KLGSTREAM_GROUP=own", "KLGSTREAM_REGISTRY_GROUP=own-registry", "KLGSTREAM_SINK_GROUP=own-sink", "KLGSTREAM_INPUT_TOPIC=own-events",
		"KLGSTREAM_OUTPUT_TOPIC=own-windows", "KLGSTREAM_LATE_TOPIC=own-late", "KLGSTREAM_DLQ_TOPIC=own-dlq",
	}
	return o
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// follow runs the lines of a block.
func (o *operator) follow(t *testing.T, where, script string) {
	t.Helper()
	for line := range strings.Lines(script) {
		call := strings.Fields(line)
		switch {
		case len(call) == 0:
		case call[0] == "rpk":
			o.widen(t, call)
		case call[0] == "klgstream" && (call[1] == "processor" || call[1] == "sink" || call[1] == "api"):
			o.play(t, call[1:])
		case call[0] == "klgstream" || call[0] == "curl":
			o.prepare(t, call)
			o.run(t, where, line)
		}
	}
}

// prepare brings about what a command is to be used on.
func (o *operator) prepare(t *testing.T, call []string) {
	t.Helper()
	switch command := strings.Join(call[1:], " "); {
	case strings.HasPrefix(command, "doctor"):
		for _, role := range []string{"processor", "sink", "api"} {
			if o.roles[role] == nil {
				o.play(t, []string{role})
			}
		}
	case strings.HasPrefix(command, "dlq list"):
		send(t, strings.Repeat("{\"event_type\":\"inspected\"}\n", 100), o.flow.broker, "--input-topic=own-events")
		o.await(t, func() bool {
			out, err := o.output(t, "klgstream dlq list --json")
			return err == nil && strings.Contains(out, `"0@0"`) && strings.Contains(out, `"1@0"`) && strings.Contains(out, `"2@0"`)
		})
	}
}

// inPlace are what a document names, and what is there in its place.
func (o *operator) inPlace(line string) string {
	r := []string{"--replication-factor=3", "--replication-factor=1", "2@1842", "2@0", "0@1200", "0@0", "1@1187", "1@0", "seconds=20", "seconds=1"}
	for port, role := range map[string]string{"8081": "processor", "8082": "sink", "8083": "api"} {
		if p := o.roles[role]; p != nil {
			r = append(r, "127.0.0.1:"+port, p.ops)
		}
	}
	return strings.NewReplacer(r...).Replace(line)
}

func (o *operator) output(t *testing.T, line string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", o.inPlace(line))
	cmd.Dir, cmd.Env = o.dir, append(append(os.Environ(), "PATH="+o.dir+":"+os.Getenv("PATH")), o.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs a command; of a dry run that says that something is to be done it is no fault.
func (o *operator) run(t *testing.T, where, line string) {
	t.Helper()
	o.ran++
	out, err := o.output(t, line)
	if err != nil && !(strings.Contains(line, "topics") && strings.Contains(line, "--dry-run") && strings.Contains(out, "does not exist")) {
		t.Errorf("%s: %s%v\n%s", where, line, err, out)
	}
}

// play starts a role in place of the one that was there, and waits until it can work.
func (o *operator) play(t *testing.T, args []string) {
	t.Helper()
	o.ran++
	if p := o.roles[args[0]]; p != nil {
		p.end(t)
	}
	p := launch(t, args[0], o.env, args...)
	o.roles[args[0]] = p
	o.await(t, func() bool {
		_, err := (&flow{}).get(t.Context(), "http://"+p.ops+"/readyz")
		return err == nil
	})
}

// end ends a role in order.
func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-p.drained
}

func (*operator) await(t *testing.T, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("gave up waiting")
		}
	}
}

// widen does what "rpk topic add-partitions TOPIC --num N" does.
func (o *operator) widen(t *testing.T, call []string) {
	t.Helper()
	var more int32
	if _, err := fmt.Sscanf(strings.Join(call[1:3], " ")+" "+strings.Join(call[4:], " "), "topic add-partitions --num %d", &more); err != nil {
		t.Fatalf("%q: %v", call, err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.flow.broker))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	name := strings.Replace(call[3], "aircraft", "own", 1)
	about := kmsg.NewPtrMetadataRequest()
	about.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	now, err := about.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = name, int32(len(now.Topics[0].Partitions))+more
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics, req.TimeoutMillis = []kmsg.CreatePartitionsRequestTopic{topic}, 10_000
	answer, err := req.RequestWith(t.Context(), cl)
	if err != nil || answer.Topics[0].ErrorCode != 0 {
		t.Fatalf("%q: %v %+v", call, err, answer)
	}
	o.ran++
}
