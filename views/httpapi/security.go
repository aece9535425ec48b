package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// secret is a key ready for comparison.
type secret struct {
	name  string
	sum   [sha256.Size]byte
	read  bool
	write bool
}

func newSecrets(keys []Key) []secret {
	secrets := make([]secret, len(keys))
	for i, k := range keys {
		s := &secrets[i]
		s.name = k.Name
		_, _ = hex.Decode(s.sum[:], []byte(k.SHA256)) // Validate has seen it
		for _, scope := range k.Scopes {
			s.read = s.read || scope == ScopeRead || scope == ScopeAdmin
			s.write = s.write || scope == ScopeWrite || scope == ScopeAdmin
		}
	}
	return secrets
}

// identify finds the key of a bearer token's sum. It always compares with every key, so the time tells nothing.
func identify(secrets []secret, sum [sha256.Size]byte) *secret {
	found := -1
	for i := range secrets {
		same := subtle.ConstantTimeCompare(sum[:], secrets[i].sum[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return nil
	}
	return &secrets[found]
}

// authorise lets a request to the API pass, or answers it. Pages and the API's description hold no data and are open.
func (a *API) authorise(x *exchange, r *http.Request) bool {
	if len(a.secrets) == 0 || !strings.HasPrefix(r.URL.Path, "/api/") {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		x.Header().Set("WWW-Authenticate", `Bearer realm="klgstream"`)
		writeProblem(x, problem(http.StatusUnauthorized, "send an API key: Authorization: Bearer <key>"))
		return false
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if wait, ok := a.guesses.allow(x.address(), sum); !ok {
		writeProblem(x, busy(x, http.StatusTooManyRequests, wait, "too many wrong API keys came from this address"))
		return false
	}
	if x.key = identify(a.secrets, sum); x.key == nil {
		a.guesses.wrong(x.address(), sum)
		x.Header().Set("WWW-Authenticate", `Bearer realm="klgstream", error="invalid_token"`)
		writeProblem(x, problem(http.StatusUnauthorized, "this API key is not known"))
		return false
	}
	scope, allowed := "write", x.key.write
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		scope, allowed = "read", x.key.read
	}
	if !allowed {
		x.Header().Set("WWW-Authenticate", `Bearer realm="klgstream", error="insufficient_scope", scope="`+scope+`"`)
		writeProblem(x, problem(http.StatusForbidden, "this API key lacks the scope "+scope))
	}
	return allowed
}

// hosts is the set of names a client may use in the Host header.
type hosts struct {
	any   bool
	local bool // addresses and names without a dot: nobody else's DNS can answer for them
	names map[string]bool
}

func newHosts(names []string, keyed bool) hosts {
	h := hosts{any: len(names) == 0 && keyed, local: len(names) == 0, names: map[string]bool{}}
	for _, n := range names {
		h.names[strings.ToLower(bare(n))] = true
	}
	return h
}

func (h *hosts) allow(host string) bool {
	if h.any {
		return true
	}
	host = strings.ToLower(bare(host))
	if h.names[host] {
		return true
	}
	if !h.local {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost")
}

// bare cuts the port and the brackets off a host.
func bare(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// throttle is one token bucket per client, bounded in number.
type throttle struct {
	rate  rate.Limit
	burst int
	now   func() time.Time

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

// maxBuckets is how many clients are told apart; past it those that have saved up everything are forgotten, which
// changes nothing for them.
const maxBuckets = 10_000

func newThrottle(l *Limits, now func() time.Time) *throttle {
	return &throttle{rate: rate.Limit(l.Rate), burst: l.Burst, now: now, buckets: map[string]*rate.Limiter{}}
}

// allow takes a token of the client, or says how long until there is one.
func (t *throttle) allow(who interface{ client() string }) (wait time.Duration, ok bool) {
	if t.rate == 0 {
		return 0, true
	}
	client, now := who.client(), t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buckets[client]
	if b == nil {
		if len(t.buckets) >= maxBuckets {
			t.sweep(now)
		}
		b = rate.NewLimiter(t.rate, t.burst)
		t.buckets[client] = b
	}
	if b.AllowN(now, 1) {
		return 0, true
	}
	missing := 1 - b.TokensAt(now)
	return time.Duration(missing / float64(t.rate) * float64(time.Second)), false
}

func (t *throttle) sweep(now time.Time) {
	for client, b := range t.buckets {
		if b.TokensAt(now) >= float64(t.burst) {
			delete(t.buckets, client)
		}
	}
	if len(t.buckets) >= maxBuckets {
		clear(t.buckets) // so many busy clients at once are one client with many addresses: begin again
	}
}

// policy is the content security policy of every answer: own files only, nothing inline, no frames around us.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// commonHeaders are shared by all answers, so their slices have no room to grow into.
var commonHeaders = map[string][]string{
	"Content-Security-Policy":      {policy},
	"X-Content-Type-Options":       {"nosniff"},
	"Referrer-Policy":              {"no-referrer"},
	"Cross-Origin-Opener-Policy":   {"same-origin"},
	"Cross-Origin-Resource-Policy": {"same-origin"},
}

// strictTransport tells browsers that came by HTTPS to come by nothing else for a year.
var strictTransport = []string{"max-age=31536000"}

func setCommonHeaders(h http.Header) {
	maps.Copy(h, commonHeaders)
}
