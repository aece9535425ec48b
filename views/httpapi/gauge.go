package httpapi

import (
	"context"
	"fmt"
	"time"
)

// picture is the state of the pipeline as clients see it: positions, lag, watermarks, and rates from pictures before.
type picture struct {
	At       time.Time       `json:"at" doc:"When it was taken"`
	Topics   []topicPicture  `json:"topics" nullable:"false" doc:"In the order an event meets them"`
	Outcomes outcomes        `json:"outcomes" doc:"Events by what became of them"`
	Replay   *replayProgress `json:"replay,omitempty" doc:"Progress of a replay in this process; absent without one"`
}

type topicPicture struct {
	Name       string             `json:"name"`
	Role       Role               `json:"role" enum:"input,loop,table,output,late,dead"`
	Reader     string             `json:"reader" doc:"Consumer group whose positions are shown; empty if nobody reads the topic"`
	Records    int64              `json:"records" doc:"Sum of the partitions' end offsets"`
	Lag        int64              `json:"lag" doc:"Records its reader has not committed yet"`
	Watermark  *string            `json:"watermark" format:"date-time" nullable:"true" doc:"Least watermark of its partitions"`
	InRate     float64            `json:"in_per_second" doc:"Records written, over the last seconds"`
	OutRate    float64            `json:"out_per_second" doc:"Records its reader committed, over the last seconds"`
	Partitions []partitionPicture `json:"partitions" nullable:"false"`
}

type partitionPicture struct {
	ID        int32   `json:"id"`
	Committed *int64  `json:"committed" nullable:"true" doc:"Next offset its reader resumes from; null if it never committed"`
	End       int64   `json:"end" doc:"Next offset a producer gets"`
	Lag       int64   `json:"lag"`
	Watermark *string `json:"watermark" format:"date-time" nullable:"true" doc:"Event time its reader has passed; null if it keeps none"`
	InRate    float64 `json:"in_per_second"`
	OutRate   float64 `json:"out_per_second"`
}

type outcomes struct {
	Counted outcome `json:"counted" doc:"Folded into at least one window"`
	Late    outcome `json:"late" doc:"No window took them"`
	Dead    outcome `json:"dead" doc:"Cannot be decoded or validated"`
	Fenced  outcome `json:"fenced" doc:"Delivered again and recognised"`
	Rekeyed outcome `json:"rekeyed" doc:"Sent to the partition of their registration"`
}

type outcome struct {
	Total *int64  `json:"total" nullable:"true" doc:"null if not known here"`
	Rate  float64 `json:"per_second"`
}

type replayProgress struct {
	Source string `json:"source"`
	Sent   int64  `json:"sent"`
	Total  int64  `json:"total" doc:"0 if not known"`
	Done   bool   `json:"done"`
}

const (
	fresh    = 400 * time.Millisecond // a picture younger than this is not taken again
	rateSpan = 5 * time.Second        // rates are over about this long
)

// sample is one status and when it was taken.
type sample struct {
	at     time.Time
	status Status
}

// gauge takes pictures of the pipeline, one at a time and not more often than needed, and computes rates between them.
type gauge struct {
	source Pipeline
	now    func() time.Time

	turn    chan struct{} // capacity 1: who holds it may touch what is below
	samples []sample      // oldest first, at least one older than rateSpan if there ever was
	last    picture
}

func newGauge(source Pipeline, now func() time.Time) *gauge {
	return &gauge{source: source, now: now, turn: make(chan struct{}, 1)}
}

// read returns the current picture. It does not outlast ctx, even if the source does: a client of a broker that is stuck cannot be stopped.
func (g *gauge) read(ctx context.Context) (picture, error) {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return picture{}, fmt.Errorf("ask pipeline for its status: an earlier question is not answered: %w", ctx.Err())
	}
	now := g.now()
	if n := len(g.samples); n > 0 && now.Sub(g.samples[n-1].at) < fresh {
		defer g.done()
		return g.last, nil
	}
	asked := make(chan drawn, 1)
	go func() { // it ends with the source, and keeps the turn until then
		defer g.done()
		asked <- g.ask(ctx, now)
	}()
	select {
	case d := <-asked:
		return d.picture, d.err
	case <-ctx.Done():
		return picture{}, fmt.Errorf("ask pipeline for its status: %w", ctx.Err())
	}
}

func (g *gauge) done() { <-g.turn }

