package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
	"github.com/curfewdb/curfew/recorder"
)

const grantPassword = "0123456789abcdefghjkmnpqrstvwxyz"

// memory is a Sink that keeps copies. hang, when set, is waited for by every Record.
type memory struct {
	mu     sync.Mutex
	events []recorder.Event
	fail   error
	hang   func(recorder.Event)
}

func (m *memory) Record(events ...recorder.Event) error {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	for _, e := range events {
		if hang != nil {
			hang(e)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, e := range events {
		m.events = append(m.events, copyEvent(e))
	}
	return nil
}

func copyEvent(e recorder.Event) recorder.Event {
	for _, b := range []*[]byte{&e.Text, &e.Name, &e.Portal, &e.Prepares, &e.Tag, &e.Code, &e.Message, &e.SHA256, &e.Severity} {
		*b = bytes.Clone(*b)
	}
	e.Params = slices.Clone(e.Params)
	for i := range e.Params {
		e.Params[i].Value = bytes.Clone(e.Params[i].Value)
	}
	return e
}

// all gives the events so far, without what depends on the clock.
func (m *memory) all() []recorder.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.events)
	for i := range list {
		list[i].Duration, list[i].FirstRow = 0, 0
	}
	return list
}

func (m *memory) of(typ recorder.Type) []recorder.Event {
	return slices.DeleteFunc(m.all(), func(e recorder.Event) bool { return e.Type != typ })
}

// show writes events as a person would note them, one a line.
func show(events []recorder.Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%s", e.Type)
		switch e.Type {
		case recorder.TypeStatement:
			fmt.Fprintf(&b, " %d %s of=%d name=%q portal=%q text=%q", e.ID, e.Kind, e.Of, e.Name, e.Portal, e.Text)
		case recorder.TypePart:
			fmt.Fprintf(&b, " %d %s index=%d text=%q", e.ID, e.Field, e.Index, e.Text)
		case recorder.TypeResult:
			fmt.Fprintf(&b, " of=%d n=%d tag=%q rows=%d bytes=%d code=%q message=%q tx=%q", e.Of, e.N, e.Tag, e.Rows, e.Bytes, e.Code, e.Message, e.Tx)
		case recorder.TypeCopy:
			fmt.Fprintf(&b, " of=%d n=%d %s rows=%d bytes=%d sha256=%x", e.Of, e.N, e.Direction, e.Rows, e.Bytes, e.SHA256)
		case recorder.TypeNotice:
			fmt.Fprintf(&b, " of=%d from=%s %s %s %q", e.Of, e.From, e.Severity, e.Code, e.Message)
		case recorder.TypeBlocked:
			fmt.Fprintf(&b, " of=%d %q", e.Of, e.Reason)
		case recorder.TypeCancel:
			fmt.Fprintf(&b, " of=%d", e.Of)
		}
		if e.MaxRows > 0 {
			fmt.Fprintf(&b, " max=%d", e.MaxRows)
		}
		if e.Prepares != nil {
			fmt.Fprintf(&b, " prepares=%q", e.Prepares)
		}
		if e.More {
			b.WriteString(" more")
		}
		for _, p := range e.Params {
			switch {
			case p.Null:
				fmt.Fprintf(&b, " %s=null", p.Type)
			case p.Hex:
				fmt.Fprintf(&b, " %s=hex:%x", p.Type, p.Value)
			default:
				fmt.Fprintf(&b, " %s=%q", p.Type, p.Value)
			}
			if p.More {
				b.WriteString("…")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// doorman knows one user.
type doorman struct {
	enginetest.NoTokens
	user     string
	verifier []byte
}

func (d doorman) Verifier(_ context.Context, user string) ([]byte, error) {
	if user == d.user {
		return d.verifier, nil
	}
	return nil, nil
}

// wire is a listener whose sessions go to an account of its own.
type wire struct {
	t       *testing.T
	front   *Front
	account *account
	user    string
	listen  net.Listener
	doorman doorman
	sink    *memory
	held    context.Context
	end     context.CancelCauseFunc // ends the grant
	results chan result
}

// result is how a session went.
type result struct {
	login   protocol.Login
	err     error
	outcome protocol.Outcome
	relayed time.Time // when Relay returned
}

// newWire makes the account and serves until the test is over.
func newWire(t *testing.T, level int, cfg FrontConfig) *wire {
	t.Helper()
	return wireTo(t, provision(t, newEngine(t, nil), newSpec(level)), cfg)
}

// wireTo is a wire to an account that there is.
func wireTo(t *testing.T, a *account, cfg FrontConfig) *wire {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	w := &wire{t: t, front: NewFront(cfg), account: a, user: a.spec.Grant, sink: &memory{}, results: make(chan result, 400)}
	verifier, err := a.engine.Enrol(grantPassword)
	if err != nil {
		t.Fatal(err)
	}
	w.doorman = doorman{user: w.user, verifier: verifier}
	w.held, w.end = context.WithCancelCause(t.Context())
	if w.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	go func() {
		for {
			conn, err := w.listen.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { w.serve(conn) })
		}
	}()
	t.Cleanup(func() {
		w.listen.Close()
		w.end(&protocol.Refusal{Code: recorder.EndDrained, Public: "the test is over"})
		sessions.Wait()
	})
	return w
}

// serve is the life of a session, as package proxy has it.
func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	ctx := context.WithoutCancel(w.t.Context())
	var r result
	client, err := w.front.Accept(ctx, conn, w.doorman)
	if err != nil {
		r.err = err
		w.results <- r
		return
	}
	r.login = client.Login()
	link, err := client.Attach(w.held, w.account)
	if err == nil {
		err = link.Relay(w.held, w.sink)
		r.relayed = time.Now()
		if err != nil {
			kctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			var kerr error
			if r.outcome, kerr = link.Kill(kctx); kerr != nil {
				w.t.Errorf("kill: %v", kerr)
			}
			cancel()
		}
	}
	client.Close(err)
	r.err = err
	w.results <- r
}

// result waits for the next session's end.
func (w *wire) result() result {
	w.t.Helper()
	select {
	case r := <-w.results:
		return r
	case <-time.After(20 * time.Second):
		w.t.Fatal("the session does not end")
		return result{}
	}
}

func (w *wire) addr() string { return w.listen.Addr().String() }

// dsn is where clients connect to.
func (w *wire) dsn(extra string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/orders?sslmode=disable%s", w.user, grantPassword, w.addr(), extra)
}

// connect is a pgx connection through the front.
func (w *wire) connect(extra string) *pgx.Conn {
	w.t.Helper()
	c, err := pgx.Connect(w.t.Context(), w.dsn(extra))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close(context.WithoutCancel(w.t.Context())) })
	return c
}

// bye closes c and waits for the session to end in order.
func (w *wire) bye(c *pgx.Conn) {
	w.t.Helper()
	if err := c.Close(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if r := w.result(); r.err != nil {
		w.t.Fatalf("the client said goodbye, and the session ended with %v", r.err)
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "curfew test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
