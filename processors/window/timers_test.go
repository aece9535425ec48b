package window

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTimers compares with a map of due times: each key fires at the first watermark that has reached its earliest due, once.
func TestTimers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var timers Timers[int]
		alarms := make([]Alarm, 5)
		pending := map[int]int64{}
		schedule := func(key int, due int64) {
			timers.Schedule(key, &alarms[key], due)
			due = max(due, math.MinInt64+1) // nothing is due before there is a watermark
			if old, ok := pending[key]; due != Never && (!ok || due < old) {
				pending[key] = due
			}
		}
		anyTime := rapid.OneOf(rapid.Int64Range(-5000, 5000), rapid.Int64Range(-20, 20), rapid.SampledFrom([]int64{math.MinInt64, Never - 1, Never}))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "schedule") {
				schedule(rapid.IntRange(0, len(alarms)-1).Draw(t, "key"), anyTime.Draw(t, "due"))
				continue
			}
			watermark := anyTime.Draw(t, "watermark")
			var due []int
			for key, at := range pending {
				if at <= watermark {
					due = append(due, key)
				}
			}
			again := rapid.Bool().Draw(t, "again")
			var got []int
			timers.Advance(watermark, func(key int, at int64) {
				if at > watermark {
					t.Fatalf("key %d fires at %d, is due at %d", key, watermark, at)
				}
				if !alarms[key].Ring(at) {
					return
				}
				got = append(got, key)
				if at != pending[key] {
					t.Fatalf("key %d rings for %d, is due at %d", key, at, pending[key])
				}
				delete(pending, key)
				if again && watermark < Never-1 {
					schedule(key, watermark+1)
				}
			})
			slices.Sort(due)
			slices.Sort(got)
			if !slices.Equal(got, due) {
				t.Fatalf("at %d keys %v fire, want %v", watermark, got, due)
			}
		}
	})
}

// TestTimersFireInOrder: buckets fire in order, and keys of one bucket do if not all of them fire.
func TestTimersFireInOrder(t *testing.T) {
	var timers Timers[int64]
	alarms := map[int64]*Alarm{}
	for _, due := range []int64{700, 100, 1000, 300, 5000, 3000, 900, 200, 800, 400, 600, 500} {
		alarms[due] = new(Alarm)
		timers.Schedule(due, alarms[due], due)
	}
	var got []int64
	for _, watermark := range []int64{99, 350, 350, 850, 9000} {
		timers.Advance(watermark, func(key, due int64) { got = append(got, due) })
		got = append(got, -watermark)
	}
	want := []int64{-99, 100, 200, 300, -350, -350, 400, 500, 600, 700, 800, -850, 900, 1000, 3000, 5000, -9000}
	if !slices.Equal(got, want) {
		t.Errorf("fired %v, want %v", got, want)
	}
}

// TestTimersWait: what is scheduled while others fire waits for the next Advance, though it be due.
func TestTimersWait(t *testing.T) {
	var timers Timers[string]
	var alarm Alarm
	timers.Schedule("a", &alarm, 5)
	for range 3 {
		fired := 0
		timers.Advance(10, func(key string, due int64) {
			fired++
			if !alarm.Ring(due) || alarm.Ring(due) {
				t.Fatal("an entry rings once")
			}
			timers.Schedule(key, &alarm, 5)
			timers.Schedule(key, &alarm, 5)
		})
		if fired != 1 {
			t.Fatalf("fired %d times", fired)
		}
	}
}

// TestTimersLetGo: what has fired is not held in memory, and no more buckets are kept than the bound.
func TestTimersLetGo(t *testing.T) {
	var timers Timers[*int]
	for i := range 100 {
		timers.Schedule(new(int), new(Alarm), int64(i)*5000+int64(i%2))
		timers.Schedule(new(int), new(Alarm), int64(i)*5000+7)
	}
	fired := 0
	for i := range 100 {
		timers.Advance(int64(i)*5000+3, func(key *int, _ int64) { fired++ })
	}
	timers.Advance(1<<40, func(*int, int64) { fired++ })
	if fired != 200 || len(timers.buckets) != 0 || len(timers.times.items) != 0 || len(timers.near.items) != 0 || len(timers.spare) != maxSpare {
		t.Errorf("%d fired, left %+v", fired, timers)
	}
	for _, entries := range [][]entry[*int]{timers.ready, timers.near.items, timers.spare[0].entries} {
		for _, e := range entries[:cap(entries)] {
			if e.key != nil {
				t.Fatal("a fired key is still referred to")
			}
		}
	}
}

func TestHeap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h heap[int64]
		in := rapid.SliceOf(rapid.Int64Range(0, 50)).Draw(t, "items")
		for _, item := range in {
			h.push(item, lessTime)
		}
		var out []int64
		for range in {
			out = append(out, h.pop(lessTime))
		}
		slices.Sort(in)
		if !slices.Equal(in, out) {
			t.Fatalf("popped %v", out)
		}
	})
}

func TestTimersMove(t *testing.T) {
	t.Parallel()
	var q Timers[string]
	alarms := map[string]*Alarm{"later": {}, "earlier": {}, "same": {}, "never": {}}
	for key, a := range alarms {
		q.Schedule(key, a, 5000)
	}
	q.Move("later", alarms["later"], 9000)
	q.Move("earlier", alarms["earlier"], 1000)
	q.Move("same", alarms["same"], 5000)
	q.Move("never", alarms["never"], Never)
	for _, step := range []struct {
		watermark int64
		fires     []string
	}{{1000, []string{"earlier"}}, {8999, []string{"same"}}, {20000, []string{"later"}}, {math.MaxInt64 - 1, nil}} {
		var fired []string
		q.Advance(step.watermark, func(key string, due int64) {
			if alarms[key].Ring(due) {
				fired = append(fired, key)
			}
		})
		if !slices.Equal(fired, step.fires) {
			t.Errorf("at %d: %v, not %v", step.watermark, fired, step.fires)
		}
	}
}
