package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"klgstream.dev/processors/engine"
	"klgstream.dev/views/httpapi"
)

// pipeline tells how far the flow is, from what the broker knows. It is safe for concurrent use.
type pipeline struct {
	names    Names
	counters prometheus.Gatherer // the processor's, if it runs in this process; else nil
	replay   atomic.Pointer[func() httpapi.Replay]

	brokers []string
	config  *sarama.Config
	mu      sync.Mutex
	admin   sarama.ClusterAdmin // nil: to be opened
	closed  bool
}

// statusPatience is how long the broker may take for one answer. One that is stuck is asked again soon, to be seen when it goes on.
const statusPatience = 5 * time.Second

// newPipeline connects to the broker.
func newPipeline(k Kafka, n Names, counters prometheus.Gatherer) (*pipeline, error) {
	c := clientConfig(k)
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = statusPatience, statusPatience, statusPatience
	p := &pipeline{names: n, counters: counters, brokers: k.Brokers, config: c}
	if _, err := p.connected(); err != nil {
		return nil, noBroker(k, err)
	}
	return p, nil
}

// connected is the connection to the broker.
func (p *pipeline) connected() (sarama.ClusterAdmin, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, sarama.ErrClosedClient
	}
	if p.admin == nil {
		admin, err := sarama.NewClusterAdmin(p.brokers, p.config)
		if err != nil {
			return nil, err
		}
		p.admin = admin
	}
	return p.admin, nil
}

// drop gives a connection back after a failure: sarama goes on answering with the first one.
func (p *pipeline) drop(admin sarama.ClusterAdmin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.admin == admin {
		p.admin = nil
		_ = admin.Close() // what was wrong with it is told already
	}
}

// Close gives the connection back.
func (p *pipeline) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	admin := p.admin
	if p.closed, p.admin = true, nil; admin == nil {
		return nil
	}
	return admin.Close()
}

// Status implements [httpapi.Pipeline]. It asks for positions first and for the topics' ends after that: where the two
// are equal the reader had taken everything, and nothing has come since.
func (p *pipeline) Status(context.Context) (httpapi.Status, error) {
	admin, err := p.connected()
	if err != nil {
		return httpapi.Status{}, fmt.Errorf("connect to broker %q: %w", p.brokers, err)
	}
	s, err := p.ask(admin)
	if err != nil {
		p.drop(admin)
	}
	return s, err
}

// ask asks for everything.
func (p *pipeline) ask(admin sarama.ClusterAdmin) (httpapi.Status, error) {
	topics := p.topics()
	partitions, err := describe(admin, topics)
	if err != nil {
		return httpapi.Status{}, err
	}
	committed, err := committed(admin, topics, partitions)
	if err != nil {
		return httpapi.Status{}, err
	}
	ends, err := offsets(admin, topics, partitions, sarama.OffsetNewest)
	if err != nil {
		return httpapi.Status{}, err
	}
	starts, err := offsets(admin, topics, partitions, sarama.OffsetOldest)
	if err != nil {
		return httpapi.Status{}, err
	}
	totals := p.counted()
	for i := range topics {
		t := &topics[i]
		for _, id := range partitions[t.Name] {
			part := httpapi.Partition{ID: id, Committed: httpapi.Unknown, End: ends[t.Name][id], Watermark: httpapi.Unknown}
			from := starts[t.Name][id]
			if at, ok := committed[t.Reader][t.Name][id]; ok {
				part.Committed, part.Watermark, from = at.offset, at.watermark, max(at.offset, from)
			}
			if t.Reader != "" {
				part.Lag = max(0, part.End-from) // a topic that was emptied, or made anew, may end before what is committed
			}
			t.Partitions = append(t.Partitions, part)
		}
	}
	s := httpapi.Status{Topics: topics, Totals: totals}
	if replay := p.replay.Load(); replay != nil {
		r := (*replay)()
		s.Replay = &r
	}
	return s, nil
}

// topics are those of the flow in the order an event meets them.
func (p *pipeline) topics() []httpapi.Topic {
	n := p.names
	return []httpapi.Topic{
		{Name: n.Input, Role: httpapi.RoleInput, Reader: n.Group},
		{Name: n.loop(), Role: httpapi.RoleLoop, Reader: n.Group},
		{Name: n.table(), Role: httpapi.RoleTable},
		{Name: n.Output, Role: httpapi.RoleOutput, Reader: n.SinkGroup},
		{Name: n.Late, Role: httpapi.RoleLate, Reader: n.SinkGroup},
		{Name: n.Dead, Role: httpapi.RoleDead, Reader: n.SinkGroup},
	}
}

