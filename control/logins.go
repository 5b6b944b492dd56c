package control

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// ErrLoginPending is Finish's answer while nobody has confirmed a device login: ask again.
var ErrLoginPending = errors.New("the login is not finished yet")

const (
	loginTime = 10 * time.Minute // from Start to Finish
	// Strangers may begin logins, so what they leave behind is bounded: the oldest gives way.
	mostLogins     = 5000
	mostLoginsFrom = 100
	mostAsked      = 16        // context classes and methods of a step-up
	webTime        = time.Hour // a browser's session

	defaultSession = 12 * time.Hour
	defaultRefresh = 5 * time.Minute
	// blindTime is for how long a session token is good while its identity can't be checked at the
	// provider: because it is down, or because it gave no refresh token.
	blindTime = time.Hour
)

// People is what Logins tells the desk, and asks it.
type People interface {
	LiveIdentities(ctx context.Context) ([]auth.Identity, error)
	Refreshed(ctx context.Context, now auth.Identity) error
	EndAll(ctx context.Context, who auth.Identity, code, reason string) error
}

// loginStore is what Logins uses of the store.
type loginStore interface {
	Update(ctx context.Context, fn func(*store.Tx) error) error
	View(ctx context.Context, fn func(*store.Tx) error) error
	Now() time.Time
}

// LoginOptions are what Logins needs.
type LoginOptions struct {
	Store     *store.Store
	Desk      People
	Providers []*auth.Provider
	Tokens    auth.Bearers  // issuers of workloads, and whoever tells of sign-outs
	Sealer    *auth.Sealer  // for refresh tokens
	Refresh   time.Duration // how old a check at the provider may be; default 5 minutes
	Session   time.Duration // how long a session token is good; default 12 hours
	Web       string        // where browsers come back to from logins for the pages; empty: there are none
	Log       *slog.Logger
}

// Logins turns people into identities: logins under way, session tokens, and the checks at the provider
// that follow (see Run). It is safe for concurrent use.
//
// A login is finished once, by whoever has its handle and, in the code flow, the browser's answer too. A
// session token is known as a hash only. What the provider says of a person is never older than Refresh
// when the desk hears of them, or, while the provider can't be reached, than an hour.
type Logins struct {
	store     loginStore
	desk      People
	providers map[string]*auth.Provider // by issuer
	tokens    auth.Bearers
	sealer    *auth.Sealer
	refresh   time.Duration
	session   time.Duration
	web       string
	log       *slog.Logger

	turns turns // one at a time works with one stored login

	mu      sync.Mutex               // guards the rest
	pending map[string]*pendingLogin // by the handle's first half
	missed  map[string]time.Time     // by hash: when the provider could not be asked last
	unsaved map[string]string        // by hash: a rotated refresh token that the store did not take
	doubts  map[string]bool          // by hash: logins whose last question was asked, and its answer not heard
}

// pendingLogin is a login between Start and Finish.
type pendingLogin struct {
	secret   string // the handle's second half
	provider *auth.Provider
	flow     string
	from     string
	begun    time.Time
	expires  time.Time
	code     auth.Pending
	instead  *store.Login // the session that this one takes the place of
	note     string

	// of a device login, guarded by Logins.mu
	device auth.Device
	asking bool
	next   time.Time // not before then
}

