package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// Verdict is what a comparison of all windows with the events found.
type Verdict struct {
	Windows int `json:"windows"` // there should be
	Wrong   int `json:"wrong"`   // counted wrongly, missing, not final, or of no event
	Records int `json:"records"` // of the output topic
	Late    int `json:"late"`    // events refused as late; there are none
	Dead    int `json:"dead"`    // dead letters; there should be none
}

// Err is nil if everything was right.
func (v Verdict) Err() error {
	if v.Wrong+v.Late+v.Dead == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d windows are wrong, %d events late, %d dead", v.Wrong, v.Windows, v.Late, v.Dead)
}

// result is one record of an output topic.
type result struct {
	windowOf
	count     int64
	revision  int64
	settled   bool // it is as it should stay: final, where that is told
	withdrawn bool
	sealing   bool
}

// verify reads an output topic to its end and compares the highest revision of each window with the truth.
func verify(ctx context.Context, brokers []string, topic string, s Shape, definitions []window.Definition, parse func(*kgo.Record) (result, error)) (Verdict, error) {
	latest := make(map[string]result)
	records, err := readAll(ctx, brokers, topic, func(r *kgo.Record) error {
		w, err := parse(r)
		if err != nil || w.sealing {
			return err
		}
		if old, ok := latest[string(r.Key)]; !ok || w.revision >= old.revision {
			latest[string(r.Key)] = w
		}
		return nil
	})
	if err != nil {
		return Verdict{}, err
	}
	v := compare(latest, s.truth(definitions))
	v.Records = records
	return v, nil
}

// Verify reads an output topic of klgstream to its end and compares every window of the definitions with the shape's events,
// all of which must be final.
func Verify(ctx context.Context, brokers []string, topic string, s Shape, windows []string) (Verdict, error) {
	definitions, err := parseWindows(windows, 0)
	if err != nil {
		return Verdict{}, err
	}
	return verify(ctx, brokers, topic, s, definitions, windowRecord)
}

// compare counts what differs.
func compare(latest map[string]result, truth map[windowOf]int64) Verdict {
	v := Verdict{Windows: len(truth)}
	for _, r := range latest {
		if r.withdrawn {
			continue
		}
		if want, ok := truth[r.windowOf]; !ok || r.count != want || !r.settled {
			v.Wrong++
		}
		delete(truth, r.windowOf)
	}
	v.Wrong += len(truth) // missing
	return v
}

// keyOf is the number of a generated registration.
func keyOf(registration string) (key int, isSealing bool, err error) {
	if strings.HasPrefix(registration, sealing) {
		return 0, true, nil
	}
	key, err = strconv.Atoi(strings.TrimPrefix(registration, "RA-"))
	return key, false, err
}

// windowRecord reads the product's results.
func windowRecord(r *kgo.Record) (result, error) {
	var w codecs.Window
	if err := w.UnmarshalJSON(r.Value); err != nil {
		return result{}, err
	}
	key, seal, err := keyOf(w.Registration)
	return result{
		windowOf: windowOf{w.Definition, key, w.Start, w.End}, count: w.Count, revision: w.Revision, settled: w.Final, withdrawn: w.Withdrawn, sealing: seal,
	}, err
}

// countRecord is windowRecord for a run that ended when all counts were out, whether final or not.
func countRecord(r *kgo.Record) (result, error) {
	w, err := windowRecord(r)
	w.settled = true
	return w, err
}

// tumblingHour is the job of goka used the usual way, and of the peers.
const tumblingHour = "tumbling:1h"

// hourRecord reads results of a tumbling hour that say no more than they must; their counts only grow.
func hourRecord(r *kgo.Record) (result, error) {
	var h struct {
		Registration string `json:"registration_number"`
		Start        int64  `json:"window_start"`
		Count        int64  `json:"event_count"`
	}
	if err := json.Unmarshal(r.Value, &h); err != nil {
		return result{}, err
	}
	key, seal, err := keyOf(h.Registration)
	w := windowOf{tumblingHour, key, h.Start, h.Start + hour}
	return result{windowOf: w, count: h.Count, revision: h.Count, settled: true, sealing: seal}, err
}

// byWindow is hourRecord for topics whose keys do not tell windows apart.
func byWindow(parse func(*kgo.Record) (result, error)) func(*kgo.Record) (result, error) {
	return func(r *kgo.Record) (result, error) {
		w, err := parse(r)
		r.Key = strconv.AppendInt(append(strconv.AppendInt(nil, int64(w.key), 10), '|'), w.start, 10)
		return w, err
	}
}

// readAll reads a topic from start to end.
func readAll(ctx context.Context, brokers []string, topic string, yield func(*kgo.Record) error) (int, error) {
	ends, err := endOffsets(ctx, brokers, topic)
	if err != nil {
		return 0, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", topic, err)
	}
	defer cl.Close()
	left := 0 // partitions
	for _, end := range ends {
		if end > 0 {
			left++
		}
	}
	n := 0
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return n, fmt.Errorf("read %s: %w", topic, err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
			if r.Attrs.IsControl() { // the end of a transaction
				continue
			}
			n++
			if err := yield(r); err != nil {
				return n, fmt.Errorf("read %s/%d@%d: %w", topic, r.Partition, r.Offset, err)
			}
		}
	}
	return n, nil
}

// endOffsets are the ends of a topic's partitions.
func endOffsets(ctx context.Context, brokers []string, topic string) (map[int32]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("connect to %v: %w", brokers, err)
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find ends of %s: %w", topic, err)
	}
	out := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// records is how many records a topic holds.
func records(ctx context.Context, brokers []string, topic string) (int, error) {
	ends, err := endOffsets(ctx, brokers, topic)
	n := 0
	for _, end := range ends {
		n += int(end)
	}
	return n, err
}