// describe is the partitions of topics.
func describe(admin sarama.ClusterAdmin, topics []httpapi.Topic) (map[string][]int32, error) {
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
	}
	described, err := admin.DescribeTopics(names)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	found := map[string][]int32{}
	for _, t := range described {
		for id := range int32(len(t.Partitions)) { // Kafka numbers them from 0 without holes
			found[t.Name] = append(found[t.Name], id)
		}
	}
	return found, nil
}

// reached is what a group has committed for a partition: its next offset, and the watermark that a processor's commits carry.
type reached struct{ offset, watermark int64 }

// committed are the positions by group, topic and partition; where nothing is committed there is none.
func committed(admin sarama.ClusterAdmin, topics []httpapi.Topic, partitions map[string][]int32) (map[string]map[string]map[int32]reached, error) {
	groups := map[string]map[string][]int32{}
	for _, t := range topics {
		if t.Reader == "" {
			continue
		}
		if groups[t.Reader] == nil {
			groups[t.Reader] = map[string][]int32{}
		}
		groups[t.Reader][t.Name] = partitions[t.Name]
	}
	positions := map[string]map[string]map[int32]reached{}
	for group, topics := range groups {
		answer, err := admin.ListConsumerGroupOffsets(group, topics)
		if errors.Is(err, sarama.ErrGroupIDNotFound) { // nobody has read yet
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask for the positions of group %q: %w", group, err)
		}
		positions[group] = map[string]map[int32]reached{}
		for topic, blocks := range answer.Blocks {
			positions[group][topic] = map[int32]reached{}
			for id, block := range blocks {
				if block.Offset >= 0 {
					at := reached{offset: block.Offset, watermark: httpapi.Unknown}
					if w, ok := engine.WatermarkOf(block.Metadata); ok {
						at.watermark = w
					}
					positions[group][topic][id] = at
				}
			}
		}
	}
	return positions, nil
}

// offsets are the first or the next offset of every partition.
func offsets(admin sarama.ClusterAdmin, topics []httpapi.Topic, partitions map[string][]int32, which int64) (map[string]map[int32]int64, error) {
	ask := map[string]map[int32]int64{}
	for _, t := range topics {
		ask[t.Name] = map[int32]int64{}
		for _, id := range partitions[t.Name] {
			ask[t.Name][id] = which
		}
	}
	answer, err := admin.ListOffsets(ask, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for offsets: %w", err)
	}
	offsets := map[string]map[int32]int64{}
	for topic, results := range answer {
		offsets[topic] = map[int32]int64{}
		for id, r := range results {
			if r.Err != nil && !errors.Is(r.Err, sarama.ErrNoError) {
				return nil, fmt.Errorf("ask for the offsets of %s/%d: %w", topic, id, r.Err)
			}
			offsets[topic][id] = r.Offset
		}
	}
	return offsets, nil
}

// counted are the events by outcome, as the processor in this process counts them.
func (p *pipeline) counted() httpapi.Totals {
	unknown := httpapi.Totals{Counted: -1, Late: -1, Dead: -1, Fenced: -1, Rekeyed: -1}
	if p.counters == nil {
		return unknown
	}
	families, err := p.counters.Gather()
	if err != nil {
		return unknown
	}
	var totals httpapi.Totals
	for _, f := range families {
		if f.GetName() != "klgstream_events_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if label(m, "group") == p.names.Group {
				addOutcome(&totals, label(m, "outcome"), int64(m.GetCounter().GetValue()))
			}
		}
	}
	return totals
}

func addOutcome(t *httpapi.Totals, outcome string, n int64) {
	switch outcome {
	case "counted":
		t.Counted += n
	case "late":
		t.Late += n
	case "dead":
		t.Dead += n
	case "fenced":
		t.Fenced += n
	case "rekeyed":
		t.Rekeyed += n
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// awaitThrough returns when every reader has committed all there is: input, then loop, then results. It outlasts a broker
// that does not answer and tells log of it.
func (p *pipeline) awaitThrough(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(throughPoll)
	defer tick.Stop()
	for {
		s, err := p.Status(ctx)
		if err == nil && behind(s) == 0 {
			return nil
		}
		if err != nil {
			log.Warn("ask for positions", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// throughPoll is how often awaitThrough looks.
const throughPoll = 20 * time.Millisecond

// behind is how many records were not read when the positions were taken.
func behind(s httpapi.Status) int64 {
	var lag int64
	for _, t := range s.Topics {
		for _, part := range t.Partitions {
			lag += part.Lag
		}
	}
	return lag
}
