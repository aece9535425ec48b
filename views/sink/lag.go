package sink

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
)

// lagInterval is how often the brokers are asked where partitions end. What records bring with them tells it more often, but
// nothing comes while the store is away, and that is when the lag matters.
const lagInterval = 5 * time.Second

// lags tells how far the partitions of this sink are behind.
type lags struct {
	gauge *prometheus.GaugeVec

	mu   sync.Mutex
	next map[partition]int64 // offset behind the last durable row; negative: none was ever committed
}

// arrive says where a partition stands.
func (l *lags) arrive(at partition, next int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next[at] = next
}

// leave forgets a partition.
func (l *lags) leave(at partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.next, at)
	l.gauge.DeleteLabelValues(at.topic, strconv.Itoa(int(at.number)))
}

// set tells the lag of a partition, unless it left.
func (l *lags) set(at partition, lag int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, here := l.next[at]; here {
		l.gauge.WithLabelValues(at.topic, strconv.Itoa(int(at.number))).Set(float64(max(0, lag)))
	}
}

// measureRegularly asks the brokers until ctx ends.
func (l *lags) measureRegularly(ctx context.Context, client sarama.Client) {
	ticker := time.NewTicker(lagInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.measure(client)
		}
	}
}

// measure asks where each partition ends. A broker that does not answer leaves what was known.
func (l *lags) measure(client sarama.Client) {
	l.mu.Lock()
	claims := maps.Clone(l.next)
	l.mu.Unlock()
	for at, next := range claims {
		if next < 0 {
			oldest, err := client.GetOffset(at.topic, at.number, sarama.OffsetOldest)
			if err != nil {
				continue
			}
			next = oldest
		}
		if newest, err := client.GetOffset(at.topic, at.number, sarama.OffsetNewest); err == nil {
			l.set(at, newest-next)
		}
	}
}
