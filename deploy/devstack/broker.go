package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
)

// ErrDataDirInUse says that another broker runs on the same data directory.
var ErrDataDirInUse = errors.New("another broker runs on this data directory")

// never is ten years in milliseconds: a cleaner interval that no process lives to see.
const never = 10 * 365 * 24 * 60 * 60 * 1000

// Options is how an embedded broker runs. The zero value is one broker in memory on a free port of 127.0.0.1.
type Options struct {
	// Addr is where the first broker listens, host:port. Default 127.0.0.1:0, a free port.
	Addr string
	// Brokers is how many brokers the cluster has; those after the first listen on free ports. Default 1.
	Brokers int
	// DataDir keeps topics, records and committed offsets across restarts. It is made if absent. Default none: in memory.
	DataDir string
	// SyncWrites makes every acknowledged write survive a power cut too, at one fsync per batch. Default off.
	SyncWrites bool
	// Logger gets what the broker has to say. Default: nothing is logged.
	Logger *slog.Logger
}

// Validate returns every fault of the options.
func (o Options) Validate() error {
	var faults []error
	if o.Addr != "" {
		if _, port, err := net.SplitHostPort(o.Addr); err != nil {
			faults = append(faults, fmt.Errorf("broker address %q must be host:port: %w", o.Addr, err))
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			faults = append(faults, fmt.Errorf("broker port %q must be a number of at most 65535, not %d", port, n))
		}
	}
	if o.Brokers < 0 {
		faults = append(faults, fmt.Errorf("brokers %d must be at least 0 (0 means 1)", o.Brokers))
	}
	if o.SyncWrites && o.DataDir == "" {
		faults = append(faults, errors.New("sync writes need a data directory"))
	}
	return errors.Join(faults...)
}

// Broker is a running embedded cluster.
type Broker struct {
	cluster *kfake.Cluster
	addrs   []string
	lock    *flock.Flock
	unwatch func() bool
	once    sync.Once
}

// Start runs a broker until Close, or until ctx ends. [InUse] tells whether the error is that the address is taken.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	lock, err := openDataDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	cluster, err := kfake.NewCluster(o.kfake()...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start broker on %q: %w", o.addr(), err), release(lock))
	}
	b := &Broker{cluster: cluster, addrs: cluster.ListenAddrs(), lock: lock}
	b.unwatch = context.AfterFunc(ctx, b.shutdown)
	return b, nil
}

// Addrs is where the brokers listen, host:port each.
func (b *Broker) Addrs() []string { return b.addrs }

// Cluster is the kfake cluster beneath, for tests that inject faults.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// Close stops the broker and waits until its state is on disk. Closing again does nothing.
func (b *Broker) Close() {
	b.unwatch()
	b.shutdown()
}

func (b *Broker) shutdown() {
	b.once.Do(func() {
		b.cluster.Close()
		_ = release(b.lock) // the process's end releases it too
	})
}

// InUse reports whether err says that an address is taken by another process.
func InUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func (o Options) addr() string {
	if o.Addr == "" {
		return "127.0.0.1:0"
	}
	return o.Addr
}

func (o Options) kfake() []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(max(o.Brokers, 1)),
		kfake.ClusterID("klgstream"),
		kfake.ListenFn(o.listener()),
		// Topics are created deliberately: a misspelt name must fail, not read an empty topic.
		kfake.DefaultNumPartitions(1),
		// Failing members are noticed as fast as a test asks for; the client's own session timeout is what counts.
		kfake.GroupMinSessionTimeout(time.Millisecond),
	}
	if o.Logger != nil {
		opts = append(opts, kfake.WithLogger(logger{o.Logger}))
	}
	if o.DataDir != "" {
		opts = append(opts, kfake.DataDir(o.DataDir),
			kfake.BrokerConfigs(map[string]string{"log.cleaner.backoff.ms": strconv.Itoa(never)})) // D4
	}
	if o.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	return opts
}

// listener gives the first broker the address asked for and the others free ports of the same host.
func (o Options) listener() func(network, address string) (net.Listener, error) {
	next := o.addr()
	return func(network, _ string) (net.Listener, error) {
		addr := next
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		next = net.JoinHostPort(host, "0")
		return (&net.ListenConfig{}).Listen(context.Background(), network, addr)
	}
}

// openDataDir makes dir and takes its lock, which the operating system releases when the process ends, however it ends.
func openDataDir(dir string) (*flock.Flock, error) {
	if dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory %q: %w", dir, err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory %q: %w", dir, err)
	}
	if !held {
		return nil, fmt.Errorf("lock data directory %q: %w", dir, ErrDataDirInUse)
	}
	// Members of the previous run's groups are gone with it: without this a clean restart would wait for their sessions.
	if err := os.Remove(filepath.Join(dir, "session_state.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("forget the sessions of data directory %q: %w", dir, err), release(lock))
	}
	return lock, nil
}

func release(lock *flock.Flock) error {
	if lock == nil {
		return nil
	}
	return lock.Unlock()
}

// logger passes kfake's messages on. Its information is a developer's, so it is one level lower here.
type logger struct{ to *slog.Logger }

var levels = map[kfake.LogLevel]slog.Level{
	kfake.LogLevelError: slog.LevelError,
	kfake.LogLevelWarn:  slog.LevelWarn,
	kfake.LogLevelInfo:  slog.LevelDebug,
	kfake.LogLevelDebug: slog.LevelDebug - 4,
}

// Logf implements kfake.Logger.
func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	ctx := context.Background()
	if at := levels[level]; l.to.Enabled(ctx, at) {
		l.to.Log(ctx, at, "embedded broker", "detail", fmt.Sprintf(format, args...))
	}
}
