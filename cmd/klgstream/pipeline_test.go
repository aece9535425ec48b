package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"klgstream.dev/views/httpapi"
)

func newTestPipeline(t *testing.T, k Kafka, counters prometheus.Gatherer) *pipeline {
	t.Helper()
	flow, err := newPipeline(k, testNames, counters)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flow.Close() })
	return flow
}

// commitAt commits one position of a group.
func commitAt(t *testing.T, k Kafka, group, topic string, partition int32, offset int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.MaxVersions(kversion.V3_9_0()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Topics = group, []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("commit: error %v, answer %+v", err, resp)
	}
}

func topicNamed(t *testing.T, s httpapi.Status, name string) httpapi.Topic {
	t.Helper()
	for _, topic := range s.Topics {
		if topic.Name == name {
			return topic
		}
	}
	t.Fatalf("no topic %s in %+v", name, s.Topics)
	return httpapi.Topic{}
}

// What is committed, what is there, and the difference; nothing is committed before anybody has read.
func TestPipelineStatus(t *testing.T) {
	_, k := broker(t)
	flow := newTestPipeline(t, k, nil)
	p := newTestPublisher(t, k)
	for range 12 { // dealt out in turn: three to each of four partitions
		if err := p.Publish(t.Context(), []httpapi.Event{{Value: []byte("{}")}}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := flow.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	input := topicNamed(t, s, "aircraft-events")
	if input.Role != httpapi.RoleInput || input.Reader != "aircraft-activity" || len(input.Partitions) != 4 {
		t.Errorf("input %+v", input)
	}
	for _, part := range input.Partitions {
		if part != (httpapi.Partition{ID: part.ID, Committed: httpapi.Unknown, End: 3, Lag: 3, Watermark: httpapi.Unknown}) {
			t.Errorf("before anybody reads: %+v", part)
		}
	}
	if behind(s) != 12 {
		t.Errorf("%d records behind, want 12", behind(s))
	}
	if table := topicNamed(t, s, "aircraft-activity-table"); table.Reader != "" || table.Role != httpapi.RoleTable {
		t.Errorf("table %+v", table)
	}
	if s.Totals.Counted >= 0 || s.Replay != nil {
		t.Errorf("nothing is counted in this process: %+v, replay %+v", s.Totals, s.Replay)
	}

	commitAt(t, k, "aircraft-activity", "aircraft-events", 1, 2)
	replay := func() httpapi.Replay { return httpapi.Replay{Source: "a", Sent: 7} }
	flow.replay.Store(&replay)
	if s, err = flow.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	if part := topicNamed(t, s, "aircraft-events").Partitions[1]; part.Committed != 2 || part.Lag != 1 {
		t.Errorf("after a commit at 2 of 3: %+v", part)
	}
	if s.Replay == nil || s.Replay.Sent != 7 {
		t.Errorf("replay %+v", s.Replay)
	}
}

// Outcomes are the metrics of the processor that counts windows, and not of another in the same process.
func TestPipelineCounts(t *testing.T) {
	_, k := broker(t)
	reg := prometheus.NewRegistry()
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "klgstream_events_total", Help: "x"}, []string{"group", "partition", "outcome"})
	other := prometheus.NewCounter(prometheus.CounterOpts{Name: "klgstream_other_total", Help: "x"})
	reg.MustRegister(events, other)
	for outcome, n := range map[string]float64{"counted": 1, "late": 2, "dead": 3, "fenced": 4, "rekeyed": 5, "new": 6} {
		events.WithLabelValues("aircraft-activity", "0", outcome).Add(n)
		events.WithLabelValues("aircraft-activity", "1", outcome).Add(n)
		events.WithLabelValues("aircraft-registry", "1", outcome).Add(100)
	}
	s, err := newTestPipeline(t, k, reg).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (httpapi.Totals{Counted: 2, Late: 4, Dead: 6, Fenced: 8, Rekeyed: 10}); s.Totals != want {
		t.Errorf("totals %+v, want %+v", s.Totals, want)
	}
}

func TestPipelineCountsOfABrokenRegistry(t *testing.T) {
	flow := &pipeline{counters: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("broken") })}
	if totals := flow.counted(); totals.Counted != -1 {
		t.Errorf("totals %+v, want unknown", totals)
	}
}

// A topic that ends before what is committed, as one that was emptied or made anew, leaves nothing to wait for.
func TestAwaitThroughOfAnEmptiedTopic(t *testing.T) {
	_, k := broker(t)
	flow := newTestPipeline(t, k, nil)
	commitAt(t, k, testNames.SinkGroup, testNames.Late, 1, 1048)
	s, err := flow.Status(t.Context())
	if err != nil || topicNamed(t, s, testNames.Late).Partitions[1].Lag != 0 || behind(s) != 0 {
		t.Fatalf("%d records behind: %+v, %v", behind(s), s, err)
	}
	if err := flow.awaitThrough(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}

// Waiting ends when the last reader has committed the last record, or with its context.
func TestAwaitThrough(t *testing.T) {
	_, k := broker(t)
	flow := newTestPipeline(t, k, nil)
	log := slog.New(slog.DiscardHandler)
	if err := flow.awaitThrough(t.Context(), log); err != nil {
		t.Fatalf("with nothing to read: %v", err)
	}
	if err := newTestPublisher(t, k).Publish(t.Context(), []httpapi.Event{{Value: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*throughPoll)
	defer cancel()
	if err := flow.awaitThrough(ctx, log); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with one event not read: error %v", err)
	}
	commitAt(t, k, "aircraft-activity", "aircraft-events", 0, 1)
	if err := flow.awaitThrough(t.Context(), log); err != nil {
		t.Errorf("with everything read: %v", err)
	}
}

// A broker that refuses is named with what was asked of it, and waited for.
func TestPipelineOfARefusingBroker(t *testing.T) {
	b, k := broker(t)
	flow := newTestPipeline(t, k, nil)
	const unknownServerError = -1
	b.Cluster().ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		resp.ErrorCode = unknownServerError
		resp.Groups = append(resp.Groups, kmsg.OffsetFetchResponseGroup{Group: "aircraft-activity", ErrorCode: unknownServerError})
		return resp, nil, true
	})
	if _, err := flow.Status(t.Context()); err == nil || !strings.Contains(err.Error(), `positions of group`) {
		t.Errorf("error %v, want one that says what was asked", err)
	}
	if err := flow.awaitThrough(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("once it answers again: %v", err)
	}
	if _, err := newPipeline(Kafka{Brokers: []string{"127.0.0.1:1"}, ClientID: "x"}, testNames, nil); err == nil {
		t.Error("a pipeline without a broker")
	}
}

// A broker that was stuck for longer than it is waited for is asked anew: sarama itself would go on telling what was wrong then.
func TestPipelineAfterAStuckBroker(t *testing.T) {
	t.Parallel()
	b, k := broker(t)
	flow := newTestPipeline(t, k, nil)
	flow.config.Net.ReadTimeout = 200 * time.Millisecond
	flow.drop(flow.admin)
	c, goOn := b.Cluster(), make(chan struct{})
	c.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.SleepControl(func() { <-goOn })
		return nil, nil, false
	})
	if _, err := flow.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("of a stuck broker: %v", err)
	}
	close(goOn)
	eventually(t, func() bool {
		_, err := flow.Status(t.Context())
		return err == nil
	})
	if err := errors.Join(flow.Close(), flow.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := flow.Status(t.Context()); !errors.Is(err, sarama.ErrClosedClient) {
		t.Errorf("closed: %v", err)
	}
}
