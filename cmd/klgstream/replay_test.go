package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"klgstream.dev/deploy/devstack"
)

const oneEvent = `{"event_type":"created","aircraft_id":1,"registration_number":"%s","timestamp":"%s"}` + "\n"

func event(registration, at string) string { return fmt.Sprintf(oneEvent, registration, at) }

// The sample, as a file and as standard input, in each compression, comes to the topic whole and in the file's order.
func TestReplayFile(t *testing.T) {
	_, k := broker(t)
	var plain bytes.Buffer
	if err := eachLine(bytes.NewReader(devstack.Flights()), func(_ int64, line []byte) error {
		plain.Write(line)
		plain.WriteByte('\n')
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	head := firstLines(plain.Bytes(), 1000)
	want := strings.Split(strings.TrimSpace(string(head)), "\n")
	for i, c := range []struct {
		name string // the extension does not matter
		data []byte
	}{{"a.jsonl", head}, {"a.jsonl", zipped(t, head)}, {"a.gz", zstandard(t, head)}, {"-", zipped(t, head)}} {
		topic := fmt.Sprintf("replay-%d", i)
		makeTopic(t, k, topic)
		o, file := newOutside(), "-"
		o.stdin = bytes.NewReader(c.data)
		if c.name != "-" {
			file = filepath.Join(t.TempDir(), c.name)
			if err := os.WriteFile(file, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if code := run(t.Context(), []string{"replay", file, "--brokers", k.Brokers[0], "--input-topic", topic}, o.environment); code != exitOK {
			t.Fatalf("%s: exit code %d: %s", c.name, code, o.errs.String())
		}
		if !strings.HasPrefix(o.out.String(), "sent 1000 events, 1000 acknowledged") {
			t.Errorf("%s: printed %q", c.name, o.out.String())
		}
		for _, r := range consume(t, k, topic, len(want)) {
			if line := int(r.Offset)*4 + int(r.Partition); string(r.Value) != want[line] || r.Key != nil { // dealt out in turn
				t.Fatalf("%s: %s/%d@%d is %s, want line %d: %s", c.name, topic, r.Partition, r.Offset, r.Value, line, want[line])
			}
		}
	}
}

func TestReplayKeyed(t *testing.T) {
	_, k := broker(t)
	o := newOutside()
	o.stdin = strings.NewReader(event(" ra-1 ", "2026-01-01T00:00:00Z") + "not json\n\n" + event("N2", "2026-01-01T00:00:01Z"))
	if code := run(t.Context(), []string{"replay", "-", "--brokers", k.Brokers[0], "--key", "registration"}, o.environment); code != exitOK {
		t.Fatalf("exit code %d: %s", code, o.errs.String())
	}
	keys := map[string]string{}
	for _, r := range consume(t, k, "aircraft-events", 3) {
		keys[string(r.Value)] = string(r.Key)
		if string(r.Value) == "not json" && r.Key != nil {
			t.Errorf("a line without a registration has key %q", r.Key)
		}
	}
	if len(keys) != 3 || keys[strings.TrimSpace(event(" ra-1 ", "2026-01-01T00:00:00Z"))] != "RA-1" || keys[strings.TrimSpace(event("N2", "2026-01-01T00:00:01Z"))] != "N2" {
		t.Errorf("keys by value: %q", keys)
	}
}

// A file with a bad line is refused before anything is published, a stream at that line.
func TestReplayValidate(t *testing.T) {
	_, k := broker(t)
	text := event("N1", "2026-01-01T00:00:00Z") + `{"event_type":"created"}` + "\n" + event("N2", "2026-01-01T00:00:01Z")
	o := newOutside()
	code := run(t.Context(), []string{"replay", write(t, "a.jsonl", text), "--brokers", k.Brokers[0], "--validate"}, o.environment)
	if code != exitData || !strings.Contains(o.errs.String(), "line 2, nothing was published") || o.out.Len() > 0 {
		t.Errorf("file: exit code %d, said %q, printed %q", code, o.errs.String(), o.out.String())
	}
	o = newOutside()
	o.stdin = strings.NewReader(text)
	code = run(t.Context(), []string{"replay", "-", "--brokers", k.Brokers[0], "--validate"}, o.environment)
	if code != exitData || !strings.Contains(o.errs.String(), "validate line 2") || !strings.HasPrefix(o.out.String(), "sent 1 events, 1 acknowledged") {
		t.Errorf("stream: exit code %d, said %q, printed %q", code, o.errs.String(), o.out.String())
	}
}

// Ctrl-C in the middle: what was sent is acknowledged and told.
func TestReplayInterrupted(t *testing.T) {
	_, k := broker(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := newOutside()
	o.stdin = &endless{line: event("N1", "2026-01-01T00:00:00Z"), after: 100, then: cancel}
	if code := run(ctx, []string{"replay", "-", "--brokers", k.Brokers[0]}, o.environment); code != exitInterrupted {
		t.Errorf("exit code %d, want %d: %s", code, exitInterrupted, o.errs.String())
	}
	var sent, acknowledged int
	if _, err := fmt.Sscanf(o.out.String(), "sent %d events, %d acknowledged", &sent, &acknowledged); err != nil || sent != acknowledged {
		t.Errorf("printed %q", o.out.String())
	}
}

// endless is a stream of one line, which calls then after some.
type endless struct {
	line  string
	after int
	then  func()
}

func (e *endless) Read(p []byte) (int, error) {
	if e.after--; e.after == 0 {
		e.then()
	}
	return copy(p, e.line), nil
}

func TestReplayNoFile(t *testing.T) {
	o := newOutside()
	if code := run(t.Context(), []string{"replay", "/does/not/exist"}, o.environment); code != exitNoInput || !strings.Contains(o.errs.String(), "no such file") {
		t.Errorf("exit code %d, said %q", code, o.errs.String())
	}
}

func TestEachLineFaults(t *testing.T) {
	none := func(int64, []byte) error { return nil }
	for name, c := range map[string]struct{ data, want string }{
		"too long":       {"{}\n" + strings.Repeat("x", maxRecord+1), "read line 2: longer than 4194304 bytes"},
		"torn gzip":      {string(zipped(t, []byte(strings.Repeat("a\n", 99))))[:20], "read line"},
		"gzip by name":   {"\x1f\x8b nothing of the kind", "decompress events"},
		"zstd by name":   {"\x28\xb5\x2f\xfd\xff\xff\xff\xff", "read line 1"},
		"no line at all": {"", ""},
		"no line end":    {"{}", ""},
	} {
		err := eachLine(strings.NewReader(c.data), none)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	if err := eachLine(failing{}, none); err == nil || !strings.Contains(err.Error(), "broken disk") {
		t.Errorf("error %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken disk") }

func TestParseSpeed(t *testing.T) {
	for text, want := range map[string]float64{"max": 0, "1": 1, "60x": 60, "3600×": 3600, "0.5": 0.5} {
		if got, err := parseSpeed(text); got != want || err != nil {
			t.Errorf("speed %q: %v, error %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "fast", "NaN", "Inf", "1e10"} {
		if _, err := parseSpeed(text); err == nil {
			t.Errorf("speed %q is taken", text)
		}
	}
}

// collected takes records and remembers when.
type collected struct {
	lines []string
	at    []time.Duration
	began time.Time
}

func (c *collected) send(_ context.Context, r record, done func(error)) error {
	c.lines, c.at = append(c.lines, string(r.value)), append(c.at, time.Since(c.began))
	done(nil)
	return nil
}

// Events follow each other as they happened, sixty times faster; one that is late, or has no time, is not waited for.
func TestReplaySpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &collected{began: time.Now()}
		r := &replayer{to: to, speed: 60, now: time.Now}
		text := event("N1", "2026-01-01T00:00:00Z") + event("N1", "2026-01-01T00:02:00Z") + event("N1", "2026-01-01T00:01:00Z") + "no time\n" + event("N1", "2026-01-01T01:00:00Z")
		if err := r.run(t.Context(), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{0, 2 * time.Second, 2 * time.Second, 2 * time.Second, time.Minute}
		if fmt.Sprint(to.at) != fmt.Sprint(want) {
			t.Errorf("sent after %v, want %v", to.at, want)
		}
		if got, want := r.report(), "sent 5 events, 5 acknowledged, in 1m0s (0/s)"; got != want {
			t.Errorf("report %q, want %q", got, want)
		}
	})
}

func TestReplayRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &collected{began: time.Now()}
		r := &replayer{to: to, rate: 4, now: time.Now}
		if err := r.run(t.Context(), strings.NewReader("a\nb\nc\nd\ne\n")); err != nil {
			t.Fatal(err)
		}
		if want := "[0s 250ms 500ms 750ms 1s]"; fmt.Sprint(to.at) != want {
			t.Errorf("sent after %v, want %s", to.at, want)
		}
	})
}

func TestReplayWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := &replayer{to: &collected{}, rate: 0.1, now: time.Now}
		if err := r.run(ctx, strings.NewReader("a\nb\n")); !errors.Is(err, context.DeadlineExceeded) || r.sent.Load() != 1 {
			t.Errorf("error %v after %d events", err, r.sent.Load())
		}
	})
}

func TestReplaySkipsAndMarks(t *testing.T) {
	var marks []int64
	to := &collected{}
	r := &replayer{
		to: to, now: time.Now,
		skip:    func(line int64) bool { return line%2 == 1 },
		headers: func(line int64) []sarama.RecordHeader { marks = append(marks, line); return nil },
	}
	if err := r.run(t.Context(), strings.NewReader("a\nb\n\nd\ne\n")); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(to.lines, marks) != "[b d] [2 4]" {
		t.Errorf("sent %v, lines %v", to.lines, marks)
	}
}

// A replay that goes on where an earlier process was killed puts each line where that one would have: had it not, events
// that were not acknowledged in one partition would follow much later ones in another.
func TestReplayGoesOnInTheSamePartitions(t *testing.T) {
	_, k := broker(t)
	var lines strings.Builder
	for n := range 40 {
		fmt.Fprintf(&lines, "%d\n", n+1)
	}
	for _, skip := range []func(line int64) bool{
		func(line int64) bool { return line > 20 || line%4 == 3 }, // partition 2 is behind the others
		func(line int64) bool { return line <= 20 && line%4 != 3 },
	} {
		r := &replayer{to: newTestPublisher(t, k), now: time.Now, skip: skip}
		if err := errors.Join(r.run(t.Context(), strings.NewReader(lines.String())), r.failure()); err != nil {
			t.Fatal(err)
		}
	}
	last := map[int32]int{}
	for _, r := range consume(t, k, "aircraft-events", 40) {
		line, err := strconv.Atoi(string(r.Value))
		if err != nil {
			t.Fatal(err)
		}
		if r.Partition != int32(line-1)%4 || line < last[r.Partition] {
			t.Errorf("line %d is in partition %d after line %d", line, r.Partition, last[r.Partition])
		}
		last[r.Partition] = line
	}
}

func TestReplayFailure(t *testing.T) {
	r := &replayer{}
	if r.failure() != nil {
		t.Error("nothing failed yet")
	}
	r.done(nil)
	r.done(errors.New("first"))
	r.done(errors.New("second"))
	if err := r.failure(); err == nil || err.Error() != "2 events were not acknowledged: first" {
		t.Errorf("error %v", err)
	}
}

func TestPacerFirstEventIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{now: time.Now, began: time.Now(), speed: 1, first: math.MinInt64}
		if err := p.wait(t.Context(), time.Now().Add(time.Hour).UnixMilli()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(p.began); waited != 0 {
			t.Errorf("waited %v for the first event", waited)
		}
	})
}

// Away from a terminal a replay that takes long says now and then how far it is.
func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutside()
		a := &app{environment: o.environment}
		r := &replayer{}
		r.sent.Store(7)
		stop := a.showProgress(t.Context(), r, &countingReader{}, -1)
		<-time.After(2*linePause + time.Second)
		stop()
		if got, want := o.errs.String(), strings.Repeat("sent 7 events, 0 acknowledged\n", 2); got != want {
			t.Errorf("said %q, want %q", got, want)
		}
	})
}

func firstLines(data []byte, n int) []byte {
	end := 0
	for range n {
		end += bytes.IndexByte(data[end:], '\n') + 1
	}
	return data[:end]
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

func makeTopic(t *testing.T, k Kafka, name string) {
	t.Helper()
	admin, err := newTopicAdmin(k)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.create(t.Context(), topic{name: name, partitions: 4, replication: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.await(t.Context(), []topic{{name: name}}); err != nil {
		t.Fatal(err)
	}
}
