package engine

import "hash"

// murmur2 is Kafka's default partitioner hash (org.apache.kafka.common.utils.Utils.murmur2): 32 bits, seed 0x9747b28c.
func murmur2(data []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for len(data) >= 4 {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

// PartitionOf is the partition of a key among n: murmur2 & 0x7fffffff modulo n, as Kafka's own producers choose it.
func PartitionOf(key []byte, n int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % n
}

// Hasher is PartitionOf's hash for goka's processors and views. Masked: goka negates a negative hash, which the
// least integer survives.
func Hasher() hash.Hash32 { return new(hasher) }

type hasher struct{ data []byte }

func (h *hasher) Write(p []byte) (int, error) { h.data = append(h.data, p...); return len(p), nil }
func (h *hasher) Sum(b []byte) []byte {
	s := h.Sum32()
	return append(b, byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
}
func (h *hasher) Reset()         { h.data = h.data[:0] }
func (h *hasher) Size() int      { return 4 }
func (h *hasher) BlockSize() int { return 4 }
func (h *hasher) Sum32() uint32  { return murmur2(h.data) & 0x7fffffff }
