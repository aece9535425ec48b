package engine

import (
	"fmt"
	"math"
	"time"

	"klgstream.dev/codecs"
	"klgstream.dev/processors/window"
)

// hands are a partition's clock: the watermarks of its sources, what came of them, and what others were told.
//
// The own source is the partition's input. Events of other sources come through the loop, and their watermark with
// them: a partition that re-keys announces its own behind the events it covers. Until a source has spoken it holds the
// watermark, so that a replica that starts early does not close windows on those that start late; one that does not
// re-key says so once it is read to its end after an idle time-out, and holds nothing.
type hands struct {
	own       int32
	others    bool // there are other sources
	marks     *window.Watermarks
	watermark int64   // the partition's, ms
	start     int64   // watermark of the position this generation started from
	fences    []int64 // per source, the largest offset seen through the loop

	since   time.Time // when this generation began, or the input came alive after it was idle
	settled bool      // an idle time-out after that it was read to its end

	read   bool // this run has folded records of the input
	rekeys bool // this partition has sent events to others
	spoken bool // it has told the others of its watermark
	told   announcement
	toldAt time.Time

	now  int64     // processing time of the frame being folded, ms
	last time.Time // when the input last had a record
	idle bool      // the own source is idle, as this generation has seen

	troubled time.Time // when input or loop could last not be read; zero: never
}

// announceEvery is the least time between two announcements of a watermark that only moved on, with up to 15 partitions;
// with more it grows with their number, because each announcement is told to all.
const announceEvery = 200 * time.Millisecond

// restore sets the hands to what a position's metadata says (E5).
func (h *hands) restore(own, count int32, c *Config, at clock) {
	*h = hands{
		own: own, others: !c.RekeyOff && count > 1, watermark: at.watermark, start: at.watermark,
		rekeys: at.rekeys, spoken: at.spoken, last: c.Now(), since: c.Now(), fences: make([]int64, count),
	}
	for i := range h.fences {
		h.fences[i] = -1
	}
	h.marks = window.NewWatermarks(c.Bound)
	var known []window.Source
	for _, s := range at.sources {
		if s.partition >= 0 && s.partition < count {
			h.fences[s.partition] = s.fence
			status := window.Status(s.status)
			if s.partition == own { // what came since it was idle is not read yet, and must not be passed by what others tell
				status = window.Active
			}
			known = append(known, window.Source{ID: s.partition, Status: status, Watermark: s.watermark})
		}
	}
	h.marks.Restore(at.watermark, known...)
	h.marks.Expect(own)
	for i := int32(0); h.others && i < count; i++ {
		h.marks.Expect(i)
	}
}

// clock is what restore needs.
func (h *hands) clock() clock {
	c := clock{watermark: h.watermark, rekeys: h.rekeys, spoken: h.spoken}
	h.marks.Snapshot(func(s window.Source) {
		c.sources = append(c.sources, sourceClock{s.ID, byte(s.Status), s.Watermark, h.fences[s.ID]})
	})
	return c
}

// ownWatermark is the own source's.
func (h *hands) ownWatermark() int64 {
	w := int64(math.MinInt64)
	h.marks.Snapshot(func(s window.Source) {
		if s.ID == h.own {
			w = s.Watermark
		}
	})
	return w
}

// heard notes that records came in.
func (h *hands) heard(now time.Time, loop bool) {
	h.now = now.UnixMilli()
	if !loop {
		if h.idle {
			h.since, h.settled = now, false
		}
		h.last, h.idle, h.read = now, false, true
	}
}

// observe moves the own source past an event.
func (p *partition[E, S]) observe(t int64) {
	p.hands.marks.Observe(p.id, t)
	p.follow()
}

// hear takes another partition's announcement.
func (p *partition[E, S]) hear(a *announcement) {
	if a.partition < 0 || a.partition >= p.count || a.partition == p.id {
		return
	}
	p.hands.marks.Announce(a.partition, a.watermark, a.idle)
	p.follow()
}

