package engine

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"klgstream.dev/codecs"
)

// Keys land where Kafka's own partitioner puts them, in the engine and in goka, which uses the hasher with a sign of its own.
func TestPartitionOfIsKafkas(t *testing.T) {
	t.Parallel()
	kafka := sarama.NewMurmur2Partitioner("t")
	for i := range 20_000 {
		key := fmt.Appendf(nil, "%c-%d", 'A'+i%26, i*i)
		for _, n := range []int32{1, 4, 12, 64} {
			want, err := kafka.Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, n)
			if err != nil {
				t.Fatal(err)
			}
			if got := PartitionOf(key, n); got != want {
				t.Fatalf("key %q of %d partitions: %d, Kafka puts it in %d", key, n, got, want)
			}
			h := Hasher()
			_, _ = h.Write(key)
			if s := int32(h.Sum32()); s < 0 || s%n != want {
				t.Fatalf("key %q: goka would see hash %d", key, s)
			}
		}
	}
}

// FNV-1a of this key is the least int32, which goka cannot negate.
func TestHasherIsNeverNegative(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := Hasher()
		_, _ = h.Write(rapid.SliceOf(rapid.Byte()).Draw(t, "key"))
		if int32(h.Sum32()) < 0 {
			t.Fatal("negative")
		}
	})
}

func TestHasherAsHash(t *testing.T) {
	t.Parallel()
	h := Hasher()
	_, _ = h.Write([]byte("N142"))
	_, _ = h.Write([]byte("28"))
	split := h.Sum32()
	h.Reset()
	_, _ = h.Write([]byte("N14228"))
	if h.Sum32() != split {
		t.Error("a key written in two parts has another hash")
	}
	if got := h.Sum([]byte{1}); len(got) != 1+h.Size() || h.BlockSize() < 1 {
		t.Errorf("Sum gives %v", got)
	}
}

func genTime(t *rapid.T, name string) int64 {
	return rapid.OneOf(rapid.Just(int64(math.MinInt64)), rapid.Int64Range(-62_135_596_800_000, 253_402_300_799_999)).Draw(t, name)
}

// E5: what a commit's metadata says is what the next run reads.
func TestClockSurvivesMetadata(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := identity{rapid.Uint32().Draw(t, "definition"), rapid.Int32Range(1, 1000).Draw(t, "partitions")}
		c := clock{
			watermark: genTime(t, "watermark"), rekeys: rapid.Bool().Draw(t, "rekeys"), spoken: rapid.Bool().Draw(t, "spoken"),
			table: rapid.Int64Range(0, 1<<40).Draw(t, "table"),
		}
		for i := range rapid.IntRange(0, 100).Draw(t, "sources") {
			c.sources = append(c.sources, sourceClock{
				int32(i), byte(i % 3), genTime(t, "source watermark"), rapid.Int64Range(-1, 1<<40).Draw(t, "fence"),
			})
		}
		packed, err := c.pack(id)
		if err != nil {
			t.Fatal(err)
		}
		gotID, got, err := unpack(packed)
		if err != nil {
			t.Fatal(err)
		}
		if gotID != id || fmt.Sprint(got) != fmt.Sprint(c) {
			t.Fatalf("%v %v came back as %v %v", id, c, gotID, got)
		}
	})
}

// A broker refuses metadata beyond 4,096 bytes; the error must come from us and name the mend.
func TestMetadataTooLarge(t *testing.T) {
	t.Parallel()
	var c clock
	for i := range int32(2000) {
		c.sources = append(c.sources, sourceClock{i, 0, 1e12, 1 << 40})
	}
	if _, err := c.pack(identity{}); err == nil || !bytes.Contains([]byte(err.Error()), []byte("--no-rekey")) {
		t.Errorf("2000 sources: %v", err)
	}
}

