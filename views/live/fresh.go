package live

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// stale is the age from which on a table is not up to date: the brokers or the reading of it are away for longer than a moment.
const stale = 10 * time.Second

// answer is how long brokers may take to say where a table ends. One that is stuck is asked again soon, to be seen when it goes on.
const answer = 5 * time.Second

// frontier tells as of when a table is known. A view does not notice that its brokers are away, so they are asked where the table ends:
// once everything up to there was read, the table is as it was when they were asked.
type frontier struct {
	mu   sync.Mutex
	asOf time.Time
	ends map[int32]int64 // next offsets, as they were when asked last; nil once all of it was read
	at   time.Time       // when that was
	read map[int32]int64 // next offset to read, of partitions from which a record was read
}

func (f *frontier) took(partition int32, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read[partition] = offset + 1
}

// asked notes where the table ended at a time.
func (f *frontier) asked(at time.Time, starts, ends map[int32]int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.ends = at, ends
	for partition, end := range ends {
		if starts[partition] >= end { // there is nothing to read
			delete(f.ends, partition)
		}
	}
}

// reached is the time as of which the table is known, and whether everything asked for was read.
func (f *frontier) reached() (asOf time.Time, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for partition, end := range f.ends {
		if f.read[partition] < end {
			return f.asOf, false
		}
	}
	if f.ends != nil {
		f.asOf, f.ends = f.at, nil
	}
	return f.asOf, true
}

// AsOf is a time up to which everything that was written to the table is in it; zero as long as it was not read to its end.
func (t *Table) AsOf() time.Time {
	if t.Ready() != nil {
		return time.Time{}
	}
	asOf, _ := t.frontier.reached()
	return asOf
}

// Fresh is nil if the table is up to date.
func (t *Table) Fresh(context.Context) error {
	if err := t.Ready(); err != nil {
		return err
	}
	asOf := t.AsOf()
	if asOf.IsZero() {
		return fmt.Errorf("table %s: it is not known how old what was read is", t.config.Table)
	}
	if age := t.config.Now().Sub(asOf); age > stale {
		return fmt.Errorf("table %s: what was read is %v old, must be at most %v", t.config.Table, age.Round(time.Second), stale)
	}
	return nil
}

// watch asks the brokers again and again where the table ends, until ctx ends. A request under way then outlives it, until it is answered
// or its time is out.
func (t *Table) watch(ctx context.Context) {
	tick := time.NewTicker(t.config.Pause)
	defer tick.Stop()
	var admin sarama.ClusterAdmin
	for ctx.Err() == nil {
		if err := t.look(&admin); err != nil {
			t.config.Logger.Debug("ask where a table ends", "table", t.config.Table, "error", err)
			if admin != nil { // sarama would go on answering with what was wrong first
				_ = admin.Close()
				admin = nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	if admin != nil {
		_ = admin.Close()
	}
}

// look asks once, unless what was asked for is still being read: a table that is always behind would never be known.
func (t *Table) look(admin *sarama.ClusterAdmin) error {
	if _, all := t.frontier.reached(); !all {
		return nil
	}
	if *admin == nil {
		c := *t.config.Kafka
		c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = answer, answer, answer
		opened, err := sarama.NewClusterAdmin(t.config.Brokers, &c)
		if err != nil {
			return fmt.Errorf("connect to brokers %q: %w", t.config.Brokers, err)
		}
		*admin = opened
	}
	partitions, err := t.partitions(*admin)
	if err != nil {
		return err
	}
	at := t.config.Now()
	ends, err := t.offsets(*admin, partitions, sarama.OffsetNewest)
	if err != nil {
		return err
	}
	starts, err := t.offsets(*admin, partitions, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	t.frontier.asked(at, starts, ends)
	return nil
}

func (t *Table) partitions(admin sarama.ClusterAdmin) (int32, error) {
	topics, err := admin.DescribeTopics([]string{t.config.Table})
	if err != nil {
		return 0, fmt.Errorf("describe table %s: %w", t.config.Table, err)
	}
	if len(topics) != 1 || len(topics[0].Partitions) == 0 {
		return 0, fmt.Errorf("describe table %s: there is none", t.config.Table)
	}
	return int32(len(topics[0].Partitions)), nil
}

// offsets are the first or next offsets of the table's partitions.
func (t *Table) offsets(admin sarama.ClusterAdmin, partitions int32, which int64) (map[int32]int64, error) {
	ask, offsets := map[int32]int64{}, map[int32]int64{}
	for id := range partitions { // Kafka numbers them from 0 without holes
		ask[id] = which
	}
	told, err := admin.ListOffsets(map[string]map[int32]int64{t.config.Table: ask}, nil)
	if err != nil {
		return nil, fmt.Errorf("ask where table %s ends: %w", t.config.Table, err)
	}
	for id, r := range told[t.config.Table] {
		if r.Err != nil && !errors.Is(r.Err, sarama.ErrNoError) {
			return nil, fmt.Errorf("ask where table %s/%d ends: %w", t.config.Table, id, r.Err)
		}
		offsets[id] = r.Offset
	}
	if len(offsets) < len(ask) {
		return nil, fmt.Errorf("ask where table %s ends: told of %d partitions of %d", t.config.Table, len(offsets), len(ask))
	}
	return offsets, nil
}
