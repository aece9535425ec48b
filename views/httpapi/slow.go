package httpapi

import (
	"context"
	"sync"
	"time"

	"klgstream.dev/views"
)

const (
	// slowAnswer is from when on an answer took the store long. What is faster is always asked anew.
	slowAnswer = 20 * time.Millisecond
	// askAgain and stillGood are ages of a slow answer, as multiples of what it took: from the first on it is asked again
	// behind the client's back, so it costs the store a quarter of one connection at most; until the second it is given.
	askAgain, stillGood = 3, 10
	// maxSlow is how many slow answers are kept.
	maxSlow = 64
	// maxSlowBytes is about how large an answer may be to be kept.
	maxSlowBytes = 1 << 20
)

// slowAnswers keeps the answers that take the store long, such as a total over a million windows where nothing keeps
// totals: the next who asks gets the last answer at once, and however many ask while it is good, the store is asked by one at a
// time. No answer is given that is older than one given before.
type slowAnswers struct {
	now     func() time.Time
	timeout time.Duration // of a query

	mu     sync.Mutex
	known  map[string]*slowOne
	flying map[string]*flight // questions under way
}

// flight is a question that is asked, maybe several times at once.
type flight struct {
	asked  int
	newest time.Time // when that was asked which was asked last of those answered
}

type slowOne struct {
	result views.Result
	at     time.Time     // when it was asked
	took   time.Duration // until it was there
	asking bool
}

func newSlowAnswers(timeout time.Duration, now func() time.Time) *slowAnswers {
	return &slowAnswers{now: now, timeout: timeout, known: map[string]*slowOne{}, flying: map[string]*flight{}}
}

// query asks the store, unless it has a slow answer that is still good. age is how old the answer is.
func (s *slowAnswers) query(ctx context.Context, store views.Store, key string, q views.Query) (result views.Result, age time.Duration, err error) {
	s.mu.Lock()
	if one := s.known[key]; one != nil {
		age = s.now().Sub(one.at)
		if age <= stillGood*one.took {
			if age >= askAgain*one.took && !one.asking {
				one.asking = true
				go s.renew(context.WithoutCancel(ctx), store, key, q) // it ends with its time-out
			}
			defer s.mu.Unlock()
			return one.result, age, nil
		}
		delete(s.known, key)
	}
	s.mu.Unlock()
	result, err = s.ask(ctx, store, key, q)
	return result, 0, err
}

func (s *slowAnswers) renew(ctx context.Context, store views.Store, key string, q views.Query) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.ask(ctx, store, key, q); err != nil { // who asks when this one is no longer good is told
		s.mu.Lock()
		defer s.mu.Unlock()
		if one := s.known[key]; one != nil {
			one.asking = false
		}
	}
}

// ask asks the store and keeps the answer if it was slow.
func (s *slowAnswers) ask(ctx context.Context, store views.Store, key string, q views.Query) (views.Result, error) {
	start := s.now()
	f := s.take(key)
	defer s.land(key, f)
	result, err := store.Query(ctx, q)
	if err != nil {
		return result, err
	}
	took := s.now().Sub(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	if start.Before(f.newest) {
		return result, nil // one that was asked later is given already
	}
	f.newest = start
	delete(s.known, key)
	if took < slowAnswer || result.Bytes() > maxSlowBytes {
		return result, nil
	}
	if len(s.known) >= maxSlow {
		s.sweep()
	}
	s.known[key] = &slowOne{result: result, at: start, took: took}
	return result, nil
}

// take counts a question as under way, land as answered.
func (s *slowAnswers) take(key string) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flying[key]
	if f == nil {
		f = &flight{}
		s.flying[key] = f
	}
	f.asked++
	return f
}

func (s *slowAnswers) land(key string, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.asked--; f.asked == 0 {
		delete(s.flying, key)
	}
}

// sweep forgets what is no longer good, or everything if that is not enough. The lock is held.
func (s *slowAnswers) sweep() {
	for key, one := range s.known {
		if s.now().Sub(one.at) > stillGood*one.took {
			delete(s.known, key)
		}
	}
	if len(s.known) >= maxSlow {
		clear(s.known)
	}
}
