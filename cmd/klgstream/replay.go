package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/schollz/progressbar/v3"

	"klgstream.dev/codecs"
)

// replayCmd publishes a file of events.
type replayCmd struct {
	File   string `arg:"" help:"File with one JSON event per line, plain, gzip or zstd; - is the standard input."`
	Replay `group:"replay"`
	Zone   string `default:"UTC" placeholder:"NAME" help:"Time zone of event times that name none. Default ${default}." group:"replay"`
	Input  string `name:"input-topic" default:"aircraft-events" placeholder:"TOPIC" help:"Topic of events. Default ${default}." group:"names"`
	Kafka  `group:"kafka"`
}

func (c *replayCmd) check() error {
	zone := Windows{Zone: c.Zone}
	return errors.Join(checkAll(&c.Replay, &c.Kafka), zone.checkZone())
}

// Run publishes the file and says how much of it the broker has acknowledged.
func (c *replayCmd) Run(ctx context.Context, a *app) error {
	source, size, err := a.open(c.File)
	if err != nil {
		return err
	}
	defer source.Close()
	decoder := codecs.Decoder{Zone: (&Windows{Zone: c.Zone}).location()}
	if c.Validate && c.File != "-" {
		if err := c.validate(ctx, a, decoder); err != nil {
			return err
		}
	}
	p, err := newPublisher(c.Kafka, c.Input)
	if err != nil {
		return err
	}
	speed, err := parseSpeed(c.Speed)
	if err != nil {
		return err
	}
	counted := &countingReader{from: source}
	r := &replayer{to: p, decoder: decoder, speed: speed, rate: c.Rate, keyed: c.Key == "registration", strict: c.Validate, now: a.now}
	stop := a.showProgress(ctx, r, counted, size)
	err = r.run(ctx, counted)
	_ = p.Close() // always nil: what was not acknowledged is counted
	stop()
	fmt.Fprintln(a.stdout, r.report())
	return errors.Join(err, r.failure())
}

// validate reads the whole file before any of it is published.
func (c *replayCmd) validate(ctx context.Context, a *app, decoder codecs.Decoder) error {
	source, _, err := a.open(c.File)
	if err != nil {
		return err
	}
	defer source.Close()
	var event codecs.Event
	return eachLine(source, func(n int64, line []byte) error {
		if err := decoder.Decode(&event, line); err != nil {
			return fmt.Errorf("validate %s line %d, nothing was published: %w", c.File, n, err)
		}
		return ctx.Err()
	})
}

// open opens a file of events, "-" being the standard input, and tells its size, -1 if unknown.
func (a *app) open(name string) (io.ReadCloser, int64, error) {
	if name == "-" {
		return io.NopCloser(a.stdin), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("open events: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open events: %w", err), f.Close())
	}
	if !info.Mode().IsRegular() {
		return f, -1, nil
	}
	return f, info.Size(), nil
}

// replayer publishes the lines of a file in order. Per partition the order of the topic is that of the file, also if the
// replay is broken off and goes on later: a line always goes to the same partition, whose lines are acknowledged in order.
type replayer struct {
	to interface {
		send(ctx context.Context, r record, done func(error)) error
	}
	decoder codecs.Decoder
	speed   float64 // 0: as fast as it goes
	rate    float64 // events a second; 0: any
	keyed   bool
	strict  bool                                   // a line that cannot be decoded ends it
	skip    func(line int64) bool                  // nil: none
	headers func(line int64) []sarama.RecordHeader // nil: none
	now     func() time.Time

	sent, acknowledged, failed atomic.Int64
	answered                   chan struct{} // has room for one: an answer came since the last look
	began, ended               time.Time
	problem                    struct {
		sync.Mutex
		first error
	}
}

// run publishes until the source ends, and waits for the last acknowledgement.
func (r *replayer) run(ctx context.Context, source io.Reader) error {
	r.answered = make(chan struct{}, 1)
	r.began = r.now()
	defer func() { r.ended = r.now() }()
	pace := pacer{now: r.now, began: r.began, speed: r.speed, rate: r.rate, first: math.MinInt64}
	var event codecs.Event
	err := eachLine(source, func(n int64, line []byte) error {
		if r.skip != nil && r.skip(n) {
			return ctx.Err()
		}
		rec, at, err := r.record(&event, n, line)
		if err != nil {
			return err
		}
		if err := pace.wait(ctx, at); err != nil {
			return err
		}
		if err := r.to.send(ctx, rec, r.done); err != nil {
			return err
		}
		r.sent.Add(1)
		return nil
	})
	return errors.Join(err, r.settle(ctx))
}

