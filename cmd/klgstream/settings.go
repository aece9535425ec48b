package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"klgstream.dev/processors/window"
	"klgstream.dev/views"
	"klgstream.dev/views/httpapi"
)

// Global is what every subcommand takes.
type Global struct {
	Config    string `placeholder:"FILE" help:"YAML file of settings; a key is a flag's name without the dashes. Flags and environment win over it."`
	LogLevel  string `default:"info" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error. Default ${default}."`
	LogFormat string `default:"auto" placeholder:"FORMAT" help:"text for people, json for machines, auto: text on a terminal. Default ${default}."`
	TraceURL  string `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" secret:"url" placeholder:"URL" help:"OpenTelemetry collector that gets a span of each checkpoint and of each batch of the sink, for example http://localhost:4318/v1/traces. Default: none, and no spans."`
}

func (g *Global) check() error {
	var faults []error
	var level slog.Level
	if err := level.UnmarshalText([]byte(g.LogLevel)); err != nil {
		faults = append(faults, oneOf("log-level", g.LogLevel, "debug", "info", "warn", "error"))
	}
	return errors.Join(append(faults, oneOf("log-format", g.LogFormat, "auto", "text", "json"), checkTraceURL(g.TraceURL))...)
}

// Kafka is where the broker is.
type Kafka struct {
	Brokers  []string `env:"REDPANDA_BROKERS" default:"localhost:19092" placeholder:"HOST:PORT" help:"Bootstrap brokers, separated by commas. Default ${default}."`
	ClientID string   `env:"REDPANDA_CLIENT_ID" default:"klg-backend" placeholder:"NAME" help:"Client id: what broker logs and quotas call this program. Default ${default}."`
	Security
}

func (k *Kafka) check() error {
	var faults []error
	if len(k.Brokers) == 0 {
		faults = append(faults, errors.New("--brokers: none given, at least one host:port is needed"))
	}
	for _, b := range k.Brokers {
		faults = append(faults, address("brokers", b, 1))
	}
	if k.ClientID == "" || strings.ContainsFunc(k.ClientID, isNotName) {
		faults = append(faults, fmt.Errorf("--client-id: %q must be letters, digits, dots, dashes and underscores", k.ClientID))
	}
	return errors.Join(append(faults, k.Security.check())...)
}

// Names are the names of the topics and of the consumer groups.
type Names struct {
	Input     string `name:"input-topic" default:"aircraft-events" placeholder:"TOPIC" help:"Topic of events. Default ${default}."`
	Output    string `name:"output-topic" default:"aircraft-windows" placeholder:"TOPIC" help:"Topic of window results. Default ${default}."`
	Late      string `name:"late-topic" default:"aircraft-events-late" placeholder:"TOPIC" help:"Topic of events whose windows were closed. Default ${default}."`
	Dead      string `name:"dlq-topic" default:"aircraft-events-dlq" placeholder:"TOPIC" help:"Topic of events that cannot be decoded. Default ${default}."`
	Group     string `name:"group" default:"aircraft-activity" placeholder:"GROUP" help:"Processor's consumer group; its table and loop topics are GROUP-table and GROUP-loop. Default ${default}."`
	SinkGroup string `default:"klgstream-sink" placeholder:"GROUP" help:"Sink's consumer group. Default ${default}."`
	Registry  string `name:"registry-group" default:"aircraft-registry" placeholder:"GROUP" help:"Consumer group of the aircraft registry, and its topic of aircraft; its table and loop topics are GROUP-table and GROUP-loop. none: no registry. Default ${default}."`
}

// noRegistry is the name that switches the registry off.
const noRegistry = "none"

// registry is the registry's group; empty without one.
func (n *Names) registry() string {
	if n.Registry == noRegistry {
		return ""
	}
	return n.Registry
}

func (n *Names) table() string { return n.Group + "-table" }
func (n *Names) loop() string  { return n.Group + "-loop" }

// maxTopicName is Kafka's limit.
const maxTopicName = 249

