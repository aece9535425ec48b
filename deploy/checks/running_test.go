package checks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// flow is "klgstream dev", with the week of flights counted.
type flow struct {
	api, ops, broker string
	cmd              *exec.Cmd
}

// running is the one that all tests share; stopRunning ends it.
var running = sync.OnceValues(startFlow)

// started is the process to end, if a test asked for it.
var started *flow

func stopRunning() {
	if started == nil {
		return
	}
	_ = started.cmd.Process.Signal(os.Interrupt)
	_ = started.cmd.Wait()
}

// banner finds what dev says of its addresses.
var banner = regexp.MustCompile(`(?m)^  (open|operations|broker)\s+(?:http://)?([^\s/]+)`)

func startFlow() (*flow, error) {
	cmd := exec.CommandContext(context.Background(), binary, "dev", "--broker-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--ops-url=http://127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	started = &flow{cmd: cmd}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if !strings.Contains(lines.Text(), "all through") {
			continue
		}
		found := map[string]string{}
		for _, m := range banner.FindAllStringSubmatch(said.String(), -1) {
			found[m[1]] = m[2]
		}
		started.api, started.ops, started.broker = found["open"], found["operations"], found["broker"]
		go func() { _, _ = io.Copy(io.Discard, out) }() // it ends with the process
		return started, nil
	}
	return nil, fmt.Errorf("dev ended: %s\n%s", said.String(), errs.String())
}

// everything is the flow after each kind of request, so that all it can show is shown.
func everything(t *testing.T) *flow {
	t.Helper()
	f, err := running()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api/v1/streaming/views", "/api/v1/streaming/views/aircraft_stats", "/api/v1/streaming/health"} {
		if _, err := f.get(t.Context(), "http://"+f.api+path); err != nil {
			t.Error(err)
		}
	}
	event := strings.NewReader(`{"event_type":"created","aircraft_id":1,"registration_number":"N1","timestamp":"2013-01-07T23:00:00Z"}`)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.api+"/api/v1/streaming/events", event)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		t.Errorf("post an event: %s", answer.Status)
	}
	return f
}

func (f *flow) get(ctx context.Context, url string) (body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, data)
	}
	return string(data), err
}
