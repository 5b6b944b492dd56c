package mysql

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

const (
	// strangerTime is how long somebody may take to prove who they are.
	strangerTime = 10 * time.Second
	// wordsTime is how long a client may take to read its last message.
	wordsTime = time.Second
	// keyBits is the size of the RSA key by which clients without TLS encrypt their password.
	keyBits = 2048
)

// FrontConfig is one listener.
type FrontConfig struct {
	Engine     *Engine     // the one target that is served here: its version stands in the greeting
	TLS        *tls.Config // nil: no TLS is offered
	RequireTLS bool        // refuse clients that don't use it (every listener off loopback)
	MaxMessage int         // bytes of one packet after login that are held in memory at most; 0 = default
	DecoyKey   []byte      // keeps the verifiers made up for unknown users the same across restarts and nodes; nil = random
	Log        *slog.Logger
}

// Front serves one listener, for one target: the server speaks first, before a client has said anything
// that could tell targets apart.
type Front struct {
	cfg   FrontConfig
	decoy [32]byte // makes up verifiers for names that nobody has
	loops relay.Loops
	ids   ids
	key   func() (passwordKey, error) // made when a client first needs it
}

var _ protocol.Front = (*Front)(nil)

// NewFront makes the front of one listener.
func NewFront(cfg FrontConfig) *Front {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
	}
	f := &Front{cfg: cfg, key: sync.OnceValues(newPasswordKey)}
	if len(cfg.DecoyKey) > 0 {
		f.decoy = keyed(cfg.DecoyKey, "curfew mysql decoy")
	} else {
		_, _ = rand.Read(f.decoy[:]) // never fails (crypto/rand)
	}
	f.ids.init()
	return f
}

// passwordKey is an RSA key and its public half as clients want it.
type passwordKey struct {
	private *rsa.PrivateKey
	public  []byte
}

func newPasswordKey() (k passwordKey, err error) {
	if k.private, err = rsa.GenerateKey(rand.Reader, keyBits); err != nil {
		return k, err
	}
	der, err := x509.MarshalPKIXPublicKey(&k.private.PublicKey)
	if err != nil {
		return k, err
	}
	k.public = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return k, nil
}

// client is a connection whose person is known. It is a Client until Attach, and the client's side of a
// link from then on.
type client struct {
	front  *Front
	raw    net.Conn // as it was accepted
	conn   net.Conn // raw, or TLS over it
	reader packetReader
	login  protocol.Login

	server    server // what it was greeted with
	id        uint32 // of the connection, ours
	caps      capability
	charset   byte
	maxPacket uint32 // what it says it takes
	database  string
	scramble  []byte // the last of 20 bytes that it was sent: client_ed25519's own is not kept by clients
	kept      []byte // what its plugin keeps of the password; nil: nothing that both sides could vouch by
	shown     []byte // the certificate that it saw, in DER

	link   *link // once attached
	closed bool
}

// Accept speaks with a stranger until they have proved who they are: greeting, TLS, proof of identity.
func (f *Front) Accept(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, strangerTime)
	defer cancel()
	release := watch(ctx, conn)
	c := &client{front: f, raw: conn, conn: conn, id: f.ids.take()}
	c.reader.conn = conn
	c.login.Address = conn.RemoteAddr().String()
	err := c.greet(ctx, d)
	release()
	if err == nil {
		return c, nil
	}
	f.ids.release(c.id)
	err = refusePacket(err)
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) {
		c.say(c.lastWords(err))
		c.linger()
	}
	if ctx.Err() != nil && refusal == nil {
		err = fmt.Errorf("no login within %s: %w", strangerTime, err)
	}
	return nil, err
}

// refusePacket says to the client what was wrong with the framing of its packets.
func refusePacket(err error) error {
	for _, known := range []error{errTooLong, errSequence} {
		if errors.Is(err, known) {
			return &protocol.Refusal{Code: recorder.EndViolation, Public: known.Error(), Err: err}
		}
	}
	return err
}

