package httpapi

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// idempotency remembers what was answered to each Idempotency-Key, per client, in this process: a repeat of an
// acknowledged request gets the first answer instead of being published again, and one whose acknowledgement is late has to wait
// for it. It is bounded in number and age, and not
// shared between replicas: route a client's retries to the replica that took the first try, or count on the window
// being short.
type idempotency struct {
	ttl time.Duration
	max int
	now func() time.Time

	mu    sync.Mutex
	known map[idempotencyKey]*list.Element
	order *list.List // of *attempt, oldest first
}

type idempotencyKey struct{ client, key string }

// attempt is one key's first request.
type attempt struct {
	key    idempotencyKey
	body   [sha256.Size]byte
	born   time.Time
	done   bool
	answer any
}

func newIdempotency(ttl time.Duration, limit int, now func() time.Time) *idempotency {
	return &idempotency{ttl: ttl, max: limit, now: now, known: map[idempotencyKey]*list.Element{}, order: list.New()}
}

// verdict is what a request with an Idempotency-Key is.
type verdict uint8

const (
	verdictFirst  verdict = iota // go on, then settle
	verdictRepeat                // same request, answered before
	verdictBusy                  // same request, still under way
	verdictMisuse                // the key was used for another body
	verdictFull                  // as many first requests under way as there is room for
)

// begin judges a request. On verdictFirst the attempt is returned for settle, on verdictRepeat with its answer.
func (i *idempotency) begin(client, key string, body []byte) (verdict, *attempt) {
	k := idempotencyKey{client, key}
	sum := sha256.Sum256(body)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.expire()
	if e, ok := i.known[k]; ok {
		a := e.Value.(*attempt)
		switch {
		case a.body != sum:
			return verdictMisuse, nil
		case !a.done:
			return verdictBusy, nil
		}
		return verdictRepeat, a
	}
	if !i.room() {
		return verdictFull, nil
	}
	a := &attempt{key: k, body: sum, born: i.now()}
	i.known[k] = i.order.PushBack(a)
	return verdictFirst, a
}

// settle keeps the answer of a first request that was acknowledged, or forgets the key so that the client may try again.
func (i *idempotency) settle(a *attempt, acknowledged bool, answer any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	e, ok := i.known[a.key]
	if !ok || e.Value.(*attempt) != a {
		return
	}
	if !acknowledged {
		i.forget(e)
		return
	}
	a.done, a.answer = true, answer
}

// expire forgets what is too old. A request under way is never forgotten: its repeat would be published twice.
func (i *idempotency) expire() {
	limit := i.now().Add(-i.ttl)
	for e := i.order.Front(); e != nil; {
		a := e.Value.(*attempt)
		if a.born.After(limit) {
			return
		}
		next := e.Next()
		if a.done {
			i.forget(e)
		}
		e = next
	}
}

// room makes a place by forgetting the oldest settled key.
func (i *idempotency) room() bool {
	if len(i.known) < i.max {
		return true
	}
	for e := i.order.Front(); e != nil; e = e.Next() {
		if e.Value.(*attempt).done {
			i.forget(e)
			return true
		}
	}
	return false
}

func (i *idempotency) forget(e *list.Element) {
	i.order.Remove(e)
	delete(i.known, e.Value.(*attempt).key)
}
