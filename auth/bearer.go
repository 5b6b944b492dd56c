package auth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// tokenKept is how long a token's verification is good for: a provider that is asked about a token is
	// asked once in that time, and one that it withdraws is good for as long at most.
	tokenKept = time.Minute
	// tokensMost is how many verified tokens are remembered.
	tokensMost = 4096
	// LongestToken is the longest that is looked at, in bytes.
	LongestToken = 32 << 10
	// asksMost is how many questions to one issuer are under way at once.
	asksMost = 16
)

// ErrToken: the token proves nothing here. The words behind it are for whoever showed it.
var ErrToken = errors.New("the token is not accepted")

func badToken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrToken, fmt.Sprintf(format, args...))
}

// How an issuer is asked about a token that says nothing itself.
const (
	OpaqueIntrospection = "introspection" // RFC 7662; needs a client secret
	// OpaqueUserinfo asks whose token it is. An issuer's userinfo endpoint says nothing of whom a token is
	// for, so this takes the token of each of the issuer's clients.
	OpaqueUserinfo = "userinfo"
)

// TokenConfig says which of an issuer's tokens are accepted that were given to other clients than Curfew.
type TokenConfig struct {
	Audiences []string // one of these must be the token's; without any no token is accepted
	Clients   []string // and one of these must be the client it was given to (azp, client_id); empty: any
	Opaque    string   // Opaque constants; empty: only tokens that are signed
	Scopes    []string // what clients are told to ask for; default IssuerConfig.Scopes
	// Workloads says that its identities are programs, not people.
	Workloads bool
}

// Token is a token that was verified.
type Token struct {
	Identity Identity
	Client   string    // whom it was given to, if it says so
	Issued   time.Time // zero: it does not say
	Expires  time.Time
	session  string // sid
}

// Bearer verifies what an issuer signs without Curfew having asked for it: tokens of its other clients, and
// its word that somebody has signed out. It is safe for concurrent use.
//
// What may be relied on: an Identity that Verify gives is that of a token which the issuer signed with a key
// that it publishes now, or has called active within the last minute; which was made for one of the
// audiences and given to one of the clients; which is neither expired, nor of the future, nor bound to a key
// that nobody has shown; and which is not older than a sign-out of its person that the issuer has told of.
// An issuer that can't be asked is ErrUnreachable, never a yes.
type Bearer struct {
	cfg    IssuerConfig
	of     *Provider // reads who somebody is; it is never discovered
	take   TokenConfig
	client *http.Client
	source *source
	asks   chan struct{}

	mu      sync.Mutex // guards what follows
	kept    map[[32]byte]keptToken
	asking  map[[32]byte]*question
	left    map[string]signOut   // who has signed out, by what their tokens have of them
	replays map[string]time.Time // logout tokens that were taken, until when
}

type keptToken struct {
	token Token
	until time.Time
}

// question is one that is under way, for all who have the same token.
type question struct {
	done  chan struct{}
	token Token
	err   error
}

// NewBearer makes one. The issuer need not be up.
func NewBearer(cfg IssuerConfig, take TokenConfig) (*Bearer, error) {
	if err := secure("issuer url", cfg.URL); err != nil {
		return nil, err
	}
	switch take.Opaque {
	case "", OpaqueUserinfo:
	case OpaqueIntrospection:
		if cfg.ClientSecret == "" {
			return nil, errors.New("issuer " + cfg.URL + ": introspection needs a client secret")
		}
	default:
		return nil, fmt.Errorf("issuer %s: opaque tokens by %q: introspection or userinfo", cfg.URL, take.Opaque)
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "groups"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(take.Scopes) == 0 {
		take.Scopes = cfg.Scopes
	}
	p := &Provider{cfg: cfg, log: cfg.Log.With("issuer", cfg.URL)}
	p.client, p.clock.log = boundedClient(cfg.HTTP, &p.clock), p.log
	b := &Bearer{cfg: cfg, of: p, take: take, client: p.client, asks: make(chan struct{}, asksMost),
		kept: map[[32]byte]keptToken{}, asking: map[[32]byte]*question{}, left: map[string]signOut{}, replays: map[string]time.Time{}}
	b.source = &source{issuer: cfg.URL, client: b.client}
	return b, nil
}

// Issuer is the issuer's URL.
func (b *Bearer) Issuer() string { return b.cfg.URL }

// Skew is Provider.Skew.
func (b *Bearer) Skew() (time.Duration, time.Time) { return b.of.Skew() }

// Workloads reports whether its identities are programs.
func (b *Bearer) Workloads() bool { return b.take.Workloads }

// Verify says whose token this is.
func (b *Bearer) Verify(ctx context.Context, raw string) (Token, error) {
	if len(b.take.Audiences) == 0 {
		return Token{}, badToken("no tokens of %s are taken here", b.cfg.URL)
	}
	if len(raw) > LongestToken {
		return Token{}, badToken("it is longer than %d bytes", LongestToken)
	}
	key := sha256.Sum256([]byte(raw))
	now := time.Now()
	b.mu.Lock()
	if k, ok := b.kept[key]; ok && now.Before(k.until) {
		b.mu.Unlock()
		return k.token, nil
	}
	q := b.asking[key]
	if q == nil {
		q = &question{done: make(chan struct{})}
		b.asking[key] = q
		go b.answer(context.WithoutCancel(ctx), q, key, raw)
	}
	b.mu.Unlock()
	select {
	case <-q.done:
		return q.token, q.err
	case <-ctx.Done():
		return Token{}, fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))
	}
}

// answer verifies for all who wait, whoever of them hangs up.
func (b *Bearer) answer(ctx context.Context, q *question, key [32]byte, raw string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q.token, q.err = b.look(ctx, raw)
	b.mu.Lock()
	defer b.mu.Unlock()
	if q.err == nil {
		q.err = b.stillIn(q.token) // a sign-out that came meanwhile
	}
	if q.err == nil {
		b.keep(key, q.token)
	} else {
		q.token = Token{}
	}
	delete(b.asking, key)
	close(q.done)
}

// keep remembers a verified token; mu is held. A full memory loses any.
func (b *Bearer) keep(key [32]byte, t Token) {
	now := time.Now()
	until := now.Add(tokenKept)
	if t.Expires.Before(until) {
		until = t.Expires
	}
	if !until.After(now) {
		return // within the forgiven skew: verified each time
	}
	for k, old := range b.kept {
		if len(b.kept) < tokensMost && now.Before(old.until) {
			break
		}
		delete(b.kept, k)
	}
	b.kept[key] = keptToken{t, until}
}

func (b *Bearer) look(ctx context.Context, raw string) (Token, error) {
	if IsJWT(raw) {
		return b.signed(ctx, raw)
	}
	return b.opaque(ctx, raw)
}

// identify reads who a token is of out of its claims, completed by what the issuer says of its holder.
func (b *Bearer) identify(subject string, all map[string]json.RawMessage) (Identity, error) {
	id := Identity{Issuer: b.cfg.URL, Subject: subject, ACR: stringOf(all["acr"]), AMR: stringsOf(all["amr"])}
	var at json.Number
	if raw, ok := all["auth_time"]; ok {
		at = json.Number(raw)
	}
	var err error
	if id.AuthTime, err = authTime(at); err != nil {
		return Identity{}, badToken("%v", err)
	}
	b.of.describe(&id, all)
	if b.take.Workloads {
		// No program is a person: what it is called must not make it one.
		id.Workload, id.Email, id.Declared = true, "", false
	}
	return id, nil
}
