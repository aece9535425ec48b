package httpapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// committer is a group commit: requests that arrive while the broker is busy with earlier ones share the next Publish
// call, so a flood of single events costs about one call per round trip instead of one per request.
type committer struct {
	publisher Publisher
	timeout   time.Duration
	flights   int // Publish calls at once; with two, one gathers acknowledgements while the other is written
	events    int // at most in one call
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

// errBusy is a refusal before anything was published.
var errBusy = errors.New("too many events wait for the broker")

// publish returns when the broker has acknowledged all events, or has not in time. It does not heed the end of ctx: a
// client that leaves, or has only closed its half, changes nothing about events that wait together with others', and
// their bytes are held until the call is over.
func (c *committer) publish(ctx context.Context, p *post) error {
	c.mu.Lock()
	if c.held > 0 && c.held+len(p.events) > 16*c.events {
		c.mu.Unlock()
		return errBusy
	}
	c.waiting = append(c.waiting, p)
	c.held += len(p.events)
	lead := c.flying < c.flights
	var group []*post
	if lead {
		c.flying++
		group = c.take()
	}
	c.mu.Unlock()
	if lead {
		c.fly(context.WithoutCancel(ctx), group)
	}
	return <-p.done
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

// fly publishes one group, and leaves what has gathered meanwhile to a goroutine of its own, which ends when nobody waits.
func (c *committer) fly(ctx context.Context, group []*post) {
	c.send(ctx, group)
	if next := c.next(); next != nil {
		go func() {
			for ; next != nil; next = c.next() {
				c.send(ctx, next)
			}
		}()
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
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
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