// drawn is a picture, or why there is none.
type drawn struct {
	picture picture
	err     error
}

// ask takes a picture. A panic of the source is a failure: nobody else would catch it here.
func (g *gauge) ask(ctx context.Context, now time.Time) (d drawn) {
	defer func() {
		if fault := recover(); fault != nil {
			d = drawn{err: fmt.Errorf("ask pipeline for its status: it panicked: %v", fault)}
		}
	}()
	status, err := g.source.Status(ctx)
	if err != nil {
		return drawn{err: fmt.Errorf("ask pipeline for its status: %w", err)}
	}
	g.keep(sample{now, status})
	g.last = draw(g.samples[0], g.samples[len(g.samples)-1])
	return drawn{picture: g.last}
}

// keep adds a sample and drops those that are older than needed.
func (g *gauge) keep(s sample) {
	g.samples = append(g.samples, s)
	for len(g.samples) > 2 && s.at.Sub(g.samples[1].at) >= rateSpan {
		g.samples = g.samples[1:]
	}
}

// draw makes the picture of the sample at the end, with rates since the one before.
func draw(before, now sample) picture {
	seconds := now.at.Sub(before.at).Seconds()
	p := picture{At: now.at.UTC(), Topics: make([]topicPicture, 0, len(now.status.Topics)), Outcomes: outcomes{
		Counted: drawOutcome(before.status.Totals.Counted, now.status.Totals.Counted, seconds),
		Late:    drawOutcome(before.status.Totals.Late, now.status.Totals.Late, seconds),
		Dead:    drawOutcome(before.status.Totals.Dead, now.status.Totals.Dead, seconds),
		Fenced:  drawOutcome(before.status.Totals.Fenced, now.status.Totals.Fenced, seconds),
		Rekeyed: drawOutcome(before.status.Totals.Rekeyed, now.status.Totals.Rekeyed, seconds),
	}}
	if r := now.status.Replay; r != nil {
		p.Replay = &replayProgress{r.Source, r.Sent, r.Total, r.Done}
	}
	old := map[string]*Topic{}
	for i := range before.status.Topics {
		old[before.status.Topics[i].Name] = &before.status.Topics[i]
	}
	for i := range now.status.Topics {
		p.Topics = append(p.Topics, drawTopic(old[now.status.Topics[i].Name], &now.status.Topics[i], seconds))
	}
	return p
}

func drawTopic(before, now *Topic, seconds float64) topicPicture {
	t := topicPicture{Name: now.Name, Role: now.Role, Reader: now.Reader, Partitions: make([]partitionPicture, 0, len(now.Partitions))}
	least := int64(Unknown)
	for i := range now.Partitions {
		q := &now.Partitions[i]
		was := q
		if before != nil && i < len(before.Partitions) && before.Partitions[i].ID == q.ID {
			was = &before.Partitions[i]
		}
		p := drawPartition(was, q, seconds)
		t.Records += max(0, q.End)
		t.Lag += p.Lag
		t.InRate += p.InRate
		t.OutRate += p.OutRate
		if q.Watermark != Unknown && (least == Unknown || q.Watermark < least) {
			least = q.Watermark
		}
		t.Partitions = append(t.Partitions, p)
	}
	t.Watermark = stamp(least)
	return t
}

func drawPartition(before, now *Partition, seconds float64) partitionPicture {
	p := partitionPicture{ID: now.ID, End: now.End, Lag: max(0, now.Lag), Watermark: stamp(now.Watermark), InRate: perSecond(before.End, now.End, seconds)}
	if now.Committed != Unknown {
		p.Committed = &now.Committed
		if before.Committed != Unknown {
			p.OutRate = perSecond(before.Committed, now.Committed, seconds)
		}
	}
	return p
}

func drawOutcome(before, now int64, seconds float64) outcome {
	if now < 0 {
		return outcome{}
	}
	return outcome{Total: &now, Rate: perSecond(max(0, before), now, seconds)}
}

// perSecond is a rate; a counter that went back was started anew.
func perSecond(before, now int64, seconds float64) float64 {
	if seconds <= 0 || now < before {
		return 0
	}
	return float64(now-before) / seconds
}

// stamp writes an event time for people and programs, nil for Unknown.
func stamp(ms int64) *string {
	if ms == Unknown {
		return nil
	}
	return new(time.UnixMilli(ms).UTC().Format(stampLayout))
}

const stampLayout = "2006-01-02T15:04:05.000Z07:00"
