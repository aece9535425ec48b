package risingwave_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
)

// wire is the network between a sink and its database: it passes everything on, until it is to break in the middle of what
// the sink sends.
type wire struct {
	listener net.Listener
	target   string
	group    sync.WaitGroup
	struck   chan chan<- fate // receives behind so many bytes; the sender of the bytes waits for what becomes of its connection

	mu     sync.Mutex
	armed  bool
	left   int // bytes to pass on before the next fault
	closed bool
	open   map[*line]struct{}
}

// fate is what becomes of a connection.
type fate int

const (
	cut    fate = iota // reset, at both ends
	silent             // nothing comes through any more, and nobody is told
)

// line is one connection through the wire.
type line struct {
	client, server net.Conn
	mu             sync.Mutex
	silent         bool
}

// lay lays a wire to the server.
func lay(t *testing.T, s *server) *wire {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, target: "127.0.0.1:" + s.port, struck: make(chan chan<- fate), open: map[*line]struct{}{}}
	w.group.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

// through is a server's URL with the wire before it.
func (w *wire) through(url string) string {
	return strings.Replace(url, w.target, w.listener.Addr().String(), 1)
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &line{client: client, server: server}
		w.mu.Lock()
		closed := w.closed
		w.open[l] = struct{}{}
		w.mu.Unlock()
		if closed {
			w.end(l)
			return
		}
		w.group.Go(func() { w.pass(l, l.client, l.server, true) })
		w.group.Go(func() { w.pass(l, l.server, l.client, false) })
	}
}

// pass passes on what one end says to the other, until either is gone.
func (w *wire) pass(l *line, from io.Reader, to io.Writer, counted bool) {
	defer w.end(l)
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		said := buffer[:n]
		if counted {
			if before, strikes := w.count(n); strikes {
				if !l.say(to, said[:before]) || !w.strike(l) {
					return
				}
				said = said[before:]
			}
		}
		if !l.say(to, said) {
			return
		}
	}
}

// say passes bytes on, or lets them vanish on a line that is silent.
func (l *line) say(to io.Writer, said []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent {
		return true
	}
	_, err := to.Write(said)
	return err == nil
}

// count tells whether the fault comes within the next n bytes, and behind how many of them.
func (w *wire) count(n int) (before int, strikes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return 0, false
	}
	if n < w.left {
		w.left -= n
		return 0, false
	}
	w.armed = false
	return w.left, true
}

// strike has the fault come, and tells whether the line lives on.
func (w *wire) strike(l *line) bool {
	verdict := make(chan fate)
	w.struck <- verdict
	what := <-verdict
	w.mu.Lock()
	defer w.mu.Unlock()
	if what == cut {
		for other := range w.open {
			other.reset()
		}
		return false
	}
	for other := range w.open {
		other.mu.Lock()
		other.silent = true
		other.mu.Unlock()
	}
	return true
}

// arm has the next fault come behind n bytes from now.
func (w *wire) arm(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed, w.left = true, n
}

// reset ends the line as a cut cable and a stateful router do: without a farewell.
func (l *line) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

func (w *wire) end(l *line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.reset()
	delete(w.open, l)
}

func (w *wire) close() {
	_ = w.listener.Close()
	w.mu.Lock()
	w.closed, w.armed = true, false
	for l := range w.open {
		l.reset()
	}
	w.mu.Unlock()
	w.group.Wait()
}

// TestWireBreaksInTheMiddle looks at the wire itself: a statement that it breaks does not reach the database whole.
func TestWireBreaksInTheMiddle(t *testing.T) {
	server := postgres(t)
	url := server.database(t)
	w := lay(t, server)
	far, near := connect(t, w.through(url)), connect(t, url)
	if _, err := far.Exec(t.Context(), "CREATE TABLE said (what text)"); err != nil {
		t.Fatal(err)
	}
	w.arm(50_000)
	broken := make(chan error)
	go func() {
		_, err := far.Exec(t.Context(), "INSERT INTO said VALUES ('"+strings.Repeat("x", 100_000)+"')")
		broken <- err
	}()
	verdict := <-w.struck
	verdict <- cut
	if err := <-broken; err == nil {
		t.Error("a statement came through a wire that was cut")
	}
	var rows int
	if err := near.QueryRow(t.Context(), "SELECT count(*) FROM said").Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows of half a statement, error %v", rows, err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// TestMigrationBreaksInTheMiddle breaks the wire at one place of a migration after the other. None is a mistake in the schema
// or in a view: a sink tries again, and would end if it were told so.
func TestMigrationBreaksInTheMiddle(t *testing.T) {
	server := postgres(t)
	w := lay(t, server)
	url := w.through(server.database(t))
	places := 0
	for n := 100; ; n += 977 {
		w.arm(n)
		migrated := make(chan error)
		go func() {
			s, err := risingwave.Open(t.Context(), risingwave.Config{URL: url})
			if err == nil {
				err = errors.Join(s.Migrate(t.Context()), s.Close())
			}
			migrated <- err
		}()
		select {
		case verdict := <-w.struck:
			verdict <- cut
			places++
			if err := <-migrated; err == nil || !views.Retryable(err) {
				t.Errorf("cut behind %d bytes: want a retryable error, got %v", n, err)
			}
			continue
		case err := <-migrated:
			if err != nil {
				t.Error(err)
			}
		}
		break
	}
	if places < 10 {
		t.Errorf("broken at %d places only", places)
	}
}
