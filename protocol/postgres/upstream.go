package postgres

import (
	"context"
	"crypto/md5" //nolint:gosec // what old servers ask for
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/xdg-go/scram"
)

// limitLogin is the longest message a server may send during login.
const limitLogin = 1 << 20

// landing says where a session goes: the server, and the account to log in with.
type landing struct {
	conn           *pgconn.Config // hosts, TLS and fallbacks, as the target's URL gives them
	user, password string
	database       string
	params         []param
}

// upstream is a connection to the database that is logged in.
type upstream struct {
	conn    net.Conn
	reader  frameReader
	address string
	tls     string      // version and suite; empty without
	pid     uint32      // the backend's
	key     []byte      // its cancel key
	config  *tls.Config // by which a cancel request is made; nil without TLS
	network string
	status  []byte // ParameterStatus and NoticeResponse messages of the login, as they came
	params  map[string]string
}

// errNoTLS says that a server which must speak TLS does not.
var errNoTLS = errors.New("server refused TLS connection")

// dialUpstream logs in at the first of the target's hosts that lets it. It tries TLS and clear text in
// the order that sslmode gives, but asks no second time after an answer that would be the same.
func dialUpstream(ctx context.Context, l landing) (*upstream, error) {
	hosts := append([]*pgconn.FallbackConfig{{Host: l.conn.Host, Port: l.conn.Port, TLSConfig: l.conn.TLSConfig}}, l.conn.Fallbacks...)
	var failed []error
	for _, h := range hosts {
		u, err := dialHost(ctx, l, h)
		if err == nil {
			return u, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))), err))
		var said *serverError
		if errors.As(err, &said) && final(said.code) || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failed...)
}

// final says whether another attempt would be answered alike.
func final(code string) bool {
	switch code {
	case "28P01", "3D000", "42501":
		return true
	}
	return len(code) == 5 && code[:2] == "22"
}

// dialHost makes one attempt.
func dialHost(ctx context.Context, l landing, h *pgconn.FallbackConfig) (u *upstream, err error) {
	if l.conn.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.conn.ConnectTimeout)
		defer cancel()
	}
	network, address := pgconn.NetworkAddress(h.Host, h.Port)
	u = &upstream{network: network, address: address, config: h.TLSConfig, params: map[string]string{}}
	raw, err := l.conn.DialFunc(ctx, network, address)
	if err != nil {
		return nil, err
	}
	release := watch(ctx, raw)
	defer func() {
		release()
		if err == nil {
			err = ctx.Err() // its deadline is set: of no use to anybody
		}
		if err != nil {
			raw.Close()
			u = nil
		}
	}()
	if u.conn, u.tls, err = secure(ctx, raw, h.TLSConfig); err != nil {
		return u, err
	}
	u.address = raw.RemoteAddr().String()
	u.network = raw.RemoteAddr().Network()
	u.reader.conn = u.conn
	if err = u.login(l); err != nil {
		return u, err
	}
	if l.conn.ValidateConnect != nil && u.params["in_hot_standby"] == "on" {
		return u, errStandby
	}
	return u, nil
}

// secure puts TLS over conn, if the target wants it.
func secure(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, string, error) {
	if config == nil {
		return conn, "", nil
	}
	if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return nil, "", err
	}
	var answer [1]byte // one byte and no more: what follows belongs to TLS
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, "", err
	}
	if answer[0] != 'S' {
		return nil, "", errNoTLS
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, "", fmt.Errorf("TLS handshake: %w", err)
	}
	state := secured.ConnectionState()
	return secured, tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite), nil
}

