package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
)

const (
	// strangerTime is how long somebody may take to prove who they are.
	strangerTime = 10 * time.Second
	// wordsTime is how long a client may take to read its last message.
	wordsTime = time.Second
)

// Front serves one listener: it can serve many targets, because the user name says which grant is meant.
type Front struct {
	cfg     FrontConfig
	decoy   [32]byte // makes up verifiers for names that nobody has
	loops   relay.Loops
	cancels cancels
}

var _ protocol.Front = (*Front)(nil)

// NewFront makes the front of one listener.
func NewFront(cfg FrontConfig) *Front {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil {
		cfg.TLS = frontTLS(cfg.TLS)
	}
	f := &Front{cfg: cfg}
	if len(cfg.DecoyKey) > 0 {
		f.decoy = keyed(cfg.DecoyKey, "curfew postgres decoy")
	} else {
		_, _ = rand.Read(f.decoy[:]) // never fails (crypto/rand)
	}
	f.cancels.init()
	return f
}

// client is a connection whose person is known. It is a Client until Attach, and the client's side of a
// link from then on.
type client struct {
	front  *Front
	raw    net.Conn // as it was accepted
	conn   net.Conn // raw, or TLS over it
	reader frameReader
	minor  uint32               // of protocol 3, as it was agreed on
	bound  scram.ChannelBinding // what a login over this connection's TLS can be bound to; zero: nothing
	login  protocol.Login
	params []param // of the StartupMessage, in order, without user, database and protocol options
	link   *link   // once attached
	closed bool
}

// param is one startup parameter.
type param struct{ name, value string }

// Accept speaks with a stranger until they have proved who they are: TLS, startup, SCRAM.
func (f *Front) Accept(ctx context.Context, conn net.Conn, d protocol.Doorman) (protocol.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, strangerTime)
	defer cancel()
	release := watch(ctx, conn)
	c := &client{front: f, raw: conn, conn: conn}
	c.login.Address = conn.RemoteAddr().String()
	err := c.greet(ctx, d)
	release()
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, protocol.ErrHandled):
		return nil, protocol.ErrHandled
	}
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) {
		c.say(lastWords(false, err))
		c.linger()
	}
	if ctx.Err() != nil && !errors.As(err, &refusal) {
		err = fmt.Errorf("no login within %s: %w", strangerTime, err)
	}
	return nil, err
}

// greet is the conversation with a stranger.
func (c *client) greet(ctx context.Context, d protocol.Doorman) error {
	version, body, err := c.startup(ctx)
	if err != nil {
		return err
	}
	unknown, err := c.parseStartup(version, body)
	if err != nil {
		return err
	}
	c.reader.conn = c.conn
	if minor := version & 0xffff; minor > newestMinor || len(unknown) > 0 {
		if err := c.negotiate(unknown); err != nil {
			return err
		}
	}
	return c.authenticate(ctx, d)
}

// startup reads what comes before the StartupMessage, and that. TLS may be asked for, or begun at once;
// GSSAPI encryption may be asked for, and is never to be had. Each at most once, in any order, and
// neither inside TLS.
func (c *client) startup(ctx context.Context) (version uint32, body []byte, err error) {
	ssl, gss := false, false
	for first := true; ; first = false {
		code, body, err := readStartup(c.conn)
		if errors.Is(err, errHello) && first {
			if err := c.directTLS(ctx, body); err != nil {
				return 0, nil, err
			}
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		secure := c.login.TLS != ""
		switch {
		case code == codeCancel:
			c.front.cancel(ctx, body, c.login.Address)
			return 0, nil, protocol.ErrHandled
		case code == codeSSL && !secure && !ssl && len(body) == 0:
			ssl = true
			err = c.startTLS(ctx)
		case code == codeGSSENC && !secure && !gss && len(body) == 0:
			gss = true
			_, err = c.conn.Write([]byte{'N'})
		case code>>16 == 3:
			if c.front.cfg.RequireTLS && !secure {
				return 0, nil, &protocol.Refusal{Code: protocol.RefuseTLS,
					Public: "TLS is required here: connect with sslmode=verify-full"}
			}
			return code, body, nil
		default:
			return 0, nil, &protocol.Refusal{Code: protocol.RefuseUnsupported, Public: fmt.Sprintf(
				"unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d", code>>16, code&0xffff, newestMinor)}
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// parseStartup reads the parameters of a StartupMessage and gives the names of the protocol options
// that are not known here, which are all.
func (c *client) parseStartup(version uint32, body []byte) (unknown []string, err error) {
	c.minor = min(version&0xffff, newestMinor)
	c.login.Protocol = fmt.Sprintf("3.%d", c.minor)
	malformed := &protocol.Refusal{Code: recorderViolation,
		Public: "invalid startup packet layout: expected terminator as last byte"}
	for {
		name, rest, ok := cstring(body)
		if !ok {
			return nil, malformed
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return nil, malformed
			}
			break
		}
		value, rest, ok := cstring(rest)
		if !ok {
			return nil, malformed
		}
		body = rest
		switch p := (param{string(name), string(value)}); {
		case p.name == "user":
			c.login.User = p.value
		case p.name == "database":
			c.login.Database = p.value
		case p.name == "replication":
			if !isFalse(p.value) {
				return nil, &protocol.Refusal{Code: protocol.RefuseUnsupported,
					Public: "replication connections are not possible through Curfew: they can't be recorded statement by statement"}
			}
		case strings.HasPrefix(p.name, "_pq_."):
			unknown = append(unknown, p.name)
		default:
			if p.name == "application_name" {
				c.login.Application = p.value
			}
			c.params = append(c.params, p)
		}
	}
	if c.login.User == "" {
		return nil, &protocol.Refusal{Code: protocol.RefuseNoGrant,
			Public: "no user name: it is the id of your grant, e.g. from `curfew credentials`"}
	}
	return unknown, nil
}

// isFalse reads a boolean as PostgreSQL does, and takes every doubt for true.
func isFalse(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "false", "off", "no", "0", "f", "n", "of":
		return true
	}
	return false
}

// negotiate tells a client of a newer protocol which version this is, and which options it can't have. The
// version is a whole one, as servers send it and libpq reads it, where the manual has its minor part alone.
func (c *client) negotiate(unknown []string) error {
	body := binary.BigEndian.AppendUint32(nil, version3|c.minor)
	body = binary.BigEndian.AppendUint32(body, uint32(len(unknown)))
	for _, name := range unknown {
		body = append(append(body, name...), 0)
	}
	_, err := c.conn.Write(appendMessage(nil, msgNegotiateProtocol, body))
	return err
}

// Login is what the client said of itself, proven as far as Mechanism goes.
func (c *client) Login() protocol.Login { return c.login }

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
	reads := true
	switch {
	case c.link != nil && c.link.began.Load():
		reads = c.link.awaitTold()
	case why != nil:
		c.say(lastWords(false, why))
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
