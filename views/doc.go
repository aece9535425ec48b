// Package views is what a reader may ask of the results, and what a store of results promises.
//
// A [Store] keeps the rows that processors publish: one row per window, one per late event, one per dead letter. Readers
// never see those tables; they see views: named, described relations ([View]) asked through a [Query]. A query names
// columns and values, never SQL, so what reaches a database is built from checked names and bound arguments only.
//
// # The promise of a store
//
//   - S1 Write returns after its rows are durable: a crash right after loses none of them.
//   - S2 Of two rows for one window the higher revision stays, in whatever order and however often they come.
//   - S3 A withdrawn window keeps its row, and views hide it, so a stale repeat cannot bring it back.
//   - S4 A late event or a dead letter is one row per source topic, partition and offset, however often it comes.
//   - S5 Paging with cursors over rows that do not change shows every row exactly once.
//   - S6 [Retryable] tells a database that is away from a row that it will never take.
//
// The exam for them is package viewtest; package sqlite and package risingwave sit it.
//
// # Views are files
//
// A view is one SELECT in a file named after it, headed by comments that describe the view and each column (see
// [ParseView]). [Shared] has the ones that every dialect reads alike; a store adds its own, an operator adds a directory.
package views