// NewLogins makes Logins of at least one provider.
func NewLogins(o LoginOptions) (*Logins, error) {
	l := &Logins{
		store: o.Store, desk: o.Desk, providers: map[string]*auth.Provider{}, tokens: o.Tokens, sealer: o.Sealer,
		refresh: cmp.Or(o.Refresh, defaultRefresh), session: cmp.Or(o.Session, defaultSession), web: o.Web, log: o.Log,
		turns: turns{held: map[string]*turn{}}, pending: map[string]*pendingLogin{},
		missed: map[string]time.Time{}, unsaved: map[string]string{}, doubts: map[string]bool{},
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for _, p := range o.Providers {
		if l.providers[p.Issuer()] != nil {
			return nil, fmt.Errorf("issuer %s is configured twice", p.Issuer())
		}
		l.providers[p.Issuer()] = p
	}
	if len(l.providers) == 0 {
		return nil, errors.New("no issuer is configured, so nobody could log in")
	}
	return l, nil
}

// StartLogin asks for a login.
type StartLogin struct {
	Issuer      string // may be empty if there is one only
	Flow        string // "code", "device", or "web": code, with the pages as where the browser comes back to
	RedirectURI string // code: http://127.0.0.1:<port>/callback
	From        string // the asker's address

	Asked   auth.Asked // what the login has to show: a step-up
	Session string     // the session token that is to be replaced; the login must be the same person's
	Note    string     // comes back with the login; web: where the person wanted to go
}

// StartedLogin is where the person goes on.
type StartedLogin struct {
	Login   string // handle for Finish; secret
	Expires time.Time

	// Flow code: the page to open, and the state that its answer must carry.
	AuthURL, State string

	// Flow device: the page to open, the code to type there, and how often to ask.
	VerificationURI, VerificationURIComplete, UserCode string
	Interval                                           time.Duration
}

// Start begins a login.
func (l *Logins) Start(ctx context.Context, s StartLogin) (StartedLogin, error) {
	now := time.Now()
	login := &pendingLogin{
		secret: random(32), flow: s.Flow, from: hostOf(s.From), begun: now, expires: now.Add(loginTime), note: s.Note,
	}
	err := l.instead(ctx, login, &s)
	if err == nil && login.provider == nil {
		login.provider, err = l.provider(s.Issuer)
	}
	if err != nil {
		return StartedLogin{}, err
	}
	p, started := login.provider, StartedLogin{}
	switch s.Flow {
	case "code", "web":
		if s.Flow == "web" {
			s.RedirectURI = l.web
		} else if err := loopbackRedirect(s.RedirectURI); err != nil {
			return StartedLogin{}, err
		}
		if started.AuthURL, login.code, err = p.AuthURL(ctx, s.RedirectURI, s.Asked); err != nil {
			return StartedLogin{}, unreachable(err)
		}
		started.State = login.code.State
	case "device":
		d, err := p.DeviceStart(ctx, s.Asked)
		if errors.Is(err, auth.ErrNoDevice) {
			return StartedLogin{}, &Error{Code: CodeInvalid, Public: "this identity provider offers no device login", Next: "log in with a browser: curfew login"}
		}
		if err != nil {
			return StartedLogin{}, unreachable(err)
		}
		login.device = d
		if d.Expires.Before(login.expires) {
			login.expires = d.Expires
		}
		started.UserCode, started.Interval = d.UserCode, d.Interval
		started.VerificationURI, started.VerificationURIComplete = d.VerificationURI, d.VerificationURIComplete
	default:
		return StartedLogin{}, &Error{Code: CodeInvalid, Public: fmt.Sprintf("there is no login flow %.20q", s.Flow), Next: `use "code" or "device"`}
	}
	id := random(12)
	l.remember(id, login)
	started.Login, started.Expires = id+"."+login.secret, login.expires
	return started, nil
}

// FinishLogin is what the CLI brings back.
type FinishLogin struct {
	Login  string // handle
	Code   string // flow code
	State  string // flow code
	Issuer string // flow code: the answer's iss (RFC 9207), if it had one
}

// LoggedIn is a session with Curfew. The token is shown here and never again.
type LoggedIn struct {
	Token    string
	Expires  time.Time
	Identity auth.Identity
	Note     string // of StartLogin; also with an error
}

// Finish ends a login, or says ErrLoginPending. A code login has one attempt; a device login may be asked
// for as often as one likes, the provider is asked as often as it allows.
func (l *Logins) Finish(ctx context.Context, f FinishLogin) (LoggedIn, error) {
	id, login, err := l.claim(f.Login)
	if err != nil {
		return LoggedIn{}, err
	}
	var who auth.Identity
	var refresh string
	if login.flow == "device" {
		who, refresh, err = login.provider.DevicePoll(ctx, login.device)
		if err = l.polled(ctx, id, login, err); err != nil {
			return LoggedIn{}, err
		}
	} else {
		who, refresh, err = login.provider.Exchange(ctx, login.code, auth.Answer{Code: f.Code, State: f.State, Issuer: f.Issuer})
		if err != nil {
			return LoggedIn{Note: login.note}, l.refused(ctx, login, err)
		}
	}
	if was := login.instead; was != nil && !was.Identity.Same(who) {
		l.log.WarnContext(ctx, "a login was to replace another person's session", "person", who.Label(), "session", was.Identity.Label(), "from", login.from)
		return LoggedIn{Note: login.note}, unauthenticated("you logged in as "+who.Label()+", and the session that this was for is "+was.Identity.Label()+"'s", nil)
	}
	in, err := l.establish(ctx, login, who, refresh)
	in.Note = login.note
	return in, err
}

// establish stores a new session and puts the login on the ledger.
func (l *Logins) establish(ctx context.Context, login *pendingLogin, who auth.Identity, refresh string) (LoggedIn, error) {
	if login.instead != nil { // a refresh of it that is under way would bring it back
		done, err := l.turns.take(ctx, string(login.instead.Hash))
		if err != nil {
			return LoggedIn{}, unavailable(err)
		}
		defer done()
	}
	token, hash := auth.NewSessionToken()
	now := l.store.Now().UTC()
	row := store.Login{Hash: hash, Identity: who, Created: now, Refreshed: now, Expires: now.Add(l.session)}
	if login.flow == "web" {
		row.Expires = now.Add(min(l.session, webTime))
	}
	if refresh != "" {
		row.Refresh = l.sealer.Seal([]byte(refresh), who.Key())
	} else {
		row.Expires = now.Add(min(row.Expires.Sub(now), blindTime))
		l.log.Warn("the identity provider gave no refresh token: it can't be asked about this person again",
			"person", who.Label(), "issuer", who.Issuer)
	}
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.PutLogin(row); err != nil {
			return err
		}
		if login.instead != nil {
			if err := l.replace(tx, *login.instead, row); err != nil {
				return err
			}
		}
		return tx.Append(ledger.TypeLogin, ledger.Login{Person: personOf(who), Flow: login.flow, From: login.from, StepUp: login.instead != nil})
	})
	if err != nil {
		return LoggedIn{}, unavailable(err)
	}
	l.log.Info("logged in", "person", who.Label(), "issuer", who.Issuer, "flow", login.flow, "from", login.from)
	return LoggedIn{Token: token, Expires: row.Expires, Identity: who}, nil
}

