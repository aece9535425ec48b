package activity_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/activity"
	"klgstream.dev/processors/engine"
)

// Whatever an outsider sends, it is either counted or kept as a dead letter with its reason, where it came from and its
// own bytes; and the processor goes on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	good := func(n string) string {
		return `{"event_type":"departed","registration_number":"` + n + `","timestamp":"2013-01-01T10:00:00Z"}`
	}
	bad := []struct{ name, value, reason string }{
		{"empty", "", codecs.ReasonNullValue},
		{"truncated", good("N1")[:40], codecs.ReasonNotJSON},
		{"2 MiB", `{"event_type":"departed","registration_number":"N1","timestamp":1,"x":"` + strings.Repeat("x", 2<<20) + `"}`, codecs.ReasonTooLarge},
		{"deep nesting", strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), ""},
		{"deep nesting inside", `{"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`, codecs.ReasonTooDeep},
		{"wrong type", `{"event_type":1,"registration_number":"N1","timestamp":1}`, codecs.ReasonWrongType},
		{"an array", `[1,2]`, codecs.ReasonWrongType},
		{"empty registration", `{"event_type":"departed","registration_number":"  ","timestamp":1}`, codecs.ReasonEmpty},
		{"no registration", `{"event_type":"departed","timestamp":1}`, codecs.ReasonMissing},
		{"year 9999", `{"event_type":"departed","registration_number":"N1","timestamp":"9999-12-31T23:59:59Z"}`, engine.ReasonFuture},
		{"year 10000", `{"event_type":"departed","registration_number":"N1","timestamp":"10000-01-01T00:00:00Z"}`, codecs.ReasonBadTimestamp},
		{"NaN", `{"event_type":"departed","registration_number":"N1","timestamp":NaN}`, codecs.ReasonNotJSON},
		{"invalid UTF-8", `{"event_type":"depa` + "\xff\xfe" + `rted","registration_number":"N1","timestamp":1}`, codecs.ReasonInvalidUTF8},
		{"null value", "\x00null", codecs.ReasonNullValue},
		{"duplicate keys", `{"event_type":"departed","event_type":"landed","registration_number":"N1","timestamp":1}`, codecs.ReasonDuplicateField},
		{"both spellings", `{"event_type":"departed","eventType":"departed","registration_number":"N1","timestamp":1}`, codecs.ReasonDuplicateField},
	}
	brokers := broker(t)
	p := producer(t, brokers)
	value := func(s string) sarama.Encoder {
		if s == "\x00null" {
			return nil
		}
		return sarama.StringEncoder(s)
	}
	type at struct {
		partition int32
		offset    int64
	}
	where := make(map[at]int)
	for i, b := range bad {
		for _, v := range []sarama.Encoder{value(good("N2")), value(b.value)} {
			partition, offset, err := p.SendMessage(&sarama.ProducerMessage{Topic: activity.Input, Partition: int32(i % partitions), Key: sarama.StringEncoder("k"), Value: v})
			if err != nil {
				t.Fatalf("%s: %v", b.name, err)
			}
			where[at{partition, offset}] = i
		}
	}
	run(t, brokers, engine.Config{Bound: 24 * time.Hour, Idle: engine.IdleHold}, activity.Config{})
	seen := make(map[int]bool)
	tail(t, brokers, activity.Dead, func(m *sarama.ConsumerMessage) bool {
		var headers []codecs.Header
		for _, h := range m.Headers {
			headers = append(headers, codecs.Header{Key: string(h.Key), Value: h.Value})
		}
		l, err := codecs.ParseLetter(m.Key, m.Value, headers)
		if err != nil {
			t.Fatal(err)
		}
		i := where[at{l.Partition, l.Offset}]
		b := bad[i]
		want := []byte(b.value)
		if b.value == "\x00null" {
			want = nil
		}
		if l.Topic != activity.Input || !bytes.Equal(l.Value, want) || string(l.Key) != "k" || l.Detail == "" || b.reason != "" && l.Reason != b.reason {
			t.Errorf("%s: reason %q (%s), %d bytes from %s/%d@%d", b.name, l.Reason, l.Detail, len(l.Value), l.Topic, l.Partition, l.Offset)
		}
		seen[i] = true
		return len(seen) == len(bad)
	})
	tail(t, brokers, activity.Output, func(m *sarama.ConsumerMessage) bool {
		var w codecs.Window
		if err := w.UnmarshalJSON(m.Value); err != nil {
			t.Fatal(err)
		}
		if w.Registration != "N2" {
			t.Errorf("counted %s", w.Registration)
		}
		return w.Count == int64(len(bad))
	})
}
