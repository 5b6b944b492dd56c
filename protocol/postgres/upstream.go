package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
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
	conn   net.Conn
	reader frameReader
	route  route
	tls    string               // version and suite; empty without
	bound  scram.ChannelBinding // what the login can be bound to; zero: nothing
	minor  uint32               // of protocol 3, as it was agreed on
	pid    uint32               // the backend's
	key    []byte               // its cancel key
	status []byte               // ParameterStatus and NoticeResponse messages of the login, as they came
	params map[string]string
}

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
	u = &upstream{params: map[string]string{}, route: route{
		network: network, address: address, config: h.TLSConfig,
		direct: l.conn.SSLNegotiation == "direct", certificate: l.conn.SSLCertMode,
	}}
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
	var state *tls.ConnectionState
	if u.conn, state, err = secure(ctx, raw, u.route); err != nil {
		return u, err
	}
	if state != nil {
		u.tls, u.bound = describe(state), endPoint(state.PeerCertificates[0])
	}
	u.route.address = raw.RemoteAddr().String()
	u.route.network = raw.RemoteAddr().Network()
	u.reader.conn = u.conn
	if err = u.login(l); err != nil {
		return u, err
	}
	if l.conn.ValidateConnect != nil && u.params["in_hot_standby"] == "on" {
		return u, errStandby
	}
	return u, nil
}

// login sends the StartupMessage and reads up to the first ReadyForQuery.
func (u *upstream) login(l landing) error {
	asked := newestAsked(l.conn)
	body := binary.BigEndian.AppendUint32(nil, version3|asked)
	u.minor = asked
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
	if l.conn.MinProtocolVersion != "" && l.conn.MinProtocolVersion != "3.0" {
		proof.least = newestMinor
	}
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
		case msgNegotiateProtocol:
			u.minor, err = parseNegotiate(body, u.minor)
		case msgBackendKeyData:
			u.pid, u.key, err = parseKeyData(body, u.minor)
		case msgErrorResponse:
			r := parseWords(body)
			return &serverError{code: string(r.code), message: string(r.message), raw: appendMessage(nil, typ, body)}
		case msgReadyForQuery:
			if !proof.done {
				return errors.New("the server lets nobody in and is ready all the same")
			}
			if u.pid == 0 {
				return errors.New("the server does not say which backend this is, so it could not be ended")
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

// newestAsked is the newest minor version that the target's URL lets a server be asked for.
func newestAsked(c *pgconn.Config) uint32 {
	switch c.MaxProtocolVersion {
	case "3.2", "latest":
		return newestMinor
	}
	return 0
}

// parseNegotiate reads the minor version that a server speaks instead of the one it was asked for. Servers
// say the whole version, the manual has its minor part alone: both are understood.
func parseNegotiate(body []byte, asked uint32) (minor uint32, err error) {
	if len(body) < 8 {
		return 0, errors.New("malformed NegotiateProtocolVersion")
	}
	version := binary.BigEndian.Uint32(body)
	if version>>16 != 3 && version>>16 != 0 || version&0xffff > asked {
		return 0, fmt.Errorf("the server wants protocol %d.%d, and was asked for 3.%d", version>>16, version&0xffff, asked)
	}
	if n := binary.BigEndian.Uint32(body[4:]); n != 0 {
		return 0, errors.New("the server refuses protocol options, and was asked for none")
	}
	return version & 0xffff, nil
}

// parseKeyData reads the backend's pid and its cancel key.
func parseKeyData(body []byte, minor uint32) (pid uint32, key []byte, err error) {
	if len(body) < 4 {
		return 0, nil, errors.New("malformed BackendKeyData")
	}
	size := len(body) - 4
	if size < keyShort || size > keyLongest || minor < 2 && size != keyShort {
		return 0, nil, fmt.Errorf("a cancel key of %d bytes does not belong to protocol 3.%d", size, minor)
	}
	return binary.BigEndian.Uint32(body), append([]byte(nil), body[4:]...), nil
}

// leave says goodbye and hangs up.
func (u *upstream) leave() {
	u.conn.SetWriteDeadline(time.Now().Add(wordsTime))
	_, _ = u.conn.Write(appendMessage(nil, msgTerminate))
	u.conn.Close()
}