// Whoami is who a session token belongs to, as the provider saw them no longer ago than Refresh; or the workload
// whose own token it is.
func (l *Logins) Whoami(ctx context.Context, token string) (auth.Identity, error) {
	if auth.IsJWT(token) && len(l.tokens) > 0 {
		return l.workload(ctx, token)
	}
	hash := auth.HashToken(token)
	row, err := l.row(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		return auth.Identity{}, unauthenticated("this session token is not, or no longer, good", nil)
	}
	if err != nil {
		return auth.Identity{}, unavailable(err)
	}
	now := l.store.Now()
	if !now.Before(row.Expires) {
		return auth.Identity{}, unauthenticated("your session ended at "+clockTime(row.Expires), nil)
	}
	if row.Refresh == nil || now.Sub(row.Refreshed) < l.refresh {
		return row.Identity, nil
	}
	return l.recheck(ctx, row)
}

// Logout ends a session. While the person still holds a grant, the provider goes on being asked about
// them: logging out does not make anybody unaccountable.
func (l *Logins) Logout(ctx context.Context, token string) error {
	hash := auth.HashToken(token)
	// A refresh under way would bring the row back, or leave a void refresh token in the one kept.
	done, err := l.turns.take(ctx, string(hash))
	if err != nil {
		return unavailable(err)
	}
	defer done()
	row, err := l.row(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		return unauthenticated("this session token is not, or no longer, good", nil)
	}
	if err != nil {
		return unavailable(err)
	}
	live, err := l.desk.LiveIdentities(ctx)
	if err != nil {
		return unavailable(err)
	}
	err = l.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.DeleteLogin(hash); err != nil {
			return err
		}
		if row.Refresh != nil && slices.ContainsFunc(live, row.Identity.Same) {
			// Under the hash of a token that nobody has ever seen, and over already.
			_, row.Hash = auth.NewSessionToken()
			row.Expires = row.Created
			if err := tx.PutLogin(row); err != nil {
				return err
			}
		}
		return tx.Append(ledger.TypeLogout, ledger.Login{Person: personOf(row.Identity)})
	})
	if err != nil {
		return unavailable(err)
	}
	l.moveUnsaved(hash, row.Hash)
	return nil
}

func (l *Logins) row(ctx context.Context, hash []byte) (row store.Login, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Login(hash)
		return err
	})
	return row, err
}

// remember keeps a login under way; whoever begins very many pushes out their own oldest.
func (l *Logins) remember(id string, login *pendingLogin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest, oldestFrom string
	from := 0
	for other, p := range l.pending {
		if !login.begun.Before(p.expires) {
			delete(l.pending, other)
			continue
		}
		if o := l.pending[oldest]; o == nil || p.begun.Before(o.begun) {
			oldest = other
		}
		if p.from == login.from {
			from++
			if o := l.pending[oldestFrom]; o == nil || p.begun.Before(o.begun) {
				oldestFrom = other
			}
		}
	}
	if from >= mostLoginsFrom {
		delete(l.pending, oldestFrom)
	} else if len(l.pending) >= mostLogins {
		delete(l.pending, oldest)
	}
	l.pending[id] = login
}

