package window

import (
	"math"
	"testing"
)

// bytesOf deals the fuzzer's bytes out; when they are used up it deals zeros.
type bytesOf struct{ data []byte }

func (b *bytesOf) next() int64 {
	if len(b.data) == 0 {
		return 0
	}
	n := b.data[0]
	b.data = b.data[1:]
	return int64(n)
}

func (b *bytesOf) definition() Definition {
	d := Definition{Kind: Kind(b.next() % 4), Size: ms(1 + b.next()%32), Offset: ms(b.next() - 128)}
	switch d.Kind {
	case Hopping:
		d.Slide = ms(1 + b.next()%40)
	case Cumulating:
		d.Slide = ms(1 + b.next()%8)
		d.Size = d.Slide * ms(1+b.next()%8) / ms(1)
	case Session:
		d = Definition{Kind: Session, Gap: d.Size}
	case Tumbling:
	}
	return d
}

// FuzzOperator turns bytes into a definition, a stream and what a caller does, and compares with the model. Times may lie at the ends of int64.
func FuzzOperator(f *testing.F) {
	for kind := range byte(4) {
		f.Add([]byte{kind, 9, 130, 4, 3, 5, 0, 10, 3, 0, 0, 12, 3, 0, 0, 40, 5, 0, 0, 20, 8, 0, 0, 90, 3, 0})
		f.Add([]byte{kind, 19, 100, 6, 6, 10, 1, 10, 7, 0, 1, 60, 3, 0, 2, 12, 6, 0, 2, 250, 3, 5, 3, 3, 3, 4, 3, 90, 4, 9})
		f.Add([]byte{kind, 4, 0, 4, 0, 0, 4, 1, 0, 1, 4, 2, 1, 1, 5, 1, 3, 0, 5, 9, 3, 7})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &bytesOf{data}
		d := b.definition()
		o := Options{AllowedLateness: ms(b.next() % 50), Emit: Emit(b.next() % 2)}
		bases := []int64{0, 0, 0, 100, earliest, latest, math.MinInt64, math.MaxInt64}
		var stream []arrival
		var acts []int
		for id := 0; len(b.data) > 0 && id < 200; id++ {
			ts := bases[b.next()%int64(len(bases))] + b.next() - 128
			acts = append(acts, int(b.next()%10))
			after := ts - b.next()
			if after > ts {
				after = none
			}
			stream = append(stream, arrival{event{id, ts}, after})
		}
		next := 0
		runModel(t, d, o, stream, func() int {
			next++
			return acts[next-1]
		})
	})
}
