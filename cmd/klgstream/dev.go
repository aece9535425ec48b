package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"klgstream.dev/codecs"
	"klgstream.dev/deploy/devstack"
	"klgstream.dev/processors/engine"
	"klgstream.dev/processors/window"
	"klgstream.dev/views"
	"klgstream.dev/views/httpapi"
)

// devCmd runs the whole flow in this process.
type devCmd struct {
	DataDir      string `placeholder:"DIR" help:"Keep broker and store here across restarts. Default: nothing is kept." group:"command"`
	File         string `placeholder:"FILE" help:"Events to replay instead of the embedded week of flights, plain, gzip or zstd; none: nothing is replayed." group:"command"`
	BrokerAddr   string `default:"127.0.0.1:19092" placeholder:"HOST:PORT" help:"Where the embedded broker listens. Default ${default}." group:"command"`
	Replay       `group:"replay"`
	HTTP         `group:"http"`
	Meaning      `group:"meaning" set:"bound=6h"`
	Engine       `group:"engine"`
	ProcessorOps `group:"ops"`
	ViewFiles    `group:"store"`
	Partitions   int32 `default:"4" placeholder:"N" help:"Partitions of the input, table, loop and output topics. Default ${default}." group:"plan"`
}

func (c *devCmd) check() error {
	plan := TopicPlan{Partitions: c.Partitions, ReplicationFactor: 1, LoopRetention: -1}
	return errors.Join(address("broker-addr", c.BrokerAddr, 0), checkAll(&c.Replay, &c.HTTP, &c.Meaning, &c.Engine, &c.ProcessorOps, &c.ViewFiles, &plan))
}

// defaultNames are the topics and groups of `klgstream dev`.
func defaultNames() Names {
	return Names{
		Input: "aircraft-events", Output: "aircraft-windows", Late: "aircraft-events-late", Dead: "aircraft-events-dlq",
		Group: "aircraft-activity", SinkGroup: "klgstream-sink", Registry: "aircraft-registry",
	}
}

// Run starts everything, replays, says what came of it, and stays up until ctx ends.
func (c *devCmd) Run(ctx context.Context, a *app) error {
	if a.isDefault("log-level") { // what a person needs is printed
		a.global.LogLevel = "warn"
		a.log = newLogger(a.stderr, a.global)
	}
	fmt.Fprintf(a.stdout, "klgstream %s: broker, processor, sink and API in one process\n", version())
	d := &dev{devCmd: c, app: a, names: defaultNames()}
	defer d.close()
	if err := d.start(ctx); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, d.banner())
	return a.role(ctx, append(d.parts, d.replayAll)...)
}

// dev is the running flow. Whatever is opened is closed in reverse order.
type dev struct {
	*devCmd
	*app

	names     Names
	dir       string
	kafka     Kafka
	store     views.Store
	publisher *publisher
	flow      *pipeline
	web, ops  net.Listener
	parts     []func(ctx context.Context) error
	closers   []func() error
	progress  replayProgress
	tables    *liveTables
}

// replayProgress is what the page shows.
type replayProgress struct {
	source string
	before int64 // events of the source that an earlier run has published
	total  int64 // 0: not known
	done   atomic.Bool
	run    *replayer
}

func (p *replayProgress) read() httpapi.Replay {
	return httpapi.Replay{Source: p.source, Sent: p.before + p.run.acknowledged.Load(), Total: p.total, Done: p.done.Load()}
}

func (d *dev) close() {
	for _, shut := range slices.Backward(d.closers) {
		if err := shut(); err != nil {
			d.log.Warn("close", "error", err)
		}
	}
}

func (d *dev) onClose(shut func() error) { d.closers = append(d.closers, shut) }

// start brings everything up in the order of the flow.
func (d *dev) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.openDir, d.startBroker, d.makeTopics, d.openStore, d.wire} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *dev) openDir(context.Context) (err error) {
	if d.dir = d.DataDir; d.dir != "" {
		if err := os.MkdirAll(d.dir, 0o755); err != nil {
			return &createError{fmt.Errorf("make data directory (--data-dir): %w", err)}
		}
		return nil
	}
	if d.dir, err = os.MkdirTemp("", "klgstream-dev-"); err != nil {
		return &createError{fmt.Errorf("make temporary directory (TMPDIR): %w", err)}
	}
	d.onClose(func() error { return os.RemoveAll(d.dir) })
	return nil
}

