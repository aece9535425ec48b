package engine

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/IBM/sarama"
)

// keeping is a [sarama.BalanceStrategy] that leaves partitions where they are. As goka wants it, partition n of every topic goes
// to one member; every member gets as many as any other, or one more; and as many partitions as that allows stay with
// the member that had them: what moves has to be recovered. goka's own strategy deals out ranges in the order of the members'
// ids, so one that comes or goes moves the partitions of all.
//
// A member tells what it had in the user data of its next join, which sarama keeps from the last assignment. Of two
// that claim one partition the one of the later generation is believed: the other missed that it had lost it.
//
// Static members are told nothing: a broker may take one that joins again with other data for one that has changed, and
// rebalance. Their ids begin with their instances' names, so that ranges in the order of ids are the same after a restart of
// all of them.
type keeping struct{ static bool }

// Name is the protocol the members of a group agree on.
func (keeping) Name() string { return "klgstream-keeping" }

// Plan divides the partitions among the members.
func (keeping) Plan(members map[string]sarama.ConsumerGroupMemberMetadata, topics map[string][]int32) (sarama.BalanceStrategyPlan, error) {
	partitions, err := copartitions(topics)
	if err != nil {
		return nil, err
	}
	plan := make(sarama.BalanceStrategyPlan, len(members))
	for id, own := range deal(slices.Sorted(maps.Keys(members)), owners(members), partitions) {
		for _, topic := range members[id].Topics {
			plan.Add(id, topic, own...)
		}
	}
	return plan, nil
}

// AssignmentData is what a member is to tell when it joins again.
func (k keeping) AssignmentData(_ string, topics map[string][]int32, generation int32) ([]byte, error) {
	if k.static {
		return nil, nil
	}
	for _, partitions := range topics { // the same of each topic
		return claim{generation, partitions}.append(nil), nil
	}
	return claim{generation, nil}.append(nil), nil
}

// copartitions are the partitions of each topic, which must be the same of all.
func copartitions(topics map[string][]int32) ([]int32, error) {
	names := slices.Sorted(maps.Keys(topics))
	var all []int32
	for i, name := range names {
		own := slices.Sorted(slices.Values(topics[name]))
		if i > 0 && !slices.Equal(own, all) {
			return nil, fmt.Errorf("balance topics: %q has %d partitions, %q has %d: they must have the same", names[0], len(all), name, len(own))
		}
		all = own
	}
	return all, nil
}

// owners are the members that had partitions.
func owners(members map[string]sarama.ConsumerGroupMemberMetadata) map[int32]string {
	out, since := make(map[int32]string), make(map[int32]int32)
	for _, id := range slices.Sorted(maps.Keys(members)) {
		c, ok := parseClaim(members[id].UserData)
		if !ok {
			continue // new, or of another program: it had nothing
		}
		for _, p := range c.partitions {
			if _, taken := out[p]; !taken || c.generation > since[p] {
				out[p], since[p] = id, c.generation
			}
		}
	}
	return out
}

// deal gives every member its part; had says who had what before.
func deal(ids []string, had map[int32]string, partitions []int32) map[string][]int32 {
	out := make(map[string][]int32, len(ids))
	var free []int32
	for _, p := range partitions {
		if id, ok := had[p]; ok {
			out[id] = append(out[id], p)
		} else {
			free = append(free, p)
		}
	}
	// The odd ones go to those that had most: they would have to give away most.
	ids = slices.SortedStableFunc(slices.Values(ids), func(a, b string) int { return cmp.Compare(len(out[b]), len(out[a])) })
	part := func(i int) int {
		n := len(partitions) / len(ids)
		if i < len(partitions)%len(ids) {
			n++
		}
		return n
	}
	for i, id := range ids {
		if n := part(i); len(out[id]) > n {
			free = append(free, out[id][n:]...)
			out[id] = out[id][:n]
		}
	}
	slices.Sort(free)
	for i, id := range ids {
		n := part(i) - len(out[id])
		out[id] = slices.Sorted(slices.Values(append(out[id], free[:n]...)))
		free = free[n:]
	}
	return out
}

// claim is what a member had in a generation.
type claim struct {
	generation int32
	partitions []int32
}

// claimVersion is the first byte of a claim.
const claimVersion = 1

func (c claim) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, claimVersion), uint32(c.generation))
	for _, p := range c.partitions {
		dst = binary.BigEndian.AppendUint32(dst, uint32(p))
	}
	return dst
}

// parseClaim reads what append wrote; false if it is nothing of that sort.
func parseClaim(data []byte) (claim, bool) {
	if len(data) < 5 || data[0] != claimVersion || len(data)%4 != 1 {
		return claim{}, false
	}
	c := claim{generation: int32(binary.BigEndian.Uint32(data[1:]))}
	for data = data[5:]; len(data) > 0; data = data[4:] {
		c.partitions = append(c.partitions, int32(binary.BigEndian.Uint32(data)))
	}
	return c, true
}
