// Package engine makes goka exact and fast. It runs one [Topology] as a goka processor group: it takes records in, folds
// them into per-key state, and in micro-checkpoints writes state to the group table, results to the output topic and
// positions to the group's offsets. It knows neither aircraft nor what a window holds: a topology hands it decode, key,
// time and fold.
//
// # The way of a record
//
//	claim ─▶ frame (what is there, never waits) ─▶ goka ─▶ partition.process, record by record:
//	   cannot be decoded ─▶ dead letter      belongs elsewhere ─▶ loop      redelivered ─▶ published again
//	   too late ─▶ late                      else ─▶ folded into the decoded state, marked dirty
//
//	every commit interval, for all partitions of the process, while folding goes on (checkpoint.go):
//	   1 cut: take the dirty states, their results, letters and re-keyed records, and the positions they stand at
//	   2 write states, re-keyed records and dead letters; wait until every one is acknowledged
//	   3 write results and late events; wait until every one is acknowledged
//	   4 commit the positions of the cut, with its watermarks in the commits' metadata
//
// Of many keys the states are written share by share, those of one share together with the results of the one before: a key is
// encoded in its share, as it is then, and so may hold events behind the cut, which a replay finds fenced (E3). What a watermark
// closes is emitted in the key's share, too.
//
// States are written before results so that a result is only ever published of a state that survives a crash. What a
// crashed run decided (late or not, which session merged with which) and published is in the table already, and its
// successor goes on from there, even where the order in which it reads its two partitions differs. The other way round a
// second run could decide differently from what the first had published. In exchange a state keeps what its results might
// still need until they are acknowledged: closed windows, withdrawn sessions, the coordinates of late events.
//
// # Invariants
//
// Numbered once, cited in code and tests.
//
//   - E1 A position is committed only when everything it caused is acknowledged. goka's own marks are ignored.
//   - E2 A failed checkpoint poisons everything behind it: nothing later is written or committed, whoever waits is woken,
//     the run ends even if no input arrives, and the supervisor starts a new one with back-off, from the log.
//   - E3 Fence: a state record holds, per source, the last offset applied. A redelivered record at or below it changes
//     nothing, but the state and its results are published again.
//   - E4 A purged window never reopens: a state record carries the watermark up to which it was purged; lateness is judged
//     against the larger of that and the partition's.
//   - E5 The watermark belongs to the position: it is read back from the commit's metadata.
//   - E6 State follows the log: a store is rebuilt from the changelog or kept with the changelog offset it stands at; of
//     two records of one key the one with the higher applied offset wins, and is written again if it is not the last;
//     where log and state contradict each other the run refuses to start and says what mends it.
//   - E7 One writer per destination partition keeps order and leaves no hole: one idempotent producer, one request in
//     flight. A writer that cannot prove its membership within half a session timeout does not write; what a
//     predecessor still got in, into the changelog or the output, the new owner finds, as a hole between its own writes,
//     and writes over; if it dies before it has, its own successor does, who looks from the last commit on.
//   - E8 Results are versioned: the revision of a window only grows and is the same function of its contents on every replay.
//
// # Map
//
//	topology.go    what a job says of itself                 config.go      settings, defaults, the sarama configuration and why
//	processor.go   the supervisor: runs, back-off, readiness run.go         one run: goka, the outbox, the partitions
//	group.go       the consumer group goka sees              frame.go       many records as one goka message
//	balance.go     which member has which partitions         recovery.go    reading changelogs to their end
//	clock.go       a partition's watermark, idleness         expiry.go      keys that may be forgotten
//	partition.go   one partition's keys, folding, timers     store.go       the partition as goka's table storage
//	checkpoint.go  cut, write, commit                        outbox.go      the idempotent producer
//	position.go    offsets and watermarks of the group       loop.go        records and watermarks between partitions
//	hash.go        which partition a key belongs to          metrics.go     what Prometheus sees
//	spool.go       records between cut and acknowledgement   guard.go       watch over what others write to the own logs
//	state.go       a group's state as it lies in the log     state_read.go  reading it
package engine