func (n *Names) check() error {
	var faults []error
	seen := map[string]string{}
	for _, name := range []struct{ flag, value string }{
		{"input-topic", n.Input},
		{"output-topic", n.Output},
		{"late-topic", n.Late},
		{"dlq-topic", n.Dead},
		{"group", n.table()},
		{"group", n.loop()},
		{"registry-group", cmp.Or(n.registry(), noRegistry)},
	} {
		if name.value == "" || len(name.value) > maxTopicName || strings.ContainsFunc(name.value, isNotName) {
			faults = append(faults, fmt.Errorf("--%s: %q must be 1 to %d letters, digits, dots, dashes and underscores", name.flag, name.value, maxTopicName))
		}
		if other, taken := seen[name.value]; taken {
			faults = append(faults, fmt.Errorf("--%s: topic %q is --%s already", name.flag, name.value, other))
		}
		seen[name.value] = name.flag
	}
	switch {
	case n.Group == "":
		faults = append(faults, errors.New("--group: none given, a consumer group is needed"))
	case n.SinkGroup == "" || n.Group == n.SinkGroup:
		faults = append(faults, fmt.Errorf("--sink-group: %q must differ from --group %q, and must not be empty", n.SinkGroup, n.Group))
	}
	return errors.Join(faults...)
}

// Windows is what a count is of. Who reads open windows has to know it as well as who counts.
type Windows struct {
	Window          []string      `default:"tumbling:1h" placeholder:"DEFINITION" help:"Window definition, repeatable: tumbling:1h, tumbling:1d@America/New_York, hopping:24h/1h, cumulating:1h/1d, session:30m. Default ${default}."`
	AllowedLateness time.Duration `default:"0s" placeholder:"DURATION" help:"How long a window takes further events after it is complete. Default ${default}."`
	Zone            string        `default:"UTC" placeholder:"NAME" help:"Time zone of event times that name none. Default ${default}."`
}

func (w *Windows) check() error {
	return errors.Join(atLeast("allowed-lateness", w.AllowedLateness, 0), w.checkZone(), w.checkWindows())
}

// Meaning is what is counted and when it is done.
type Meaning struct {
	Windows
	Emit          string        `default:"update" placeholder:"WHEN" help:"update: a window is published whenever it changed; close: once, when it is complete. Default ${default}."`
	Bound         time.Duration `default:"${bound}" placeholder:"DURATION" help:"How far events of one input partition may be out of order. Default ${default}."`
	IdleTimeout   time.Duration `default:"30s" placeholder:"DURATION" help:"How long a partition without new events holds windows open. Default ${default}."`
	Idle          string        `default:"${idle}" placeholder:"MODE" help:"When all partitions are idle: clock completes windows by the wall clock, hold leaves them open (for old events). Default ${default}."`
	MaxFutureSkew time.Duration `default:"24h" placeholder:"DURATION" help:"An event further ahead of the clock goes to the dead letters; negative: any is taken. Default ${default}."`
	Rekey         bool          `default:"true" negatable:"" help:"Pass events that are not in their registration's partition on to it; with --no-rekey they go to the dead letters."`
}

func (m *Meaning) check() error {
	return errors.Join(
		m.Windows.check(),
		oneOf("emit", m.Emit, "update", "close"),
		oneOf("idle", m.Idle, "clock", "hold"),
		atLeast("bound", m.Bound, 0),
		atLeast("idle-timeout", m.IdleTimeout, time.Millisecond),
	)
}

func (w *Windows) checkZone() error {
	if _, err := time.LoadLocation(w.Zone); err != nil {
		return fmt.Errorf("--zone: %q must be the name of a time zone, for example Europe/Paris: %w", w.Zone, err)
	}
	return nil
}

func (w *Windows) checkWindows() error {
	if len(w.Window) == 0 {
		return errors.New("--window: none given, at least one definition is needed")
	}
	var faults []error
	seen := map[string]bool{}
	for _, text := range w.Window {
		d, err := window.ParseDefinition(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("--window: %w", err))
			continue
		}
		if seen[d.String()] {
			faults = append(faults, fmt.Errorf("--window: %q is given twice", text))
		}
		seen[d.String()] = true
	}
	return errors.Join(faults...)
}

// location is the zone of event times that name none.
func (w *Windows) location() *time.Location {
	zone, err := time.LoadLocation(w.Zone)
	if err != nil {
		return time.UTC // the settings are valid, so this is not reached
	}
	return zone
}

