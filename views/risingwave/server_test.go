package risingwave_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// server is a real PostgreSQL in a temporary directory, run by this process and ended with it.
type server struct {
	bin, data, port string
	owner           *syscall.SysProcAttr
	mu              sync.Mutex
	process         *os.Process
	ended           chan struct{} // closed when the process is gone
	databases       atomic.Int64
}

var (
	started sync.Once
	shared  *server
	missing error
)

func TestMain(m *testing.M) {
	if url := os.Getenv(sinkURL); url != "" {
		os.Exit(beSink(url, os.Getenv(sinkBroker)))
	}
	code := m.Run()
	if shared != nil {
		shared.kill()
		_ = os.RemoveAll(filepath.Dir(shared.data))
	}
	os.Exit(code)
}

// postgres is the server that all tests share. Without PostgreSQL on the machine the test is skipped, or fails if
// KLGSTREAM_REQUIRE_POSTGRES=1 says that it must be there.
func postgres(t testing.TB) *server {
	t.Helper()
	started.Do(func() { shared, missing = start() })
	if missing == nil {
		return shared
	}
	if os.Getenv("KLGSTREAM_REQUIRE_POSTGRES") == "1" {
		t.Fatal(missing)
	}
	t.Skipf("NO POSTGRESQL HERE, so this is not tested: %v (apt-get install postgresql, or KLGSTREAM_REQUIRE_POSTGRES=1 to fail)", missing)
	return nil
}

func start() (*server, error) {
	dir, err := os.MkdirTemp("", "klgstream-postgres-")
	if err != nil {
		return nil, err
	}
	return startIn(dir)
}

// startIn makes a cluster that sorts text by the rules of a language, where that can be had: what relies on the order of
// bytes then fails.
func startIn(dir string) (*server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &server{bin: bin, data: filepath.Join(dir, "data")}
	if s.owner, err = owner(dir); err != nil {
		return nil, err
	}
	args := []string{"-D", s.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"}
	if out, err := s.command("initdb", append(args, "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en")...).CombinedOutput(); err != nil {
		if plain, err2 := s.command("initdb", append(args, "--locale=C")...).CombinedOutput(); err2 != nil {
			return nil, fmt.Errorf("run initdb: %w: %s%s", err, out, plain)
		}
	}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	return s, s.run()
}

// binaries finds the directory of initdb: on the path, or where Debian puts it.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("initdb is neither on PATH nor in /usr/lib/postgresql/*/bin")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// owner gives the directory to somebody who is not root, which PostgreSQL refuses to be run by.
func owner(dir string) (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return attributes, nil
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.Atoi(who.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(who.Gid)
	if err != nil {
		return nil, err
	}
	attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attributes, os.Chown(dir, uid, gid)
}

func freePort() (string, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(context.Background(), filepath.Join(s.bin, name), args...)
	c.SysProcAttr, c.Dir = s.owner, filepath.Dir(s.data)
	return c
}

// run starts the server and waits until it says that it takes connections.
func (s *server) run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.command("postgres", "-D", s.data, "-p", s.port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off", "-c", "synchronous_commit=off",
		"-c", "max_connections=200", "-c", "log_min_messages=log", "-c", "logging_collector=off", "-c", "timezone=Asia/Kathmandu")
	says, err := c.StderrPipe()
	if err != nil {
		return err
	}
	began, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the kernel ends the server when this thread ends (Pdeathsig), so it must live as long
		defer runtime.UnlockOSThread()
		began <- c.Start()
		_ = c.Wait()
	}()
	if err := <-began; err != nil {
		return err
	}
	s.process, s.ended = c.Process, ended
	var said strings.Builder
	lines := bufio.NewScanner(says)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "ready to accept connections") {
			go func() {
				for lines.Scan() { // a full pipe would stop the server
					continue
				}
			}()
			return nil
		}
	}
	return fmt.Errorf("start postgres: %s", said.String())
}

// kill ends the server at once: no checkpoint, and every connection breaks.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Signal(syscall.SIGQUIT)
	<-s.ended
	s.process = nil
	if err := os.Remove(filepath.Join(s.data, "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
}

func (s *server) url(database string) string {
	return fmt.Sprintf("postgresql://postgres@127.0.0.1:%s/%s?sslmode=disable", s.port, database)
}

// database makes an empty database and returns its URL.
func (s *server) database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	conn, err := pgx.Connect(t.Context(), s.url("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.url(name)
}
