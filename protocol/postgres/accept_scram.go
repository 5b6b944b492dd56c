package postgres

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

const (
	mechanism     = "SCRAM-SHA-256"
	mechanismPlus = "SCRAM-SHA-256-PLUS"

	authOK                = 0
	authCleartextPassword = 3
	authSASL              = 10
	authSASLContinue      = 11
	authSASLFinal         = 12

	recorderViolation = recorder.EndViolation
)

// authenticate proves who the client is. The form of the name says how (protocol.Name): by a token, or against
// the stored verifier, by SCRAM-SHA-256, or by the password itself where the listener asks for that and TLS
// hides it. Somebody whose name nobody has goes through the same steps with a verifier that is made up from
// the name, and always the same for it, so that nothing but the password's being wrong can be learned.
func (c *client) authenticate(ctx context.Context, d protocol.Doorman) error {
	if name := protocol.ParseName(c.login.User); name.ByToken() {
		if _, taken := d.Offer(); taken {
			return c.proveByToken(ctx, d, name)
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
	prove := c.exchange
	if c.front.cfg.Cleartext && c.login.TLS != "" {
		prove = c.clear
	}
	wrong, err := prove(known)
	if err != nil {
		return err
	}
	if wrong != nil || stored == nil {
		return &protocol.Refusal{Code: protocol.RefuseLogin, Err: wrong,
			Public: fmt.Sprintf("password authentication failed for user \"%s\"", c.login.User)}
	}
	return nil
}

// exchange runs the SASL messages. wrong is why the proof does not hold.
func (c *client) exchange(known scram.StoredCredentials) (wrong, err error) {
	offer := mechanism + "\x00"
	if c.bound.IsSupported() {
		offer = mechanismPlus + "\x00" + offer
	}
	if err := c.auth(authSASL, offer+"\x00"); err != nil {
		return nil, err
	}
	plus, first, err := c.chosen()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(first), "y,") && c.bound.IsSupported() {
		// Whoever says that we have no channel binding was shown another offer than ours.
		return nil, &protocol.Refusal{Code: protocol.RefuseTLS, Public: "SCRAM channel binding negotiation error: " +
			"your client was told that this server has no channel binding, which it has"}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return known, nil })
	if err != nil {
		return nil, fmt.Errorf("scram: %w", err)
	}
	conv := server.NewConversation()
	if plus {
		conv = server.NewConversationWithChannelBindingRequired(c.bound)
	}
	challenge, err := conv.Step(string(first))
	if err != nil {
		return nil, malformed(err)
	}
	if err := c.auth(authSASLContinue, challenge); err != nil {
		return nil, err
	}
	body, err := c.password("SASL")
	if err != nil {
		return nil, err
	}
	final, err := conv.Step(string(body))
	if final == scram.ErrChannelBindingsDontMatch {
		return nil, &protocol.Refusal{Code: protocol.RefuseLogin, Err: err, Public: "SCRAM channel binding check failed: " +
			"the certificate that you were shown is not this server's, so somebody stands between; tell your Curfew administrator"}
	}
	if err == nil && !conv.Valid() {
		err = errors.New("no proof")
	}
	if err != nil {
		return err, nil
	}
	c.login.Mechanism = strings.ToLower(mechanism)
	if plus {
		c.login.Mechanism = strings.ToLower(mechanismPlus)
	}
	return nil, c.auth(authSASLFinal, final)
}

// chosen reads which mechanism the client takes, and its first message.
func (c *client) chosen() (plus bool, first []byte, err error) {
	body, err := c.password("SASL")
	if err != nil {
		return false, nil, err
	}
	name, rest, ok := cstring(body)
	if !ok || len(rest) < 4 {
		return false, nil, malformed(nil)
	}
	plus = string(name) == mechanismPlus && c.bound.IsSupported()
	if !plus && string(name) != mechanism {
		return false, nil, &protocol.Refusal{Code: recorderViolation, Public: "client selected an invalid SASL authentication mechanism"}
	}
	size := int32(binary.BigEndian.Uint32(rest))
	first = rest[4:]
	switch {
	case size == -1 && len(first) == 0: // no initial response: it is asked for by an empty challenge
		if err = c.auth(authSASLContinue, ""); err == nil {
			first, err = c.password("SASL")
		}
	case int(size) != len(first):
		err = malformed(nil)
	}
	return plus, first, err
}

