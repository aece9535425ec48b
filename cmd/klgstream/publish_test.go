package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/deploy/devstack"
	"klgstream.dev/views/httpapi"
)

// broker starts an embedded broker with the topics of the plan.
func broker(t *testing.T) (*devstack.Broker, Kafka) {
	t.Helper()
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	k := Kafka{Brokers: b.Addrs(), ClientID: "test"}
	o := newOutside()
	if code := run(t.Context(), []string{"topics", "--brokers", k.Brokers[0]}, o.environment); code != exitOK {
		t.Fatalf("create topics: %s", o.errs.String())
	}
	return b, k
}

func newTestPublisher(t *testing.T, k Kafka) *publisher {
	t.Helper()
	p, err := newPublisher(k, "aircraft-events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// consume reads n records of a topic with another client.
func consume(t *testing.T, k Kafka, topic string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for len(records) < n {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// A key lands where Java's and franz-go's producers put it; records without one are dealt out in turn, and have none.
func TestPartitioning(t *testing.T) {
	_, k := broker(t)
	p := newTestPublisher(t, k)
	var events []httpapi.Event
	want := map[string]int32{}
	reference := kgo.StickyKeyPartitioner(nil).ForTopic("aircraft-events")
	for i := range 500 {
		key := fmt.Sprintf("N%d", i)
		events = append(events, httpapi.Event{Key: key, Value: []byte(key)}, httpapi.Event{Value: fmt.Appendf(nil, "none-%d", i)})
		want[key] = int32(reference.Partition(&kgo.Record{Key: []byte(key)}, 4))
	}
	if err := p.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	spread := map[int32]int{}
	for _, r := range consume(t, k, "aircraft-events", len(events)) {
		if r.Key == nil {
			spread[r.Partition]++
			continue
		}
		if r.Partition != want[string(r.Value)] || string(r.Key) != string(r.Value) {
			t.Errorf("key %q is in partition %d, want %d", r.Key, r.Partition, want[string(r.Value)])
		}
	}
	for partition := range int32(4) {
		if spread[partition] != 125 {
			t.Errorf("partition %d has %d of 500 records without a key, want 125", partition, spread[partition])
		}
	}
}

// The least integer, whose negation is itself, must not become a negative partition.
func TestPartitionOfLeastHash(t *testing.T) {
	got, err := newPartitioner("t").Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder("afjtjzd")}, 12)
	if err != nil || got < 0 || got >= 12 {
		t.Errorf("partition %d, error %v", got, err)
	}
	if !newPartitioner("t").RequiresConsistency() {
		t.Error("records without a key would move when a partition has no leader")
	}
}

// Publish answers only when the broker has acknowledged.
func TestPublishAwaitsAcknowledgement(t *testing.T) {
	b, k := broker(t)
	p := newTestPublisher(t, k)
	asked, answer := make(chan struct{}), make(chan struct{})
	b.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		b.Cluster().SleepControl(func() { <-answer })
		return nil, nil, false
	})
	published := make(chan error, 1)
	go func() { published <- p.Publish(t.Context(), []httpapi.Event{{Key: "N1", Value: []byte("{}")}}) }()
	<-asked
	select {
	case err := <-published:
		t.Fatalf("published before the broker acknowledged (error %v)", err)
	default:
	}
	close(answer)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	if got := consume(t, k, "aircraft-events", 1); string(got[0].Key) != "N1" {
		t.Errorf("key %q", got[0].Key)
	}
}

func TestPublishGivesUpWithItsContext(t *testing.T) {
	b, k := broker(t)
	p := newTestPublisher(t, k)
	ctx, cancel := context.WithCancel(t.Context())
	b.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		return nil, nil, false
	})
	err := p.Publish(ctx, []httpapi.Event{{Value: []byte("{}")}})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
	if err := p.Publish(ctx, []httpapi.Event{{Value: []byte("{}")}}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "event 1 of 1") {
		t.Errorf("error %v, want one that says how far it came", err)
	}
	if err := p.Publish(ctx, nil); err != nil {
		t.Errorf("nothing to publish: %v", err)
	}
}

