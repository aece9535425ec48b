package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/sarama"
)

// herd is a group as its coordinator and its leader see it: members with what they were told last.
type herd struct {
	*testing.T
	members    map[string]sarama.ConsumerGroupMemberMetadata
	partitions []int32
	generation int32
	had        map[string][]int32
}

func newHerd(t *testing.T, partitions int) *herd {
	h := &herd{T: t, members: map[string]sarama.ConsumerGroupMemberMetadata{}, had: map[string][]int32{}}
	for p := range partitions {
		h.partitions = append(h.partitions, int32(p))
	}
	return h
}

func (h *herd) join(id string) {
	h.members[id] = sarama.ConsumerGroupMemberMetadata{Topics: []string{"events", "loop"}}
}

func (h *herd) leave(id string) {
	delete(h.members, id)
	delete(h.had, id)
}

// balance is a rebalance: it checks what must hold of every plan, and returns how many partitions that somebody had are elsewhere.
func (h *herd) balance() (moved int) {
	h.Helper()
	h.generation++
	plan, err := keeping{}.Plan(h.members, map[string][]int32{"events": slices.Clone(h.partitions), "loop": slices.Clone(h.partitions)})
	if err != nil {
		h.Fatal(err)
	}
	var all []int32
	for id, meta := range h.members {
		own := plan[id]["events"]
		if !slices.Equal(own, plan[id]["loop"]) {
			h.Fatalf("%s: events %v, loop %v", id, own, plan[id]["loop"])
		}
		if least := len(h.partitions) / len(h.members); len(own) < least || len(own) > least+1 {
			h.Fatalf("%s has %d of %d partitions, there are %d members", id, len(own), len(h.partitions), len(h.members))
		}
		for _, p := range h.had[id] {
			if !slices.Contains(own, p) {
				moved++
			}
		}
		all, h.had[id] = append(all, own...), own
		if meta.UserData, err = (keeping{}).AssignmentData(id, plan[id], h.generation); err != nil {
			h.Fatal(err)
		}
		h.members[id] = meta
	}
	if slices.Sort(all); !slices.Equal(all, h.partitions) {
		h.Fatalf("given are %v, want each of %d once", all, len(h.partitions))
	}
	return moved
}

// unavoidable is how many partitions the members must give away so that all have their part.
func (h *herd) unavoidable() int {
	kept, counts := 0, []int{}
	for id := range h.members {
		counts = append(counts, len(h.had[id]))
	}
	slices.SortFunc(counts, func(a, b int) int { return b - a })
	had := 0
	for i, n := range counts {
		part := len(h.partitions) / len(counts)
		if i < len(h.partitions)%len(counts) {
			part++
		}
		had += n
		kept += min(n, part)
	}
	return had - kept
}

// Whoever comes and goes, in any order and any number at once: all partitions are given, evenly, of all topics alike, and none
// moves that need not.
func TestBalanceMovesNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := newHerd(t, 1+r.IntN(40))
		for step := range 20 {
			for range 1 + r.IntN(3) {
				if ids := slices.Sorted(maps.Keys(h.members)); len(ids) > 1 && r.IntN(2) == 0 {
					h.leave(ids[r.IntN(len(ids))])
				} else {
					h.join(fmt.Sprintf("m-%x", r.Uint32()))
				}
			}
			want := h.unavoidable()
			if got := h.balance(); got != want {
				t.Fatalf("seed %d step %d: %d partitions moved, %d had to", seed, step, got, want)
			}
			if got := h.balance(); got != 0 {
				t.Fatalf("seed %d step %d: nobody came or went, %d partitions moved", seed, step, got)
			}
		}
	}
}

// A replica that leaves gives its partitions to the others, one that comes takes its part from them; goka's ranges move more.
func TestBalanceOfARollingRestart(t *testing.T) {
	t.Parallel()
	h := newHerd(t, 12)
	for i := range 3 {
		h.join(fmt.Sprintf("r-%d", i))
	}
	h.balance()
	for i := range 3 {
		h.leave(fmt.Sprintf("r-%d", i))
		if n := h.balance(); n != 0 {
			t.Errorf("replica %d left: %d partitions of others moved", i, n)
		}
		h.join(fmt.Sprintf("a-%d", i)) // sorts before the others
		if n := h.balance(); n != 4 {
			t.Errorf("replica %d came back: %d partitions moved, want its 4", i, n)
		}
	}
}

// A member that slept through a rebalance claims what is another's by now.
func TestBalanceBelievesTheLaterGeneration(t *testing.T) {
	t.Parallel()
	h := newHerd(t, 4)
	h.join("a")
	h.balance()
	asleep := h.members["a"]
	h.leave("a")
	h.join("b")
	h.balance()
	h.members["a"] = asleep // all four, of the generation before
	h.balance()
	if got := h.had["b"]; !slices.Equal(got, []int32{0, 1}) {
		t.Errorf("b had all and keeps %v", got)
	}
	for _, foreign := range [][]byte{nil, {1}, {2, 0, 0, 0, 1, 0, 0, 0, 1}, []byte("of another program"), {1, 0, 0, 0, 9, 0}} {
		h.members["b"] = sarama.ConsumerGroupMemberMetadata{Topics: []string{"events", "loop"}, UserData: foreign}
		h.balance()
	}
}

// Static members join with the same data each time, and have the same partitions after a restart of all.
func TestBalanceOfStaticMembers(t *testing.T) {
	t.Parallel()
	k := keeping{static: true}
	if data, err := k.AssignmentData("r-1-x", map[string][]int32{"events": {1}}, 3); data != nil || err != nil {
		t.Errorf("told %x, error %v", data, err)
	}
	own := func(life string) (out [3][]int32) {
		h := newHerd(t, 7)
		for i := range out {
			h.join(fmt.Sprintf("r-%d-%s", i, life))
		}
		plan, err := k.Plan(h.members, map[string][]int32{"events": h.partitions, "loop": h.partitions})
		if err != nil {
			t.Fatal(err)
		}
		for i := range out {
			out[i] = plan[fmt.Sprintf("r-%d-%s", i, life)]["events"]
		}
		return out
	}
	if a, b := own("4f"), own("07"); !reflect.DeepEqual(a, b) || len(a[0]) != 3 {
		t.Errorf("was %v, is %v", a, b)
	}
}

func TestBalanceRefusesTopicsThatDiffer(t *testing.T) {
	t.Parallel()
	h := newHerd(t, 2)
	h.join("a")
	_, err := keeping{}.Plan(h.members, map[string][]int32{"events": {0, 1}, "loop": {0, 1, 2}})
	if err == nil || !strings.Contains(err.Error(), `"events" has 2 partitions, "loop" has 3`) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(claim{7, []int32{0, 5, 11}}.append(nil))
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, ok := parseClaim(data)
		if ok && string(c.append(nil)) != string(data) {
			t.Errorf("%x is read as %v", data, c)
		}
	})
}
