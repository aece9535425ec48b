package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"github.com/IBM/sarama"
)

// brokerDialer connects without TLS and sees to it that a broker answers. sarama takes the first bytes of another protocol for
// the length of an answer, reserves that much memory (more than a gigabyte if it is HTTP), and says "unexpected EOF".
type brokerDialer struct{ config *sarama.Config }

// Dial connects.
func (d brokerDialer) Dial(network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.config.Net.DialTimeout, KeepAlive: d.config.Net.KeepAlive}
	conn, err := dialer.DialContext(context.Background(), network, addr)
	if err != nil {
		return nil, err
	}
	return &brokerConn{Conn: conn, addr: addr}, nil
}

// brokerConn looks at the beginning of the first answer. sarama asks a second time and tells of that, so what is wrong is kept.
type brokerConn struct {
	net.Conn
	addr     string
	known    atomic.Bool
	stranger atomic.Pointer[error]
}

// Write implements net.Conn.
func (c *brokerConn) Write(b []byte) (int, error) {
	if fault := c.stranger.Load(); fault != nil {
		return 0, *fault
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *brokerConn) Read(b []byte) (int, error) {
	if fault := c.stranger.Load(); fault != nil {
		return 0, *fault
	}
	n, err := c.Conn.Read(b)
	if c.known.Load() {
		return n, err
	}
	var fault error
	switch {
	case n > 0:
		c.known.Store(true)
		fault = notKafka(b[:n])
	case errors.Is(err, io.EOF):
		fault = fmt.Errorf("%w before any answer (does it want --tls?)", err)
	}
	if fault == nil {
		return n, err
	}
	fault = fmt.Errorf("read from %s: %w", c.addr, fault)
	c.stranger.Store(&fault)
	return 0, fault
}

// notKafka is what is wrong with the beginning of an answer; nil if nothing is.
func notKafka(answer []byte) error {
	switch {
	case bytes.HasPrefix(answer, []byte{0x15, 3}): // an alert
		return errors.New("it speaks TLS: set --tls")
	case bytes.HasPrefix(answer, []byte("HTTP")):
		return errors.New("it speaks HTTP and is no broker")
	case len(answer) >= 4 && binary.BigEndian.Uint32(answer) > uint32(sarama.MaxResponseSize):
		return fmt.Errorf("it does not speak Kafka's protocol, but begins with %q", answer[:4])
	}
	return nil
}
