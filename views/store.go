package views

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"klgstream.dev/codecs"
)

// Store keeps results and answers queries over them. Every method may be called from any goroutine; see the package
// documentation for what is promised (S1 to S6).
type Store interface {
	// Name is the kind of database behind the store, for logs and metrics: "sqlite", "postgresql" or "risingwave".
	Name() string
	// Migrate brings tables and views to the state this program needs and checks every view against its description.
	// It may be called any number of times, by several programs at once. Write and Query need it done once.
	Migrate(ctx context.Context) error
	// Write makes the batch durable, or none of what it returns an error for may be taken as written (S1 to S4).
	// Rows of a failed batch may be written again at will.
	Write(ctx context.Context, b Batch) error
	// Query answers one page of a view. A query that cannot be asked is a [*QueryError], a view that does not exist
	// is [ErrUnknownView].
	Query(ctx context.Context, q Query) (Result, error)
	// Views lists what can be asked, by name.
	Views(ctx context.Context) ([]View, error)
	// Ping tells whether the database answers.
	Ping(ctx context.Context) error
	// Close gives back what the store holds. A second Close does nothing.
	Close() error
}

// ErrUnknownView is the error of a query for a view that the store does not have.
var ErrUnknownView = errors.New("unknown view")

// Batch is what one write brings. The slices are only read, and not kept after Write returned.
type Batch struct {
	Windows []codecs.Window // results, any number of revisions per window
	Late    []codecs.Letter // events that no window took
	Dead    []codecs.Letter // records that nobody could read
}

// Len is the number of rows in the batch.
func (b Batch) Len() int { return len(b.Windows) + len(b.Late) + len(b.Dead) }

// Latest is the batch with one row per key, ordered by key: of each window its highest revision (the later of equals),
// of letters the last with the same source. Stores need it because one statement cannot touch a row twice, and because
// writers that lock rows in the same order cannot deadlock. The names of windows are as [CleanText] makes them, so that two
// that become the same are seen to be.
func (b Batch) Latest() Batch {
	return Batch{
		Windows: latest(cleanNames(b.Windows), compareWindows, func(kept, w *codecs.Window) bool { return w.Revision >= kept.Revision }),
		Late:    latest(b.Late, compareLetters, func(_, _ *codecs.Letter) bool { return true }),
		Dead:    latest(b.Dead, compareLetters, func(_, _ *codecs.Letter) bool { return true }),
	}
}

func cleanNames(windows []codecs.Window) []codecs.Window {
	copied := false
	for i := range windows {
		registration, definition := CleanText(windows[i].Registration), CleanText(windows[i].Definition)
		if registration == windows[i].Registration && definition == windows[i].Definition {
			continue
		}
		if !copied {
			windows, copied = slices.Clone(windows), true
		}
		windows[i].Registration, windows[i].Definition = registration, definition
	}
	return windows
}

// The moments a row may hold, in ms since the epoch: the years 1 to 10000, which every database keeps and compares.
const (
	MinTime = -62_135_596_800_000
	MaxTime = 253_433_836_800_000 - 1
)

// MaxCount is the most events a window's row may tell: so few that a sum over millions of such rows is within 64 bits.
const MaxCount = 1_000_000_000_000

// Validate tells which rows no store takes, as one [Permanent] error: a window without registration or definition, with a
// negative count or one above [MaxCount], or with a moment outside [MinTime] to [MaxTime]. Stores call it first, so that all
// refuse alike.
func (b Batch) Validate() error {
	var faults []error
	for i := range b.Windows {
		if err := checkWindow(&b.Windows[i]); err != nil {
			faults = append(faults, fmt.Errorf("window %q of %q at %d: %w", b.Windows[i].Definition, b.Windows[i].Registration, b.Windows[i].Anchor(), err))
		}
	}
	for _, letters := range [][]codecs.Letter{b.Late, b.Dead} {
		for i := range letters {
			if err := checkLetter(&letters[i]); err != nil {
				faults = append(faults, fmt.Errorf("letter of %s/%d@%d: %w", letters[i].Topic, letters[i].Partition, letters[i].Offset, err))
			}
		}
	}
	return Permanent(errors.Join(faults...))
}

func checkWindow(w *codecs.Window) error {
	switch {
	case w.Registration == "" || w.Definition == "":
		return errors.New("registration and definition must not be empty")
	case w.Count < 0:
		return fmt.Errorf("count %d must not be negative", w.Count)
	case w.Count > MaxCount:
		return fmt.Errorf("count %d must be at most %d", w.Count, int64(MaxCount))
	case w.Empty():
		return checkTimes(w.Start, w.End)
	}
	return checkTimes(w.Start, w.End, w.First, w.Last)
}

func checkLetter(l *codecs.Letter) error {
	if l.EventTime == math.MinInt64 {
		return nil
	}
	return checkTimes(l.EventTime)
}

func checkTimes(moments ...int64) error {
	for _, ms := range moments {
		if ms < MinTime || ms > MaxTime {
			return fmt.Errorf("time %d ms must be %d to %d", ms, int64(MinTime), int64(MaxTime))
		}
	}
	return nil
}

func compareWindows(a, b *codecs.Window) int {
	if c := strings.Compare(a.Registration, b.Registration); c != 0 {
		return c
	}
	if c := strings.Compare(a.Definition, b.Definition); c != 0 {
		return c
	}
	return cmp.Compare(a.Anchor(), b.Anchor())
}

func compareLetters(a, b *codecs.Letter) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

// latest keeps one of each run of equal rows, in order; wins tells whether row replaces the one kept so far.
func latest[R any](rows []R, compare func(a, b *R) int, wins func(kept, row *R) bool) []R {
	if len(rows) < 2 {
		return rows
	}
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if c := compare(&rows[a], &rows[b]); c != 0 {
			return c
		}
		return cmp.Compare(a, b) // as they came
	})
	out := make([]R, 0, len(rows))
	for _, i := range order {
		last := len(out) - 1
		switch {
		case last < 0 || compare(&out[last], &rows[i]) != 0:
			out = append(out, rows[i])
		case wins(&out[last], &rows[i]):
			out[last] = rows[i]
		}
	}
	return out
}

// Permanent marks an error of [Store.Write] as one that the same rows will always meet: the database is well and refuses
// what it was given. A nil error stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string   { return e.err.Error() }
func (e *permanentError) Unwrap() error   { return e.err }
func (e *permanentError) Retryable() bool { return false }

// Retryable tells whether the same call may succeed later. Only what says otherwise of itself (by a method
// Retryable() bool, as what [Permanent] makes has) is final, because to give up on a database that is merely away, full
// or being mended would lose rows, while to try a hopeless row again only costs time.
func Retryable(err error) bool {
	if err == nil {
		return false
	}
	if r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok {
		return r.Retryable()
	}
	return true
}
