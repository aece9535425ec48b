package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
)

// group is the consumer group goka sees. It loops over generations inside, because goka sleeps 5 s after each Consume;
// it hands out frames instead of records; and it ignores goka's marks, because positions are committed by checkpoints (E1).
type group struct {
	sarama.ConsumerGroup
	sessions sessions
	frames   *frames
	limit    int
}

// sessions is what a generation needs beside goka.
type sessions interface {
	// begin is called with a new generation's claims before goka recovers its tables, ready after.
	begin(s sarama.ConsumerGroupSession) error
	ready(s sarama.ConsumerGroupSession)
	// claim is called when a claim's records start to come.
	claim(c sarama.ConsumerGroupClaim)
	// trouble is called when a claim's partition cannot be read.
	trouble(partition int32)
	// finish is called after goka has stopped its partitions, while the generation still may commit.
	finish(s sarama.ConsumerGroupSession) error
}

// Consume runs generation after generation until the context ends or one fails.
func (g *group) Consume(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	handler := &handler{ConsumerGroupHandler: h, group: g}
	for ctx.Err() == nil {
		err := g.ConsumerGroup.Consume(ctx, topics, handler)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what ends with the context is no error
		}
		if err == nil {
			err = handler.err
		}
		if err != nil {
			return fmt.Errorf("consume %v: %w", topics, err)
		}
	}
	return nil
}

// Errors are the group's errors, which goka reads. Those of a claim say that its partition cannot be read now.
func (g *group) Errors() <-chan error {
	out := make(chan error, cap(g.ConsumerGroup.Errors())) // like sarama's, it drops what nobody takes
	go func() {
		defer close(out)
		for err := range g.ConsumerGroup.Errors() {
			if e, ok := errors.AsType[*sarama.ConsumerError](err); ok {
				g.sessions.trouble(e.Partition)
			}
			select {
			case out <- err:
			default:
			}
		}
	}()
	return out
}

// handler passes a generation on to goka.
type handler struct {
	sarama.ConsumerGroupHandler
	group *group
	err   error // sarama only logs what Cleanup returns
}

// Setup prepares the partitions, then lets goka recover their tables.
func (h *handler) Setup(s sarama.ConsumerGroupSession) error {
	h.err = nil
	err := h.group.sessions.begin(s)
	if err == nil {
		err = h.ConsumerGroupHandler.Setup(unmarked{s})
	}
	if err == nil && s.Context().Err() == nil {
		h.group.sessions.ready(s)
	}
	return err
}

// Cleanup stops goka's partitions and writes what they folded.
func (h *handler) Cleanup(s sarama.ConsumerGroupSession) error {
	h.err = errors.Join(h.ConsumerGroupHandler.Cleanup(unmarked{s}), h.group.sessions.finish(s))
	return h.err
}

// ConsumeClaim hands a claim's records to goka as frames.
func (h *handler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	h.group.sessions.claim(c)
	return h.ConsumerGroupHandler.ConsumeClaim(unmarked{s}, newFramedClaim(c, h.group.frames, h.group.limit, s.Context().Done()))
}

// unmarked is a session that commits nothing (E1).
type unmarked struct{ sarama.ConsumerGroupSession }

func (unmarked) MarkOffset(string, int32, int64, string)     {}
func (unmarked) ResetOffset(string, int32, int64, string)    {}
func (unmarked) MarkMessage(*sarama.ConsumerMessage, string) {}
func (unmarked) Commit()                                     {}
