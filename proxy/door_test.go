package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// scripted is a front whose logins end as each is told to.
type scripted struct {
	accept func(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error)
}

func (f scripted) Accept(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error) {
	return f.accept(ctx, conn, d)
}

// loggingIn is a front at which everybody logs in as user, by a token if there is one, and which ends it with err.
func loggingIn(user, token string, end error) scripted {
	return scripted{func(ctx context.Context, _ net.Conn, d protocol.Doorman) (protocol.Client, error) {
		if token != "" {
			login := protocol.TokenLogin{Bearer: token}
			login.Email = user
			if _, err := d.Token(ctx, login); err != nil {
				return nil, err
			}
		} else if _, err := d.Verifier(ctx, user); err != nil {
			return nil, err
		}
		if end != nil {
			return nil, end
		}
		return client{newWorld()}, nil
	}}
}

// tokenBook is a doorman who takes every token for a grant.
type tokenBook struct {
	book
	shown []protocol.TokenLogin
}

func (b *tokenBook) Token(_ context.Context, t protocol.TokenLogin) (string, error) {
	b.shown = append(b.shown, t)
	return "g1", nil
}

// door is a server of which only the logins are looked at.
type door struct {
	*Server
	doorman        *tokenBook
	logins, tokens []string
}

func newDoor() *door {
	d := &door{doorman: &tokenBook{}}
	w := newWorld()
	d.Server = New(Config{Doorman: d.doorman, Grants: w, Recordings: w, Sessions: w, Accounts: w, Log: quiet(),
		FailedLogin: func(from string) { d.logins = append(d.logins, from) },
		FailedToken: func(from string) { d.tokens = append(d.tokens, from) }})
	return d
}

func (d *door) knock(t *testing.T, ip string, f protocol.Front) error {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	st := newStranger(t.Context(), pipeFrom{near, &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}}, nil)
	_, err := d.greet(Listener{Front: f, Engine: "fake", Target: "orders"}, st)
	return err
}

// How a login ended is kept: wrong passwords are told to whoever counts strangers, and are limited; wrong tokens
// are told apart; what is no guess counts nowhere.
func TestHowLoginsEndIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		wrong := &protocol.Refusal{Code: protocol.RefuseLogin, Public: "no"}
		for range pairMost {
			_ = d.knock(t, "192.0.2.1", loggingIn("g1", "", wrong))
		}
		if !slices.Equal(d.logins, slices.Repeat([]string{"192.0.2.1:4711"}, pairMost)) || len(d.tokens) > 0 {
			t.Errorf("counted %v, and as tokens %v", d.logins, d.tokens)
		}
		if !d.guesses.tooMany(netip.MustParsePrefix("192.0.2.1/32"), "g1") {
			t.Error("wrong passwords are not limited")
		}
		if err := d.knock(t, "192.0.2.2", loggingIn("g1", "", nil)); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * addressMost {
			_ = d.knock(t, "192.0.2.2", loggingIn(fmt.Sprintf("g%d", i+2), "", wrong))
		}
		from := netip.MustParsePrefix("192.0.2.2/32")
		if d.guesses.tooMany(from, "g1") || !d.guesses.tooMany(from, "g999") {
			t.Error("who has logged in from there is locked out by others' wrong passwords, or nobody is")
		}
		d.logins = nil
		_ = d.knock(t, "192.0.2.3", loggingIn("g1", "", &protocol.Refusal{Code: protocol.RefuseTLS, Public: "TLS first"}))
		_ = d.knock(t, "192.0.2.3", loggingIn("g1", "", errBroken))
		if len(d.logins)+len(d.tokens) > 0 {
			t.Errorf("what was no guess is counted: %v %v", d.logins, d.tokens)
		}
		refused := &protocol.Refusal{Code: protocol.RefuseToken, Public: "no"}
		_ = d.knock(t, "192.0.2.3", loggingIn("alice@example.test", "ey", refused))
		if len(d.logins) > 0 || !slices.Equal(d.tokens, []string{"192.0.2.3:4711"}) {
			t.Errorf("a token is counted as %v, %v", d.logins, d.tokens)
		}
		d.cfg.FailedToken = nil
		_ = d.knock(t, "192.0.2.3", loggingIn("alice@example.test", "ey", refused))
		if len(d.logins) != 1 {
			t.Errorf("nobody is told: %v", d.logins)
		}
	})
}

