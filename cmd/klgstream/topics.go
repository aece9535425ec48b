package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// topicsCmd creates and verifies the topics of the plan.
type topicsCmd struct {
	DryRun    bool `help:"Only say what would be created and what does not match." group:"command"`
	Kafka     `group:"kafka"`
	Names     `group:"names"`
	TopicPlan `group:"plan"`
}

func (c *topicsCmd) check() error { return checkAll(&c.Kafka, &c.Names, &c.TopicPlan) }

// Run creates what is missing and refuses what is otherwise than planned.
func (c *topicsCmd) Run(ctx context.Context, a *app) error {
	admin, err := newTopicAdmin(c.Kafka)
	if err != nil {
		return err
	}
	defer admin.Close()
	wanted := plan(c.Names, c.TopicPlan)
	actual, err := admin.describe(wanted)
	if err != nil {
		return err
	}
	for _, t := range wanted {
		if _, ok := actual[t.name]; ok {
			fmt.Fprintf(a.stdout, "%-28s exists\n", t.name)
			continue
		}
		if c.DryRun {
			fmt.Fprintf(a.stdout, "%-28s would be created: %s\n", t.name, t.summary())
			actual[t.name] = found{t.partitions, t.replication, t.config}
			continue
		}
		if err := admin.create(ctx, t); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%-28s created: %s\n", t.name, t.summary())
	}
	if !c.DryRun {
		if actual, err = admin.await(ctx, wanted); err != nil {
			return err
		}
	}
	return refuse(compare(wanted, actual, c.Brokers))
}

func (t *topic) summary() string {
	parts := []string{fmt.Sprintf("%d partitions", t.partitions), fmt.Sprintf("%d replicas", t.replication)}
	for _, key := range slices.Sorted(maps.Keys(t.config)) {
		parts = append(parts, key+"="+t.config[key])
	}
	return strings.Join(parts, " ")
}

// refuse is the error of topics that are not as they must be: one line each.
func refuse(faults []fault) error {
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%d settings of topics are not as they must be:\n%w", len(faults), joinFaults(faults))
}

// verifyTopics is what a role does before it starts: all topics are there, co-partitioned, and keep what must be kept. The error
// is one of asking.
func verifyTopics(k Kafka, n Names) ([]fault, error) {
	admin, err := newTopicAdmin(k)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	wanted := plan(n, TopicPlan{})
	actual, err := admin.describe(wanted)
	if err != nil {
		return nil, err
	}
	return compare(wanted, actual, k.Brokers), nil
}

// topicAdmin asks the broker about topics and makes them.
type topicAdmin struct{ sarama.ClusterAdmin }

func newTopicAdmin(k Kafka) (topicAdmin, error) {
	admin, err := sarama.NewClusterAdmin(k.Brokers, clientConfig(k))
	if err != nil {
		return topicAdmin{}, noBroker(k, err)
	}
	return topicAdmin{admin}, nil
}

// noBroker is the error of not reaching one.
func noBroker(k Kafka, err error) error {
	return fmt.Errorf("connect to broker %q (set --brokers or REDPANDA_BROKERS): %w", k.Brokers, err)
}

// create makes a topic; that it exists by now is no error.
func (a topicAdmin) create(ctx context.Context, t topic) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	config := make(map[string]*string, len(t.config))
	for key, value := range t.config {
		config[key] = &value
	}
	err := a.CreateTopic(t.name, &sarama.TopicDetail{NumPartitions: t.partitions, ReplicationFactor: t.replication, ConfigEntries: config}, false)
	if err == nil || errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return nil
	}
	return fmt.Errorf("create topic %q: %w", t.name, err)
}

// describe asks for the topics of the plan; those that do not exist are not in the answer.
func (a topicAdmin) describe(plan []topic) (map[string]found, error) {
	names := make([]string, 0, len(plan))
	for _, t := range plan {
		names = append(names, t.name)
	}
	topics, err := a.DescribeTopics(names)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	actual := map[string]found{}
	for _, t := range topics {
		switch {
		case errors.Is(t.Err, sarama.ErrUnknownTopicOrPartition):
			continue
		case !errors.Is(t.Err, sarama.ErrNoError):
			return nil, fmt.Errorf("describe topic %q: %w", t.Name, t.Err)
		}
		f := found{partitions: int32(len(t.Partitions)), config: map[string]string{}}
		if len(t.Partitions) > 0 {
			f.replication = int16(len(t.Partitions[0].Replicas))
		}
		actual[t.Name] = f
	}
	return actual, a.configs(actual)
}

// configs fills in the settings of topics.
func (a topicAdmin) configs(topics map[string]found) error {
	var ask []*sarama.ConfigResource
	for name := range topics {
		ask = append(ask, &sarama.ConfigResource{Type: sarama.TopicResource, Name: name})
	}
	answers, err := a.DescribeConfigs(ask, sarama.DescribeConfigsOptions{})
	if err != nil {
		return fmt.Errorf("describe settings of topics: %w", err)
	}
	for _, answer := range answers {
		if answer.ErrorCode != sarama.ErrNoError {
			return fmt.Errorf("describe settings of topic %q: %w", answer.Name, answer.ErrorCode)
		}
		for _, e := range answer.Configs {
			topics[answer.Name].config[e.Name] = e.Value
		}
	}
	return nil
}

// topicPoll is how often await asks.
const topicPoll = 50 * time.Millisecond

// await describes the topics once all of them are known to the brokers: creation is acknowledged before that.
func (a topicAdmin) await(ctx context.Context, plan []topic) (map[string]found, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(topicPoll)
	defer tick.Stop()
	for {
		actual, err := a.describe(plan)
		if err == nil && len(actual) == len(plan) {
			return actual, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("await %d topics: %d are there", len(plan), len(actual)), err, ctx.Err())
		}
	}
}
