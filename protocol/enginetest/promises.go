package enginetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// promises are those of package protocol's comment that have no theme of their own.
func promises(t *testing.T, s *suite) {
	t.Run("nothing before attach", s.nothingBeforeAttach)
	t.Run("a refused client reads why", s.refusedBeforeAttach)
	t.Run("nobody can tell who exists", s.nobodyCanTell)
	t.Run("enrol keeps no password", s.enrolKeepsNoPassword)
	t.Run("after cut nobody is in and nobody gets in", func(t *testing.T) { s.cutIsFinal(t, false) })
	t.Run("nor past the node", func(t *testing.T) { s.cutIsFinal(t, true) })
	t.Run("cut and clean can be repeated", s.repeatable)
	t.Run("an engine needs no database to be made", s.withoutDatabase)
	t.Run("check is content with setup", s.checkAfterSetup)
}

// checkAfterSetup: a server that was prepared by the engine's own SQL lacks nothing.
func (s *suite) checkAfterSetup(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	findings, err := n.engine.Check(n.soon(), []protocol.Level{s.kit.Level})
	if err != nil || strings.Contains(text(findings), "error: ") {
		t.Errorf("check: %v\n%s", err, text(findings))
	}
	if n.engine.Setup([]protocol.Level{s.kit.Level}) == "" {
		t.Error("there is no setup")
	}
}

// nothingBeforeAttach: a client that has proved who it is and sends on before it is let in: until Attach
// there is no backend, and what it sent has not gone to the server.
func (s *suite) nothingBeforeAttach(t *testing.T) {
	t.Parallel()
	p, broker := newTap(t, s.broker)
	n := s.node(t, through(broker))
	g := n.grant(t)
	mark := s.mark("early")
	waiting, admit := make(chan struct{}), make(chan struct{})
	g.admit = func(*session) error {
		close(waiting)
		<-admit
		return nil
	}
	var conn net.Conn
	done := make(chan *client, 1)
	go func() {
		c, _ := s.connect(t, func(ctx context.Context) (_ net.Conn, err error) {
			conn, err = n.toNode(ctx)
			return conn, err
		}, g.spec.Grant, g.password)
		done <- c
	}()
	wait(t, "the client is accepted", waiting)
	if _, err := conn.Write([]byte(mark)); err != nil {
		t.Fatal(err)
	}
	if got := s.backends(t, g.spec.Name); got != 0 {
		t.Errorf("%d backends before Attach", got)
	}
	if p.saw(mark) {
		t.Error("what the client sent before Attach has gone to the server")
	}
	close(admit)
	c := wait(t, "the client is in, or not", done)
	c.vanish()
	select { // what it sent is no message of any protocol: at the latest now it is over
	case ss := <-g.began:
		<-ss.done
		if p.saw(mark) && !ss.sink.holds(mark) {
			t.Error("it has gone to the server without a record")
		}
	case ss := <-g.refused:
		<-ss.done
		if p.saw(mark) {
			t.Error("it has gone to the server without a session")
		}
	case <-time.After(patience):
		t.Error("neither a session nor a refusal")
	}
}

// refusedBeforeAttach: Close instead of Attach says why in the client's own protocol.
func (s *suite) refusedBeforeAttach(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	why, reasons := refusal(protocol.RefuseNoGrant), make(chan error, 2)
	g.admit = func(*session) error { return <-reasons }
	reasons <- why
	reasons <- errors.New("secret detail")
	if _, err := g.try(t, g.password); !told(err, why) {
		t.Errorf("the client read %v", err)
	}
	if _, err := g.try(t, g.password); err == nil || strings.Contains(err.Error(), "secret detail") || !strings.Contains(err.Error(), "internal error") {
		t.Errorf("of an error that is no Refusal the client read %v", err)
	}
	if got := s.backends(t, g.spec.Name); got != 0 {
		t.Errorf("%d backends", got)
	}
}

// nobodyCanTell: a name that nobody has is answered as a wrong password is, byte for byte in number, and
// again and again.
func (s *suite) nobodyCanTell(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	nobody := "g9" + g.spec.Grant[2:]
	type seen struct {
		words          string
		sent, received int
	}
	var known, unknown []seen
	for range 3 {
		for _, user := range []string{g.spec.Grant, nobody} {
			c, err := s.connect(t, n.toNode, user, "wrong")
			if err == nil {
				t.Fatalf("%s is in", user)
			}
			var r *protocol.Refusal
			if why := wait(t, "it is turned away", n.turned); !errors.As(why, &r) || r.Code != protocol.RefuseLogin {
				t.Errorf("Accept returned %v", why)
			}
			sent, received := c.raw.counts()
			x := seen{strings.ReplaceAll(err.Error(), user, "USER"), sent, len(received)}
			if user == nobody {
				unknown = append(unknown, x)
			} else {
				known = append(known, x)
			}
		}
	}
	if !reflect.DeepEqual(known, unknown) {
		t.Errorf("with a wrong password: %+v\nwith a name that nobody has: %+v", known, unknown)
	}
	if strings.Contains(known[0].words, "internal error") {
		t.Errorf("a wrong password reads %q", known[0].words)
	}
}

