package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
)

// on runs a subcommand against a broker and returns what it printed and said.
func on(t *testing.T, k Kafka, want int, args ...string) (out, errs string) {
	t.Helper()
	o := newOutside()
	if code := run(t.Context(), append(args, "--brokers", k.Brokers[0]), o.environment); code != want {
		t.Fatalf("%q: exit code %d, want %d\n%s%s", args, code, want, o.out.String(), o.errs.String())
	}
	return o.out.String(), o.errs.String()
}

// put writes records with another client, in order.
func put(t *testing.T, k Kafka, records ...*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, r := range records {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// asRecord is a letter on a topic.
func asRecord(topic string, partition int32, l codecs.Letter, more ...kgo.RecordHeader) *kgo.Record {
	r := &kgo.Record{Topic: topic, Partition: partition, Key: l.Key, Value: l.Value, Headers: more}
	for _, h := range l.Headers() {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

// twoBoxes puts three letters and a foreign record on both topics.
func twoBoxes(t *testing.T, k Kafka) {
	t.Helper()
	for _, topic := range []string{"aircraft-events-dlq", "aircraft-events-late"} {
		put(t, k,
			asRecord(topic, 0, codecs.Letter{Reason: "invalid_json", Detail: "line\nbreak", Topic: "aircraft-events", Partition: 2, Offset: 7, EventTime: codecs.NoTime, Value: []byte("\xff{")}),
			asRecord(topic, 0, codecs.Letter{Reason: "future", Topic: "aircraft-events", Partition: 1, Offset: 8, EventTime: 1000, Registration: "N2", Key: []byte("old"), Value: []byte(`{"a":1}`)}),
			asRecord(topic, 3, codecs.Letter{Reason: "future", Topic: "aircraft-events", Partition: 1, Offset: 9, EventTime: 1000, Registration: "N3", Value: []byte(`{"a":2}`)},
				kgo.RecordHeader{Key: headerReplayed, Value: []byte("3")}, kgo.RecordHeader{Key: headerReplayedFrom, Value: []byte("x/0@1")}),
			&kgo.Record{Topic: topic, Partition: 2, Value: []byte("stray")},
		)
	}
}

func TestLettersList(t *testing.T) {
	_, k := broker(t)
	twoBoxes(t, k)
	for _, command := range []string{"dlq", "late"} {
		for _, c := range []struct {
			args []string
			want string // positions, in order
		}{
			{nil, "0@0 0@1 2@0 3@0"},
			{[]string{"--reason=future"}, "0@1 3@0"},
			{[]string{"--reason=future,invalid_json", "--partition=0"}, "0@0 0@1"},
			{[]string{"--registration=N3"}, "3@0"},
			{[]string{"--registration=n3"}, "3@0"},
			{[]string{"--partition=3", "--partition=2"}, "2@0 3@0"},
			{[]string{"--limit=2"}, "0@0 0@1"},
			{[]string{"--since=1h"}, "0@0 0@1 2@0 3@0"},
			{[]string{"--until=1h"}, ""},
			{[]string{"--since=2999-01-01T00:00:00Z"}, ""},
		} {
			out, _ := on(t, k, exitOK, append([]string{command, "list", "--json"}, c.args...)...)
			var got []string
			for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
				var v letterView
				if err := dec.Decode(&v); err != nil {
					t.Fatal(err)
				}
				got = append(got, v.Position)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s list %q: %q, want %q", command, c.args, got, c.want)
			}
		}
	}
	if _, errs := on(t, k, exitFailed, "dlq", "list", "--partition=99"); !strings.Contains(errs, "aircraft-events-dlq/99: the topic has partitions 0 to 3") {
		t.Errorf("of a partition that is not there it said %q", errs)
	}
	table, _ := on(t, k, exitOK, "dlq", "list")
	for _, want := range []string{"POSITION", "line break", "aircraft-events/2@7", "not_a_letter"} {
		if !strings.Contains(table, want) {
			t.Errorf("table\n%s\ndoes not show %q", table, want)
		}
	}
	if lines := strings.Count(table, "\n"); lines != 5 {
		t.Errorf("%d lines, want a heading and 4 letters:\n%s", lines, table)
	}
}

func TestLettersShow(t *testing.T) {
	_, k := broker(t)
	twoBoxes(t, k)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"0@0"}, []string{`"value_bytes": "/3s="`, `"source": "aircraft-events/2@7"`, `"detail": "line\nbreak"`}},
		{[]string{"0@1"}, []string{`"value": "{\"a\":1}"`, `"key": "old"`, `"event_time": "1970-01-01T00:00:01.000Z"`, `"registration_number": "N2"`}},
		{[]string{"3@0"}, []string{`"replayed": 3`, `"replayed_from": "x/0@1"`}},
		{[]string{"2@0"}, []string{`"reason": "not_a_letter"`, `"value": "stray"`}},
		{[]string{"0@1", "--raw"}, []string{`{"a":1}`}},
	} {
		out, _ := on(t, k, exitOK, append([]string{"late", "show"}, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("show %q:\n%s\nwant %s", c.args, out, want)
			}
		}
	}
	for position, want := range map[string]string{"0@99": "no such event", "99@0": "partitions 0 to 3"} {
		if _, errs := on(t, k, exitFailed, "dlq", "show", position); !strings.Contains(errs, want) {
			t.Errorf("show %s said %q, want %q", position, errs, want)
		}
	}
}