// claim gives a login to the one caller who may go on with it now. A code login is thereby used up: a
// second Finish, even of the right person, finds nothing.
func (l *Logins) claim(handle string) (string, *pendingLogin, error) {
	id, secret, _ := strings.Cut(handle, ".")
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	login := l.pending[id]
	if login == nil || subtle.ConstantTimeCompare([]byte(secret), []byte(login.secret)) != 1 {
		return "", nil, unauthenticated("there is no such login under way, or it was finished already", nil)
	}
	if !now.Before(login.expires) {
		delete(l.pending, id)
		return "", nil, unauthenticated("nobody finished this login within its time", nil)
	}
	if login.flow == "code" {
		delete(l.pending, id)
		return id, login, nil
	}
	if login.asking || now.Before(login.next) {
		return "", nil, ErrLoginPending
	}
	login.asking = true
	return id, login, nil
}

// polled notes what the provider answered about a device login, nil included.
func (l *Logins) polled(ctx context.Context, id string, login *pendingLogin, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	login.asking = false
	switch {
	case errors.Is(err, auth.ErrPending):
	case errors.Is(err, auth.ErrSlowDown):
		login.device.Interval += 5 * time.Second // RFC 8628 section 3.5
	case errors.Is(err, auth.ErrUnreachable):
		login.device.Interval = min(2*login.device.Interval, time.Minute)
		l.log.WarnContext(ctx, "a device login waits for the identity provider", "error", err)
	default:
		delete(l.pending, id)
		if err != nil {
			return l.refused(ctx, login, err)
		}
		return nil
	}
	login.next = time.Now().Add(login.device.Interval)
	return ErrLoginPending
}

// refused says why a login came to nothing.
func (l *Logins) refused(ctx context.Context, login *pendingLogin, err error) error {
	switch {
	case errors.Is(err, auth.ErrExpired):
		return unauthenticated("the login took too long, or its code was used before", err)
	case errors.Is(err, auth.ErrDenied):
		return unauthenticated("the login was refused, or its answer belongs to another login", err)
	case errors.Is(err, auth.ErrWeak):
		l.log.WarnContext(ctx, "a login does not show what was asked for", "issuer", login.provider.Issuer(), "from", login.from, "error", err)
		return &Error{Code: CodeUnauthenticated, Err: err,
			Public: "your identity provider let you in, and does not say that you proved who you are as strongly, or as lately, as was asked",
			Next:   "use the second factor when you log in; if you did, the server's log says what the provider left out"}
	case errors.Is(err, auth.ErrUnreachable):
		return unreachable(err)
	}
	var skewed *auth.SkewError
	if errors.As(err, &skewed) {
		l.log.ErrorContext(ctx, "a login is refused for the clocks", "issuer", login.provider.Issuer(), "from", login.from, "error", err)
		return &Error{Code: CodeUnavailable, Public: "your login can't be accepted: " + skewed.Public, Next: "tell your Curfew administrator: one of the two clocks is wrong", Err: err}
	}
	// A token that does not verify is either a wrong configuration or an attack: somebody must see it.
	l.log.ErrorContext(ctx, "the identity provider's answer was not accepted", "issuer", login.provider.Issuer(), "from", login.from, "error", err)
	return unauthenticated("the identity provider's answer was not accepted; the server's log says why", err)
}

// Issuers are those that people log in with, sorted.
func (l *Logins) Issuers() []string { return slices.Sorted(maps.Keys(l.providers)) }

func (l *Logins) provider(issuer string) (*auth.Provider, error) {
	if issuer == "" && len(l.providers) == 1 {
		for _, p := range l.providers {
			return p, nil
		}
	}
	if p := l.providers[issuer]; p != nil {
		return p, nil
	}
	return nil, &Error{Code: CodeInvalid, Public: "say with which identity provider", Next: "one of " + strings.Join(l.Issuers(), ", ")}
}

// loopbackRedirect lets an answer go to the asker's own machine and nowhere else (RFC 8252 section 7.3).
// A name, "localhost" too, is whatever a resolver says it is: an address is not.
func loopbackRedirect(raw string) error {
	u, err := url.Parse(raw)
	if err == nil && u.Scheme == "http" && u.User == nil && u.Path == "/callback" && u.RawQuery == "" && u.Fragment == "" {
		if addr, err := netip.ParseAddrPort(u.Host); err == nil && addr.Addr().IsLoopback() {
			return nil
		}
	}
	return &Error{Code: CodeInvalid, Public: "the redirect URI must be http://127.0.0.1:<port>/callback", Next: "use curfew login"}
}

func hostOf(from string) string {
	if host, _, err := net.SplitHostPort(from); err == nil {
		return host
	}
	return from
}

func unauthenticated(public string, err error) *Error {
	return &Error{Code: CodeUnauthenticated, Public: public, Next: "log in: curfew login", Err: err}
}

func unreachable(err error) *Error {
	return &Error{Code: CodeUnavailable, Public: "the identity provider can't be reached", Next: "try again in a minute; the server's log says why", Err: err}
}