// Engine is how the processor works. It does not change any result.
type Engine struct {
	CommitInterval time.Duration `default:"100ms" placeholder:"DURATION" help:"Time between checkpoints: results are published and positions committed this often. Default ${default}."`
	SessionTimeout time.Duration `default:"10s" placeholder:"DURATION" help:"How long the group waits for a silent replica. Default ${default}."`
	InstanceID     string        `placeholder:"NAME" help:"Unique name of this replica; with it a quick restart moves no partition."`
	MaxDirty       int           `default:"50000" placeholder:"N" help:"Changed aircraft a partition holds before it waits for its checkpoint. Default ${default}."`
	HotStandby     bool          `help:"Keep a copy of every partition's table in every replica."`
	StateTTL       time.Duration `name:"state-ttl" default:"0s" placeholder:"DURATION" help:"Forget the counts of an aircraft that had no event for so long, by event time, and has no window open; 0s: never. The registry of aircraft forgets none. Default ${default}."`
	MaxKeys        int           `default:"0" placeholder:"N" help:"Most aircraft one partition keeps; events of further ones go to the dead letters; 0: any number. Default ${default}."`
	AcceptLoss     bool          `help:"Start where the log starts, even if retention deleted events that were not counted."`
}

func (e *Engine) check() error {
	var ttl error
	if e.StateTTL != 0 {
		ttl = atLeast("state-ttl", e.StateTTL, time.Second)
	}
	return errors.Join(
		ttl,
		atLeast("max-keys", e.MaxKeys, 0),
		atLeast("commit-interval", e.CommitInterval, time.Millisecond),
		atLeast("session-timeout", e.SessionTimeout, 100*time.Millisecond),
		atLeast("max-dirty", e.MaxDirty, 1),
		below("commit-interval", e.CommitInterval, "half of --session-timeout", e.SessionTimeout/2),
	)
}

// Store is where results are kept.
type Store struct {
	StoreURL string `env:"RISINGWAVE_URL" default:"postgresql://root:risingwave@localhost:4566/dev" secret:"url" placeholder:"URL" help:"Store of results: postgresql://… for RisingWave or PostgreSQL, sqlite:FILE for the embedded one. Default ${default}."`
	ViewFiles
}

// ViewFiles are an operator's own views.
type ViewFiles struct {
	ViewsDir string `type:"path" placeholder:"DIR" help:"Directory of further views, one .sql file each; of two with one name this directory's holds. Default: none."`
}

// views are the operator's view files; nil without any.
func (f *ViewFiles) views() fs.FS {
	if f.ViewsDir == "" {
		return nil
	}
	return os.DirFS(f.ViewsDir)
}

func (f *ViewFiles) check() error {
	if f.ViewsDir == "" {
		return nil
	}
	if info, err := os.Stat(f.ViewsDir); err != nil {
		return fmt.Errorf("--views-dir: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("--views-dir: %q must be a directory", f.ViewsDir)
	}
	return nil
}

func (s *Store) check() error { return errors.Join(s.checkURL(), s.ViewFiles.check()) }

func (s *Store) checkURL() error {
	u, err := url.Parse(s.StoreURL)
	switch {
	case err != nil: // its message holds the URL, and with it the password
		return errors.New("--store-url: not a URL; want postgresql://user:password@host:port/database or sqlite:FILE")
	case u.Scheme == "sqlite" && s.file() == "":
		return errors.New("--store-url: sqlite: needs a file, for example sqlite:windows.db")
	case u.Scheme == "sqlite", (u.Scheme == "postgresql" || u.Scheme == "postgres") && u.Host != "":
		return nil
	}
	return fmt.Errorf("--store-url: %q must be postgresql://user:password@host:port/database or sqlite:FILE", u.Redacted())
}

// file is the embedded store's, "" if the store is a server.
func (s *Store) file() string {
	file, ok := strings.CutPrefix(s.StoreURL, "sqlite:")
	if !ok {
		return ""
	}
	return strings.TrimPrefix(file, "//")
}

// ProcessorOps is the processor's operations listener. What watched Flink finds it under the same address.
type ProcessorOps struct {
	OpsURL string `env:"FLINK_REST_URL" default:"http://localhost:8081" placeholder:"URL" help:"Operations listener of the processor: /metrics, /healthz, /readyz, profiles. Default ${default}."`
}

func (o *ProcessorOps) check() error {
	u, err := url.Parse(o.OpsURL)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("--ops-url: %q must be http://host:port", o.OpsURL)
	}
	return address("ops-url", o.addr(), 0)
}

// addr is the address to listen on.
func (o *ProcessorOps) addr() string {
	u, err := url.Parse(o.OpsURL)
	if err != nil {
		return ""
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80")
	}
	return u.Host
}