// A dry run publishes nothing; a replay publishes the bytes as they were, keyed, with their history.
func TestLettersReplay(t *testing.T) {
	_, k := broker(t)
	twoBoxes(t, k)
	out, errs := on(t, k, exitFailed, "dlq", "replay", "--dry-run")
	if !strings.Contains(out, "2 events would be replayed") || !strings.Contains(errs, "3@0") || !strings.Contains(errs, "2@0") {
		t.Errorf("dry run printed %s, said %s", out, errs)
	}
	out, errs = on(t, k, exitFailed, "dlq", "replay", "--rate=1000")
	if !strings.Contains(out, "sent 2 events, 2 acknowledged") || !strings.Contains(out, "klgstream dlq purge 0@1\n") {
		t.Errorf("printed %s", out)
	}
	if !strings.Contains(errs, "1 events were refused, replayed 3 times") {
		t.Errorf("said %s", errs)
	}
	got := map[string]string{}
	for _, r := range consume(t, k, "aircraft-events", 2) {
		got[string(r.Value)] = string(r.Key)
		for _, h := range r.Headers {
			got[string(r.Value)] += " " + h.Key + "=" + string(h.Value)
		}
	}
	if got["\xff{"] != " klg-replayed=1 klg-replayed-from=aircraft-events-dlq/0@0" || got[`{"a":1}`] != "N2 klg-replayed=1 klg-replayed-from=aircraft-events-dlq/0@1" {
		t.Errorf("published %q", got)
	}
	if out, _ = on(t, k, exitOK, "late", "replay", "--limit=1"); !strings.Contains(out, "1 events replayed") {
		t.Errorf("printed %s", out)
	}
	if out, _ = on(t, k, exitOK, "late", "replay", "--partition=3", "--max-replays=4"); !strings.Contains(out, "1 events replayed") {
		t.Errorf("printed %s", out)
	}
}

// A result that the store did not take is no event: it is not published as one.
func TestLettersReplayNoResults(t *testing.T) {
	t.Parallel()
	_, k := broker(t)
	put(t, k,
		asRecord("aircraft-events-dlq", 0, codecs.Letter{Reason: "refused_by_store", Topic: "aircraft-windows", EventTime: codecs.NoTime, Value: []byte(`{}`)}),
		asRecord("aircraft-events-dlq", 0, codecs.Letter{Reason: "future", Topic: "aircraft-events", EventTime: codecs.NoTime, Value: []byte(`{}`)}))
	out, errs := on(t, k, exitFailed, "dlq", "replay")
	if !strings.Contains(out, "1 events replayed") || !strings.Contains(out, "1 of them stand behind") || !strings.Contains(errs, "1 are results of aircraft-windows") {
		t.Errorf("printed %s, said %s", out, errs)
	}
}