// A typical clock of 200 re-keying partitions fits.
func TestMetadataOf200Partitions(t *testing.T) {
	t.Parallel()
	c := clock{watermark: 1_770_000_000_000, rekeys: true}
	for i := range int32(200) {
		c.sources = append(c.sources, sourceClock{i, 0, 1_770_000_000_000 + int64(i)*977, 1_000_000_000 + int64(i)})
	}
	if s, err := c.pack(identity{1, 200}); err != nil {
		t.Error(err)
	} else {
		t.Logf("%d bytes", len(s))
	}
}

func FuzzUnpack(f *testing.F) {
	c := clock{watermark: 1_770_000_000_000, sources: []sourceClock{{1, 2, 3, 4}}}
	good, _ := c.pack(identity{7, 4})
	for _, s := range []string{good, "", "klg1:", "klg1:AAAA", "klg1:!!!", "other application's words", good[:len(good)-3]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, metadata string) {
		id, c, err := unpack(metadata)
		if err != nil {
			return
		}
		again, err := c.pack(id)
		if err != nil {
			return // longer than a broker takes
		}
		id2, c2, err := unpack(again)
		if err != nil || id2 != id || fmt.Sprint(c2) != fmt.Sprint(c) {
			t.Fatalf("%q: %v %v became %v %v (%v)", metadata, id, c, id2, c2, err)
		}
	})
}

func FuzzParseLoop(f *testing.F) {
	s := source{3, 77}
	f.Add([]byte(headerSource), s.header().Value)
	a := announcement{2, 1_770_000_000_000, true}
	f.Add([]byte(headerWatermark), a.header().Value)
	f.Add([]byte("other"), []byte("x"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		src, ann, err := parseLoop(&sarama.ConsumerMessage{Headers: []*sarama.RecordHeader{nil, {Key: key, Value: value}}})
		switch {
		case err != nil:
		case ann != nil:
			if got := ann.header(); ann.idle == (value[12] == 1) && (value[12] > 1 || !bytes.Equal(got.Value, value)) && value[12] <= 1 {
				t.Fatalf("%v became %v", value, got.Value)
			}
		default:
			if got := src.header(); !bytes.Equal(got.Value, value) {
				t.Fatalf("%v became %v", value, got.Value)
			}
		}
	})
}

func TestFramesLendEachFrameOnce(t *testing.T) {
	t.Parallel()
	var f frames
	var tokens [][]byte
	for i := range 10 {
		fr := f.fresh()
		fr.records = append(fr.records, &sarama.ConsumerMessage{Offset: int64(i)})
		tokens = append(tokens, f.put(fr))
	}
	for i, tok := range tokens {
		fr, err := f.take(tok)
		if err != nil || len(fr.records) != 1 || fr.records[0].Offset != int64(i) {
			t.Fatalf("token %d: %v %v", i, fr, err)
		}
		if _, err := f.take(tok); err == nil {
			t.Fatalf("token %d was taken twice", i)
		}
		f.recycle(fr)
	}
	dropped := f.put(f.fresh())
	f.drop()
	if _, err := f.take(dropped); err == nil || len(f.lent) != 0 {
		t.Error("a dropped frame was taken")
	}
	if _, err := f.take([]byte("a record")); err == nil {
		t.Error("a record's bytes passed for a frame")
	}
	if _, err := (frameCodec{&f}).Encode(1); err == nil {
		t.Error("something was encoded")
	}
}

// A spool hands out what was put in, also after its memory was used before.
func TestSpoolKeepsBytesApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s spool
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			var want [][]byte
			for range rapid.IntRange(0, 50).Draw(t, "records") {
				v := rapid.SliceOfN(rapid.Byte(), 0, rapid.SampledFrom([]int{10, 1000, 40_000}).Draw(t, "limit")).Draw(t, "value")
				want = append(want, v)
				s.add([]byte("key"), bytes.Clone(v))
			}
			for i, r := range s.records {
				if !bytes.Equal(r.Value, want[i]) || string(r.Key) != "key" {
					t.Fatalf("record %d changed", i)
				}
			}
			s.reset()
			if len(s.records) != 0 || s.bytes != 0 {
				t.Fatal("not empty after reset")
			}
		}
	})
}