// Tokens are asked about on behalf of the listener, and not at all from where too many proved nothing.
func TestTokensAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		refused := &protocol.Refusal{Code: protocol.RefuseToken, Public: "no"}
		for range pairMost {
			_ = d.knock(t, "192.0.2.1", loggingIn("alice@example.test", "ey", refused))
		}
		if n := len(d.doorman.shown); n != pairMost || d.doorman.shown[0].Engine != "fake" || d.doorman.shown[0].Target != "orders" {
			t.Fatalf("asked %d times, the first time about %+v", n, d.doorman.shown[0])
		}
		err := d.knock(t, "192.0.2.1", loggingIn("alice@example.test", "ey", nil))
		var limit *protocol.Refusal
		if !errors.As(err, &limit) || limit.Code != protocol.RefuseLimit || len(d.doorman.shown) != pairMost {
			t.Errorf("%v after %d questions", err, len(d.doorman.shown))
		}
		if err := d.knock(t, "192.0.2.2", loggingIn("alice@example.test", "ey", nil)); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
	})
}

// at serves with a front on pipes; the func stops it.
func at(t *testing.T, w *world, accept func(context.Context, net.Conn, protocol.Doorman) (protocol.Client, error), places int) (*Server, pipes, func() error) {
	s := New(Config{Node: "n", Installation: "i", Engines: map[string]protocol.Engine{"orders": engine{w}},
		EngineNames: map[string]string{"orders": "fake"}, Grants: w, Recordings: w, Sessions: w, Accounts: w,
		FailedLogin: func(string) {}, Log: quiet(), MaxStrangers: places, MaxShare: places})
	l := pipes{make(chan net.Conn)}
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, Listener{Listener: l, Front: scripted{accept}, Engine: "fake"}) }()
	return s, l, func() error { end(); return <-done }
}

// A login that succeeds when its place has been given to somebody else makes no session.
func TestALoginThatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		proven := make(chan struct{})
		_, l, stop := at(t, w, func(context.Context, net.Conn, protocol.Doorman) (protocol.Client, error) {
			<-proven
			return client{w}, nil
		}, 2)
		l.dial("192.0.2.1") // its place is taken
		l.dial("192.0.2.1")
		synctest.Wait()
		l.dial("192.0.2.2")
		synctest.Wait()
		close(proven)
		synctest.Wait()
		if got := w.happened(); strings.Count(got, "find") != 2 || strings.Count(got, "hangup") != 3 {
			t.Error(got)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.end(draining())
	})
}

// A node that stops says so to whoever asks, hangs up on those that wait, and begins nothing more.
func TestNothingBeginsOnANodeThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		seen := 0
		s, l, stop := at(t, w, func(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error) {
			mu.Lock()
			seen++
			mu.Unlock()
			return slowFront{}.Accept(ctx, conn, d)
		}, 1)
		inside := l.dial("192.0.2.1")
		waiting := l.dial("192.0.2.1")
		synctest.Wait()
		if s.Draining() {
			t.Error("it stops already")
		}
		if err := stop(); err != nil || !s.Draining() {
			t.Errorf("%v, stopping: %t", err, s.Draining())
		}
		for _, c := range []net.Conn{inside, waiting} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("somebody is still there")
			}
		}
		if seen != 1 {
			t.Errorf("%d were let begin", seen)
		}
		var why *protocol.Refusal
		if _, _, err := s.tenures.enter(t.Context(), w.grant); !errors.As(err, &why) || why.Code != recorder.EndDrained || s.tenures.byID("g1") != nil {
			t.Errorf("a session begins: %v", err)
		}
		w.end(draining())
	})
}

// exhausted is an error of accept(2) that others' ends cure.
type exhausted struct{ error }

func (exhausted) Temporary() bool { return true }

// failing is a listener that gives one error, and then what comes.
type failing struct {
	pipes
	once sync.Once
	err  error
}

