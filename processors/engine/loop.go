package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/IBM/sarama"
)

// Headers of loop records. Integers are big-endian.
const (
	// headerSource marks a re-keyed event: partition (4 bytes) and offset (8) it was first read from.
	headerSource = "klg-source"
	// headerWatermark marks a watermark passed on: partition (4 bytes), watermark in ms (8), status (1).
	headerWatermark = "klg-watermark"
)

// source says where an event was first read from.
type source struct {
	partition int32
	offset    int64
}

var (
	keySource    = []byte(headerSource)
	keyWatermark = []byte(headerWatermark)
)

func (s source) header() *sarama.RecordHeader {
	v := binary.BigEndian.AppendUint32(make([]byte, 0, 12), uint32(s.partition))
	return &sarama.RecordHeader{Key: keySource, Value: binary.BigEndian.AppendUint64(v, uint64(s.offset))}
}

// announcement is a partition's own watermark as told to the others.
type announcement struct {
	partition int32
	watermark int64
	idle      bool
}

func (a announcement) header() *sarama.RecordHeader {
	v := binary.BigEndian.AppendUint32(make([]byte, 0, 13), uint32(a.partition))
	v = binary.BigEndian.AppendUint64(v, uint64(a.watermark))
	status := byte(0)
	if a.idle {
		status = 1
	}
	return &sarama.RecordHeader{Key: keyWatermark, Value: append(v, status)}
}

// parseLoop reads what a loop record is: a re-keyed event (src), or an announcement (ann not nil).
func parseLoop(m *sarama.ConsumerMessage) (src source, ann *announcement, err error) {
	for _, h := range m.Headers {
		switch {
		case h == nil:
		case bytes.Equal(h.Key, keySource) && len(h.Value) == 12:
			return source{
				int32(binary.BigEndian.Uint32(h.Value)), int64(binary.BigEndian.Uint64(h.Value[4:])),
			}, nil, nil
		case bytes.Equal(h.Key, keyWatermark) && len(h.Value) == 13:
			return source{}, &announcement{
				int32(binary.BigEndian.Uint32(h.Value)), int64(binary.BigEndian.Uint64(h.Value[4:])), h.Value[12] == 1,
			}, nil
		}
	}
	return source{}, nil, fmt.Errorf("read loop record: no %s and no %s header: only klgstream processors may write to the loop topic",
		headerSource, headerWatermark)
}