// login sends the StartupMessage and reads up to the first ReadyForQuery.
func (u *upstream) login(l landing) error {
	body := binary.BigEndian.AppendUint32(nil, version3)
	add := func(name, value string) {
		body = append(append(body, name...), 0)
		body = append(append(body, value...), 0)
	}
	add("user", l.user)
	add("database", l.database)
	for _, p := range l.params {
		add(p.name, p.value)
	}
	body = append(body, 0)
	start := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	if _, err := u.conn.Write(append(start, body...)); err != nil {
		return err
	}
	proof := prover{u: u, l: l}
	for {
		typ, body, err := u.reader.next(limitLogin)
		if err != nil {
			return err
		}
		switch typ {
		case msgAuthentication:
			err = proof.answer(body)
		case msgParameterStatus:
			u.status = appendMessage(u.status, typ, body)
			if name, rest, ok := cstring(body); ok {
				value, _, _ := cstring(rest)
				u.params[string(name)] = string(value)
			}
		case msgNoticeResponse:
			u.status = appendMessage(u.status, typ, body)
		case msgBackendKeyData:
			if len(body) < 8 {
				return errors.New("malformed BackendKeyData")
			}
			u.pid = binary.BigEndian.Uint32(body)
			u.key = append([]byte(nil), body[4:]...)
		case msgErrorResponse:
			r := parseWords(body)
			return &serverError{code: string(r.code), message: string(r.message), raw: appendMessage(nil, typ, body)}
		case msgReadyForQuery:
			if !proof.done {
				return errors.New("the server lets nobody in and is ready all the same")
			}
			return nil
		default:
			return fmt.Errorf("unexpected message %q during login", typ)
		}
		if err != nil {
			return err
		}
	}
}

// prover answers a server's authentication requests.
type prover struct {
	u     *upstream
	l     landing
	scram *scram.ClientConversation
	done  bool
}

func (p *prover) answer(body []byte) error {
	if len(body) < 4 {
		return errors.New("malformed authentication request")
	}
	code, data := binary.BigEndian.Uint32(body), body[4:]
	switch code {
	case authOK:
		if p.scram != nil && !p.scram.Valid() {
			return errors.New("the server did not prove that it knows the account's secret")
		}
		p.done = true
		return nil
	case authCleartextPassword:
		if p.u.tls == "" {
			return errors.New("the server asks for the account's secret in clear over a connection without TLS")
		}
		return p.send([]byte(p.l.password), []byte{0})
	case authMD5Password:
		if len(data) != 4 {
			return errors.New("malformed authentication request")
		}
		return p.send([]byte(md5Password(p.l.user, p.l.password, data)), []byte{0})
	case authSASL:
		return p.begin(data)
	case authSASLContinue:
		return p.step(data, true)
	case authSASLFinal:
		return p.step(data, false)
	}
	return fmt.Errorf("the server asks for authentication method %d, which is not known here", code)
}

func (p *prover) send(parts ...[]byte) error {
	_, err := p.u.conn.Write(appendMessage(nil, msgPassword, parts...))
	return err
}

// begin opens the SCRAM conversation. The account's secret is random, so its verifier may use a single
// iteration, and that must not be refused here.
func (p *prover) begin(mechanisms []byte) error {
	offered := false
	for {
		name, rest, ok := cstring(mechanisms)
		if !ok || len(name) == 0 {
			break
		}
		offered = offered || string(name) == mechanism
		mechanisms = rest
	}
	if !offered || p.scram != nil {
		return errors.New("the server offers no SASL mechanism that is known here")
	}
	c, err := scram.SHA256.NewClient("", p.l.password, "")
	if err != nil {
		return errors.New("the account's secret can't be used with SCRAM")
	}
	p.scram = c.WithMinIterations(1).NewConversation()
	first, err := p.scram.Step("")
	if err != nil {
		return err
	}
	size := binary.BigEndian.AppendUint32(nil, uint32(len(first)))
	return p.send([]byte(mechanism), []byte{0}, size, []byte(first))
}

func (p *prover) step(data []byte, answer bool) error {
	if p.scram == nil {
		return errors.New("SASL message out of turn")
	}
	reply, err := p.scram.Step(string(data))
	if err != nil {
		return fmt.Errorf("scram: %w", err)
	}
	if !answer {
		return nil
	}
	return p.send([]byte(reply))
}

// md5Password is what PostgreSQL's md5 method wants to see.
func md5Password(user, password string, salt []byte) string {
	inner := md5.Sum([]byte(password + user)) //nolint:gosec
	text := hex.EncodeToString(inner[:])
	outer := md5.Sum(append([]byte(text), salt...)) //nolint:gosec
	return "md5" + hex.EncodeToString(outer[:])
}

// leave says goodbye and hangs up.
func (u *upstream) leave() {
	u.conn.SetWriteDeadline(time.Now().Add(wordsTime))
	_, _ = u.conn.Write(appendMessage(nil, msgTerminate))
	u.conn.Close()
}