// follow moves the partition's watermark to that of its sources and fires what is due.
func (p *partition[E, S]) follow() {
	w := p.hands.marks.Current()
	if w <= p.hands.watermark {
		return
	}
	p.hands.watermark = w
	p.timers.Advance(w, p.fire)
}

// fire marks a key for the next cut, which lets it emit what the watermark has closed. Until then its windows are as good as closed:
// events are judged by the watermark.
func (p *partition[E, S]) fire(e *entry[S], due int64) {
	if !e.alarm.Ring(due) || p.entries[e.key] != e {
		return
	}
	if p.expiry(e) <= p.hands.watermark && p.forget(e) {
		return
	}
	if p.later(e) {
		return
	}
	e.fires = true
	p.soil(e)
}

// later puts a key off that has nothing to emit yet: events have moved what was due, as they extend sessions.
func (p *partition[E, S]) later(e *entry[S]) bool {
	if e.live == nil {
		return false // its alarm is that of its record
	}
	later := p.topology.Due(&e.live.state) > p.hands.watermark
	if later && !e.fires {
		p.schedule(e)
	}
	return later
}

// advance lets a key emit what the watermark has closed.
func (p *partition[E, S]) advance(e *entry[S]) {
	e.fires = false
	l := p.liven(e)
	p.topology.Advance(e.key, &l.state, p.hands.watermark, p.emitter)
	l.purged = max(l.purged, p.hands.watermark)
	p.schedule(e)
}

// tick lets processing time have its say: an input that is read to its end and silent is idle, and when all are the
// watermark follows the wall clock. A log that cannot be read is not silent, and one that was idle for an earlier generation may have
// got records since.
func (p *partition[E, S]) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.hands
	calm := now.Sub(h.troubled) > p.config.IdleTimeout
	if !h.idle && calm && p.silent(now) && p.readToEnd() {
		h.idle = true
		h.marks.Rest(p.id)
	}
	if p.config.Idle == IdleClock && h.idle && calm {
		h.marks.Lift(now.UnixMilli() - p.config.Bound.Milliseconds() - 1)
	}
	p.follow()
	p.timers.Advance(h.watermark, p.fire) // what was scheduled behind the watermark since it last moved
}

// silent reports whether the input has had no record for longer than the idle time-out.
func (p *partition[E, S]) silent(now time.Time) bool {
	return now.Sub(p.hands.last) > p.config.IdleTimeout
}

// trouble notes that the input or the loop cannot be read now.
func (p *partition[E, S]) trouble(now time.Time) {
	p.mu.Lock()
	p.hands.troubled = now
	p.mu.Unlock()
}

func (p *partition[E, S]) readToEnd() bool { return p.claim != nil && p.behind() <= 0 }

// behind is how many records of the input are known and not folded.
func (p *partition[E, S]) behind() int64 {
	if p.claim == nil {
		return 0
	}
	return p.claim.HighWaterMarkOffset() - p.past(p.at.input)
}

// past is a position behind what the log has there that no consumer gets to see.
func (p *partition[E, S]) past(input int64) int64 {
	if input == p.barren.from {
		return max(input, p.barren.to)
	}
	return input
}

// lookEvery is how often a silent input is looked into that seems to have records.
const lookEvery = time.Second

// puzzling reports whether the input is silent though it is known to go on: records wait to be folded, or there are none that a consumer
// gets to see.
func (p *partition[E, S]) puzzling(now time.Time) (from, end int64, yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hands.idle || p.claim == nil || p.behind() <= 0 || !p.silent(now) || now.Sub(p.looked) < lookEvery {
		return 0, 0, false
	}
	p.looked = now
	return p.past(p.at.input), p.claim.HighWaterMarkOffset(), true
}

