//go:build !race

package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/IBM/sarama"
)

// E1, E2: after a failure a partition lets nobody wait for room that nothing will make.
func TestFailureWakesWhoWaitsForRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.config.MaxDirty = 1
	r.begin(fresh())
	full := make(chan struct{})
	r.p.kick = func() {
		select {
		case full <- struct{}{}:
		default:
		}
	}
	done := make(chan error)
	go func() {
		done <- r.p.process(&frame{records: []*sarama.ConsumerMessage{{Topic: "in", Value: []byte("a 1000")}}}, false)
	}()
	go func() { // whoever waits has kicked; it may not sleep yet, so the failure is told until it is heard
		<-full
		r.p.fail(errors.New("broken"))
	}()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("woken with %v", err)
	}
}
