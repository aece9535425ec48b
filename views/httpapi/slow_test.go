package httpapi

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"klgstream.dev/views"
)

// laggard is a store that takes its time, and numbers its answers.
type laggard struct {
	views.Store
	takes time.Duration
	asked int
	fail  error
}

func (l *laggard) Query(ctx context.Context, q views.Query) (views.Result, error) {
	l.asked++
	n := l.asked
	select {
	case <-time.After(l.takes):
		return views.Result{View: q.View, Rows: [][]any{{int64(n)}}}, l.fail
	case <-ctx.Done():
		return views.Result{}, ctx.Err()
	}
}

// An answer that took 3 s is given again at once, asked anew behind the clients' backs after 9 s, and never given when it is
// older than 30 s; a store that fails meanwhile is told of then.
func TestSlowAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &laggard{takes: 3 * time.Second}
		s := newSlowAnswers(10*time.Second, time.Now)
		begin := time.Now()
		expect := func(at time.Duration, answer int64, waits time.Duration) {
			t.Helper()
			time.Sleep(at - time.Since(begin)) //nolint:forbidigo // the bubble's clock jumps
			start := time.Now()
			result, age, err := s.query(t.Context(), l, "k", views.Query{View: "v"})
			if err != nil || result.Rows[0][0] != answer || time.Since(start) != waits {
				t.Errorf("at %v: answer %v aged %v after %v, error %v; want %d after %v", at, result.Rows, age, time.Since(start), err, answer, waits)
			}
		}
		expect(0, 1, 3*time.Second)
		expect(4*time.Second, 1, 0)
		expect(9*time.Second, 1, 0)  // asks again
		expect(10*time.Second, 1, 0) // while it is asked
		expect(13*time.Second, 2, 0)
		if l.asked != 2 {
			t.Errorf("asked %d times, want 2", l.asked)
		}
		expect(60*time.Second, 3, 3*time.Second) // too old
		l.fail = errors.New("away")
		expect(70*time.Second, 3, 0) // asks again in vain
		expect(75*time.Second, 3, 0)
		time.Sleep(30 * time.Second) //nolint:forbidigo // the bubble's clock jumps
		if _, _, err := s.query(t.Context(), l, "k", views.Query{}); err == nil {
			t.Error("an answer of 45 s ago is given for one of a store that fails")
		}
	})
}

// A fast answer is never kept, and slow ones only in a bounded number.
func TestSlowAnswersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &laggard{takes: slowAnswer - 1}
		s := newSlowAnswers(10*time.Second, time.Now)
		for range 2 {
			_, _, _ = s.query(t.Context(), l, "k", views.Query{})
		}
		if l.asked != 2 || len(s.known) != 0 {
			t.Errorf("asked %d times, want 2; %d kept", l.asked, len(s.known))
		}
		l.takes = time.Second
		for i := range 3 * maxSlow {
			_, _, _ = s.query(t.Context(), l, fmt.Sprint(i), views.Query{})
			if len(s.known) > maxSlow {
				t.Fatalf("%d answers are kept, at most %d may be", len(s.known), maxSlow)
			}
		}
	})
}

// Of two answers that are asked for at once, the one asked later stays, whichever comes first and however fast it was: no client
// sees a count go back.
func TestSlowAnswersDoNotGoBack(t *testing.T) {
	t.Parallel()
	for _, takes := range []time.Duration{2 * time.Second, time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			s := newSlowAnswers(10*time.Second, time.Now)
			old, recent := &laggard{takes: 5 * time.Second}, &laggard{takes: takes, asked: 1}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _, _ = s.query(t.Context(), old, "k", views.Query{View: "v"})
			}()
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock jumps
			if result, _, err := s.query(t.Context(), recent, "k", views.Query{View: "v"}); err != nil || result.Rows[0][0] != int64(2) {
				t.Fatalf("answer %v, error %v, want 2", result.Rows, err)
			}
			<-done
			if result, age, err := s.query(t.Context(), recent, "k", views.Query{View: "v"}); err != nil || result.Rows[0][0] == int64(1) {
				t.Errorf("then answer %v aged %v, error %v: it is older than one given before", result.Rows, age, err)
			}
			synctest.Wait()
			if len(s.flying) != 0 {
				t.Errorf("%d questions are under way", len(s.flying))
			}
		})
	}
}
