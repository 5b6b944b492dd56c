package mysql

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // what the protocol has OAEP use
	"errors"
	"fmt"
	"net"
)

// Authentication plugins.
const (
	pluginNative      = "mysql_native_password"
	pluginCachingSHA2 = "caching_sha2_password"
	pluginEd25519     = "client_ed25519"
	pluginParsec      = "parsec"
	pluginClear       = "mysql_clear_password"
)

// What caching_sha2_password says in AuthMoreData, and what a client asks for.
const (
	sha2AskKey  = 2
	sha2FastOK  = 3
	sha2AskFull = 4
)

const (
	scrambleBytes        = 20
	ed25519ScrambleBytes = 32
	// parsecMaxFactor bounds how often a server may have a password hashed: 1024 << 10 times takes a second.
	parsecMaxFactor = 10
	// maxSwitches is how often a server may change its mind about the plugin.
	maxSwitches = 3
)

// prover answers a server's authentication requests.
type prover struct {
	u        *upstream
	l        landing
	plugin   string
	scramble []byte
	switches int
	full     bool // caching_sha2_password: the secret was given in full
	signed   bool // parsec: the salt was answered
}

// send writes the next packet.
func (p *prover) send(payload []byte) error {
	msg := appendPacket(nil, p.u.reader.seq, payload)
	p.u.reader.seq++
	_, err := p.u.conn.Write(msg)
	return err
}

// first is the answer to the scramble that comes with a plugin's name.
func (p *prover) first() (answer []byte, ok bool) {
	switch {
	case p.plugin == pluginNative && len(p.scramble) == scrambleBytes:
		return nativeAnswer(p.l.secret, p.scramble), true
	case p.plugin == pluginCachingSHA2 && len(p.scramble) == scrambleBytes:
		return cachingSHA2Answer(p.l.secret, p.scramble), true
	case p.plugin == pluginEd25519 && len(p.scramble) == ed25519ScrambleBytes:
		return ed25519Answer(p.l.secret, p.scramble), true
	case p.plugin == pluginParsec && len(p.scramble) == ed25519ScrambleBytes:
		return nil, true // an empty packet asks for the salt
	}
	return nil, false
}

// answer deals with one packet of the server's; done means that it let us in.
func (p *prover) answer(payload []byte) (done bool, err error) {
	if len(payload) == 0 {
		return false, errors.New("the server sent an empty packet during login")
	}
	switch payload[0] {
	case packetOK:
		return true, p.u.welcomed(payload)
	case packetErr:
		return false, parseServerError(payload, p.u.caps)
	case packetEOF:
		return false, p.change(payload[1:])
	case packetMore:
		return false, p.more(payload[1:])
	}
	return false, p.more(payload) // MariaDB leaves out the first byte where it is not needed
}

// change answers an AuthSwitchRequest.
func (p *prover) change(body []byte) error {
	name, data, ok := cstring(body)
	if !ok {
		return errors.New("the server asks for the authentication of MySQL before 4.1")
	}
	if p.switches++; p.switches > maxSwitches {
		return errors.New("the server asks for one authentication plugin after the other")
	}
	if n := len(data); n > 0 && data[n-1] == 0 && (n == scrambleBytes+1 || n == ed25519ScrambleBytes+1) {
		data = data[:n-1]
	}
	p.plugin, p.scramble = string(name), append([]byte(nil), data...)
	answer, ok := p.first()
	if !ok {
		return fmt.Errorf("the server asks for the authentication plugin %q, which is not known here or was asked for in a malformed way", name)
	}
	return p.send(answer)
}

// more answers what a plugin says beyond its scramble.
func (p *prover) more(data []byte) error {
	switch {
	case p.plugin == pluginCachingSHA2 && len(data) == 1 && data[0] == sha2FastOK:
		return nil // an OK packet follows
	case p.plugin == pluginCachingSHA2 && len(data) == 1 && data[0] == sha2AskFull && !p.full:
		p.full = true
		return p.giveSecret()
	case p.plugin == pluginParsec && !p.signed: // once: it takes a while
		p.signed = true
		return p.signParsec(data)
	}
	return fmt.Errorf("unexpected data for the authentication plugin %q", p.plugin)
}

// giveSecret gives the account's secret in full, over TLS, over a Unix socket, or encrypted by the server's key.
// A key that the server sends could be anybody's: only the one that the target's URL names is used.
func (p *prover) giveSecret() error {
	secret := append([]byte(p.l.secret), 0)
	_, local := p.u.conn.(*net.UnixConn)
	switch {
	case p.u.tls != "" || local:
		return p.send(secret)
	case p.l.target.key == nil:
		return errors.New("the server asks for the account's secret in full over a connection without TLS: use TLS, or name the server's RSA key by server_public_key=")
	}
	for i := range secret {
		secret[i] ^= p.scramble[i%len(p.scramble)]
	}
	sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, p.l.target.key, secret, nil) //nolint:gosec
	if err != nil {
		return err
	}
	return p.send(sealed)
}

// signParsec answers parsec's second packet, the salt: it makes the key from the secret and signs both
// sides' scrambles.
func (p *prover) signParsec(salt []byte) error {
	if len(salt) < 2 || salt[0] != 'P' || salt[1] > parsecMaxFactor {
		return errors.New("malformed parsec salt")
	}
	key, err := parsecKey(p.l.secret, salt[2:], parsecRounds<<salt[1])
	if err != nil {
		return err
	}
	mine := make([]byte, ed25519ScrambleBytes)
	_, _ = rand.Read(mine) // never fails (crypto/rand)
	signature := ed25519.Sign(key, append(append([]byte(nil), p.scramble...), mine...))
	return p.send(append(mine, signature...))
}
