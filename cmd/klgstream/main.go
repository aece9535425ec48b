// Command klgstream counts aircraft events in windows, exactly once: processor, sink, API and the tools around them in
// one binary. Run it with --help.
//
// # Map
//
//	main.go       from arguments to an exit code          config.go     the only reader of flags, environment and file
//	settings.go   every setting, its default and limits   plan.go       which topics there are and how they must be
//	publish.go    events to the input topic               topics.go     create and verify the topics of the plan
//	ops.go        metrics, health and profiles            replay.go     a file of events to the input topic
//	dev.go        everything in one process               processor.go, sink.go, api.go   the roles
//	security.go   certificates and passwords
//	exit.go       which end has which code                completion.go, man.go           the command line for shells and man
//	trace.go      spans for OpenTelemetry
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

func main() {
	// The first Ctrl-C asks for an orderly end, the second one does not wait for it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	signal.Ignore(syscall.SIGXFSZ) // a limit of file sizes is met as a full disk is: an error that is tried again
	os.Exit(run(ctx, os.Args[1:], process()))
}

// environment is what the process has from outside. Tests make their own.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookup         func(name string) (string, bool) // an environment variable
	now            func() time.Time
}

func process() environment {
	return environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv, now: time.Now}
}

// app is what every subcommand gets.
type app struct {
	environment
	global   Global
	log      *slog.Logger
	settings []setting // of the subcommand, with where each came from
	tracing  tracing
}

// run is the program: from arguments to an exit code.
func run(ctx context.Context, args []string, env environment) int {
	loaded, err := load(args, env)
	if err != nil {
		fmt.Fprintln(env.stderr, "klgstream:", err)
		if isType[*usageError](err) {
			return exitUsage
		}
		return exitConfig
	}
	if loaded == nil { // --help
		return exitOK
	}
	a := &app{environment: env, global: loaded.global, log: newLogger(env.stderr, loaded.global), settings: loaded.settings}
	var end func()
	a.tracing, end = newTracing(ctx, a)
	err = loaded.command.Run(ctx, a)
	end()
	code := exitCode(ctx, err)
	if code != exitOK && code != exitInterrupted {
		fmt.Fprintln(env.stderr, "klgstream:", err)
	}
	return code
}

// newLogger writes for people on a terminal and JSON elsewhere, unless the format is set.
func newLogger(w io.Writer, g Global) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(g.LogLevel)) // the settings are valid
	if g.LogFormat == "text" || g.LogFormat == "auto" && isTerminal(w) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w)}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
