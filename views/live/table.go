package live

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/tidwall/btree"
)

// Config says which table to read. All fields but Pause are required.
type Config struct {
	// Brokers are the bootstrap addresses, host:port.
	Brokers []string
	// Kafka is the client configuration.
	Kafka *sarama.Config
	// Table is the changelog topic, such as "aircraft-registry-table".
	Table string
	// Hasher is the processors' own hash of keys.
	Hasher func() hash.Hash32
	// Consumer makes the consumer that reads the changelog.
	Consumer goka.SaramaConsumerBuilder
	// Logger takes what goka says.
	Logger *slog.Logger
	// Now tells the time, to say how old what was read is.
	Now func() time.Time
	// Pause is the time between two tries to reach the brokers, and between two questions where the table ends. Default 1 s.
	Pause time.Duration
}

// Table is a group table in memory, ordered by key. It is safe for concurrent use.
type Table struct {
	config   Config
	frontier frontier

	mu       sync.RWMutex
	rows     btree.Map[string, []byte]
	parts    map[int32]*part
	waiting  map[string]*waiters
	recovery error // nil once every partition was read to its end
}

// waiters are those who wait for a key to change.
type waiters struct {
	n       int
	changed chan struct{} // closed when it does
}

// NewTable is a table that is empty until Run reads it.
func NewTable(c Config) *Table {
	if c.Pause <= 0 {
		c.Pause = time.Second
	}
	return &Table{
		config: c, parts: make(map[int32]*part), waiting: make(map[string]*waiters), frontier: frontier{read: make(map[int32]int64)},
		recovery: fmt.Errorf("table %s is not read yet", c.Table),
	}
}

// Run follows the changelog until ctx ends, which is no error. Brokers that are away are waited for.
func (t *Table) Run(ctx context.Context) error {
	go t.watch(ctx)
	for {
		err := t.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that the context ended is no error of the table's
		}
		t.config.Logger.Warn("read table again", "table", t.config.Table, "error", err, "pause", t.config.Pause)
		timer := time.NewTimer(t.config.Pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (t *Table) follow(ctx context.Context) error {
	v, err := goka.NewView(t.config.Brokers, goka.Table(t.config.Table), raw{},
		goka.WithViewLogger(quiet{t.config.Logger}),
		goka.WithViewHasher(t.config.Hasher),
		goka.WithViewConsumerSaramaBuilder(t.config.Consumer),
		goka.WithViewTopicManagerBuilder(goka.TopicManagerBuilderWithConfig(t.config.Kafka, goka.NewTopicManagerConfig())),
		goka.WithViewStorageBuilder(t.part),
		goka.WithViewAutoReconnect(),
	)
	if err != nil {
		return fmt.Errorf("open table %s: %w", t.config.Table, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-v.WaitRunning():
			t.mu.Lock()
			t.recovery = nil
			t.mu.Unlock()
		case <-ctx.Done():
		}
	}()
	if err := v.Run(ctx); err != nil {
		return fmt.Errorf("follow table %s: %w", t.config.Table, err)
	}
	return errors.New("the view ended by itself")
}

// Ready is nil once the table was read to its end.
func (t *Table) Ready() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.recovery
}

// Find is a key's record, not to be changed; nil if there is none.
func (t *Table) Find(key string) []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, _ := t.rows.Get(key)
	return v
}

// Ascend yields records by key, from the first at or behind start, until yield returns false.
func (t *Table) Ascend(start string, yield func(key string, value []byte) bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.rows.Ascend(start, yield)
}

// Await calls done with the key's record now and after each change until it returns true or ctx ends.
func (t *Table) Await(ctx context.Context, key string, done func(value []byte) bool) error {
	for {
		value, w := t.wait(key)
		if done(value) {
			t.leave(key, w)
			return nil
		}
		select {
		case <-w.changed:
		case <-ctx.Done():
			t.leave(key, w)
			return ctx.Err()
		}
	}
}

// wait is a key's record, and who waits for the next one.
func (t *Table) wait(key string) (value []byte, w *waiters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	value, _ = t.rows.Get(key)
	if w = t.waiting[key]; w == nil {
		w = &waiters{changed: make(chan struct{})}
		t.waiting[key] = w
	}
	w.n++
	return value, w
}

// leave forgets who waits no more: a key may never change.
func (t *Table) leave(key string, w *waiters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.n--; w.n == 0 && t.waiting[key] == w {
		delete(t.waiting, key)
	}
}

// change stores a record, or removes it if value is nil, and wakes who waits for the key.
func (t *Table) change(key string, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if value == nil {
		t.rows.Delete(key)
	} else {
		t.rows.Set(key, value)
	}
	if w := t.waiting[key]; w != nil {
		close(w.changed)
		delete(t.waiting, key)
	}
}

// part is one partition of a table as goka's storage. It is kept when the view is opened again.
type part struct {
	*Table
	id     int32
	offset int64
	stored bool
}

func (t *Table) part(_ string, partition int32) (storage.Storage, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[partition]
	if p == nil {
		p = &part{Table: t, id: partition}
		t.parts[partition] = p
	}
	return p, nil
}

func (p *part) Open() error          { return nil }
func (p *part) Close() error         { return nil }
func (p *part) MarkRecovered() error { return nil }

func (p *part) Has(key string) (bool, error)   { return p.Find(key) != nil, nil }
func (p *part) Get(key string) ([]byte, error) { return p.Find(key), nil }
func (p *part) Set(key string, v []byte) error { p.change(key, v); return nil }
func (p *part) Delete(key string) error        { p.change(key, nil); return nil }

func (p *part) SetOffset(offset int64) error {
	p.offset, p.stored = offset, true
	p.frontier.took(p.id, offset)
	return nil
}

func (p *part) GetOffset(def int64) (int64, error) {
	if !p.stored {
		return def, nil
	}
	return p.offset, nil
}

var errIterator = errors.New("iterate view: read the table instead")

func (p *part) Iterator() (storage.Iterator, error) { return nil, errIterator }
func (p *part) IteratorWithRange(_, _ []byte) (storage.Iterator, error) {
	return nil, errIterator
}

// raw leaves records as they are.
type raw struct{}

func (raw) Encode(v any) ([]byte, error)    { return v.([]byte), nil }
func (raw) Decode(data []byte) (any, error) { return data, nil }

// quiet passes goka's log on as debug.
type quiet struct{ log *slog.Logger }

func (q quiet) Print(v ...any)   { q.log.Debug("goka", "says", fmt.Sprint(v...)) }
func (q quiet) Println(v ...any) { q.log.Debug("goka", "says", fmt.Sprintln(v...)) }
func (q quiet) Printf(format string, v ...any) {
	q.log.Debug("goka", "says", fmt.Sprintf(format, v...))
}
