package sink

import (
	"sync"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
)

// Reasons of the dead letters that a sink writes.
const (
	// ReasonRefused is the reason of a record that the store will never take.
	ReasonRefused = "refused_by_store"
	// ReasonNoLetter is the reason under which a record of the late or dead-letter topic is kept that has not the
	// headers of one.
	ReasonNoLetter = "no_letter"
)

// letterBox publishes dead letters. It connects when there is one: most sinks never need it.
type letterBox struct {
	brokers []string
	config  *sarama.Config
	topic   string

	mu       sync.Mutex
	producer sarama.SyncProducer
}

// producerConfig makes letters arrive once and stay: acknowledged by all replicas, repeats recognised by the broker.
func producerConfig(client *sarama.Config) *sarama.Config {
	c := *client
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Producer.MaxMessageBytes = max(c.Producer.MaxMessageBytes, 4<<20)
	c.Net.MaxOpenRequests = 1                                 // idempotence asks for it
	c.Net.DialTimeout = min(c.Net.DialTimeout, 5*time.Second) // a broker that is away must not keep a sink from stopping
	c.Net.ReadTimeout = min(c.Net.ReadTimeout, 15*time.Second)
	c.Net.WriteTimeout = min(c.Net.WriteTimeout, 15*time.Second)
	return &c
}

// put publishes the letter and returns when it is acknowledged. After an error the connection is made anew.
func (b *letterBox) put(l *codecs.Letter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.producer == nil {
		producer, err := sarama.NewSyncProducer(b.brokers, b.config)
		if err != nil {
			return err
		}
		b.producer = producer
	}
	_, _, err := b.producer.SendMessage(message(b.topic, l))
	if err != nil {
		b.reset()
	}
	return err
}

func message(topic string, l *codecs.Letter) *sarama.ProducerMessage {
	m := &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(l.Value)}
	if l.Key != nil {
		m.Key = sarama.ByteEncoder(l.Key)
	}
	if l.Value == nil {
		m.Value = nil
	}
	for _, h := range l.Headers() {
		m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	return m
}

// reset lets the connection go; what it says at that is of no use any more.
func (b *letterBox) reset() {
	if b.producer != nil {
		_ = b.producer.Close()
		b.producer = nil
	}
}

func (b *letterBox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reset()
}
