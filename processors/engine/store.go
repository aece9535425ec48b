package engine

import (
	"bytes"
	"errors"
	"fmt"
	"sort"

	"github.com/lovoo/goka/storage"

	"klgstream.dev/codecs"
)

// store is a partition as goka's table storage: recovery fills it, goka's Get and iterators read it. Writing is the
// checkpoint's alone.
type store[E, S any] struct {
	p    *partition[E, S]
	fail func(error) // ends the run with what goka's recovery would wrap beyond recognition
}

var _ storage.Storage = store[any, any]{}

// Open has nothing to do: a partition is kept across generations (E6).
func (s store[E, S]) Open() error { return nil }

// Close keeps the partition; run drops it when it may no longer be true.
func (s store[E, S]) Close() error { return nil }

// Set takes a changelog record during recovery.
func (s store[E, S]) Set(key string, value []byte) error {
	if err := s.take(key, value); err != nil {
		err = s.p.unreadable(key, err)
		s.fail(err)
		return err
	}
	return nil
}

func (s store[E, S]) take(key string, value []byte) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	env := &s.p.envelope
	if err := env.Parse(value); err != nil {
		return err
	}
	e := s.p.entries[key]
	if e == nil {
		e = &entry[S]{key: key}
		s.p.entries[key] = e
	} else if s.p.older(env, e) {
		return nil
	}
	if e.live != nil {
		e.live = nil
		s.p.lives--
	}
	s.p.packed += len(value) - len(e.raw)
	if cap(e.raw) < len(value) {
		e.raw = make([]byte, 0, len(value))
	}
	e.raw = append(e.raw[:0], value...)
	if s.p.claimed {
		s.p.restore(e, env)
	}
	return nil
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

// Delete takes a tombstone during recovery.
func (s store[E, S]) Delete(key string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if e := s.p.entries[key]; e != nil {
		if e.gone = true; e.live != nil {
			s.p.lives--
		}
		s.p.packed -= len(e.raw)
	}
	delete(s.p.entries, key)
	return nil
}

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

// SetOffset is told by recovery after each record.
func (s store[E, S]) SetOffset(offset int64) error {
	s.p.mu.Lock()
	s.p.table = offset
	left := s.p.goal - 1 - offset
	claimed := s.p.claimed
	if claimed {
		s.p.recovered++
	}
	s.p.mu.Unlock()
	if !claimed { // a hot standby reads on and on
		s.p.metrics.offset.Set(float64(offset))
		return nil
	}
	if left&1023 == 0 || left < 0 { // often enough to be watched
		s.p.metrics.recovery.Set(float64(max(0, left)))
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