func (l *failing) Accept() (c net.Conn, err error) {
	l.once.Do(func() { err = l.err })
	if err != nil {
		return nil, err
	}
	return l.pipes.Accept()
}

// Want of descriptors passes; a listener that is broken ends the node, and Serve says why.
func TestAListenerThatFails(t *testing.T) {
	for _, passes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			s := serverFor(w)
			l := &failing{pipes: pipes{make(chan net.Conn)}, err: errBroken}
			if passes {
				l.err = exhausted{errBroken}
			}
			ctx, end := context.WithCancel(t.Context())
			defer end()
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx, Listener{Listener: l, Front: front{w}, Engine: "fake"}) }()
			if passes {
				l.dial("192.0.2.1")
				synctest.Wait()
				if !strings.Contains(w.happened(), "relay") {
					t.Errorf("nobody is let in: %s", w.happened())
				}
				end()
			}
			if err := <-done; errors.Is(err, errBroken) == passes {
				t.Errorf("passes %t: Serve returned %v", passes, err)
			}
			w.end(draining())
			time.Sleep(time.Minute)
		})
	}
}

// What became of a statement is what the grant's cut has found: a session that the end of its grant ends asks once
// that is done, or can't be waited for.
func TestTheOutcomeIsTheCuts(t *testing.T) {
	for _, took := range []time.Duration{2 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.relay = untilOver
			hung := make(chan struct{})
			w.hang["cut"] = hung
			s := serverFor(w)
			ended, _ := begin(s, w)
			w.end(&protocol.Refusal{Code: recorder.EndExpired, Public: "time is up"})
			began := time.Now()
			time.AfterFunc(took, func() { close(hung) })
			ended()
			log := strings.Fields(w.happened())
			cut, kill := slices.Index(log, "cut"), slices.Index(log, "kill")
			if waited := took <= endTimeout; kill < 0 || waited != (cut >= 0 && cut < kill) {
				t.Errorf("a cut of %s: %v", took, log)
			}
			if over := time.Since(began); over > min(took, endTimeout) {
				t.Errorf("a cut of %s: the session ended after %s", took, over)
			}
			time.Sleep(2 * time.Minute)
		})
	}
}

// Where nobody could find out what became of a statement, the recording says so.
func TestAnOutcomeThatNobodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.relay, w.fail["kill"] = broke(recorder.EndVanished), 1
		run(serverFor(w), w)
		if got := w.ends[0]; got.Fate != protocol.FateUnknown || got.InFlight != 3 {
			t.Errorf("%+v", got)
		}
		w.end(draining())
		time.Sleep(time.Minute)
	})
}

// An end that is not complete alerts with the third failure, and every ten minutes from then on.
func TestAnOpenEndAlerts(t *testing.T) {
	for failures, want := range map[int]int{2: 0, 3: 1, 130: 2} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			s := serverFor(w)
			run(s, w)
			w.fail["cut"] = failures
			w.end(&protocol.Refusal{Code: recorder.EndRevoked, Public: "revoked"})
			time.Sleep(time.Duration(failures+10) * cutAgain)
			if got := strings.Count(w.happened(), "alert"); got != want {
				t.Errorf("%d failures: %d alerts, not %d", failures, got, want)
			}
			if !strings.Contains(w.happened(), "receipt.clean") {
				t.Errorf("%d failures: it is not ended after %d times %s", failures, failures+10, cutAgain)
			}
		})
	}
}

// misreported is a ledger that stores an entry and says that it could not.
type misreported struct {
	*world
	stored []string
}

func (m *misreported) Opened(_ context.Context, e ledger.SessionOpened) error {
	m.stored = append(m.stored, e.Session)
	return errBroken
}

func (m *misreported) OfGrant(context.Context, string) ([]string, error) { return m.stored, nil }

// A session whose entry was stored and reported as failed has a recording, which is sealed and not thrown away.
func TestAnOpeningThatWasMisreported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := serverFor(w)
		s.cfg.Sessions = &misreported{world: w}
		run(s, w)
		synctest.Wait()
		if got := w.happened(); !strings.Contains(got, "seal sealed") || strings.Contains(got, "discard") {
			t.Error(got)
		}
		w.end(draining())
		time.Sleep(time.Minute)
	})
}
