package mysql

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
)

const (
	// limitLogin is the longest packet a server may send during login.
	limitLogin = 1 << 20
	// limitAttributes is how much of connection attributes servers take.
	limitAttributes = 64<<10 - 1
	// attrGrant is the connection attribute that names the grant.
	attrGrant = "curfew_grant"
	// loginRounds is how many packets a server may send before it has decided.
	loginRounds = 16
)

// mirrored are the capabilities that a session has upstream exactly as they were agreed on with its
// client: they change what either side may send, or what a statement means.
const mirrored = capLongPassword | capFoundRows | capLongFlag | capNoSchema | capODBC | capLocalFiles | capIgnoreSpace |
	capInteractive | capIgnoreSigpipe | capTransactions | capMultiStatements | capMultiResults | capPSMultiResults |
	capSessionTrack | capDeprecateEOF | capOptionalMetadata | capQueryAttributes | capRememberOptions |
	capProgress | capBulk | capExtendedMetadata | capCacheMetadata | capBulkUnitResults

// landing says where a session goes: the server, and the account to log in with.
type landing struct {
	target       *target
	prober       *prober // learns what the server says of itself; nil: nobody does
	user, secret string
	database     string
	caps         capability // as agreed on with the client
	charset      byte
	maxPacket    uint32            // what the client says it takes
	grant        string            // named in a connection attribute; empty: none
	attrs        map[string]string // connection attributes, as the client gave them
}

// upstream is a connection to the database that is logged in.
type upstream struct {
	conn    net.Conn
	reader  packetReader
	id      uint32 // the backend's
	server  server
	caps    capability // as agreed on with the server
	status  uint16
	ok      []byte // the OK packet that let us in, without its header
	tls     string // version and suite; empty without
	address string
}

// sentenceChanged is what a client reads that was promised what the server can't keep.
const sentenceChanged = "the database server has changed since you were greeted; connect again"

// dialUpstream logs in at the target.
func dialUpstream(ctx context.Context, l landing) (u *upstream, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.target.timeout)
	defer cancel()
	raw, err := dial(ctx, l.target)
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
	u = &upstream{conn: raw, address: raw.RemoteAddr().String()}
	if u.address == "" || u.address == "@" { // a Unix socket's
		u.address = l.target.address
	}
	u.reader.conn = raw
	if err = u.login(ctx, l); err != nil {
		err = fmt.Errorf("%s: %w", l.target.address, err)
	}
	return u, err
}

// dial connects to a target.
func dial(ctx context.Context, t *target) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, t.network, t.address)
}

// login reads the greeting, puts TLS over the connection if the target wants it, and proves the account's secret.
func (u *upstream) login(ctx context.Context, l landing) error {
	g, err := readGreeting(&u.reader)
	if err != nil {
		return err
	}
	if l.prober != nil {
		l.prober.saw(g.server)
	}
	u.id, u.server = g.id, g.server
	if lost := l.caps & mirrored &^ g.caps; lost != 0 {
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Public: sentenceChanged,
			Err: fmt.Errorf("the server lacks the capabilities %#x, which the client was promised", uint64(lost))}
	}
	u.caps = l.caps&mirrored | capProtocol41 | capSecureConnection | capPluginAuth | g.caps&(capPluginAuthLenenc|capConnectAttrs)
	if l.database != "" {
		u.caps |= capConnectWithDB & g.caps
		if u.caps&capConnectWithDB == 0 {
			return errors.New("the server takes no database at login")
		}
	}
	if err := u.secure(ctx, l, g); err != nil {
		return err
	}
	return u.authenticate(l, g)
}

// secure puts TLS over the connection, if the target wants it.
func (u *upstream) secure(ctx context.Context, l landing, g greeting) error {
	t := l.target
	if t.tls == nil || t.prefer && g.caps&capSSL == 0 {
		return nil
	}
	if g.caps&capSSL == 0 {
		return errors.New("the server does not speak TLS")
	}
	if len(u.reader.rest()) > 0 {
		return errors.New("the server sent something in clear behind its greeting")
	}
	u.caps |= capSSL
	if _, err := u.conn.Write(appendPacket(nil, u.reader.seq, u.opening(l))); err != nil {
		return err
	}
	u.reader.seq++
	secured := tls.Client(relay.Under(u.conn, nil), t.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := secured.ConnectionState()
	u.tls = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	u.conn, u.reader.conn = secured, secured
	return nil
}

// opening is what an SSLRequest is and a HandshakeResponse begins with.
func (u *upstream) opening(l landing) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(u.caps))
	b = binary.LittleEndian.AppendUint32(b, l.maxPacket)
	b = append(b, l.charset)
	b = append(b, make([]byte, 19)...)
	return binary.LittleEndian.AppendUint32(b, uint32(u.caps>>32))
}

// authenticate sends the HandshakeResponse and answers the server until it has decided.
func (u *upstream) authenticate(l landing, g greeting) error {
	proof := prover{u: u, l: l, plugin: g.plugin, scramble: g.scramble}
	answer, ok := proof.first()
	if !ok { // an account has a plugin of its own, which the server switches to
		proof.plugin = pluginCachingSHA2
		if g.mariadb {
			proof.plugin = pluginNative
		}
		answer, _ = proof.first()
	}
	b := append(append(u.opening(l), l.user...), 0)
	if u.caps&capPluginAuthLenenc != 0 {
		b = appendLenencBytes(b, answer)
	} else {
		b = append(append(b, byte(len(answer))), answer...)
	}
	if u.caps&capConnectWithDB != 0 {
		b = append(append(b, l.database...), 0)
	}
	b = append(append(b, proof.plugin...), 0)
	if u.caps&capConnectAttrs != 0 {
		b = appendLenencBytes(b, encodeAttributes(l.grant, l.attrs))
	}
	if err := proof.send(b); err != nil {
		return err
	}
	for range loginRounds {
		payload, err := u.reader.read(limitLogin)
		if err != nil {
			return err
		}
		done, err := proof.answer(payload)
		if done || err != nil {
			return err
		}
	}
	return errors.New("the server asks for ever")
}

// encodeAttributes writes connection attributes, as many as servers take: the grant, for the DBA who
// reads performance_schema, and what the client says of itself.
func encodeAttributes(grant string, attrs map[string]string) (b []byte) {
	add := func(name, value string) {
		more := appendLenencBytes(appendLenencBytes(nil, name), value)
		if len(b)+len(more) <= limitAttributes {
			b = append(b, more...)
		}
	}
	if grant != "" {
		add(attrGrant, grant)
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if name != attrGrant {
			add(name, attrs[name])
		}
	}
	return b
}

// welcomed takes the OK packet that ends a login.
func (u *upstream) welcomed(payload []byte) error {
	ok, whole := parseOK(payload, u.caps)
	if !whole {
		return errors.New("malformed OK packet")
	}
	u.status, u.ok = ok.status, append([]byte(nil), payload...)
	return nil
}

// parseServerError reads what a server says when it refuses.
func parseServerError(payload []byte, caps capability) error {
	e, whole := parseErr(payload, caps)
	if !whole {
		return errors.New("malformed ERR packet")
	}
	state := string(e.state)
	if state == "" {
		state = "HY000"
	}
	return &serverError{code: e.code, state: state, message: string(e.message)}
}

// leave says goodbye and hangs up.
func (u *upstream) leave() {
	u.conn.SetWriteDeadline(time.Now().Add(wordsTime))
	_, _ = u.conn.Write(appendPacket(nil, 0, []byte{comQuit}))
	u.conn.Close()
}