func (d *dev) startBroker(context.Context) error {
	o := devstack.Options{Addr: d.BrokerAddr, Logger: d.log}
	if d.DataDir != "" {
		o.DataDir = filepath.Join(d.dir, "broker")
	}
	b, err := devstack.Start(context.Background(), o) // it must outlive its clients, and so the context
	if devstack.InUse(err) && d.isDefault("broker-addr") {
		o.Addr = anyPort(d.BrokerAddr)
		b, err = devstack.Start(context.Background(), o)
		d.tell("broker", d.BrokerAddr)
	}
	if err != nil {
		return fmt.Errorf("start the embedded broker (--broker-addr, --data-dir): %w", err)
	}
	d.onClose(func() error { b.Close(); return nil })
	d.kafka = Kafka{Brokers: b.Addrs(), ClientID: "klgstream-dev"}
	return nil
}

func (d *dev) makeTopics(ctx context.Context) error {
	admin, err := newTopicAdmin(d.kafka)
	if err != nil {
		return err
	}
	defer admin.Close()
	wanted := plan(d.names, TopicPlan{Partitions: d.Partitions, ReplicationFactor: 1, InputRetention: -1, OutputRetention: -1, LetterRetention: -1, LoopRetention: -1})
	actual, err := admin.describe(wanted)
	if err != nil {
		return err
	}
	for _, t := range wanted {
		if _, ok := actual[t.name]; ok {
			continue
		}
		if err := admin.create(ctx, t); err != nil {
			return err
		}
	}
	if actual, err = admin.await(ctx, wanted); err != nil {
		return err
	}
	return refuse(compare(wanted, actual, d.kafka.Brokers))
}

func (d *dev) openStore(ctx context.Context) error {
	s := Store{StoreURL: "sqlite:" + d.storeFile(), ViewFiles: d.ViewFiles}
	store, err := s.open(ctx)
	if err != nil {
		return err
	}
	d.store = store
	d.onClose(store.Close)
	return store.Migrate(ctx)
}

func (d *dev) storeFile() string { return filepath.Join(d.dir, "windows.db") }

// wire makes the roles and opens their listeners.
func (d *dev) wire(ctx context.Context) (err error) {
	o := newOps(d.log)
	p, err := newProcessor(d.app, d.kafka, d.names, d.Meaning, d.Engine, o.registry)
	if err != nil {
		return err
	}
	s, err := newSink(d.app, d.kafka, d.names, d.store, o.registry, false)
	if err != nil {
		return err
	}
	if d.publisher, err = newPublisher(d.kafka, d.names.Input); err != nil {
		return err
	}
	d.onClose(d.publisher.Close)
	if d.flow, err = newPipeline(d.kafka, d.names, o.registry); err != nil {
		return err
	}
	d.onClose(d.flow.Close)
	tables, err := newLiveTables(d.app, d.kafka, d.names, &d.Windows)
	if err != nil {
		return err
	}
	d.tables = tables
	api, err := newAPI(d.app, d.HTTP, &d.Windows, d.store, d.publisher, d.flow, tables, o.registry)
	if err != nil {
		return err
	}
	o.watch("processor", p)
	r, err := newRegistry(d.app, d.kafka, d.names, d.Meaning, d.Engine, o.registry)
	if err != nil {
		return err
	}
	o.watch("sink", s)
	if d.web, err = d.listen(ctx, "http-addr", d.HTTPAddr); err != nil {
		return err
	}
	if d.ops, err = d.listen(ctx, "ops-url", d.addr()); err != nil {
		return errors.Join(err, d.web.Close())
	}
	flink := &flinkView{app: d.app, processors: []*engine.Processor{p}, counters: o.registry}
	o.flink = httpapi.FlinkHandler(flink)
	if r != nil {
		flink.processors = append(flink.processors, r)
		o.watch("registry", r)
		d.parts = append(d.parts, r.Run)
	}
	d.parts = append(append(d.parts, tables.parts()...), p.Run, s.Run, api.Run, d.serve(d.app, api, d.web), o.serveOn(d.ops))
	return nil
}