func TestSpoolGivesMemoryBackAfterABurst(t *testing.T) {
	t.Parallel()
	var s spool
	for range 1000 {
		s.add(nil, make([]byte, 10_000))
	}
	s.reset()
	if n := len(s.chunks); n < 100 {
		t.Errorf("%d chunks kept of what the last cut used", n)
	}
	for range 60 {
		s.add(nil, []byte("x"))
		s.reset()
	}
	if n := len(s.chunks); n > 64 {
		t.Errorf("%d chunks kept long after the burst", n)
	}
}

func TestSequenceWraps(t *testing.T) {
	t.Parallel()
	s := sequencer{next: map[topicPartition]int32{}}
	tp := topicPartition{"t", 0}
	s.advance(tp, math.MaxInt32)
	s.advance(tp, 3)
	if got := s.next[tp]; got != 2 {
		t.Errorf("after the largest sequence comes %d, want 2 (KIP-98: wrap to 0)", got)
	}
}

// E6: of two records of one key the one with the higher applied offset wins, whichever is read first.
func TestOlderRecordLoses(t *testing.T) {
	t.Parallel()
	rec := func(sources ...codecs.Source) []byte {
		e := codecs.Envelope{Sources: sources, Purged: math.MinInt64, Due: math.MaxInt64}
		return e.Append(nil)
	}
	src := func(p int32, o int64) codecs.Source { return codecs.Source{Partition: p, Offset: o} }
	for name, tt := range map[string]struct {
		known, next []byte
		keeps       bool
	}{
		"newer":               {rec(src(0, 5)), rec(src(0, 6)), false},
		"same":                {rec(src(0, 5)), rec(src(0, 5)), false},
		"older":               {rec(src(0, 5)), rec(src(0, 4)), true},
		"older of two":        {rec(src(0, 5), src(1, 9)), rec(src(0, 5), src(1, 8)), true},
		"a source less":       {rec(src(0, 5), src(1, 9)), rec(src(0, 5)), true},
		"a source more":       {rec(src(0, 5)), rec(src(0, 4), src(1, 0)), false},
		"ahead in one source": {rec(src(0, 5), src(1, 9)), rec(src(0, 6), src(1, 8)), false},
	} {
		p := &partition[int, int]{entries: map[string]*entry[int]{}, topics: &topics{table: "t"}}
		s := store[int, int]{p, &frames{}, func(error) {}}
		recoverRecord(t, s, "k", tt.known)
		recoverRecord(t, s, "k", tt.next)
		if kept := bytes.Equal(p.entries["k"].raw, tt.known) && !bytes.Equal(tt.known, tt.next); kept != tt.keeps {
			t.Errorf("%s: kept the first: %v", name, kept)
		}
	}
}

