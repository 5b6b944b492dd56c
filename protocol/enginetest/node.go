package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// killTime is how long a session's backend may take to end, as package proxy has it.
const killTime = 10 * time.Second

// node is one Curfew process: an engine, a listener with its front, and the life of a session as package
// proxy lives it, without grants, ledger and disk.
type node struct {
	NoTokens
	*suite
	t            *testing.T
	installation string
	engine       protocol.Engine
	front        protocol.Front
	listen       net.Listener
	ctx          context.Context // outlives the test's own
	stranger     time.Duration   // how long Accept may take
	lives        sync.WaitGroup
	before       func(recorder.Event) error // of its grants' sinks
	turned       chan error                 // how those ended whom Accept turned away

	mu     sync.Mutex // guards grants
	grants map[string]*grant
}

// option changes a node before it starts.
type option func(*node, *Config)

func stepping(step protocol.Step) option { return func(_ *node, c *Config) { c.Step = step } }
func through(broker string) option       { return func(_ *node, c *Config) { c.URL = broker } }
func as(installation string) option {
	return func(_ *node, c *Config) { c.Installation = installation }
}
func strangersHave(most time.Duration) option { return func(n *node, _ *Config) { n.stranger = most } }

// node starts one.
func (s *suite) node(t *testing.T, options ...option) *node {
	t.Helper()
	n := s.stray(t, options...)
	t.Cleanup(func() { n.sweepUp(t) })
	return n
}

// stray starts a node that leaves its accounts where they are when the test is over: another one ends them.
func (s *suite) stray(t *testing.T, options ...option) *node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	n := &node{suite: s, t: t, ctx: context.WithoutCancel(t.Context()),
		stranger: 10 * time.Second, turned: make(chan error, 4096), grants: map[string]*grant{}}
	c := Config{URL: s.broker, Installation: s.installation(), Log: log}
	for _, change := range options {
		change(n, &c)
	}
	var err error
	if n.engine, err = s.kit.Engine(n.ctx, c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.engine.Close)
	n.installation, n.front = c.Installation, s.kit.Front(n.engine, log)
	if n.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	n.lives.Go(func() {
		for {
			conn, err := n.listen.Accept()
			if err != nil {
				return
			}
			n.lives.Go(func() { n.serve(conn) })
		}
	})
	t.Cleanup(n.close)
	return n
}

// soon bounds a call of the engine: one that hangs is a failure.
func (n *node) soon() context.Context {
	ctx, stop := context.WithTimeout(n.ctx, patience)
	n.t.Cleanup(stop)
	return ctx
}

// close ends everything that goes on.
func (n *node) close() {
	n.listen.Close()
	n.mu.Lock()
	for _, g := range n.grants {
		g.end(&protocol.Refusal{Code: recorder.EndDrained, Public: "this node is stopping"})
	}
	n.mu.Unlock()
	n.lives.Wait()
}

// sweepUp ends what a test left, and wants that to be possible whatever the test did.
func (n *node) sweepUp(t *testing.T) {
	n.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.grants {
		if n.ask(t, n.kit.Dialect.Accounts(g.spec.Name)) == 0 {
			continue
		}
		account := n.engine.Recall(g.spec)
		if _, err := account.Cut(n.soon()); err != nil {
			t.Errorf("in the end: %v", err)
		}
		if _, err := account.Clean(n.soon()); err != nil {
			t.Errorf("in the end: %v", err)
		}
	}
	if left := n.ask(t, n.kit.Dialect.Accounts("curfew_"+n.installation+"_")); left != 0 {
		t.Errorf("in the end %d accounts are left", left)
	}
}

// Verifier makes the node its own doorman.
func (n *node) Verifier(_ context.Context, user string) ([]byte, error) {
	if g := n.find(user); g != nil {
		return g.verifier, nil
	}
	return nil, nil
}

func (n *node) find(user string) *grant {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.grants[user]
}

// serve is the life of a session; compare proxy/session.go.
func (n *node) serve(conn net.Conn) {
	defer conn.Close()
	ctx, stop := context.WithTimeout(n.ctx, n.stranger)
	client, err := n.front.Accept(ctx, conn, n)
	stop()
	if err != nil {
		select {
		case n.turned <- err:
		default: // nobody counts them
		}
		return
	}
	g := n.find(client.Login().User)
	s := &session{grant: g, login: client.Login(), sink: &memory{},
		stopped: make(chan struct{}), done: make(chan struct{})}
	s.sink.before = g.before
	if g.admit != nil {
		err = g.admit(s)
	}
	if err == nil {
		s.link, err = client.Attach(g.held, g.account)
	}
	if err == nil {
		g.began <- s
		err = s.link.Relay(g.held, s.sink)
		s.relayed = time.Now()
		close(s.stopped)
		if err != nil {
			kill, stop := context.WithTimeout(n.ctx, killTime)
			s.outcome, s.killed = s.link.Kill(kill)
			stop()
		}
	} else {
		select {
		case g.refused <- s:
		default: // nobody counts them
		}
	}
	s.err = err
	close(s.done)
	client.Close(err) // it lingers until the client has hung up
}

