// Command rig is what deploy/bench/api.sh measures the API beside: an HTTP handler that does nothing, and an embedded
// broker. It prints where they are and ends when it is told to.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"klgstream.dev/deploy/devstack"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1) //nolint:forbidigo // it is a main
	}
}

func run(ctx context.Context) error {
	broker, err := devstack.Start(context.Background(), devstack.Options{})
	if err != nil {
		return err
	}
	defer broker.Close()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintf(os.Stdout, "empty http://%s\nbroker %s\n", l.Addr(), broker.Addrs()[0])
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
