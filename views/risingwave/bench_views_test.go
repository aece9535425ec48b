package risingwave_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/views"
	"klgstream.dev/views/viewtest"
)

const benchAircraft = 10_000

func benchRegistration(n int) string { return fmt.Sprintf("N%05d", n) }

// fillStore writes windows of ten thousand aircraft, hour by hour.
func fillStore(b *testing.B, s views.Store, windows int) {
	b.Helper()
	var batch views.Batch
	for i := range windows {
		w := viewtest.Window(benchRegistration(i%benchAircraft), int64(i/benchAircraft), 1+int64(i)%7)
		w.Final = i < windows-benchAircraft
		batch.Windows = append(batch.Windows, w)
		if len(batch.Windows) == benchAircraft || i == windows-1 {
			if err := s.Write(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
			batch.Windows = batch.Windows[:0]
		}
	}
	for i := range int64(1000) {
		batch.Late = append(batch.Late, viewtest.Letter(i, "late"))
		batch.Dead = append(batch.Dead, viewtest.Letter(i, []string{"not_json", "no_registration"}[i%2]))
	}
	batch.Windows = []codecs.Window(nil)
	if err := s.Write(b.Context(), batch); err != nil {
		b.Fatal(err)
	}
}

// asked are queries that readers make: every view as it is, and the orders and filters that people use.
func asked(all []views.View) map[string]func(*rand.Rand) views.Query {
	queries := map[string]func(*rand.Rand) views.Query{}
	for _, v := range all {
		queries[v.Name] = func(*rand.Rand) views.Query { return views.Query{View: v.Name} }
	}
	one := func(view string, order ...views.Order) func(*rand.Rand) views.Query {
		return func(r *rand.Rand) views.Query {
			return views.Query{View: view, Order: order, Filters: []views.Filter{{Column: "registration_number", Op: views.Equal, Value: benchRegistration(r.IntN(benchAircraft))}}}
		}
	}
	down := func(column string) views.Order { return views.Order{Column: column, Desc: true} }
	queries["aircraft_windows?registration_number"] = one("aircraft_windows")
	queries["aircraft_windows?registration_number&order=-window_start"] = one("aircraft_windows", down("window_start"))
	queries["aircraft_windows?order=-window_start"] = func(*rand.Rand) views.Query {
		return views.Query{View: "aircraft_windows", Order: []views.Order{down("window_start")}}
	}
	queries["aircraft_stats?registration_number"] = one("aircraft_stats")
	queries["aircraft_stats?order=-total_events"] = func(*rand.Rand) views.Query {
		return views.Query{View: "aircraft_stats", Order: []views.Order{down("total_events")}}
	}
	queries["aircraft_days?registration_number"] = one("aircraft_days")
	queries["last_seen?registration_number"] = one("last_seen")
	return queries
}

// BenchmarkViews tells how long four clients at once wait for a page of each view, over KLGSTREAM_BENCH_ROWS (a million) windows.
func BenchmarkViews(b *testing.B) {
	rows := 1_000_000
	if text := os.Getenv("KLGSTREAM_BENCH_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	stores(b, func(b *testing.B, name string, open func(b *testing.B) views.Store) {
		b.Run(name, func(b *testing.B) {
			s := open(b)
			began := time.Now()
			fillStore(b, s, rows)
			b.Logf("%s: %d windows written in %v", name, rows, time.Since(began))
			all, err := s.Views(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			queries := asked(all)
			for b.Loop() { // once: -benchtime=1x
				for _, what := range slices.Sorted(maps.Keys(queries)) {
					report(b, name+" "+what, s, queries[what])
				}
			}
		})
	})
}

// report asks for two seconds, or a hundred times, whichever takes longer; but no longer than twenty.
func report(b *testing.B, what string, s views.Store, query func(*rand.Rand) views.Query) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var took []time.Duration
	began := time.Now()
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			for i := 0; ctx.Err() == nil; i++ {
				if since := time.Since(began); since > 2*time.Second && i >= 25 || since > 20*time.Second {
					return
				}
				start := time.Now()
				if _, err := s.Query(ctx, query(random)); err != nil {
					b.Error(what, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	slices.SortFunc(took, cmp.Compare)
	b.Logf("%-65s %6d queries, p50 %8.2f ms, p99 %8.2f ms", what, len(took),
		float64(took[len(took)/2].Microseconds())/1000, float64(took[len(took)*99/100].Microseconds())/1000)
}