// The iterator is half-open and seeks between keys.
func TestStoreIterates(t *testing.T) {
	t.Parallel()
	p := &partition[int, int]{entries: map[string]*entry[int]{}, topics: &topics{table: "t"}, table: -1, metrics: newMetrics(prometheus.NewRegistry()).partition(0)}
	s := store[int, int]{p, &frames{}, func(error) {}}
	if o, _ := s.GetOffset(-3); o != -3 {
		t.Errorf("a fresh store stands at %d", o)
	}
	value := (&codecs.Envelope{Purged: math.MinInt64, Due: math.MaxInt64}).Append(nil)
	for _, k := range []string{"b", "a", "bb", "c"} {
		recoverRecord(t, s, k, value)
	}
	it, err := s.IteratorWithRange([]byte("a"), []byte("bb"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for it.Next() {
		got += string(it.Key()) + " "
		if v, err := it.Value(); err != nil || !bytes.Equal(v, value) {
			t.Errorf("value %v %v", v, err)
		}
	}
	if got != "a b " {
		t.Errorf("[a, bb) holds %q", got)
	}
	all, _ := s.Iterator()
	if !all.Seek([]byte("ba")) || string(all.Key()) != "bb" {
		t.Errorf("seek ba: %q", all.Key())
	}
	if all.Seek([]byte("d")) {
		t.Error("found something beyond the last key")
	}
	if _, err := all.Value(); err == nil {
		t.Error("a value beyond the last key")
	}
	recoverRecord(t, s, "a", nil)
	if ok, _ := s.Has("a"); ok {
		t.Error("a is still there")
	}
	if v, err := s.Get("a"); v != nil || err != nil {
		t.Error("a has a value")
	}
	if err := s.Set("x", []byte{0xff}); err == nil {
		t.Error("bytes that are no record were taken")
	}
	if err := s.SetOffset(41); err != nil {
		t.Fatal(err)
	}
	if o, _ := s.GetOffset(-3); o != 41 {
		t.Errorf("stands at %d, want 41", o)
	}
}

func TestConfigTellsAllFaults(t *testing.T) {
	t.Parallel()
	err := Config{CommitInterval: -1, MaxDirty: -1, Bound: -1, Idle: "sometimes", SessionTimeout: 1}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"brokers", "commit interval", "max dirty -1", "bound", `"sometimes"`, "session timeout", "now", "logger"} {
		if !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// Once a member that had died while it waited for the others kept them waiting for sarama's 60 s, longer than they waited for
// an answer: each came back as another member and began the wait anew, for ever.
func TestRebalanceEndsBeforeItsMembersHangUp(t *testing.T) {
	t.Parallel()
	for _, session := range []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute} {
		c := Config{SessionTimeout: session}.withDefaults()
		s := c.groupSarama()
		if wait := s.Consumer.Group.Rebalance.Timeout; wait > session || s.Net.ReadTimeout <= wait {
			t.Errorf("session %v: a rebalance may last %v, an answer is awaited for %v", session, wait, s.Net.ReadTimeout)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("session %v: %v", session, err)
		}
	}
}

// A key that recovery sees first with an open window and then closed has nothing due: nothing is written for it again.
func TestRecoveryForgetsWhatWasDueBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := fresh()
	at.clock.watermark = 200
	r.begin(at)
	s := store[tick, tally]{r.p, &frames{}, func(error) {}}
	for i, e := range []codecs.Envelope{
		{Sources: []codecs.Source{{Offset: 0}}, Purged: math.MinInt64, Due: 100, State: []byte{2}},
		{Sources: []codecs.Source{{Offset: 1}}, Purged: 200, Due: codecs.NoDue, State: []byte{4}},
	} {
		recoverRecord(t, s, "a", e.Append(nil))
		r.p.tick(r.config.Now())
		if fires := i == 0; r.p.entries["a"].fires != fires {
			t.Errorf("after record %d the key fires: %v", i, !fires)
		}
		r.p.entries["a"].fires = false
	}
	recoverRecord(t, s, "b", (&codecs.Envelope{Sources: []codecs.Source{{Offset: 2}}, Purged: math.MinInt64, Due: 100}).Append(nil))
	recoverRecord(t, s, "b", (&codecs.Envelope{Sources: []codecs.Source{{Offset: 3}}, Purged: 200, Due: codecs.NoDue}).Append(nil))
	if r.p.tick(r.config.Now()); r.p.entries["b"].fires {
		t.Error("a window closed long ago fires")
	}
}

// Keys that come and go leave no more memory behind than is in use.
func TestShelfHoldsNoMoreThanIsUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin(fresh())
	for i := range int64(5 * spareLives) {
		r.deliver(i, fmt.Sprintf("k%d 1000", i))
		if i%100 == 99 {
			r.checkpoint()
		}
	}
	if n := len(r.p.idle); n > spareLives+100 {
		t.Errorf("%d decoded states lie on the shelf", n)
	}
}