// listen opens an address, or a free port of the same host if nobody asked for just this one.
func (d *dev) listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := listen(ctx, flag, addr)
	if devstack.InUse(err) && d.isDefault(flag) {
		d.tell(flag, addr)
		return listen(ctx, flag, anyPort(addr))
	}
	return l, err
}

func (d *dev) tell(what, addr string) {
	fmt.Fprintf(d.stderr, "%s: %s is taken, using a free port\n", what, addr)
}

func anyPort(addr string) string {
	host, _, _ := net.SplitHostPort(addr) // the settings are valid
	return net.JoinHostPort(host, "0")
}

// isDefault tells whether nobody has chosen a setting.
func (a *app) isDefault(name string) bool {
	return slices.ContainsFunc(a.settings, func(s setting) bool { return s.name == name && s.source == "default" })
}

func (d *dev) banner() string {
	kept := "nothing is kept; --data-dir keeps it"
	if d.DataDir != "" {
		kept = "kept in " + d.DataDir
	}
	return fmt.Sprintf(`
  open        %s
  operations  http://%s/metrics  /healthz  /readyz
  broker      %s  (any Kafka client)
  store       %s  (%s)
  counting    %s

`, d.url(d.web), d.ops.Addr(), strings.Join(d.kafka.Brokers, ","), d.storeFile(), kept, strings.Join(d.Window, ", "))
}

// replayAll publishes what no earlier run has, and says what came of everything.
func (d *dev) replayAll(ctx context.Context) error {
	if d.File == "none" {
		return nil
	}
	source, err := d.source()
	if err != nil {
		return err
	}
	defer source.Close()
	published, err := publishedLines(ctx, d.kafka, d.names.Input, d.progress.source)
	if err != nil {
		return err
	}
	speed, err := parseSpeed(d.Speed)
	if err != nil {
		return err
	}
	r := &replayer{
		to: d.publisher, decoder: codecs.Decoder{Zone: d.location()}, speed: speed, rate: d.Rate,
		keyed: d.Key == "registration", strict: d.Validate, now: d.now,
		skip:    func(line int64) bool { return published[line] },
		headers: func(line int64) []sarama.RecordHeader { return replayHeader(d.progress.source, line) },
	}
	d.progress.run, d.progress.before = r, int64(len(published))
	progress := d.progress.read
	d.flow.replay.Store(&progress)
	fmt.Fprintf(d.stdout, "replaying %s\n", d.replayed(len(published)))
	if err := errors.Join(r.run(ctx, source), r.failure()); err != nil {
		return err
	}
	if err := d.flow.awaitThrough(ctx, d.log); err != nil {
		return err
	}
	d.progress.done.Store(true)
	sum, err := d.sum(ctx, r)
	if err != nil {
		return err
	}
	fmt.Fprintln(d.stdout, sum)
	return nil
}

// source opens the events to replay.
func (d *dev) source() (io.ReadCloser, error) {
	if d.File != "" {
		d.progress.source = filepath.Base(d.File)
		source, _, err := d.open(d.File)
		return source, err
	}
	d.progress.source, d.progress.total = "flights-2013-w1", devstack.FlightCount
	return io.NopCloser(bytes.NewReader(devstack.Flights())), nil
}

func (d *dev) replayed(before int) string {
	text := d.progress.source
	if d.progress.total > 0 {
		text += fmt.Sprintf(", %d events of New York's airports in the first week of 2013", d.progress.total)
	}
	if before > 0 {
		text += fmt.Sprintf("; %d are published already", before)
	}
	return text
}

// totals are what is in the store, which crashes and repeats do not change.
type totals struct{ published, counted, late, dead, windows int64 }

func (t totals) String() string {
	text := fmt.Sprintf("published %d = counted %d + late %d + dead %d, in %d windows", t.published, t.counted, t.late, t.dead, t.windows)
	if t.counted+t.late+t.dead != t.published {
		return strings.Replace(text, " = ", " ≠ ", 1) + ": EVENTS ARE UNACCOUNTED FOR"
	}
	return text
}

