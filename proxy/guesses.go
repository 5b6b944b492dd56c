package proxy

import (
	"cmp"
	"context"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// How many wrong passwords, and wrong tokens, are looked at. What goes beyond is answered as a wrong password is, by the same
// steps and in the same time, whether it is right or wrong: nobody learns from it that they are locked out.
// Each tally loses one in the time that stands beside it, so nobody is locked out for good.
//
// Wrong passwords for a name make nobody else's login wrong: who comes from an address that has not failed
// with that name is always looked at, and an address's many wrong ones don't count against names that
// have logged in from there.
const (
	pairMost, pairLoses       = 10, 10 * time.Second // one name from one address
	addressMost, addressLoses = 50, time.Second      // all names from one address
	nameMost, nameLoses       = 50, 5 * time.Second  // one name from all addresses: then one each is left

	tallyMost = 8192 // keys that are kept of each kind
	knownFor  = 24 * time.Hour
)

// guesses counts wrong passwords.
type guesses struct {
	log  *slog.Logger
	seed maphash.Seed

	bell alarm

	mu    sync.Mutex // guards what follows
	pairs tally[pair]
	from  tally[netip.Prefix]
	names tally[uint64]
	known map[pair]time.Time // when it last logged in
}

// pair is a name and where it comes from.
type pair struct {
	from netip.Prefix
	name uint64 // a hash: names are as long as strangers like
}

func newGuesses(log *slog.Logger) *guesses {
	return &guesses{log: log, seed: maphash.MakeSeed(), known: map[pair]time.Time{},
		pairs: newTally[pair](pairLoses), from: newTally[netip.Prefix](addressLoses), names: newTally[uint64](nameLoses)}
}

func (g *guesses) pairOf(from netip.Prefix, name string) pair {
	return pair{from, maphash.String(g.seed, name)}
}

// tooMany says whether a login is to fail whatever the password is.
func (g *guesses) tooMany(from netip.Prefix, name string) bool {
	p, now := g.pairOf(from, name), time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	at, known := g.known[p]
	known = known && now.Sub(at) < knownFor
	failed := g.pairs.count(p, now)
	locked := failed > pairMost-1 ||
		!known && g.from.count(from, now) > addressMost-1 ||
		!known && failed > 0 && g.names.count(p.name, now) > nameMost-1
	if !locked {
		return false
	}
	if n, now := g.bell.ring(); now {
		g.log.Warn("ALERT too many wrong passwords: logins fail without a look at the password", "from", from.String(),
			"user", name[:min(len(name), 64)], "since_the_last", n)
	}
	return true
}

// wrong counts a wrong password that was looked at.
func (g *guesses) wrong(from netip.Prefix, name string) {
	p, now := g.pairOf(from, name), time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pairs.add(p, now)
	g.from.add(from, now)
	g.names.add(p.name, now)
}

// right notes that a name has logged in.
func (g *guesses) right(from netip.Prefix, name string) {
	p, now := g.pairOf(from, name), time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, has := g.known[p]; !has && len(g.known) >= tallyMost {
		for old, at := range g.known { // any: it was one of thousands
			if delete(g.known, old); now.Sub(at) < knownFor {
				break
			}
		}
	}
	g.known[p] = now
}

// tally counts by key what is forgotten with time: one each loses.
type tally[K comparable] struct {
	loses time.Duration
	marks map[K]mark
}

type mark struct {
	n  float64
	at time.Time
}

func newTally[K comparable](loses time.Duration) tally[K] {
	return tally[K]{loses: loses, marks: map[K]mark{}}
}

func (t *tally[K]) left(m mark, now time.Time) float64 {
	return max(0, m.n-float64(now.Sub(m.at))/float64(t.loses))
}

func (t *tally[K]) count(key K, now time.Time) float64 { return t.left(t.marks[key], now) }

// add counts one more. A full table loses the least of a few, for one that counts a lot must not be got rid
// of by filling the table.
func (t *tally[K]) add(key K, now time.Time) {
	if _, has := t.marks[key]; !has && len(t.marks) >= tallyMost {
		const few = 16
		var least K
		n, seen := 0.0, 0
		for k, m := range t.marks { // which ones come first is chance
			if left := t.left(m, now); seen == 0 || left < n {
				least, n = k, left
			}
			if seen++; seen == few || n == 0 {
				break
			}
		}
		delete(t.marks, least)
	}
	t.marks[key] = mark{t.count(key, now) + 1, now}
}

// doorman asks the real one on behalf of one stranger, and keeps it from guessing.
type doorman struct {
	protocol.Doorman
	guesses *guesses
	from    netip.Prefix
	at      Listener

	name   string
	locked bool
}

// Verifier gives none to who is locked out: the front goes on as with a name that nobody has. The real one
// is asked all the same, because that takes time.
func (d *doorman) Verifier(ctx context.Context, user string) ([]byte, error) {
	stored, err := d.Doorman.Verifier(ctx, user)
	d.name, d.locked = user, d.guesses.tooMany(d.from, user)
	if d.locked {
		stored = nil
	}
	return stored, err
}

// Token asks on behalf of this listener. Nobody can guess a token, so whoever is locked out may know: what is
// saved is asking the identity provider about each.
func (d *doorman) Token(ctx context.Context, t protocol.TokenLogin) (string, error) {
	d.name = cmp.Or(t.Email, t.Choice)
	d.locked = d.guesses.tooMany(d.from, d.name)
	if d.locked {
		return "", &protocol.Refusal{Code: protocol.RefuseLimit, Public: "too many tokens from your address proved nothing; wait a minute and log in with a new one"}
	}
	t.Engine, t.Target = d.at.Engine, d.at.Target
	return d.Doorman.Token(ctx, t)
}

// wrong and right keep how the login ended.
func (d *doorman) wrong() {
	if !d.locked {
		d.guesses.wrong(d.from, d.name)
	}
}

func (d *doorman) right() { d.guesses.right(d.from, d.name) }