// greet is the conversation with a stranger.
func (c *client) greet(ctx context.Context, d protocol.Doorman) (err error) {
	if c.server, err = c.front.cfg.Engine.prober.server(ctx); err != nil {
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "the database can't be reached at the moment; try again later or tell your Curfew administrator"}
	}
	c.scramble = newScramble(scrambleBytes)
	if err := c.write(c.greeting()); err != nil {
		return err
	}
	response, err := c.startup(ctx)
	if err != nil {
		return err
	}
	if c.front.cfg.RequireTLS && c.login.TLS == "" {
		return &protocol.Refusal{Code: protocol.RefuseTLS,
			Public: "TLS is required here: connect with --ssl-verify-server-cert (mariadb) or --ssl-mode=VERIFY_IDENTITY (mysql)"}
	}
	if c.login.User == "" {
		return &protocol.Refusal{Code: protocol.RefuseNoGrant,
			Public: "no user name: it is the id of your grant, e.g. from `curfew credentials`"}
	}
	return c.authenticate(ctx, d, response)
}

// startup reads what comes before the HandshakeResponse, and that.
func (c *client) startup(ctx context.Context) (response, error) {
	// Not one byte more is read: what follows an SSLRequest belongs to TLS. Bytes that somebody slipped
	// in behind it in clear end up in the handshake, which fails on them.
	c.reader.exact = true
	payload, err := c.reader.read(limitBeforeLogin)
	if err != nil {
		return response{}, err
	}
	c.reader.exact = false
	if isSSLRequest(payload) {
		if err := c.startTLS(ctx); err != nil {
			return response{}, err
		}
		if payload, err = c.reader.read(limitBeforeLogin); err != nil {
			return response{}, err
		}
	}
	return c.parseResponse(payload)
}

// write sends a packet of the login.
func (c *client) write(payload []byte) error {
	msg := appendPacket(nil, c.reader.seq, payload)
	c.reader.seq++
	_, err := c.conn.Write(msg)
	return err
}

// Login is what the client said of itself, proven as far as Mechanism goes.
func (c *client) Login() protocol.Login { return c.login }

// welcome tells the client that it is in: the OK packet by which the server let us in. A MariaDB client
// that can't verify the certificate wants to see that whoever it talks to knows its password: that stands
// where the OK packet has its text.
func (c *client) welcome(ctx context.Context, u *upstream) error {
	payload := u.ok
	if proof := c.vouch(); proof != "" {
		ok, _ := parseOK(u.ok, u.caps)
		ok.info = []byte(proof)
		payload = appendOK(nil, ok, c.caps)
	}
	defer watch(ctx, c.raw)()
	err := c.write(payload)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// lastWords is the packet that says why this client is not let in.
func (c *client) lastWords(why error) []byte {
	return lastWords(c.reader.seq, c.caps, c.server.mariadb, false, why)
}

// say writes a message under a short deadline; whether it arrives is the client's business.
func (c *client) say(msg []byte) {
	c.conn.SetWriteDeadline(time.Now().Add(wordsTime))
	_, _ = c.conn.Write(msg)
}

// Close says why, unless the session's end has been told already, and hangs up.
func (c *client) Close(why error) {
	if c.closed {
		return
	}
	c.closed = true
	c.front.ids.release(c.id)
	reads := true
	switch {
	case c.link != nil && c.link.began.Load():
		reads = c.link.awaitTold()
	case why != nil:
		c.say(c.lastWords(why))
	}
	if reads && (why != nil || c.link != nil) {
		c.linger()
	}
	if !reads {
		c.raw.Close() // it reads nothing, so it won't read the end of TLS either
	}
	c.conn.Close()
}

// linger lets the client read what was said last: a socket that is closed with bytes unread in it is
// reset, and the reset overtakes the words.
func (c *client) linger() {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	c.conn.SetReadDeadline(time.Now().Add(wordsTime))
	_, _ = io.Copy(io.Discard, c.conn)
}

// watch puts conn under ctx: when ctx ends, whoever reads or writes it is woken. The returned function
// ends that; then no deadline is left unless ctx has ended.
func watch(ctx context.Context, conn net.Conn) (release func()) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(woken)
	})
	return func() {
		if !stop() {
			<-woken
		}
	}
}

// newScramble makes a scramble of printable characters: clients take it for a C string.
func newScramble(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	for i := range b {
		b[i] = crypt64[b[i]&63]
	}
	return b
}

// keyed is HMAC-SHA-256.
func keyed(key []byte, text string) (sum [32]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	h.Sum(sum[:0])
	return sum
}
