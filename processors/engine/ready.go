package engine

import (
	"fmt"
	"slices"
	"time"
)

// recovering is what is missing while changelogs are read; what it says is counted when it is asked.
type recovering[E, S any] struct{ partitions []*partition[E, S] }

func (r *recovering[E, S]) Error() string {
	var partitions, records int64
	for _, p := range r.partitions {
		if n := p.remaining(); n > 0 {
			partitions++
			records += n
		}
	}
	return fmt.Sprintf("recovering: %d of %d partitions have %d records of their changelogs to read", partitions, len(r.partitions), records)
}

// remaining is how much of the changelog is to be read.
func (p *partition[E, S]) remaining() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.goal-1-p.table)
}

// unassigned is what is missing while the group has not said which partitions are this member's.
func (p *Processor) unassigned(why string) error {
	return fmt.Errorf("%s: group %q has given no partitions yet", why, p.job.group)
}

// stuckAfter is how long a checkpoint, or a partition that cannot be read, may take until the processor counts as stuck.
const stuckAfter = 10 * time.Second

// beat tells that the checkpointer of a generation with so many partitions is alive, and which of them cannot be read; at the zero time
// there is no generation.
func (p *Processor) beat(now time.Time, partitions int, unread error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive, p.assigned, p.unread = now, partitions, unread
}

// stuck is nil while all partitions can be read and checkpoints come to their ends. One that does not holds up everything: what is
// folded is not published.
func (p *Processor) stuck(now time.Time) error {
	if p.alive.IsZero() {
		return nil
	}
	if silent := now.Sub(p.alive); silent > stuckAfter+p.config.CommitInterval {
		return fmt.Errorf("stuck: no checkpoint has come to its end for %v; brokers do not acknowledge, or a partition does not go on", silent.Round(time.Second))
	}
	return p.unread
}

// unread are the partitions that brokers would not give out lately.
func (r *run[E, S]) unread(s *session[E, S], now time.Time) error {
	var ids []int32
	for _, p := range s.partitions {
		p.mu.Lock()
		if t := p.hands.troubled; !t.IsZero() && now.Sub(t) < stuckAfter {
			ids = append(ids, p.id)
		}
		p.mu.Unlock()
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return fmt.Errorf("stuck: partitions %v of %s or its loop cannot be read", ids, r.job.Input)
}

// Note is what is to be known of a processor that is ready.
func (p *Processor) Note() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.problem == nil && !p.alive.IsZero() && p.assigned == 0 {
		return "without partitions: the group has more members than the input has partitions"
	}
	return ""
}
