package httpapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// committer is a group commit: requests that arrive while the broker is busy with earlier ones share the next Publish
// call, so a flood of single events costs about one call per round trip instead of one per request.
type committer struct {
	publisher Publisher
	timeout   time.Duration // of the one who waits
	limit     time.Duration // of a Publish call; it goes on when nobody waits any more, to learn what became of the events
	flights   int           // Publish calls at once; with two, one gathers acknowledgements while the other is written
	events    int           // at most in one call
	size      prometheus.Observer

	mu      sync.Mutex
	waiting []*post
	held    int // events in waiting
	flying  int
}

// post is one request's events on their way.
type post struct {
	events []Event
	done   chan error // capacity 1, answered once
}

var (
	// errBusy is a refusal before anything was published.
	errBusy = errors.New("too many events wait for the broker")
	// errSlow is an answer that did not come in time. It comes later to post.done.
	errSlow = errors.New("the broker has not acknowledged the events in time")
)

// publish returns when the broker has acknowledged all events, or has not in time: errSlow if it still may. It does not heed the
// end of ctx: a client that leaves, or has only closed its half, changes nothing about events that wait together with others'.
func (c *committer) publish(ctx context.Context, p *post) error {
	c.mu.Lock()
	if c.held > 0 && c.held+len(p.events) > 16*c.events {
		c.mu.Unlock()
		return errBusy
	}
	c.waiting = append(c.waiting, p)
	c.held += len(p.events)
	if c.flying < c.flights {
		c.flying++
		go c.fly(context.WithoutCancel(ctx), c.take())
	}
	c.mu.Unlock()
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case err := <-p.done:
		return err
	case <-timer.C:
	}
	if c.withdraw(p) {
		return errBusy
	}
	return errSlow
}

// withdraw takes events back that were not given to the publisher yet.
func (c *committer) withdraw(p *post) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.waiting, p)
	if i < 0 {
		return false
	}
	c.waiting = append(slices.Clone(c.waiting[:i]), c.waiting[i+1:]...) // groups under way have parts of the old one
	c.held -= len(p.events)
	return true
}

// take removes the next group, at least one post, from those waiting. The lock is held.
func (c *committer) take() []*post {
	n, events := 0, 0
	for n < len(c.waiting) && (n == 0 || events+len(c.waiting[n].events) <= c.events) {
		events += len(c.waiting[n].events)
		n++
	}
	group := c.waiting[:n:n]
	c.held -= events
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
	}
	return group
}

// fly publishes one group after another and ends when nobody waits.
func (c *committer) fly(ctx context.Context, group []*post) {
	for ; group != nil; group = c.next() {
		c.send(ctx, group)
	}
}

// next returns the next group, or gives up this flight's place.
func (c *committer) next() []*post {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.flying--
		return nil
	}
	return c.take()
}

func (c *committer) send(ctx context.Context, group []*post) {
	events := group[0].events
	if len(group) > 1 {
		events = make([]Event, 0, len(group)*len(events))
		for _, p := range group {
			events = append(events, p.events...)
		}
	}
	if c.size != nil {
		c.size.Observe(float64(len(events)))
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	err := c.call(ctx, events)
	cancel()
	for _, p := range group {
		p.done <- err
	}
}

// call keeps a panic of the publisher from those who wait: without an answer they would wait for ever.
func (c *committer) call(ctx context.Context, events []Event) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("publisher panicked: %v", fault)
		}
	}()
	return c.publisher.Publish(ctx, events)
}
