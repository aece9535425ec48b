// Package window is the window operator: it assigns events to windows of event time, keeps what is open, and says what a watermark closes.
//
// It knows no broker, no clock and no goroutine. The caller brings events, watermarks and one [State] per key and definition, and gets
// results through a yield function; it stores, publishes and counts.
//
// Invariants, cited by number in code and tests:
//
//	W1  A span is half-open: [Start, End). Its last instant is End−1 ms.
//	W2  A watermark never goes back.
//	W3  A window closes at close(w) = w.End − 1 + AllowedLateness. An event is late for w when the watermark before it, or the one at
//	    which this key was last purged, has reached close(w). A closed window never changes and never reopens.
//	W4  An event updates one slice. Windows are put together from slices when they are yielded.
//	W5  Revision = 2·Count + (1 if final or withdrawn): the same contents give the same revision, and it never goes down for one window.
//	W6  Whether and when Advance, Collect and Settle are called changes when results come, never what the last one of a window says.
//	W7  What is closed stays in the state, and is yielded again on demand, until Settle says its result is acknowledged.
//	W8  A session's start is unique: no later session of the key can have the start of one that was final or withdrawn.
package window
