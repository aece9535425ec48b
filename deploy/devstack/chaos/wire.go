package chaos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// wire is the network in front of an embedded broker. It understands just enough of Kafka's protocol to say whose request
// of which kind passes, and may cut or hold it before the broker sees it, or its answer after the broker has acted.
type wire struct {
	mu    sync.Mutex
	conns map[*conn]struct{}
	rules []*rule
}

// side is whether a rule strikes a request before the broker has it, or its answer.
type side uint8

const (
	before side = iota
	after
)

// rule is one fault of the network. The zero value of a selector matches everything.
type rule struct {
	client string  // client id; "" is every replica
	keys   []int16 // API keys
	topic  string  // requests that name this topic; "" is all
	side   side
	left   int           // how often it strikes; -1 until lifted
	hold   time.Duration // the request or answer is held so long, then goes on; 0 cuts the connection instead
	done   chan struct{} // closed when lifted: whatever is held goes on
	hits   int
}

func (r *rule) matches(client string, key int16, s side, frame []byte) bool {
	return r.names(frame) && r.left != 0 && r.side == s && (r.client == client || r.client == "" && strings.HasPrefix(client, clientPrefix)) && (len(r.keys) == 0 || slices.Contains(r.keys, key))
}

// names reports whether a request names the rule's topic: its length in two bytes, then the name.
func (r *rule) names(frame []byte) bool {
	return r.topic == "" || bytes.Contains(frame, append(binary.BigEndian.AppendUint16(nil, uint16(len(r.topic))), r.topic...))
}

// add installs a rule until lift.
func (w *wire) add(r *rule) *rule {
	r.done = make(chan struct{})
	w.mu.Lock()
	w.rules = append(w.rules, r)
	w.mu.Unlock()
	return r
}

// lift removes a rule. Lifting again does nothing.
func (w *wire) lift(r *rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.rules, r); i >= 0 {
		w.rules = slices.Delete(w.rules, i, i+1)
		close(r.done)
	}
}

// struck is how often a rule has struck.
func (w *wire) struck(r *rule) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return r.hits
}

// heal removes all rules but those that isolate a client for good.
func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = slices.DeleteFunc(w.rules, func(r *rule) bool {
		if r.isolation() {
			return false
		}
		close(r.done)
		return true
	})
}

func (r *rule) isolation() bool {
	return r.client != "" && len(r.keys) == 0 && r.hold == 0 && r.left < 0
}

// isolate cuts a client off for good, as if its machine had lost power.
func (w *wire) isolate(client string) {
	w.add(&rule{client: client, side: before, left: -1})
	w.add(&rule{client: client, side: after, left: -1})
	w.cut(func(c *conn) bool { return c.client == client })
}

// cut closes the connections that are chosen.
func (w *wire) cut(chosen func(*conn) bool) int {
	w.mu.Lock()
	var struck []*conn
	for c := range w.conns {
		if chosen(c) {
			struck = append(struck, c)
		}
	}
	w.mu.Unlock()
	for _, c := range struck {
		c.sever()
	}
	return len(struck)
}

// strike finds the rule that a request or its answer falls under.
func (w *wire) strike(client string, key int16, s side, frame []byte) *rule {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rules {
		if r.matches(client, key, s, frame) {
			r.left = max(r.left-1, min(r.left, -1))
			r.hits++
			return r
		}
	}
	return nil
}

// listen wraps a listener's connections.
func (w *wire) listen(l net.Listener) net.Listener { return &listener{l, w} }

type listener struct {
	net.Listener
	wire *wire
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wrapped := &conn{Conn: c, wire: l.wire, closed: make(chan struct{})}
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	if l.wire.conns == nil {
		l.wire.conns = make(map[*conn]struct{})
	}
	l.wire.conns[wrapped] = struct{}{}
	return wrapped, nil
}

// conn is a broker's end of one connection. The broker reads from one goroutine and writes each answer in one call, in the
// order of the requests.
type conn struct {
	net.Conn
	wire   *wire
	closed chan struct{}
	once   sync.Once

	client string // guarded by wire.mu
	rest   []byte // of the request being read

	mu   sync.Mutex
	keys []int16 // of the requests that wait for an answer
}

var errCut = errors.New("connection cut")

// Close ends the connection and whatever is held on it.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.wire.mu.Lock()
		delete(c.wire.conns, c)
		c.wire.mu.Unlock()
	})
	return c.Conn.Close()
}

// afterlife is how long the broker does not learn that a connection has ended. A broker learns that a member is dead when
// its session ends, not before; kfake forgets about the session of a member whose connection ended while it waited for
// the others to join, and would keep it in the group for ever.
const afterlife = 15 * time.Second

// sever ends the connection for the client.
func (c *conn) sever() { _ = c.Conn.Close() }

// Read hands the broker a request when it is complete and no rule objects.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		frame, err := c.receive()
		if err != nil {
			c.rest = nil
			t := time.NewTimer(afterlife)
			defer t.Stop()
			select {
			case <-t.C:
			case <-c.closed:
			}
			return 0, err
		}
		c.rest = frame
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// receive is the next request that the rules let through.
func (c *conn) receive() ([]byte, error) {
	frame, err := readFrame(c.Conn)
	if err != nil {
		return nil, err
	}
	key, client := header(frame)
	c.wire.mu.Lock()
	c.client = client
	c.wire.mu.Unlock()
	if err := c.suffer(client, key, before, frame); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.keys = append(c.keys, key)
	c.mu.Unlock()
	return frame, nil
}

// Write sends an answer if no rule objects. Whether it arrives the broker does not learn.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	key := int16(-1)
	if len(c.keys) > 0 {
		key, c.keys = c.keys[0], c.keys[1:]
	}
	c.mu.Unlock()
	c.wire.mu.Lock()
	client := c.client
	c.wire.mu.Unlock()
	if err := c.suffer(client, key, after, nil); err == nil {
		_, _ = c.Conn.Write(p)
	}
	return len(p), nil
}

// suffer lets the rules strike.
func (c *conn) suffer(client string, key int16, s side, frame []byte) error {
	r := c.wire.strike(client, key, s, frame)
	if r == nil {
		return nil
	}
	if r.hold == 0 {
		c.sever()
		return errCut
	}
	t := time.NewTimer(r.hold)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.done:
	case <-c.closed:
		// The client has given up, but what it sent is on its way: the broker gets it all the same.
		if s == after {
			return errCut
		}
	}
	return nil
}

// maxFrame is more than any request of a test.
const maxFrame = 64 << 20

// readFrame reads one request with its length.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return nil, errCut
	}
	frame := make([]byte, 4+n)
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}

// header reads a request's API key and client id: length (4), key (2), version (2), correlation (4), client id (2 + n).
func header(frame []byte) (key int16, client string) {
	if len(frame) < 14 {
		return -1, ""
	}
	key = int16(binary.BigEndian.Uint16(frame[4:]))
	if n := int(int16(binary.BigEndian.Uint16(frame[12:]))); n > 0 && len(frame) >= 14+n {
		client = string(frame[14 : 14+n])
	}
	return key, client
}
