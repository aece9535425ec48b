package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"klgstream.dev/deploy/devstack"
	"klgstream.dev/deploy/devstack/kafkatest"
)

func TestTopics(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	exerciseTopics(t, b.Addrs()[0])
}

func TestTopicsOnRealKafka(t *testing.T) {
	exerciseTopics(t, kafkatest.Start(t, kafkatest.Options{}).Addrs()[0])
}

// exerciseTopics creates topics, finds them again, and refuses what does not match.
func exerciseTopics(t *testing.T, addr string) {
	t.Helper()
	topics := func(want int, args ...string) (string, string) {
		t.Helper()
		o := newOutside()
		if code := run(t.Context(), append([]string{"topics", "--brokers", addr}, args...), o.environment); code != want {
			t.Fatalf("topics %q: exit code %d, want %d\n%s%s", args, code, want, o.out.String(), o.errs.String())
		}
		return o.out.String(), o.errs.String()
	}
	k := Kafka{Brokers: []string{addr}, ClientID: "test"}
	if faults, err := verifyTopics(k, testNames); err != nil || len(faults) != 6 || !onlyMissing(faults) {
		t.Errorf("before there are topics: %v, %v", faults, err)
	}
	if out, _ := topics(exitOK, "--dry-run"); strings.Count(out, "would be created") != 9 {
		t.Errorf("dry run printed %s", out)
	}
	if out, _ := topics(exitOK); strings.Count(out, " created: 4 partitions") != 9 {
		t.Errorf("printed %s", out)
	}
	if faults, err := verifyTopics(k, testNames); err != nil || len(faults) > 0 {
		t.Errorf("after creating: %v, %v", faults, err)
	}
	if out, _ := topics(exitOK); strings.Count(out, "exists") != 9 {
		t.Errorf("a second time printed %s", out)
	}
	_, errs := topics(exitFailed, "--partitions", "6", "--input-retention=-1ms")
	for _, want := range []string{
		"aircraft-events: has 4 partitions, must have 6", "retention.ms is 604800000, must be -1",
		"aircraft-activity-table: has 4 partitions, must have 6 (an aircraft has the same partition everywhere); mend: klgstream topics --brokers " + addr + " --partitions 4\n",
	} {
		if !strings.Contains(errs, want) {
			t.Errorf("%s\ndoes not say %s", errs, want)
		}
	}
	if strings.Contains(errs, "--delete") {
		t.Errorf("another --partitions is mended by deleting what was counted:\n%s", errs)
	}
	if out, _ := topics(exitOK, "--group", "other"); strings.Count(out, "created") != 2 {
		t.Errorf("for another group printed %s", out)
	}
	admin, err := newTopicAdmin(k)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	wanted := plan(testNames, testPlan())
	if err := admin.create(t.Context(), wanted[0]); err != nil {
		t.Errorf("creating what exists: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := admin.create(ctx, wanted[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("creating with an ended context: %v", err)
	}
	if _, err := admin.await(ctx, []topic{{name: "never"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("awaiting with an ended context: %v", err)
	}
}

func TestTopicsWithoutBroker(t *testing.T) {
	o := newOutside()
	if code := run(t.Context(), []string{"topics", "--brokers", "127.0.0.1:1"}, o.environment); code != exitUnavailable || !strings.Contains(o.errs.String(), "REDPANDA_BROKERS") {
		t.Errorf("exit code %d, said %q", code, o.errs.String())
	}
}

// A topic that cannot be made says why.
func TestTopicsRefusedByBroker(t *testing.T) {
	b, err := devstack.Start(t.Context(), devstack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	o := newOutside()
	code := run(t.Context(), []string{"topics", "--brokers", b.Addrs()[0], "--replication-factor", "3"}, o.environment)
	if code != exitFailed || !strings.Contains(o.errs.String(), `create topic "aircraft-events"`) {
		t.Errorf("exit code %d, said %q", code, o.errs.String())
	}
}