// sum says what is in the store of what was published.
func (d *dev) sum(ctx context.Context, r *replayer) (string, error) {
	t, err := d.totals(ctx)
	if err != nil {
		return "", err
	}
	took := d.now().Sub(r.began)
	return fmt.Sprintf("%s; all through in %s. Ctrl-C ends.", t, took.Round(time.Millisecond)), nil
}

func (d *dev) totals(ctx context.Context) (t totals, err error) {
	status, err := d.flow.Status(ctx)
	if err != nil {
		return t, err
	}
	for _, p := range status.Topics[0].Partitions {
		t.published += p.End
	}
	for view, row := range map[string]func(cells map[string]any){
		"aircraft_stats":   func(cells map[string]any) { t.counted += integer(cells["total_events"]) },
		"aircraft_windows": func(map[string]any) { t.windows++ },
		"late_events":      func(map[string]any) { t.late++ },
		"dead_letters":     func(map[string]any) { t.dead++ },
	} {
		if err := eachRow(ctx, d.store, view, row); err != nil {
			return t, err
		}
	}
	if !d.addsUp() {
		t.counted, err = d.tables.counted(ctx, t.published-t.late-t.dead)
	}
	return t, err
}

// addsUp tells whether aircraft_stats adds each counted event up once: it looks at one definition, in whose windows an event may
// be late that is counted in another's, and leaves hopping and cumulating windows out, in which an event is more than once.
func (d *dev) addsUp() bool {
	w, err := window.ParseDefinition(d.Window[0])
	return err == nil && len(d.Window) == 1 && (w.Kind == window.Tumbling || w.Kind == window.Session)
}

func integer(v any) int64 {
	n, _ := v.(int64)
	return n
}

// eachRow calls row with every row of a view.
func eachRow(ctx context.Context, store views.Store, view string, row func(cells map[string]any)) error {
	for q := (views.Query{View: view, Limit: views.MaxLimit}); ; {
		page, err := store.Query(ctx, q)
		if err != nil {
			return fmt.Errorf("query %s: %w", view, err)
		}
		for _, values := range page.Rows {
			cells := make(map[string]any, len(values))
			for i, column := range page.Columns {
				cells[column.Name] = values[i]
			}
			row(cells)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

// lineHeader tells of a replayed record which line of which source it is. With it a run that starts again after a crash
// publishes each line once, whatever had been acknowledged.
const lineHeader = "klg-replay-line"

func replayHeader(source string, line int64) []sarama.RecordHeader {
	return []sarama.RecordHeader{{Key: []byte(lineHeader), Value: strconv.AppendInt([]byte(source+":"), line, 10)}}
}

// replayLine is the line of a source that a record is.
func replayLine(headers []*sarama.RecordHeader, source string) (int64, bool) {
	for _, h := range headers {
		if h == nil || string(h.Key) != lineHeader {
			continue
		}
		number, ok := strings.CutPrefix(string(h.Value), source+":")
		line, err := strconv.ParseInt(number, 10, 64)
		return line, ok && err == nil
	}
	return 0, false
}

// publishedLines reads back which lines of a source are in the topic.
func publishedLines(ctx context.Context, k Kafka, topic, source string) (map[int64]bool, error) {
	client, err := sarama.NewClient(k.Brokers, clientConfig(k))
	if err != nil {
		return nil, fmt.Errorf("read back %s: %w", topic, err)
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("read back %s: %w", topic, err)
	}
	defer consumer.Close()
	partitions, err := client.Partitions(topic)
	if err != nil {
		return nil, fmt.Errorf("read back %s: %w", topic, err)
	}
	lines := map[int64]bool{}
	for _, partition := range partitions {
		if err := readBack(ctx, client, consumer, topic, partition, func(m *sarama.ConsumerMessage) {
			if line, ok := replayLine(m.Headers, source); ok {
				lines[line] = true
			}
		}); err != nil {
			return nil, fmt.Errorf("read back %s/%d: %w", topic, partition, err)
		}
	}
	return lines, nil
}

// readBack calls do with every record that is in a partition now.
func readBack(ctx context.Context, client sarama.Client, consumer sarama.Consumer, topic string, partition int32, do func(*sarama.ConsumerMessage)) error {
	end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
	if err != nil || end == 0 {
		return err
	}
	records, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer records.Close()
	for {
		select {
		case m := <-records.Messages():
			do(m)
			if m.Offset+1 >= end {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