// grant is one account and how to log in to it.
type grant struct {
	*node
	spec     protocol.AccountSpec
	password string
	verifier []byte
	account  protocol.Account
	held     context.Context
	end      context.CancelCauseFunc
	before   func(recorder.Event) error // of the sinks of its sessions
	admit    func(*session) error       // asked before Attach
	began    chan *session
	refused  chan *session
}

// session is one client's. What stands below done is known when done is closed: the client may still read.
type session struct {
	grant   *grant
	login   protocol.Login
	sink    *memory
	link    protocol.Link
	stopped chan struct{} // closed when Relay has returned
	done    chan struct{}

	err     error // what Attach or Relay returned
	relayed time.Time
	outcome protocol.Outcome
	killed  error // what Kill returned
}

// levelled changes a level.
type levelled func(*protocol.Level)

// spec is an intent for a new grant.
func (n *node) spec(changes ...levelled) protocol.AccountSpec {
	id := fmt.Sprintf("g%010d", n.next())
	level := n.kit.Level
	level.Sessions = 8
	for _, change := range changes {
		change(&level)
	}
	return protocol.AccountSpec{Installation: n.installation, Grant: id, Name: "curfew_" + n.installation + "_" + id,
		Requester: `al'ice\@example.test`, End: time.Now().Add(time.Hour), Level: level}
}

// grant provisions an account.
func (n *node) grant(t *testing.T, changes ...levelled) *grant {
	t.Helper()
	g, err := n.provision(n.spec(changes...))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// provision makes the grant of an intent; on an error its account is the recalled one.
func (n *node) provision(spec protocol.AccountSpec) (*grant, error) {
	g := &grant{node: n, spec: spec, password: "0123456789abcdefghjkmnpqrstvwxyz" + spec.Grant,
		began: make(chan *session, 256), refused: make(chan *session, 4096)}
	g.before = n.before
	g.held, g.end = context.WithCancelCause(n.ctx)
	n.mu.Lock()
	n.grants[spec.Grant] = g
	n.mu.Unlock()
	var err error
	if g.verifier, err = n.engine.Enrol(g.password); err != nil {
		return g, err
	}
	if g.account, err = n.engine.Provision(n.soon(), spec); err != nil {
		g.account = n.engine.Recall(spec)
	}
	return g, err
}

// dial is a stock driver's connection through the node.
func (g *grant) dial(t *testing.T) (*client, *session) {
	t.Helper()
	c, err := g.try(t, g.password)
	if err != nil {
		t.Fatal(err)
	}
	return c, wait(t, "the session begins", g.began)
}

// try logs in through the node.
func (g *grant) try(t *testing.T, password string) (*client, error) {
	t.Helper()
	return g.suite.connect(t, g.toNode, g.spec.Grant, password)
}

// toNode dials the node's listener.
func (n *node) toNode(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", n.listen.Addr().String())
}

// direct logs in to the account past the node, with a password that it gave itself.
func (g *grant) past(t *testing.T, password string) (*client, error) {
	t.Helper()
	return g.suite.connect(t, g.suite.direct, g.spec.Name, password)
}

// ownPassword has the account change its password, as everybody can.
func (g *grant) ownPassword(t *testing.T, c *client) string {
	t.Helper()
	password := "self-made-" + g.spec.Grant
	c.must(g.kit.Dialect.SetPassword(g.spec.Name, password))
	return password
}

// finish cuts and cleans, and wants both to succeed and to leave nothing.
func (g *grant) finish(t *testing.T) (protocol.Cut, protocol.Clean) {
	t.Helper()
	cut, err := g.account.Cut(g.soon())
	if err != nil {
		t.Fatalf("cut: %v", err)
	}
	if cut.Left != 0 || cut.LockedAt.IsZero() || cut.GoneAt.Before(cut.LockedAt) {
		t.Errorf("cut: %+v", cut)
	}
	if left := g.backends(t, g.spec.Name); left != 0 {
		t.Errorf("after Cut %d backends are there", left)
	}
	clean, err := g.account.Clean(g.soon())
	if err != nil {
		t.Fatalf("clean: %v", err)
	}
	g.gone(t)
	if clean.Proof == "" || clean.DroppedAt.IsZero() {
		t.Errorf("clean: %+v", clean)
	}
	return cut, clean
}

// gone wants nothing of the account to be left.
func (g *grant) gone(t *testing.T) {
	t.Helper()
	if g.ask(t, g.kit.Dialect.Accounts(g.spec.Name)) != 0 || g.backends(t, g.spec.Name) != 0 {
		t.Errorf("%s is not gone", g.spec.Name)
	}
}

// refusal is a cause of an end with a sentence that can be told from any other.
func refusal(code string) *protocol.Refusal {
	return &protocol.Refusal{Code: code, Err: errors.New("nothing for the client's eyes"),
		Public: "your grant (" + code + ") ended at 14:30 UTC; ask again: curfew request orders"}
}

// told says whether what a driver returned holds the sentence.
func told(err error, r *protocol.Refusal) bool {
	return err != nil && strings.Contains(err.Error(), r.Public) && !strings.Contains(err.Error(), r.Err.Error())
}
