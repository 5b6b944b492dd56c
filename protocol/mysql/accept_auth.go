package mysql

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // what the protocol has OAEP use
	"fmt"
	"net"

	"github.com/curfewdb/curfew/protocol"
)

// authenticate proves who the client is. The form of the name says how (protocol.Name): by a token, or by the
// plugin that the client prefers, against the stored verifier. Somebody whose name nobody has goes through the
// same steps with a verifier that is made up from the name, so that nothing but the password's being wrong can
// be learned.
func (c *client) authenticate(ctx context.Context, d protocol.Doorman, r response) error {
	if name := protocol.ParseName(c.login.User); name.ByToken() {
		if _, taken := d.Offer(); taken {
			return c.proveByToken(ctx, d, name, r)
		}
	}
	stored, err := d.Verifier(ctx, c.login.User)
	if err != nil {
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "logins can't be checked at the moment; try again later or tell your Curfew administrator"}
	}
	known := c.front.decoyFor(c.login.User)
	if stored != nil {
		if known, err = parseVerifier(stored); err != nil {
			return fmt.Errorf("stored verifier of %q: %w", c.login.User, err)
		}
	}
	ok, err := c.prove(&known, &r)
	if err != nil {
		return err
	}
	if !ok || stored == nil {
		return c.denied(r)
	}
	c.login.Mechanism = r.plugin
	return nil
}

// denied never says what was wrong.
func (c *client) denied(r response) error {
	host, _, err := net.SplitHostPort(c.login.Address)
	if err != nil {
		host = "localhost"
	}
	using := "YES"
	if len(r.answer) == 0 {
		using = "NO"
	}
	return &protocol.Refusal{Code: protocol.RefuseLogin,
		Public: fmt.Sprintf("Access denied for user '%s'@'%s' (using password: %s)", c.login.User, host, using)}
}

// prove has the client prove its password; false is a wrong one. It leaves in r the plugin and the answer
// that counted.
func (c *client) prove(v *verifier, r *response) (bool, error) {
	r.scramble = c.scramble
	if c.caps&capPluginAuth == 0 {
		r.plugin = pluginNative // and there is no other
	} else if err := c.agree(r); err != nil {
		return false, err
	}
	switch r.plugin {
	case pluginNative:
		c.kept = v.sha1[:]
		return v.native(r.scramble, r.answer), nil
	case pluginEd25519:
		c.kept = v.ed25519[:]
		return v.signed(r.scramble, r.answer), nil
	case pluginClear:
		return v.clear(password(r.answer)), nil
	}
	return c.proveSHA2(v, r)
}

// agree finds the plugin: the client's own, if it is known here, and otherwise the default. The client is
// asked to switch to it, unless it has answered by it already.
func (c *client) agree(r *response) error {
	begun := len(r.answer) > 0
	switch r.plugin {
	case pluginNative, pluginCachingSHA2:
		if begun {
			return nil
		}
	case pluginClear:
		switch {
		case begun && c.secure():
			return nil
		case begun:
			return &protocol.Refusal{Code: protocol.RefuseTLS,
				Public: "your client sent its password in clear over a connection without TLS: get a new one by `curfew credentials`, and connect with TLS"}
		case !c.secure():
			r.plugin = c.defaultPlugin()
		}
	case pluginEd25519: // its scramble is longer than the greeting's
	default:
		r.plugin = c.defaultPlugin()
	}
	return c.change(r)
}

// change is an AuthSwitchRequest with a scramble of its own.
func (c *client) change(r *response) (err error) {
	request := append(append([]byte{packetEOF}, r.plugin...), 0)
	if r.plugin == pluginEd25519 {
		r.scramble = newScramble(ed25519ScrambleBytes)
		request = append(request, r.scramble...)
	} else {
		r.scramble = newScramble(scrambleBytes)
		c.scramble = r.scramble
		request = append(append(request, r.scramble...), 0)
	}
	r.answer, err = c.ask(request)
	return err
}

// ask writes a packet and reads the answer.
func (c *client) ask(request []byte) ([]byte, error) {
	if err := c.write(request); err != nil {
		return nil, err
	}
	answer, err := c.reader.read(limitBeforeLogin)
	return bytes.Clone(answer), err
}

// proveSHA2 is caching_sha2_password. A server that has no password cached, or another one than the
// client used, asks for it in full: so do we, because that is what a client expects whose answer was wrong.
func (c *client) proveSHA2(v *verifier, r *response) (bool, error) {
	if len(r.answer) == 0 {
		return false, nil
	}
	if v.cachingSHA2(r.scramble, r.answer) {
		return true, c.write([]byte{packetMore, sha2FastOK})
	}
	answer, err := c.ask([]byte{packetMore, sha2AskFull})
	if err != nil {
		return false, err
	}
	if c.secure() {
		return v.clear(password(answer)), nil
	}
	key, err := c.front.key()
	if err != nil {
		return false, err
	}
	if len(answer) == 1 && answer[0] == sha2AskKey {
		if answer, err = c.ask(append([]byte{packetMore}, key.public...)); err != nil {
			return false, err
		}
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key.private, answer, nil) //nolint:gosec
	if err != nil {
		return false, nil
	}
	for i := range plain {
		plain[i] ^= r.scramble[i%len(r.scramble)]
	}
	return v.clear(password(plain)), nil
}

// password is a clear password as clients send it, without its NUL.
func password(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }

// secure says whether nobody else can read along.
func (c *client) secure() bool {
	return c.login.TLS != "" || c.raw.RemoteAddr().Network() == "unix"
}

// decoyFor makes up the verifier of a name that nobody has.
func (f *Front) decoyFor(user string) (v verifier) {
	part := func(label string) []byte {
		sum := keyed(f.decoy[:], label+"\x00"+user)
		return sum[:]
	}
	copy(v.sha1[:], part("sha1"))
	copy(v.sha256[:], part("sha256"))
	// A key as there are others: a signature is held against it as long as against another's.
	v.ed25519 = verifierOf(string(part("ed25519"))).ed25519
	return v
}