// SinkOps is the sink's operations listener.
type SinkOps struct {
	SinkOpsAddr string `default:"localhost:8082" placeholder:"HOST:PORT" help:"Operations listener of the sink: /metrics, /healthz, /readyz, profiles. Default ${default}."`
}

func (o *SinkOps) check() error { return address("sink-ops-addr", o.SinkOpsAddr, 0) }

// APIOps is the API's operations listener.
type APIOps struct {
	APIOpsAddr string `name:"api-ops-addr" default:"localhost:8083" placeholder:"HOST:PORT" help:"Operations listener of the API: /metrics, /healthz, /readyz, profiles. Default ${default}."`
}

func (o *APIOps) check() error { return address("api-ops-addr", o.APIOpsAddr, 0) }

// HTTP is the API's listener and whom it serves.
type HTTP struct {
	HTTPAddr  string   `name:"http-addr" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where API and page are served. Default ${default}."`
	APIKey    []string `name:"api-key" placeholder:"NAME:SCOPE:SHA256" help:"Who may use the API, repeatable: a name, read, write or admin (several joined by +), and the key's SHA-256 in hexadecimal. Default: everybody."`
	Host      []string `name:"allowed-host" placeholder:"NAME" help:"Names the API may be reached by, repeatable. Default: any with keys, else addresses and names without a dot."`
	TLSCert   string   `name:"http-tls-cert" placeholder:"FILE" help:"PEM file of the certificate, and those between it and its authority, to serve API and page by HTTPS. Read again when it changes. Default: HTTP."`
	TLSKey    string   `name:"http-tls-key" placeholder:"FILE" help:"PEM file of that certificate's key."`
	RateLimit float64  `name:"rate-limit" default:"0" placeholder:"N" help:"Requests a second one client may send; 0: no limit. Default ${default}."`
	Proxy     []string `name:"trusted-proxy" placeholder:"NETWORK" help:"Address or network (10.0.0.0/8) of reverse proxies, repeatable: their X-Forwarded-For tells whom limits count. Default: none."`
}

func (h *HTTP) check() error {
	_, err := readCertificate("http-tls-cert", h.TLSCert, "http-tls-key", h.TLSKey)
	_, unknown := h.proxies()
	return errors.Join(address("http-addr", h.HTTPAddr, 0), err, unknown, h.checkAPI())
}

// proxies are the networks of trusted proxies, and what cannot be read.
func (h *HTTP) proxies() ([]netip.Prefix, error) {
	var networks []netip.Prefix
	var faults []error
	for _, text := range h.Proxy {
		network, err := netip.ParsePrefix(text)
		if ip, ipErr := netip.ParseAddr(text); ipErr == nil {
			network, err = ip.Prefix(ip.BitLen())
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("--trusted-proxy: %q must be an address or a network, for example 10.0.0.0/8", text))
		}
		networks = append(networks, network)
	}
	return networks, errors.Join(faults...)
}

