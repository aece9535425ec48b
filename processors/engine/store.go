package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka/storage"

	"klgstream.dev/codecs"
)

// store is a partition as goka's table storage: recovery fills it, goka's Get and iterators read it. Writing is the
// checkpoint's alone.
type store[E, S any] struct {
	p      *partition[E, S]
	frames *frames     // what values stand for
	fail   func(error) // ends the run with what goka's recovery would wrap beyond recognition
}

var _ storage.Storage = store[any, any]{}

// Open has nothing to do: a partition is kept across generations (E6).
func (s store[E, S]) Open() error { return nil }

// Close keeps the partition; run drops it when it may no longer be true, or others have had it for some time.
func (s store[E, S]) Close() error { return nil }

// Set takes a frame of changelog records during recovery.
func (s store[E, S]) Set(_ string, token []byte) error {
	fr, err := s.frames.take(token)
	if err == nil {
		err = s.p.load(fr)
		s.frames.recycle(fr)
	}
	if err != nil {
		s.fail(err)
	}
	return err
}

// load takes changelog records.
func (p *partition[E, S]) load(fr *frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed {
		p.recovered += len(fr.records)
	}
	var l lot[S]
	for left := fr.records; len(left) > 0; {
		group := left[:min(len(left), groupRecords)]
		left = left[len(group):]
		p.find(group)
		l.prepare(group, p.near[:len(group)])
		for i, m := range group {
			if m.Value == nil {
				p.erase(m.Key)
			} else if err := p.take(m, p.near[i], &l); err != nil {
				return p.unreadable(string(m.Key), err)
			}
		}
	}
	clear(p.near[:])
	return nil
}

// take takes a key's record; e is what find has found.
func (p *partition[E, S]) take(m *sarama.ConsumerMessage, e *entry[S], l *lot[S]) error {
	env := &p.envelope
	if err := env.Parse(m.Value); err != nil {
		return err
	}
	if e == nil || e.gone {
		e = p.entries[string(m.Key)] // an earlier record of the group may have made it
	}
	switch {
	case e == nil:
		e = l.entry(m)
		p.entries[e.key] = e
	case p.older(env, e):
		e.stale = true
		p.supersede(e)
		return nil
	case e.live != nil:
		e.live = nil
		p.lives--
	}
	e.stale = false
	p.packed += len(m.Value) - len(e.raw)
	if cap(e.raw) < len(m.Value) {
		e.raw = make([]byte, 0, len(m.Value))
	}
	e.raw = append(e.raw[:0], m.Value...)
	if p.claimed {
		p.restore(e, env)
	}
	return nil
}

// supersede writes a key's state over an older one of a former owner, which is the last word of the changelog: compaction would keep that,
// and drop the newer one before it (E7). Who holds a copy only leaves it to the owner.
func (p *partition[E, S]) supersede(e *entry[S]) {
	if e.stale && p.claimed {
		e.stale = false
		p.restate(e)
	}
}

// lot is memory for the new keys of a group of changelog records in one piece each of entries and records: less to allocate, and less
// for every garbage collection to follow.
type lot[S any] struct {
	entries []entry[S]
	raw     []byte
}

// spareRaw is how much a record may grow where it lies.
const spareRaw = 8

// prepare makes room for the records without an entry.
func (l *lot[S]) prepare(group []*sarama.ConsumerMessage, near []*entry[S]) {
	n, size := 0, 0
	for i, m := range group {
		if near[i] == nil && m.Value != nil {
			n, size = n+1, size+len(m.Value)+spareRaw
		}
	}
	l.entries, l.raw = nil, nil
	if n > 0 {
		l.entries, l.raw = make([]entry[S], n), make([]byte, size)
	}
}

// entry takes a new key's from the lot.
func (l *lot[S]) entry(m *sarama.ConsumerMessage) *entry[S] {
	n := len(m.Value) + spareRaw
	if len(l.entries) == 0 || len(l.raw) < n { // a key of the group erased or written twice
		e := new(entry[S])
		e.call(m.Key)
		return e
	}
	e := &l.entries[0]
	e.call(m.Key)
	e.raw = l.raw[:0:n]
	l.entries, l.raw = l.entries[1:], l.raw[n:]
	return e
}

// erase takes a key's tombstone.
func (p *partition[E, S]) erase(key []byte) {
	e := p.entries[string(key)]
	if e == nil {
		return
	}
	if e.gone = true; e.live != nil {
		p.lives--
	}
	if e.dirty {
		p.dirty = slices.DeleteFunc(p.dirty, func(d *entry[S]) bool { return d == e })
	}
	p.packed -= len(e.raw)
	delete(p.entries, e.key)
}

