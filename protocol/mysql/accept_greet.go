package mysql

import (
	"encoding/binary"
	"strings"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

const (
	protocolVersion = 10
	sslRequestSize  = 32 // without its header; a HandshakeResponse begins alike
	maxAttributes   = 256
	maxUser         = 255 // bytes of a name that are looked at; it stands in logs
)

// offerable are the capabilities that a client may be offered: those that are the same on both legs, and those
// that are about the login and end here. Compression would hide what is to be recorded, and COM_MULTI
// too. MariaDB's are among them as far as the server has them.
const offerable = mirrored | capConnectWithDB | capProtocol41 | capReserved | capSecureConnection | capPluginAuth |
	capConnectAttrs | capPluginAuthLenenc | capExpiredPasswords | capVerifyServerCert

// offered are the capabilities in the greeting.
func (c *client) offered() capability {
	caps := c.server.caps&offerable | capConnectAttrs | capPluginAuthLenenc
	if c.front.cfg.TLS != nil {
		caps |= capSSL
	}
	return caps
}

// greeting is the first packet: the target's own words, but for the connection's id and the scramble,
// which are ours, and for what can't be kept.
func (c *client) greeting() []byte {
	caps := c.offered()
	b := append([]byte{protocolVersion}, c.server.version...)
	b = binary.LittleEndian.AppendUint32(append(b, 0), c.id)
	b = append(append(b, c.scramble[:8]...), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(caps))
	b = append(b, c.server.charset)
	b = binary.LittleEndian.AppendUint16(b, c.server.status)
	b = binary.LittleEndian.AppendUint16(b, uint16(caps>>16))
	b = append(b, scrambleBytes+1, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(caps>>32)) // zeros in a MySQL's greeting
	b = append(append(b, c.scramble[8:]...), 0)
	return append(append(b, c.defaultPlugin()...), 0)
}

// defaultPlugin is the target's own, if it is one by which a client can begin.
func (c *client) defaultPlugin() string {
	switch {
	case c.server.plugin == pluginNative || c.server.plugin == pluginCachingSHA2:
		return c.server.plugin
	case c.server.mariadb:
		return pluginNative
	}
	return pluginCachingSHA2
}

// response is what a HandshakeResponse says of the client's proof.
type response struct {
	plugin   string
	answer   []byte
	scramble []byte // what it answers
}

// isSSLRequest says whether a client's first packet asks for TLS.
func isSSLRequest(payload []byte) bool {
	return len(payload) == sslRequestSize && capability(binary.LittleEndian.Uint32(payload))&capSSL != 0
}

// parseResponse reads a HandshakeResponse41.
func (c *client) parseResponse(payload []byte) (r response, err error) {
	malformed := &protocol.Refusal{Code: recorder.EndViolation, Public: "malformed handshake response"}
	if len(payload) < 2 {
		return r, malformed
	}
	const need = capProtocol41 | capSecureConnection
	if len(payload) < 4 || capability(binary.LittleEndian.Uint32(payload))&need != need {
		return r, &protocol.Refusal{Code: protocol.RefuseUnsupported,
			Public: "this client speaks the protocol of MySQL before 4.1; upgrade it"}
	}
	if len(payload) < sslRequestSize {
		return r, malformed
	}
	said := capability(binary.LittleEndian.Uint32(payload))
	if said&capLongPassword == 0 {
		said |= capability(binary.LittleEndian.Uint32(payload[28:])) << 32
	}
	if said&capSSL != 0 && c.login.TLS == "" {
		return r, malformed // it must be said before TLS, in an SSLRequest
	}
	c.caps = said & c.offered()
	c.maxPacket, c.charset = binary.LittleEndian.Uint32(payload[4:]), payload[8]
	c.login.Protocol = "10"
	rest, ok := c.parseLogin(payload[sslRequestSize:], said, &r)
	if !ok || !c.parseAttributes(rest, said) {
		return r, malformed
	}
	c.login.Database = c.database
	c.login.Application = c.login.Attributes["program_name"]
	return r, nil
}

// parseLogin reads the user, the proof, the database and the plugin.
func (c *client) parseLogin(b []byte, said capability, r *response) (rest []byte, ok bool) {
	user, b, ok := cstring(b)
	if !ok {
		return nil, false
	}
	c.login.User = string(user[:min(len(user), maxUser)])
	var answer []byte
	if said&capPluginAuthLenenc != 0 {
		answer, b, ok = lenencBytes(b)
	} else if ok = len(b) > 0 && len(b) > int(b[0]); ok {
		answer, b = b[1:1+int(b[0])], b[1+int(b[0]):]
	}
	if !ok {
		return nil, false
	}
	r.answer = append([]byte(nil), answer...) // the reader's buffer goes on
	if said&capConnectWithDB != 0 {
		name, rest, ok := cstring(b)
		if !ok {
			return nil, false
		}
		c.database, b = string(name), rest
	}
	if said&capPluginAuth != 0 {
		name, rest, ok := cstring(b)
		if !ok { // some clients have it end with the packet
			name, rest = b, nil
		}
		r.plugin, b = string(name), rest
	}
	return b, true
}

// parseAttributes reads the connection attributes. What follows them nobody needs to know.
func (c *client) parseAttributes(b []byte, said capability) bool {
	if said&capConnectAttrs == 0 || len(b) == 0 { // clients that have none may say nothing at all
		return true
	}
	b, _, ok := lenencBytes(b)
	if !ok {
		return false
	}
	attrs := map[string]string{}
	for len(b) > 0 {
		var name, value []byte
		if name, b, ok = lenencBytes(b); !ok {
			return false
		}
		if value, b, ok = lenencBytes(b); !ok || len(attrs) == maxAttributes {
			return false
		}
		attrs[text(name)] = text(value)
	}
	if len(attrs) > 0 {
		c.login.Attributes = attrs
	}
	return true
}

// text makes bytes fit to be recorded as text.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\ufffd") }
