package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"klgstream.dev/views"
)

// Config is everything the API needs. Store, Publisher and Now are required; the rest has the documented default.
type Config struct {
	Store     views.Store
	Publisher Publisher
	Pipeline  Pipeline // nil: pipeline routes answer 503, health leaves it out
	Registry  Registry // nil: aircraft routes answer 503
	Live      Live     // nil: live windows answer 503
	Checks    []Check  // further dependencies the health route asks

	// Keys are the API keys. None means every client may read and write: bind to loopback then.
	Keys []Key
	// Hosts are the names a client may use in the Host header, with or without port. Empty: any name if there are keys,
	// else only IP addresses and names without a dot, which closes DNS rebinding on an open loopback listener.
	Hosts []string
	// Proxies are networks of reverse proxies whose X-Forwarded-For tells the client's address, for limits.
	Proxies []netip.Prefix
	Limits  Limits
	Zone    *time.Location // of event times without a zone; nil is UTC

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: nothing is measured
	Now        func() time.Time
	Version    string // of the program, shown by the page and the OpenAPI document; "" is "dev"
}

// Check is one more dependency for the health route.
type Check struct {
	Name  string
	Probe func(ctx context.Context) error
}

// Limits bounds what clients can make the process hold or do. The zero value of a field is its default.
type Limits struct {
	BodyBytes       int64         // of one request. Default 8 MiB
	BodiesInFlight  int64         // bytes of all request bodies held at once. Default 256 MiB
	AnswersInFlight int64         // bytes of all pages of views that wait for their clients to take them, small ones not counted. Default 256 MiB
	BatchEvents     int           // events in one request. Default 10,000
	HeaderBytes     int           // of one request. Default 16 KiB
	Requests        int           // in flight at once, streams not counted; of one client three quarters of them. Default 1,024
	Streams         int           // server-sent event streams at once; of one client three quarters of them. Default 2,000
	Rate            float64       // requests per second and client (key name, else address). Default 0: no limit
	Burst           int           // requests a client may save up. Default: one second's worth, at least 1
	ReadTimeout     time.Duration // for a whole request to arrive. Default 30 s
	HeaderTimeout   time.Duration // for its headers. Default 5 s
	WriteTimeout    time.Duration // for an answer to be taken, and for each frame of a stream. Default 30 s
	QueryTimeout    time.Duration // for the store to answer one query. Default 10 s
	PublishTimeout  time.Duration // for the broker's acknowledgement. Default 15 s
	DecideTimeout   time.Duration // for the registry to take a new aircraft before the answer is 202. Default 3 s
	Interval        time.Duration // between two pictures on the stream. Default 1 s
	IdempotencyTTL  time.Duration // how long an Idempotency-Key is remembered. Default 1 h
	IdempotencyMax  int           // keys remembered at most, oldest forgotten first. Default 100,000
}

// Scope is what a key allows.
type Scope string

// The scopes. Admin allows everything.
const (
	ScopeRead  Scope = "read"
	ScopeWrite Scope = "write"
	ScopeAdmin Scope = "admin"
)

// Key is one API key as configuration holds it: never the key itself.
type Key struct {
	Name   string  // for limits and logs; bounded to 64 bytes
	SHA256 string  // hex of the key's SHA-256 sum
	Scopes []Scope // at least one
}

// Hash returns what belongs into Key.SHA256 for a secret.
func Hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Validate returns every fault of the configuration, joined.
func (c *Config) Validate() error {
	var faults []error
	if c.Store == nil {
		faults = append(faults, errors.New("store is missing"))
	}
	if c.Publisher == nil {
		faults = append(faults, errors.New("publisher is missing"))
	}
	if c.Now == nil {
		faults = append(faults, errors.New("clock is missing"))
	}
	for i := range c.Keys {
		faults = append(faults, c.Keys[i].validate(i))
	}
	faults = append(faults, c.Limits.validate())
	return errors.Join(faults...)
}

func (k *Key) validate(i int) error {
	var faults []error
	if k.Name == "" || len(k.Name) > 64 {
		faults = append(faults, fmt.Errorf("key %d: name %q must have 1 to 64 bytes", i, k.Name))
	}
	if raw, err := hex.DecodeString(k.SHA256); err != nil || len(raw) != sha256.Size {
		// The value is not shown: people do paste the key itself here.
		faults = append(faults, fmt.Errorf("key %q: sha256 must be %d hexadecimal digits, has %d characters", k.Name, 2*sha256.Size, len(k.SHA256)))
	}
	if len(k.Scopes) == 0 {
		faults = append(faults, fmt.Errorf("key %q: needs a scope: read, write or admin", k.Name))
	}
	for _, s := range k.Scopes {
		if s != ScopeRead && s != ScopeWrite && s != ScopeAdmin {
			faults = append(faults, fmt.Errorf("key %q: scope %q must be read, write or admin", k.Name, s))
		}
	}
	return errors.Join(faults...)
}

func (l *Limits) validate() error {
	var faults []error
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"body bytes", float64(l.BodyBytes)},
		{"bodies in flight", float64(l.BodiesInFlight)},
		{"answers in flight", float64(l.AnswersInFlight)},
		{"batch events", float64(l.BatchEvents)},
		{"header bytes", float64(l.HeaderBytes)},
		{"requests", float64(l.Requests)},
		{"streams", float64(l.Streams)},
		{"rate", l.Rate},
		{"burst", float64(l.Burst)},
		{"read timeout", float64(l.ReadTimeout)},
		{"header timeout", float64(l.HeaderTimeout)},
		{"write timeout", float64(l.WriteTimeout)},
		{"query timeout", float64(l.QueryTimeout)},
		{"publish timeout", float64(l.PublishTimeout)},
		{"decide timeout", float64(l.DecideTimeout)},
		{"interval", float64(l.Interval)},
		{"idempotency time to live", float64(l.IdempotencyTTL)},
		{"idempotency keys", float64(l.IdempotencyMax)},
	} {
		if f.value < 0 {
			faults = append(faults, fmt.Errorf("limit of %s is %v, must be at least 0", f.name, f.value))
		}
	}
	if l.BodiesInFlight > 0 && l.BodiesInFlight < l.withDefaults().BodyBytes {
		faults = append(faults, fmt.Errorf("limit of bodies in flight %d must be at least that of one body, %d", l.BodiesInFlight, l.withDefaults().BodyBytes))
	}
	return errors.Join(faults...)
}

func (l *Limits) withDefaults() Limits {
	d := *l
	def(&d.BodyBytes, 8<<20)
	def(&d.BodiesInFlight, max(256<<20, d.BodyBytes))
	def(&d.AnswersInFlight, 256<<20)
	def(&d.BatchEvents, 10_000)
	def(&d.HeaderBytes, 16<<10)
	def(&d.Requests, 1024)
	def(&d.Streams, 2000)
	def(&d.Burst, max(1, int(d.Rate)))
	def(&d.ReadTimeout, 30*time.Second)
	def(&d.HeaderTimeout, 5*time.Second)
	def(&d.WriteTimeout, 30*time.Second)
	def(&d.QueryTimeout, 10*time.Second)
	def(&d.PublishTimeout, 15*time.Second)
	def(&d.DecideTimeout, 3*time.Second)
	def(&d.Interval, time.Second)
	def(&d.IdempotencyTTL, time.Hour)
	def(&d.IdempotencyMax, 100_000)
	return d
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
