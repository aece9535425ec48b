package engine

import "github.com/IBM/sarama"

// topicPartition names one partition of one topic.
type topicPartition struct {
	topic     string
	partition int32
}

// spool keeps records for one topic partition between a cut and their acknowledgement. Keys and values are copied into
// chunks that are used again after reset.
type spool struct {
	to                  topicPartition
	chunks              [][]byte
	current             int
	records             []sarama.Record
	bytes               int
	usual, usualRecords int

	pointers []*sarama.Record // the outbox's scratch
}

const chunkSize = 64 << 10

// copy puts b into the current chunk, or into one of its own if it is large.
func (s *spool) copy(b []byte) []byte {
	if b == nil {
		return nil
	}
	if len(b) > chunkSize/4 {
		return append([]byte(nil), b...)
	}
	for {
		if s.current == len(s.chunks) {
			s.chunks = append(s.chunks, make([]byte, 0, chunkSize))
		}
		c := s.chunks[s.current]
		if n := len(c); cap(c)-n >= len(b) {
			c = append(c, b...)
			s.chunks[s.current] = c
			return c[n:len(c):len(c)]
		}
		s.current++
	}
}

// add copies a record into the spool.
func (s *spool) add(key, value []byte, headers ...*sarama.RecordHeader) {
	s.records = append(s.records, sarama.Record{Key: s.copy(key), Value: s.copy(value), Headers: headers})
	s.bytes += recordSize(key, value, headers)
}

// recordSize is an upper bound of the bytes a record takes in a batch.
func recordSize(key, value []byte, headers []*sarama.RecordHeader) int {
	n := len(key) + len(value) + 36
	for _, h := range headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}

// footprint is about what a record takes in memory while it waits: its bytes, and what holds them together.
func footprint(key, value []byte, headers []*sarama.RecordHeader) int {
	return recordSize(key, value, headers) + 160 + 96*len(headers)
}

// reset empties the spool. It keeps as much memory as it has lately used, so that a load whose every cut is large does not
// allocate it again each time, and gives the rest back step by step.
func (s *spool) reset() {
	const least = 8 // chunks, 512 KiB
	s.usual = max(s.current+1, s.usual-s.usual/8-1)
	if keep := max(s.usual, least); len(s.chunks) > keep {
		clear(s.chunks[keep:])
		s.chunks = s.chunks[:keep]
	}
	for i := range s.chunks {
		s.chunks[i] = s.chunks[i][:0]
	}
	s.usualRecords = max(len(s.records), s.usualRecords-s.usualRecords/8-1)
	clear(s.records)
	s.records, s.current, s.bytes = s.records[:0], 0, 0
	if cap(s.records) > 4*s.usualRecords+1024 {
		s.records, s.pointers = nil, nil
	}
}

// spools are the records one partition caused between two cuts.
type spools struct {
	table spool            // group table: states
	loop  map[int32]*spool // re-keyed events and announcements, by destination partition
	dead  spool
	out   spool
	late  spool
}

func (s *spools) reset() {
	s.table.reset()
	for _, l := range s.loop {
		l.reset()
	}
	s.dead.reset()
	s.out.reset()
	s.late.reset()
}

// first are the spools to be acknowledged before results and late events are sent.
func (s *spools) first(dst []*spool) []*spool {
	dst = appendFilled(dst, &s.table)
	for _, l := range s.loop {
		dst = appendFilled(dst, l)
	}
	return appendFilled(dst, &s.dead)
}

func appendFilled(dst []*spool, s *spool) []*spool {
	if len(s.records) == 0 {
		return dst
	}
	return append(dst, s)
}
