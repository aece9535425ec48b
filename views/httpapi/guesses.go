package httpapi

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// guessBurst is how many wrong API keys one address may try before it has to wait.
	guessBurst = 10
	// guessEvery is how long it then waits for each further one: 10 a minute.
	guessEvery = 6 * time.Second
	// maxGuessers is how many addresses are told apart. Each takes about 1 KiB.
	maxGuessers = 10_000
)

// guesses slows down who tries API keys. Only keys that were not tried before are guesses: a client that keeps sending one
// outdated key learns nothing, and does not shut out who shares its address. An address that has used up its guesses is answered
// before its key is looked at; a right one would have to wait as well, or guessing would go on at full speed.
type guesses struct {
	now func() time.Time
	log *slog.Logger

	mu    sync.Mutex
	known map[string]*guesser // by address
}

// guesser is an address that has sent wrong keys.
type guesser struct {
	left  *rate.Limiter
	tried [guessBurst][sha256.Size]byte // the last ones, as a ring
	next  int
	told  bool // of in the log
}

func newGuesses(log *slog.Logger, now func() time.Time) *guesses {
	return &guesses{now: now, log: log, known: map[string]*guesser{}}
}

// allow tells whether a key may be tried, or how long until it may.
func (g *guesses) allow(address string, sum [sha256.Size]byte) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.known[subscriber(address)]
	if one == nil || slices.Contains(one.tried[:], sum) {
		return 0, true
	}
	missing := 1 - one.left.TokensAt(g.now())
	return time.Duration(missing * float64(guessEvery)), missing <= 0
}

// wrong counts a key that was tried and is not known.
func (g *guesses) wrong(address string, sum [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	where, now := subscriber(address), g.now()
	one := g.known[where]
	if one == nil {
		g.makeRoom()
		one = &guesser{left: rate.NewLimiter(rate.Every(guessEvery), guessBurst)}
		g.known[where] = one
	}
	if slices.Contains(one.tried[:], sum) {
		return
	}
	one.told = one.told && one.left.TokensAt(now) < guessBurst
	one.left.AllowN(now, 1)
	one.tried[one.next] = sum
	one.next = (one.next + 1) % guessBurst
	if one.left.TokensAt(now) < 1 && !one.told {
		one.told = true
		g.log.Warn("a client tries API keys: it has to wait between further ones", "address", where, "tried", guessBurst, "pause", guessEvery)
	}
}

// makeRoom forgets one address, no matter which, if there are too many: a map does not begin where it began before. The lock is
// held.
func (g *guesses) makeRoom() {
	if len(g.known) < maxGuessers {
		return
	}
	for where := range g.known {
		delete(g.known, where)
		return
	}
}

// subscriber is what an address stands for: of IPv6 one client has 2^64.
func subscriber(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}
