package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// words says in words what a kind of fault does.
var words = map[string]string{
	CutBefore: "connection cut before the broker has the request", CutAfter: "connection cut before the answer arrives (lost acknowledgement)",
	HoldBefore: "request delayed, then delivered", HoldAfter: "answer delayed", Refuse: "broker answers with an error",
	Slow: "every answer late", Stall: "broker deaf for a while", MoveLeader: "a partition's leader moves", ShuffleLeaders: "all leaders move",
	MoveCoordinator: "the group's coordinator moves", Compact: "group table compacted", RestartBroker: "broker restarted on its log",
	KillBroker: "broker killed (SIGKILL) and started again", PauseBroker: "broker stopped (SIGSTOP) and continued", Stop: "replica stopped in order (SIGTERM) and replaced",
	Kill: "replica killed (SIGKILL) and replaced", Pause: "replica paused (SIGSTOP) within or beyond its session",
	Zombie: "replica's writes held until its partitions are another's, then delivered", Join: "one more replica joins", Leave: "a replica leaves",
	Revoke: "rebalance while a write is held", RestartAll: "all replicas killed at once, table compacted, started with nothing",
	KillSink: "sink killed (SIGKILL) and replaced", StopSink: "sink stopped in order (SIGTERM) and replaced",
	PauseSink: "sink paused (SIGSTOP)", FullDisk: "no room for the sink's store for a while (RLIMIT_FSIZE)",
	Storm: "rebalances, one after the other, for a while", Retain: "input and loop deleted as far as they are counted (retention)",
	Tail:      "the end of the group table hidden from its readers (an aborted write)",
	StepClock: "a replica's clock steps, by up to 12 h, forward or back",
}

// count is what struck under one heading.
type count struct {
	faults, rounds, failed int
	requests               map[string]int
}

// Table is what came of rounds as a Markdown table: one row per kind of fault, and what all rounds together held.
func Table(reports []Report) string {
	rows := make(map[string]*count)
	for i := range reports {
		tabulate(rows, &reports[i])
	}
	kinds := make([]string, 0, len(rows))
	for k := range rows {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(cmp.Compare(rows[b].faults, rows[a].faults), cmp.Compare(a, b))
	})
	var b strings.Builder
	b.WriteString("| fault | of | times | rounds | of them not exact |\n|---|---|--:|--:|--:|\n")
	for _, k := range kinds {
		c := rows[k]
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d |\n", words[k], c.most(), c.faults, c.rounds, c.failed)
	}
	b.WriteString(total(reports))
	return b.String()
}

func tabulate(rows map[string]*count, r *Report) {
	seen := make(map[string]bool)
	for _, f := range r.Round.Schedule {
		c := rows[f.Kind]
		if c == nil {
			c = &count{requests: make(map[string]int)}
			rows[f.Kind] = c
		}
		c.faults++
		if f.Request != "" {
			c.requests[f.Request]++
		}
		if !seen[f.Kind] {
			seen[f.Kind] = true
			c.rounds++
			if r.Failed() {
				c.failed++
			}
		}
	}
}

// most are the requests that were struck, the most frequent first.
func (c *count) most() string {
	names := make([]string, 0, len(c.requests))
	for n := range c.requests {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.requests[b], c.requests[a]), cmp.Compare(a, b))
	})
	return strings.Join(names, ", ")
}

// total is the last row and the sentence below the table.
func total(reports []Report) string {
	var faults, failed, events, windows, results, late, dead int
	wrong := make(map[string]int)
	for i := range reports {
		r := &reports[i]
		faults, events, windows, results = faults+r.Struck, events+r.Published, windows+r.Windows, results+r.Records
		late, dead = late+r.Late, dead+r.Dead
		if r.Failed() {
			failed++
		}
		for _, v := range r.Violations {
			wrong[v.Kind]++
		}
	}
	return fmt.Sprintf("| **all** | | **%d** | **%d** | **%d** |\n\n%d events, %d windows compared field by field, %d results, %d late and %d dead letters: %d lost, %d doubled.\n",
		faults, len(reports), failed, events, windows, results, late, dead, wrong["lost"], wrong["doubled"])
}
