// Package chaos measures the promise that every event is counted exactly once in every window it belongs to, whatever
// crashes. It feeds processors with events, breaks what can be broken while they work, and compares every window of every
// aircraft with what the input log says.
//
// One implementation serves the tests of processors/engine and `klgstream bench chaos`.
//
// # A round
//
//	Workload ──▶ publish step by step ──▶ input topic ──▶ processors ──▶ output, late, dead letters
//	Schedule ──▶ inject after each step ──▶ broker, network, processors
//	heal, publish the flush ──▶ wait ──▶ read all topics ──▶ Truth of the input log ──▶ Check
//
// A round follows from its seed alone: what is published, which faults, in which order, behind which step. What does not
// follow from it is how goroutines and processes interleave, so a seed that failed once may have to be repeated.
//
// # Rules
//
//   - X1 The truth is computed from the input log, read back after the run; never from what the generator meant.
//   - X2 The truth shares no code with what is tested: its own decoder, its own window arithmetic.
//   - X3 In an exact round nothing can be late: every window must be right to the last field, and final.
//   - X4 In a tight round lateness may depend on timing; each event must still have exactly one fate.
//   - X5 Every fault is healed before the flush; what is wrong after that stays wrong.
//
// # Stores
//
// The product has no state on disk: a replica that starts, after a stop, a kill or a failed run, has nothing and reads its tables from
// their changelogs. What it keeps it keeps in memory: its partitions' tables over rebalances (a store that is kept), and with hot
// standbys copies of all others'. A restart with a store on disk is therefore no fault here; both of these are.
//
// # Clocks
//
// In this process a replica's clock is a function that the harness can set wrong. A program's is laid over its source when the tests
// build it (process_test.go, testdata/clock.go.txt): the program that is shipped has none of it, and `klgstream bench chaos --processes`,
// which strikes with the shipped one, steps no clocks.
//
// Time passes as on the wall, and session time-outs are short. In a bubble of testing/synctest, on kfake's network of pipes, one replica that
// nobody disturbs works; two do not: sarama holds its lock of a broker for the whole of a request, so that a heartbeat behind a fetch that
// waits for records waits for a mutex, and the clock of a bubble stands still while anybody does.
//
// # Map
//
//	workload.go  what is published         truth.go    what must come out        check.go    what is wrong with what came out
//	fault.go     the faults and schedules  wire.go     faults of connections     inject.go   faults on kfake and on replicas
//	stage.go     a broker with its topics  replica.go  processors in this process process.go  processors and brokers in others
//	stored.go    what the sinks' store must show
//	round.go     one round                 campaign.go many rounds, shrinking    table.go    results as a table
package chaos
