package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/views"
	"klgstream.dev/views/risingwave"
	"klgstream.dev/views/sink"
	"klgstream.dev/views/sqlite"
)

// sinkCmd loads results into the store.
type sinkCmd struct {
	Kafka   `group:"kafka"`
	Names   `group:"names"`
	Store   `group:"store"`
	SinkOps `group:"ops"`

	FromBeginning bool `help:"Forget what was loaded and load all that the topics hold once more, to rebuild a store." group:"store"`
}

func (c *sinkCmd) check() error { return checkAll(&c.Kafka, &c.Names, &c.Store, &c.SinkOps) }

// Run loads until ctx ends.
func (c *sinkCmd) Run(ctx context.Context, a *app) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	l, err := listen(ctx, "sink-ops-addr", c.SinkOpsAddr)
	if err != nil {
		return err
	}
	o := newOps(a.log)
	s, err := newSink(a, c.Kafka, c.Names, store, o.registry, c.FromBeginning)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	o.watch("topics", &o.topics)
	o.watch("sink", s)
	a.log.Info("sink", "brokers", c.Brokers, "group", c.SinkGroup, "store", maskURL(c.StoreURL), "operations", "http://"+l.Addr().String())
	return a.role(ctx, o.serveOn(l), func(ctx context.Context) error {
		if err := o.awaitTopics(ctx, a, c.Kafka, c.Names); err != nil {
			return err
		}
		return s.Run(ctx)
	})
}

func newSink(a *app, k Kafka, n Names, store views.Store, reg prometheus.Registerer, fromBeginning bool) (*sink.Sink, error) {
	return sink.New(sink.Config{
		Brokers: k.Brokers, Sarama: clientConfig(k), Group: n.SinkGroup, Store: store,
		Topics:        sink.Topics{Windows: n.Output, Late: n.Late, Dead: n.Dead},
		FromBeginning: fromBeginning, Now: a.now, Logger: a.log, Registerer: reg, Written: a.tracing.written(),
	})
}

// open opens the store.
func (s *Store) open(ctx context.Context) (views.Store, error) {
	if file := s.file(); file != "" {
		store, err := sqlite.Open(ctx, sqlite.Config{Path: file, Views: s.views()})
		if fault := noFile(file); err != nil && fault != nil {
			return nil, &createError{fmt.Errorf("open store (--store-url): %w", fault)}
		}
		return store, err
	}
	return risingwave.Open(ctx, risingwave.Config{URL: s.StoreURL, Views: s.views()})
}

// noFile is why there can be no file of that name, which SQLite does not say; nil if there can.
func noFile(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	_, err := os.Stat(filepath.Dir(path))
	return err
}