// look finds out whether silent inputs end in what no consumer gets to see: the marker of a transaction, or the records of an aborted one.
// They are read to their end all the same.
func (r *run[E, S]) look(s *session[E, S], now time.Time) {
	for _, p := range s.partitions {
		from, end, yes := p.puzzling(now)
		if !yes {
			continue
		}
		to, err := barren(r.reader, r.topics.input, p.id, from, end)
		if err != nil {
			r.log.Debug("looking into a silent input again", "partition", p.id, "error", err)
			_ = r.reader.RefreshMetadata(r.topics.input)
			continue
		}
		p.mu.Lock()
		if p.past(p.at.input) == from {
			p.barren = hole{p.at.input, to}
		}
		p.mu.Unlock()
	}
}

// speak tells the other partitions of the own watermark, if there is something new to tell.
func (p *partition[E, S]) speak(now time.Time) {
	h := &p.hands
	if !h.others || !p.claimed {
		return
	}
	// Read to its end it is from its first record on, if that comes slowly: only after an idle time-out that tells something.
	h.settled = h.settled || p.readToEnd() && now.Sub(h.since) > p.config.IdleTimeout
	quiet := h.idle || !h.rekeys && h.settled
	if !h.hasNews(now, quiet, announceEvery*time.Duration(1+p.count/16)) {
		return
	}
	h.told, h.toldAt, h.spoken = announcement{p.id, h.ownWatermark(), quiet}, now, true
	header := h.told.header()
	for home := range p.count {
		if home != p.id {
			p.spoolFor(home).add(nil, nil, header)
			p.pending += footprint(nil, nil, nil)
		}
	}
}

// hasNews decides whether to speak: once in each generation, then on each change between quiet and not, and while it is not
// quiet as the watermark moves on. A partition is quiet, and not waited for, when its input is idle, and when it was read to its
// end without an event for others; before that it cannot know, and what came through the loop tells nothing of it. What an
// earlier generation knew and had no time to tell is told at once: perhaps nothing comes any more that would make it speak.
func (h *hands) hasNews(now time.Time, quiet bool, every time.Duration) bool {
	switch {
	case h.toldAt.IsZero():
		return h.read || h.idle || h.spoken
	case quiet != h.told.idle:
		return true
	}
	return !quiet && h.ownWatermark() > h.told.watermark && now.Sub(h.toldAt) >= every
}

// overdue reports whether a watermark that moved without records should be committed: once a second.
func (p *partition[E, S]) overdue(now time.Time) bool {
	return p.hands.watermark != p.committed.clock.watermark && now.Sub(p.savedAt) >= time.Second
}

// skewed reports whether an event lies too far ahead of its arrival, and says so. Arrival is the record's timestamp, which a
// replay sees again; a timestamp that itself lies ahead of the clock is the producer's and counts for nothing.
func (p *partition[E, S]) skewed(t int64, stamp time.Time) (string, bool) {
	limit := p.config.MaxFutureSkew.Milliseconds()
	arrival := p.hands.now
	if ms := stamp.UnixMilli(); ms > 0 && ms < arrival {
		arrival = ms
	}
	if p.config.MaxFutureSkew < 0 || t-arrival <= limit {
		return "", false
	}
	return fmt.Sprintf("event time %s is more than %v ahead of its arrival, %s (--max-future-skew)",
		formatTime(t), p.config.MaxFutureSkew, formatTime(arrival)), true
}

// lateDetail says why no window takes an event: all that hold its time are closed, or, between hopping windows, there is none.
func lateDetail(t, watermark int64) string {
	if watermark == codecs.NoTime {
		return fmt.Sprintf("event time %s, and no window holds it: hopping windows with a slide above their size leave gaps", formatTime(t))
	}
	return fmt.Sprintf("event time %s, but the watermark is at %s and no window that holds the event is open",
		formatTime(t), formatTime(watermark))
}

func formatTime(ms int64) string { return string(codecs.AppendTime(nil, ms)) }