func malformed(err error) error {
	return &protocol.Refusal{Code: recorderViolation, Public: "malformed SCRAM message", Err: err}
}

// clear asks for the password itself, which only TLS may carry. wrong is why it is not the one. Stretching
// what was sent takes the same time whoever it is for.
func (c *client) clear(known scram.StoredCredentials) (wrong, err error) {
	if err := c.auth(authCleartextPassword, ""); err != nil {
		return nil, err
	}
	body, err := c.password("password")
	if err != nil {
		return nil, err
	}
	password, rest, ok := cstring(body)
	if !ok || len(rest) > 0 {
		return nil, &protocol.Refusal{Code: recorderViolation, Public: "invalid password packet size"}
	}
	stored, _, err := scramKeys(string(password), []byte(known.Salt), known.Iters)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(stored, known.StoredKey) != 1 {
		return errors.New("another password"), nil
	}
	c.login.Mechanism = "cleartext"
	return nil, nil
}

// auth writes an authentication request.
func (c *client) auth(code uint32, data string) error {
	body := binary.BigEndian.AppendUint32(nil, code)
	_, err := c.conn.Write(appendMessage(nil, msgAuthentication, append(body, data...)))
	return err
}

// password reads the client's answer to an authentication request: a SASL or a password response.
func (c *client) password(what string) ([]byte, error) {
	typ, body, err := c.reader.next(limitBeforeLogin)
	if errors.Is(err, errTooLong) {
		return nil, &protocol.Refusal{Code: recorderViolation, Public: "message is too long for a login"}
	}
	if err != nil {
		return nil, err
	}
	if typ == msgPassword {
		return body, nil
	}
	return nil, &protocol.Refusal{Code: recorderViolation, Public: fmt.Sprintf("expected %s response, got message type %d", what, typ)}
}

// parseVerifier reads what PostgreSQL would keep: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
func parseVerifier(text []byte) (v scram.StoredCredentials, err error) {
	bad := errors.New("malformed verifier") // never shows the verifier itself
	scheme, rest, ok := bytes.Cut(text, []byte("$"))
	if !ok || string(scheme) != mechanism {
		return v, bad
	}
	factors, keys, ok1 := bytes.Cut(rest, []byte("$"))
	iterations, salt, ok2 := bytes.Cut(factors, []byte(":"))
	stored, server, ok3 := bytes.Cut(keys, []byte(":"))
	if !ok1 || !ok2 || !ok3 {
		return v, bad
	}
	decode := func(b []byte) []byte {
		raw, derr := base64.StdEncoding.DecodeString(string(b))
		if derr != nil {
			err = bad
		}
		return raw
	}
	n, aerr := strconv.Atoi(string(iterations))
	v.Salt, v.Iters = string(decode(salt)), n
	v.StoredKey, v.ServerKey = decode(stored), decode(server)
	if err != nil || aerr != nil || n < 1 || len(v.Salt) == 0 || len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return scram.StoredCredentials{}, bad
	}
	return v, nil
}

// decoyFor makes up the verifier of a name that nobody has.
func (f *Front) decoyFor(user string) scram.StoredCredentials {
	part := func(label string) []byte {
		sum := keyed(f.decoy[:], label+"\x00"+user)
		return sum[:]
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(part("salt")[:saltBytes]), Iters: clientIterations},
		StoredKey:  part("stored key"), ServerKey: part("server key"),
	}
}

// keyed is HMAC-SHA-256.
func keyed(key []byte, text string) (sum [32]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	h.Sum(sum[:0])
	return sum
}
