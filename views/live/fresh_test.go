package live

import (
	"context"
	"testing"
	"time"
)

// What is known is known as of when the end was asked for, once all of it was read, and not before.
func TestFrontier(t *testing.T) {
	t.Parallel()
	f := frontier{read: map[int32]int64{}}
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	check := func(second int64, all bool) {
		t.Helper()
		if got, done := f.reached(); done != all || second > 0 && !got.Equal(at(second)) || second == 0 && !got.IsZero() {
			t.Errorf("as of %v, all read: %v; want second %d, %v", got, done, second, all)
		}
	}
	check(0, true)
	f.asked(at(1), map[int32]int64{0: 0, 1: 7, 2: 0}, map[int32]int64{0: 2, 1: 7, 2: 0}) // of 1 and 2 there is nothing to read
	check(0, false)
	f.took(0, 0)
	check(0, false)
	f.took(0, 1)
	check(1, true)
	f.asked(at(2), map[int32]int64{0: 0}, map[int32]int64{0: 2})
	check(2, true)
	f.asked(at(3), map[int32]int64{0: 0, 1: 7}, map[int32]int64{0: 2, 1: 8})
	f.took(0, 5)
	check(2, false)
	f.took(1, 7)
	check(3, true)
}

// Nobody who waited in vain is remembered: a client can ask for any number of aircraft.
func TestNobodyWaitsForEver(t *testing.T) {
	t.Parallel()
	table := NewTable(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	never := func([]byte) bool { return false }
	if err := table.Await(ctx, "N1", never); err == nil {
		t.Error("it came")
	}
	if err := table.Await(ctx, "N2", func([]byte) bool { return true }); err != nil {
		t.Error(err)
	}
	waits := make(chan error)
	go func() {
		waits <- table.Await(t.Context(), "N3", func(value []byte) bool {
			if value == nil {
				go table.change("N3", []byte("x"))
			}
			return value != nil
		})
	}()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	if n := len(table.waiting); n > 0 {
		t.Errorf("%d keys are waited for by nobody", n)
	}
}