// unreadable is the error of a record that cannot be parsed. One of a newer program is no accident: the start is refused, so that
// neither is anything written over nor is the group held up by a member that can do nothing.
func (p *partition[E, S]) unreadable(key string, err error) error {
	err = fmt.Errorf("recover %s/%d key %q: %w", p.topics.table, p.id, key, err)
	if reasonOf(err) != codecs.ReasonUnknownVersion {
		return err
	}
	return &RefusalError{
		fmt.Sprintf("a newer klgstream has written the group table: %v", err),
		"run that one, or a later one, here too (klgstream version says which versions of state records a build has); nothing was changed",
	}
}

// older reports whether a record is behind what is known of its key (E6).
func (p *partition[E, S]) older(env *codecs.Envelope, e *entry[S]) bool {
	return behind(env, e.fences())
}

// behind reports whether a record is behind what is known of its key (E6): no source further, at least one behind.
func behind(env *codecs.Envelope, known []codecs.Source) bool {
	behind := false
	for _, k := range known {
		at := int64(-1)
		for _, s := range env.Sources {
			if s.Partition == k.Partition {
				at = s.Offset
			}
		}
		if at > k.Offset {
			return false
		}
		behind = behind || at < k.Offset
	}
	for _, s := range env.Sources {
		if !hasSource(known, s.Partition) {
			return false
		}
	}
	return behind
}

func (e *entry[S]) fences() []codecs.Source {
	if e.live != nil {
		return e.live.fences
	}
	var env codecs.Envelope
	if env.Parse(e.raw) != nil {
		return nil
	}
	return env.Sources
}

func hasSource(sources []codecs.Source, partition int32) bool {
	for _, s := range sources {
		if s.Partition == partition {
			return true
		}
	}
	return false
}

// Delete takes the tombstone that stands for nothing being left to recover (tableConsumer): tombstones of keys come in frames.
func (s store[E, S]) Delete(string) error { return nil }

// Has reports whether the key has a state.
func (s store[E, S]) Has(key string) (bool, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	_, ok := s.p.entries[key]
	return ok, nil
}

// Get is the key's record as the group table would hold it now; nil if there is none.
func (s store[E, S]) Get(key string) ([]byte, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	e := s.p.entries[key]
	if e == nil {
		return nil, nil
	}
	return bytes.Clone(s.p.encode(e)), nil
}

// GetOffset is the changelog offset the store reflects.
func (s store[E, S]) GetOffset(def int64) (int64, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.table < 0 {
		return def, nil
	}
	return s.p.table, nil
}

// SetOffset is told by recovery after each frame.
func (s store[E, S]) SetOffset(offset int64) error {
	s.p.mu.Lock()
	s.p.table = offset
	left := s.p.goal - 1 - offset
	claimed := s.p.claimed
	s.p.mu.Unlock()
	if claimed {
		s.p.metrics.recovery.Set(float64(max(0, left)))
	} else { // a hot standby reads on and on
		s.p.metrics.offset.Set(float64(offset))
	}
	return nil
}

// MarkRecovered is the end of recovery.
func (s store[E, S]) MarkRecovered() error { return nil }

// Iterator goes over all keys in order, as of now.
func (s store[E, S]) Iterator() (storage.Iterator, error) { return s.IteratorWithRange(nil, nil) }

// IteratorWithRange goes over the keys of [start, limit); nil is unbounded.
func (s store[E, S]) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	it := &iterator{at: -1}
	for k := range s.p.entries {
		if k >= string(start) && (limit == nil || k < string(limit)) {
			it.keys = append(it.keys, k)
		}
	}
	sort.Strings(it.keys)
	it.get = s.Get
	return it, nil
}

// iterator walks over a snapshot of the keys and reads each value when it is asked for.
type iterator struct {
	keys []string
	at   int
	get  func(string) ([]byte, error)
}

func (i *iterator) Next() bool { i.at++; return i.at < len(i.keys) }
func (i *iterator) Err() error { return nil }
func (i *iterator) Release()   {}
func (i *iterator) Key() []byte {
	if i.at < 0 || i.at >= len(i.keys) {
		return nil
	}
	return []byte(i.keys[i.at])
}

func (i *iterator) Value() ([]byte, error) {
	if i.at < 0 || i.at >= len(i.keys) {
		return nil, errors.New("read iterator: not on a key")
	}
	return i.get(i.keys[i.at])
}

func (i *iterator) Seek(key []byte) bool {
	i.at = sort.SearchStrings(i.keys, string(key))
	return i.at < len(i.keys)
}