// url is where a listener is reached.
func (h *HTTP) url(l net.Listener) string {
	if h.TLSCert != "" {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// api is what the settings say to the API. A key that cannot be split is in the error, without its last part: people
// paste the key itself there.
func (h *HTTP) api() (httpapi.Config, error) {
	c := httpapi.Config{Hosts: h.Host, Limits: httpapi.Limits{Rate: h.RateLimit}}
	c.Proxies, _ = h.proxies() // check tells what is wrong with them
	var faults []error
	for _, text := range h.APIKey {
		parts := strings.Split(text, ":")
		if len(parts) != 3 {
			name := ""
			if len(parts) > 1 {
				name = strconv.Quote(parts[0])
			}
			faults = append(faults, fmt.Errorf("--api-key: %s… must be NAME:SCOPE:SHA256, for example ops:read+write:2bb8…", name))
			continue
		}
		key := httpapi.Key{Name: parts[0], SHA256: parts[2]}
		for scope := range strings.SplitSeq(parts[1], "+") {
			key.Scopes = append(key.Scopes, httpapi.Scope(scope))
		}
		c.Keys = append(c.Keys, key)
	}
	return c, errors.Join(faults...)
}

// checkAPI leaves it to the API what a key must be.
func (h *HTTP) checkAPI() error {
	c, err := h.api()
	c.Store, c.Publisher, c.Now = struct{ views.Store }{}, struct{ httpapi.Publisher }{}, time.Now // there, as far as it looks
	c.Limits.Rate = 0                                                                              // it is looked at here, so that what is left are keys
	faults := []error{err, atLeast("rate-limit", h.RateLimit, 0)}
	for _, fault := range flatten(c.Validate()) {
		faults = append(faults, fmt.Errorf("--api-key: %w", fault))
	}
	return errors.Join(faults...)
}

// TopicPlan is how topics are made.
type TopicPlan struct {
	Partitions        int32         `default:"4" placeholder:"N" help:"Partitions of the input, table, loop and output topics; it cannot be changed later. Default ${default}."`
	ReplicationFactor int16         `default:"1" placeholder:"N" help:"Copies of each partition; 3 in production. Default ${default}."`
	InputRetention    time.Duration `default:"168h" placeholder:"DURATION" help:"How long events are kept after their arrival; negative: for ever. Default ${default}."`
	OutputRetention   time.Duration `default:"720h" placeholder:"DURATION" help:"How long window results are kept; negative: for ever. Default ${default}."`
	LetterRetention   time.Duration `default:"720h" placeholder:"DURATION" help:"How long late and dead events are kept; negative: for ever. Default ${default}."`
	LoopRetention     time.Duration `default:"168h" placeholder:"DURATION" help:"How long re-keyed events are kept, at least 168h; negative: for ever. Default ${default}."`
}

const (
	maxPartitions = 10000 // more is a slip of the finger: goka opens every one
	minLoop       = 7 * 24 * time.Hour
)

func (t *TopicPlan) check() error {
	var faults []error
	if t.Partitions < 1 || t.Partitions > maxPartitions {
		faults = append(faults, fmt.Errorf("--partitions: %d must be 1 to %d", t.Partitions, maxPartitions))
	}
	faults = append(faults, atLeast("replication-factor", t.ReplicationFactor, 1))
	if t.LoopRetention >= 0 && t.LoopRetention < minLoop {
		faults = append(faults, fmt.Errorf("--loop-retention: %s must be at least %s: events in the loop are not counted yet", t.LoopRetention, minLoop))
	}
	return errors.Join(faults...)
}

// Replay is how a file of events is published.
type Replay struct {
	Speed    string  `default:"max" placeholder:"FACTOR" help:"How many times faster than it happened, by event time: 1, 60, 3600, or max. Default ${default}."`
	Rate     float64 `default:"0" placeholder:"N" help:"At most this many events a second; 0: no limit. Default ${default}."`
	Key      string  `default:"none" placeholder:"KIND" help:"registration: each event in its registration's partition; none: spread, as producers without keys do. Default ${default}."`
	Validate bool    `help:"Refuse a file with a line that cannot be decoded; else such lines are published too and become dead letters."`
}

func (r *Replay) check() error {
	var faults []error
	if _, err := parseSpeed(r.Speed); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(append(faults, atLeast("rate", r.Rate, 0), oneOf("key", r.Key, "registration", "none"))...)
}

// parseSpeed is the factor; 0 stands for max.
func parseSpeed(text string) (float64, error) {
	if text == "max" {
		return 0, nil
	}
	speed, err := strconv.ParseFloat(strings.TrimRight(text, "x×"), 64)
	if err != nil || !(speed > 0) || speed > 1e9 {
		return 0, fmt.Errorf("--speed: %q must be a number above 0, at most 1e9, or max", text)
	}
	return speed, nil
}

func oneOf(flag, value string, choices ...string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	last := len(choices) - 1
	return fmt.Errorf("--%s: %q must be %s or %s", flag, value, strings.Join(choices[:last], ", "), choices[last])
}

func atLeast[T int | int16 | int32 | float64 | time.Duration](flag string, value, limit T) error {
	if value >= limit {
		return nil
	}
	return fmt.Errorf("--%s: %v must be at least %v", flag, value, limit)
}

func below(flag string, value time.Duration, what string, limit time.Duration) error {
	if value < limit {
		return nil
	}
	return fmt.Errorf("--%s: %s must be below %s, %s", flag, value, what, limit)
}

// address checks host:port, the port at least least: 0 lets the system choose one.
func address(flag, value string, least uint64) error {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return fmt.Errorf("--%s: %q must be host:port", flag, value)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n < least {
		return fmt.Errorf("--%s: port %q of %q must be a number from %d to 65535", flag, port, value, least)
	}
	return nil
}

// isNotName tells characters that neither topics nor client ids may have.
func isNotName(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	return !letter && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}
