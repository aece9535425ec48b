package window

import "math"

// Mark is a watermark that may not be known yet: the zero value is none, which is before every watermark.
//
// It orders as the watermarks do.
type Mark uint64

// MarkAt is the mark of a watermark in ms; of math.MinInt64 it is none.
func MarkAt(watermark int64) Mark { return Mark(watermark) ^ 1<<63 }

// Watermark is the marked watermark in ms; of none it is math.MinInt64.
func (m Mark) Watermark() int64 { return int64(m ^ 1<<63) }

// Never is the due time of what is never due: no watermark of a running stream reaches it.
const Never = int64(math.MaxInt64)