// settle waits until all that was sent is answered. After ctx has ended closing the publisher does so.
func (r *replayer) settle(ctx context.Context) error {
	for r.acknowledged.Load()+r.failed.Load() < r.sent.Load() {
		select {
		case <-r.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// record is the line to publish and its event time, math.MinInt64 if it has none. The line is only decoded when something
// depends on it.
func (r *replayer) record(event *codecs.Event, n int64, line []byte) (record, int64, error) {
	rec, at := record{value: bytes.Clone(line), turn: n}, int64(math.MinInt64)
	if r.headers != nil {
		rec.headers = r.headers(n)
	}
	if !r.keyed && !r.strict && r.speed == 0 {
		return rec, at, nil
	}
	if err := r.decoder.Decode(event, line); err != nil {
		if r.strict {
			return rec, at, fmt.Errorf("validate line %d: %w", n, err)
		}
		return rec, at, nil // it goes as it is, to become a dead letter
	}
	if r.keyed {
		rec.key = string(event.Registration)
	}
	return rec, event.Time, nil
}

func (r *replayer) done(err error) {
	if err == nil {
		r.acknowledged.Add(1)
	} else {
		r.fail(err)
	}
	select {
	case r.answered <- struct{}{}:
	default: // it has not looked since the one before
	}
}

func (r *replayer) fail(err error) {
	r.problem.Lock()
	defer r.problem.Unlock()
	if r.problem.first == nil {
		r.problem.first = err
	}
	r.failed.Add(1)
}

// failure is why events were not acknowledged.
func (r *replayer) failure() error {
	r.problem.Lock()
	defer r.problem.Unlock()
	if r.problem.first == nil {
		return nil
	}
	return fmt.Errorf("%d events were not acknowledged: %w", r.failed.Load(), r.problem.first)
}

// report says in one line what was done.
func (r *replayer) report() string {
	took := r.ended.Sub(r.began)
	line := fmt.Sprintf("sent %d events, %d acknowledged, in %s", r.sent.Load(), r.acknowledged.Load(), took.Round(time.Millisecond))
	if seconds := took.Seconds(); seconds > 0 {
		line += fmt.Sprintf(" (%.0f/s)", float64(r.sent.Load())/seconds)
	}
	return line
}

// pacer makes events follow each other as they happened, only faster, or at a steady rate.
type pacer struct {
	now         func() time.Time
	began       time.Time
	speed, rate float64
	first, last int64 // event times; last is the largest so far
	events      int64
}

// wait returns when the next event is due. One that is out of order, or has no time, is due with the one before it.
func (p *pacer) wait(ctx context.Context, at int64) error {
	due := p.began
	if p.rate > 0 {
		due = due.Add(time.Duration(float64(p.events) / p.rate * float64(time.Second)))
	}
	p.events++
	if at != math.MinInt64 && p.speed > 0 {
		if p.first == math.MinInt64 {
			p.first, p.last = at, at
		}
		p.last = max(p.last, at)
		happened := p.began.Add(time.Duration(float64(p.last-p.first) / p.speed * float64(time.Millisecond)))
		if happened.After(due) {
			due = happened
		}
	}
	left := due.Sub(p.now())
	if left <= 0 {
		return ctx.Err()
	}
	return sleep(ctx, left)
}

// eachLine calls do with every line that is not blank and its number, from 1. The line is valid during the call. gzip
// and zstd are told by their first bytes.
func eachLine(source io.Reader, do func(n int64, line []byte) error) error {
	plain, err := decompress(bufio.NewReaderSize(source, 1<<16))
	if err != nil {
		return err
	}
	defer plain.Close()
	lines := bufio.NewScanner(plain)
	lines.Buffer(make([]byte, 1<<16), maxRecord)
	var n int64
	for lines.Scan() {
		n++
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := do(n, line); err != nil {
				return err
			}
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("read line %d: longer than %d bytes, the largest record there can be", n+1, maxRecord)
	}
	if lines.Err() != nil {
		return fmt.Errorf("read line %d: %w", n+1, lines.Err())
	}
	return nil
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

func decompress(source *bufio.Reader) (io.ReadCloser, error) {
	head, err := source.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read events: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		r, err := gzip.NewReader(source)
		if err != nil {
			return nil, fmt.Errorf("decompress events: %w", err)
		}
		return r, nil
	case bytes.HasPrefix(head, zstdMagic):
		r, err := zstd.NewReader(source, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("decompress events: %w", err)
		}
		return r.IOReadCloser(), nil
	}
	return io.NopCloser(source), nil
}

// countingReader counts what was read, which is how far a compressed file is.
type countingReader struct {
	from io.Reader
	read atomic.Int64
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// progressPause is the time between two signs of life.
const (
	progressPause = 100 * time.Millisecond // of a bar
	linePause     = 5 * time.Second        // of a line in a log
)

// showProgress tells how far a replay is until stop is called: a bar on a terminal, now and then a line elsewhere.
func (a *app) showProgress(ctx context.Context, r *replayer, read *countingReader, size int64) (stop func()) {
	pause, show, finish := linePause, func() {
		fmt.Fprintf(a.stderr, "sent %d events, %d acknowledged\n", r.sent.Load(), r.acknowledged.Load())
	}, func() {}
	if isTerminal(a.stderr) {
		bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(a.stderr), progressbar.OptionShowBytes(true),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))
		pause, show = progressPause, func() {
			bar.Describe(fmt.Sprintf("%d events", r.sent.Load()))
			_ = bar.Set64(read.read.Load()) // a terminal that is gone needs no bar
		}
		finish = func() { _ = bar.Clear() }
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				show()
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
		finish()
	}
}