// A record the broker refuses is its sender's error, and only its.
func TestPublishRefused(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	k := Kafka{Brokers: b.Addrs(), ClientID: "test"}
	p, err := newPublisher(k, "not-there")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	err = p.Publish(t.Context(), []httpapi.Event{{Value: []byte("{}")}, {Value: []byte("{}")}})
	if err == nil || !strings.Contains(err.Error(), "publish to not-there") {
		t.Errorf("error %v, want one that names the topic", err)
	}
}

func TestPublishTooLarge(t *testing.T) {
	_, k := broker(t)
	p := newTestPublisher(t, k)
	if err := p.Publish(t.Context(), []httpapi.Event{{Value: make([]byte, 3<<20)}}); err != nil {
		t.Errorf("3 MiB must arrive to become a dead letter: %v", err)
	}
	if err := p.Publish(t.Context(), []httpapi.Event{{Value: make([]byte, maxRecord+2*recordOverhead)}}); err == nil {
		t.Error("more than the largest record was taken")
	}
	if err := p.Publish(t.Context(), []httpapi.Event{{Value: []byte("{}")}}); err != nil {
		t.Errorf("after a record that was refused: %v", err)
	}
}

// No more than a bounded number of bytes waits for the broker; whoever sends more waits, or gives up with its context.
func TestBackPressure(t *testing.T) {
	b, k := broker(t)
	p := newTestPublisher(t, k)
	answer := make(chan struct{})
	b.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster().SleepControl(func() { <-answer })
		return nil, nil, false
	})
	var acked sync.WaitGroup
	const mebibyte = 1 << 20
	for range maxInFlight/mebibyte - 1 {
		acked.Add(1)
		if err := p.send(t.Context(), record{value: make([]byte, mebibyte)}, func(error) { acked.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.send(ctx, record{value: make([]byte, 2*mebibyte)}, func(error) { t.Error("a record that was not taken was answered") }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled while waiting for room", err)
	}
	close(answer)
	acked.Wait()
	if err := p.Publish(t.Context(), []httpapi.Event{{Value: make([]byte, 2*mebibyte)}}); err != nil {
		t.Errorf("after the broker came back: %v", err)
	}
}

// Closing waits for what was sent, may be repeated, and refuses what comes later.
func TestPublisherClose(t *testing.T) {
	_, k := broker(t)
	p := newTestPublisher(t, k)
	answered := 0
	for range 1000 {
		if err := p.send(t.Context(), record{value: []byte("{}")}, func(err error) {
			if err == nil {
				answered++
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	var closers sync.WaitGroup
	for range 4 {
		closers.Go(func() { _ = p.Close() })
	}
	closers.Wait()
	if answered != 1000 {
		t.Errorf("%d of 1000 records acknowledged after closing", answered)
	}
	if err := p.Publish(t.Context(), []httpapi.Event{{Value: []byte("{}")}}); !errors.Is(err, errClosed) {
		t.Errorf("error %v, want %v", err, errClosed)
	}
}

// Many at once, as HTTP requests are.
func TestPublishConcurrently(t *testing.T) {
	_, k := broker(t)
	p := newTestPublisher(t, k)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			events := make([]httpapi.Event, 20)
			for i := range events {
				events[i] = httpapi.Event{Key: fmt.Sprint(i), Value: []byte("{}")}
			}
			if err := p.Publish(t.Context(), events); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := len(consume(t, k, "aircraft-events", 1000)); got != 1000 {
		t.Errorf("%d records, want 1000", got)
	}
}

func TestPublisherWithoutBroker(t *testing.T) {
	if _, err := newPublisher(Kafka{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}, "t"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v, want one that names the broker", err)
	}
}