// A purge deletes everything before a position: none is advised that would delete an event that was not replayed.
func TestLettersReplayAdvisesNoLoss(t *testing.T) {
	t.Parallel()
	_, k := broker(t)
	twoBoxes(t, k) // 0@0 invalid_json, 0@1 and 3@0 future, 2@0 foreign
	out, _ := on(t, k, exitOK, "dlq", "replay", "--reason=future", "--max-replays=4")
	if !strings.Contains(out, "2 events replayed") || !strings.Contains(out, "klgstream dlq purge 3@0\n") || !strings.Contains(out, "1 of them stand behind") {
		t.Errorf("printed %s", out)
	}
	r := redelivery{topic: "x", most: 3, through: map[int32]int64{}, left: map[int32]bool{}}
	r.counts = &replayer{}
	if ok, err := r.take(readLetter(&sarama.ConsumerMessage{Offset: 7, Headers: headersOf(codecs.Letter{Reason: "future", Topic: "aircraft-events"})})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	r.counts.fail(errors.New("not acknowledged"))
	var text strings.Builder
	if err := r.report(&text, "dlq", "replayed"); err != nil || strings.Contains(text.String(), "purge") {
		t.Errorf("error %v, printed %s", err, text.String())
	}
}

func headersOf(l codecs.Letter) (headers []*sarama.RecordHeader) {
	for _, h := range l.Headers() {
		headers = append(headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	return headers
}

// What is dead stays dead however often it is replayed, knows how often that was, and is refused in the end.
func TestLettersDoNotLoop(t *testing.T) {
	_, k := broker(t)
	put(t, k, &kgo.Record{Topic: "aircraft-events", Partition: 1, Value: []byte("nonsense")})
	launch(t, "processor", "--brokers", k.Brokers[0], "--ops-url=http://127.0.0.1:0", "--registry-group=none", "--commit-interval=5ms")
	for n := range 3 {
		letters := consume(t, k, "aircraft-events-dlq", n+1)
		out, _ := on(t, k, exitOK, "dlq", "replay", "--max-replays=3", fmt.Sprintf("--since=%s", letters[n].Timestamp.UTC().Format(time.RFC3339)), "--dry-run")
		if !strings.Contains(out, "would be replayed") {
			t.Fatalf("printed %s", out)
		}
		on(t, k, exitOK, "dlq", "purge", fmt.Sprintf("%d@%d", letters[n].Partition, letters[n].Offset), "--dry-run")
		replayNewest(t, k, n)
	}
	var counts []string
	for _, l := range consume(t, k, "aircraft-events-dlq", 4) {
		for _, h := range l.Headers {
			if h.Key == headerReplayed {
				counts = append(counts, string(h.Value))
			}
		}
	}
	if strings.Join(counts, " ") != "1 2 3" {
		t.Errorf("replays told by the letters: %q, want 1 2 3", counts)
	}
	on(t, k, exitOK, "dlq", "replay", "--limit=1", "--dry-run") // the first was never replayed itself
	out, errs := on(t, k, exitFailed, "dlq", "replay", "--dry-run")
	if !strings.Contains(errs, "1 events were refused") || !strings.Contains(out, "3 events would be replayed") {
		t.Errorf("printed %s, said %s", out, errs)
	}
}

// replayNewest replays the letter that was replayed n times before.
func replayNewest(t *testing.T, k Kafka, n int) {
	t.Helper()
	l, err := openLetters(k, "aircraft-events-dlq", &Filter{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newTestPublisher(t, k)
	r := &redelivery{topic: l.topic, most: 3, through: map[int32]int64{}, pace: pacer{now: time.Now}, counts: &replayer{to: p, now: time.Now}}
	publish := r.publish(t.Context())
	if err := l.scan(t.Context(), func(x *letter) error {
		if x.replays != int64(n) {
			return nil
		}
		return publish(x)
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil || r.counts.failure() != nil || r.taken != 1 {
		t.Fatalf("replayed %d letters: %v %v", r.taken, err, r.counts.failure())
	}
}

func TestLettersPurge(t *testing.T) {
	_, k := broker(t)
	twoBoxes(t, k)
	if out, _ := on(t, k, exitOK, "dlq", "purge", "0@0", "--dry-run"); !strings.Contains(out, "1 events would be deleted") {
		t.Errorf("dry run printed %s", out)
	}
	if _, errs := on(t, k, exitFailed, "dlq", "purge", "0@0"); !strings.Contains(errs, "--yes") {
		t.Errorf("without --yes said %s", errs)
	}
	if _, errs := on(t, k, exitFailed, "dlq", "purge", "0@5", "--yes"); !strings.Contains(errs, "the last event is 0@1") {
		t.Errorf("beyond the end said %s", errs)
	}
	if _, errs := on(t, k, exitFailed, "dlq", "purge", "9@5", "--yes"); !strings.Contains(errs, "no partition 9") {
		t.Errorf("without such a partition said %s", errs)
	}
	count := func(command string) int {
		out, _ := on(t, k, exitOK, command, "list", "--json")
		return strings.Count(out, "\n")
	}
	if n := count("dlq"); n != 4 {
		t.Fatalf("%d letters before anything may be deleted, want 4", n)
	}
	on(t, k, exitOK, "dlq", "purge", "0@0", "--yes")
	if n := count("dlq"); n != 3 {
		t.Errorf("%d letters left, want 3", n)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--until=1h"}, "0 events would be deleted"},
		{[]string{"--until=0s"}, "3 events would be deleted"},
		{[]string{"--until=2999-01-01T00:00:00Z", "--partition=3"}, "1 events would be deleted"},
		{[]string{"--all", "--partition=2", "--partition=3"}, "2 events would be deleted"},
	} {
		if out, _ := on(t, k, exitOK, append([]string{"dlq", "purge", "--dry-run"}, c.args...)...); !strings.Contains(out, c.want) {
			t.Errorf("purge %q printed %s, want %s", c.args, out, c.want)
		}
	}
	on(t, k, exitFailed, "dlq", "purge", "--all", "--partition=9", "--dry-run")
	on(t, k, exitOK, "dlq", "purge", "--until=0s", "--partition=3", "--yes")
	if n := count("dlq"); n != 2 {
		t.Errorf("%d letters left, want 2", n)
	}
	on(t, k, exitOK, "dlq", "purge", "--all", "--yes")
	on(t, k, exitOK, "dlq", "purge", "--all", "--yes") // nothing to do
	if n, late := count("dlq"), count("late"); n != 0 || late != 4 {
		t.Errorf("%d and %d letters left, want 0 and 4", n, late)
	}
}

func TestLettersRefuse(t *testing.T) {
	if code := run(t.Context(), []string{"dlq"}, newOutside().environment); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	for _, args := range [][]string{
		{"dlq", "show", "17"},
		{"dlq", "show", "a@1"},
		{"dlq", "show", "0@-1"},
		{"late", "list", "--since=yesterday"},
		{"late", "list", "--limit=-1"},
		{"late", "list", "--partition=x"},
		{"dlq", "replay", "--max-replays=0"},
		{"dlq", "replay", "--rate=-1"},
		{"dlq", "purge"},
		{"dlq", "purge", "0@1", "--all"},
		{"dlq", "purge", "--until=1h", "--all"},
		{"dlq", "purge", "--until=yesterday"},
		{"dlq", "purge", "0@1", "--partition=0"},
		{"dlq", "purge", "0@1", "0@2"},
	} {
		if code := run(t.Context(), args, newOutside().environment); code != exitConfig {
			t.Errorf("%q: exit code %d, want %d", args, code, exitConfig)
		}
	}
	for _, args := range [][]string{{"list"}, {"show", "0@1"}, {"replay"}, {"purge", "--all"}} {
		o := newOutside()
		if code := run(t.Context(), append(append([]string{"dlq"}, args...), "--brokers=127.0.0.1:1"), o.environment); code != exitUnavailable || !strings.Contains(o.errs.String(), "REDPANDA_BROKERS") {
			t.Errorf("%q without a broker: exit code %d, said %q", args, code, o.errs.String())
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "24h": now.Add(-24 * time.Hour), "2026-01-01T00:00:00+01:00": time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC)} {
		if got, err := moment("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	if _, err := moment("since", "-1h", now); err == nil {
		t.Error("a negative duration was taken")
	}
}

// Whatever is on the topic is read without a panic, and its bytes are kept.
func FuzzReadLetter(f *testing.F) {
	f.Add("klg-reason", []byte("late"), []byte("{}"))
	f.Add(headerReplayed, []byte("99999999999999999999"), []byte(nil))
	f.Fuzz(func(t *testing.T, name string, header, value []byte) {
		l := readLetter(&sarama.ConsumerMessage{Value: value, Headers: []*sarama.RecordHeader{{Key: []byte(name), Value: header}}})
		if !bytes.Equal(l.Value, value) || l.foreign == nil {
			t.Errorf("value %q of %q, fault %v", l.Value, value, l.foreign)
		}
		if _, err := json.Marshal(l.view(true)); err != nil && !errors.Is(err, errEnough) {
			t.Error(err)
		}
	})
}
