package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kmsg"

	"klgstream.dev/processors/engine"
)

// cable is all the connections of one replica. Cut, it leaves the replica as kill -9 does: nothing it does reaches anybody any
// more, and nobody is told.
type cable struct {
	// before is asked before a request is sent, and may cut the cable. Default none.
	before func(key kmsg.Key)

	mu    sync.Mutex
	gone  bool
	conns []net.Conn
}

// cabled are connection settings over the cable.
func (c *cable) cabled() *sarama.Config {
	s := sarama.NewConfig()
	s.Net.Proxy.Enable, s.Net.Proxy.Dialer = true, c
	return s
}

// Dial opens one connection.
func (c *cable) Dial(network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, net.ErrClosed
	}
	conn, err := net.Dial(network, address) //nolint:noctx // as the dialer's interface has it
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return strand{conn, c}, err
}

// cut ends all connections, for good.
func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for _, conn := range c.conns {
		_ = conn.Close() // it may be closed already
	}
}

// strand is one connection; a request is written in one call: its length, then its key.
type strand struct {
	net.Conn
	cable *cable
}

func (s strand) Write(p []byte) (int, error) {
	if s.cable.before != nil && len(p) >= 6 {
		s.cable.before(kmsg.Key(binary.BigEndian.Uint16(p[4:])))
	}
	return s.Conn.Write(p)
}

// witness notes which payments a replica reads, and when its checkpoints were committed. A payment's cents are its number.
type witness struct {
	seen func(number int64) // called first, by several partitions at once. Default none

	mu        sync.Mutex
	read      map[int64]time.Time // when last
	committed int                 // checkpoints
	since     time.Time           // when the last of them began
	deferred  int                 // checkpoints since that were written and not committed
}

// job is the ledger under the witness's eyes.
func (s *witness) job() engine.Job[payment, total] {
	job := ledgerJob()
	job.New = func() engine.Topology[payment, total] { return watched{s: s} }
	return job
}

type watched struct {
	ledgerTopology
	s *witness
}

func (w watched) Decode(dst *payment, r *engine.Record) error {
	err := w.ledgerTopology.Decode(dst, r)
	if err != nil {
		return err
	}
	if w.s.seen != nil {
		w.s.seen(dst.cents)
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.read == nil {
		w.s.read = make(map[int64]time.Time)
	}
	w.s.read[dst.cents] = time.Now()
	return nil
}

// checkpointed is the engine's account of its checkpoints.
func (s *witness) checkpointed(c engine.Checkpointed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.Committed:
		s.committed, s.since, s.deferred = s.committed+1, c.Began, 0
	case c.Err == nil:
		s.deferred++
	}
}

func (s *witness) commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed
}

// stream publishes payments to where their accounts are at home, without a pause, until it is stopped; it returns the totals.
func (w *world) stream(accounts int) (stop func() map[string]string) {
	w.Helper()
	p, err := sarama.NewSyncProducerFromClient(w.client)
	if err != nil {
		w.Fatal(err)
	}
	end, done := make(chan struct{}), make(chan error, 1)
	cents, count := make([]int, accounts), make([]int, accounts)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-end:
				done <- p.Close()
				return
			default:
			}
			a := n % accounts
			name := fmt.Sprintf("acc%d", a)
			cents[a], count[a] = cents[a]+n, count[a]+1
			m := &sarama.ProducerMessage{
				Topic: "payments", Partition: engine.PartitionOf([]byte(name), w.n), Key: sarama.StringEncoder(name),
				Value: sarama.StringEncoder(fmt.Sprintf("%s %d %d", name, n, 1_000_000+n)),
			}
			if _, _, err := p.SendMessage(m); err != nil {
				done <- errors.Join(err, p.Close())
				return
			}
		}
	}()
	return func() map[string]string {
		w.Helper()
		close(end)
		if err := <-done; err != nil {
			w.Fatal(err)
		}
		want := make(map[string]string)
		for a := range accounts {
			if count[a] > 0 {
				want[fmt.Sprintf("acc%d", a)] = fmt.Sprintf("%d/%d", cents[a], count[a])
			}
		}
		return want
	}
}

// A replica is killed in the middle of steady traffic, while it folds or when all is written and only the commit is missing. What
// its successor reads again it had read since its last committed checkpoint began: one commit interval, and no more.
func TestKillReplaysOneCommitIntervalAtMost(t *testing.T) {
	t.Parallel()
	for name, commit := range map[string]bool{"while it folds": false, "before it commits": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			stop := w.stream(20)
			var readers []*witness
			start := func(c *cable) {
				s := &witness{}
				readers = append(readers, s)
				if c != nil && !commit {
					var after atomic.Int32 // partitions fold at once
					s.seen = func(int64) {
						if s.commits() >= 3 && after.Add(1) == 7 {
							c.cut()
						}
					}
				}
				if c != nil && commit {
					c.before = func(key kmsg.Key) {
						if key == kmsg.OffsetCommit && s.commits() >= 3 {
							c.cut()
						}
					}
				}
				end, _ := w.processJob(s.job(), func(e *engine.Config) {
					e.InstanceID, e.CommitInterval, e.Checkpointed, e.WriteTimeout = "one", 30*time.Millisecond, s.checkpointed, 300*time.Millisecond
					e.Logger = slog.New(slog.DiscardHandler)
					if c != nil {
						e.Kafka = c.cabled()
					}
				})
				if c != nil {
					eventually(t, "the replica is killed", c.isGone)
					go func() { _ = end() }() // what it says of its end is of no matter
				}
			}
			for range 4 {
				start(&cable{})
			}
			start(nil)
			w.totals(stop())
			replayed := 0
			for i, dead := range readers[:len(readers)-1] {
				replayed += dead.judge(t, readers[i+1:])
			}
			if replayed == 0 {
				t.Error("nothing was read again: nobody was killed in the middle of anything")
			}
		})
	}
}

func (c *cable) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// judge compares what a killed replica had read with what all after it read, and returns how much of it that is.
func (s *witness) judge(t *testing.T, later []*witness) (again int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	early, since := 0, 0
	for number, at := range s.read {
		before := at.Before(s.since)
		if !before {
			since++
		}
		if slices.ContainsFunc(later, func(o *witness) bool { return o.has(number) }) {
			again++
			if before {
				early++
			}
		}
	}
	t.Logf("%d records read, %d of them since the last of %d committed checkpoints began; %d were read again", len(s.read), since, s.committed, again)
	if early > 0 || s.deferred > 0 {
		t.Errorf("%d records were read again, %d of them from before the last committed checkpoint; %d checkpoints were not committed", again, early, s.deferred)
	}
	return again
}

func (s *witness) has(number int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.read[number]
	return ok
}