// enrolKeepsNoPassword: what is stored of a password can't be read back.
func (s *suite) enrolKeepsNoPassword(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	password := "correct horse battery staple"
	v, err := n.engine.Enrol(password)
	if err != nil {
		t.Fatal(err)
	}
	reversed := []byte(password)
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	for _, form := range []string{password, hex.EncodeToString([]byte(password)), strings.ToUpper(hex.EncodeToString([]byte(password))),
		base64.StdEncoding.EncodeToString([]byte(password)), base64.RawURLEncoding.EncodeToString([]byte(password)), string(reversed)} {
		if bytes.Contains(v, []byte(form)) {
			t.Errorf("the verifier %q holds the password", v)
		}
	}
	if len(v) == 0 {
		t.Error("the verifier is empty")
	}
}

// cutIsFinal: while logins come in, or come in past the node with a password that the account gave itself,
// Cut returns, and from then on there is none.
func (s *suite) cutIsFinal(t *testing.T, past bool) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t, func(l *protocol.Level) { l.Sessions = 20 })
	c, _ := g.dial(t)
	try := func() (*client, error) { return g.try(t, g.password) }
	if past {
		password := g.ownPassword(t, c)
		try = func() (*client, error) { return g.past(t, password) }
	}
	busy := c.start(s.kit.Dialect.Sleep(s.mark("busy"), 60))
	stop, ended := make(chan struct{}), make(chan int, 4)
	for range 4 {
		go func() {
			in := 0
			for {
				select {
				case <-stop:
					ended <- in
					return
				default:
				}
				if _, err := try(); err == nil {
					in++
				}
			}
		}()
	}
	eventually(t, "many are in", func() bool { return s.backends(t, g.spec.Name) > 4 })
	g.end(refusal(recorder.EndRevoked))
	if _, err := g.account.Cut(n.soon()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if left := s.backends(t, g.spec.Name); left != 0 {
			t.Fatalf("after Cut %d backends are there", left)
		}
	}
	close(stop)
	for range 4 {
		wait(t, "they stop", ended)
	}
	if _, err := try(); err == nil {
		t.Error("somebody is in after Cut")
	}
	if err := wait(t, "the statement ends", busy); err == nil {
		t.Error("the statement in flight came to its end")
	}
	if left := s.backends(t, g.spec.Name); left != 0 {
		t.Errorf("in the end %d backends are there", left)
	}
}

// repeatable: a second Cut tells the same, a second Clean succeeds, and so does another process'.
func (s *suite) repeatable(t *testing.T) {
	t.Parallel()
	n := s.node(t)
	g := n.grant(t)
	c, ss := g.dial(t)
	c.must("BEGIN", "INSERT INTO marks (what) VALUES ('"+s.mark("twice")+"')")
	g.end(refusal(recorder.EndReleased))
	first, err := g.account.Cut(n.soon())
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the session ends", ss.done)
	second, err := g.account.Cut(n.soon())
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("cut: %+v, again: %+v, %v", first, second, err)
	}
	if len(first.Outcomes) != 1 || first.Outcomes[0].Foreign {
		t.Errorf("cut: %+v", first)
	}
	g.finish(t)
	if again, err := g.account.Clean(n.soon()); err != nil || again.Proof == "" {
		t.Errorf("clean again: %+v %v", again, err)
	}
	other := s.stray(t, as(n.installation)).engine.Recall(g.spec)
	if cut, err := other.Cut(n.soon()); err != nil || cut.Left != 0 {
		t.Errorf("another process' cut: %+v %v", cut, err)
	}
	if again, err := other.Clean(n.soon()); err != nil || again.Proof == "" {
		t.Errorf("another process' clean: %+v %v", again, err)
	}
}

// withoutDatabase: a target that is down is no reason not to start; nothing can be provisioned on it.
func (s *suite) withoutDatabase(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.broker)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	l.Close() // nobody listens there
	n := s.stray(t, through(u.String()))
	if _, err := n.provision(n.spec()); err == nil {
		t.Error("provisioned on a server that is not there")
	}
	if _, err := n.engine.Sweep(n.soon(), func(string) bool { return false }); err == nil {
		t.Error("swept a server that is not there")
	}
	findings, err := n.engine.Check(n.soon(), []protocol.Level{s.kit.Level})
	if err == nil && (len(findings) == 0 || findings[0].Severity != "error") {
		t.Errorf("check: %+v", findings)
	}
}
