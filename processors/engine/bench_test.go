package engine

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/codecs"
)

// benchPartition is a partition without a broker.
func benchPartition() *partition[tick, tally] {
	config := Config{
		Brokers: []string{"nowhere:1"}, Now: func() time.Time { return time.UnixMilli(1e12) }, Logger: slog.New(slog.DiscardHandler),
		MaxFutureSkew: -1, Idle: IdleHold, IdleTimeout: time.Hour,
	}.withDefaults()
	t := &topics{"in", "loop", "table", "out", "late", "dead", 1, 1}
	p := newPartition[tick, tally](0, 1, &config, t, tickTopology{new(int64)}, newMetrics(prometheus.NewRegistry()).partition(0), func() {})
	p.begin(fresh())
	return p
}

// benchChangelog is records of a group table: of so many keys, in a random order, each key's so many times.
func benchChangelog(keys, versions int) []*frame {
	order := make([]int, 0, keys*versions)
	for range versions {
		for k := range keys {
			order = append(order, k)
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var frames []*frame
	for i, k := range order {
		if i%1000 == 0 {
			frames = append(frames, &frame{})
		}
		env := codecs.Envelope{
			Sources: []codecs.Source{{Offset: int64(i)}}, Purged: math.MinInt64, Due: 1e12 + 3_600_000, State: make([]byte, 90),
		}
		last := frames[len(frames)-1]
		last.records = append(last.records, &sarama.ConsumerMessage{Offset: int64(i), Key: fmt.Appendf(nil, "N%06d", k), Value: env.Append(nil)})
	}
	return frames
}

// BenchmarkLoad is what recovery does with a changelog of 250,000 keys, each written twice, once it is fetched.
func BenchmarkLoad(b *testing.B) {
	const keys, versions = 250_000, 2
	log := benchChangelog(keys, versions)
	b.ReportAllocs()
	for b.Loop() {
		p := benchPartition()
		for _, fr := range log {
			if err := p.load(fr); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*keys*versions), "ns/record")
}
