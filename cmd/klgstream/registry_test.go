package main

import (
	"testing"
	"time"
)

// The registry forgets no aircraft, whatever is forgotten of their counts: it hears nothing of one that only flies.
func TestRegistryForgetsNothing(t *testing.T) {
	t.Parallel()
	set := Engine{StateTTL: time.Hour, MaxKeys: 7}
	counts, registry := engineConfig(&app{}, Kafka{}, Meaning{}, set, nil), engineConfig(&app{}, Kafka{}, Meaning{}, set.ofRegistry(), nil)
	if counts.StateTTL != time.Hour || registry.StateTTL != 0 || registry.MaxKeys != 7 {
		t.Errorf("state TTL %v of counts, %v of the registry, which has room for %d aircraft a partition", counts.StateTTL, registry.StateTTL, registry.MaxKeys)
	}
}
