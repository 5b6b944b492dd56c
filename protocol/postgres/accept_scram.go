package postgres

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/xdg-go/scram"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

const (
	mechanism = "SCRAM-SHA-256"

	authOK                = 0
	authCleartextPassword = 3
	authMD5Password       = 5
	authSASL              = 10
	authSASLContinue      = 11
	authSASLFinal         = 12

	recorderViolation = recorder.EndViolation
)

// authenticate proves who the client is by SCRAM-SHA-256 against the stored verifier. Somebody whose
// name nobody has goes through the same steps with a verifier that is made up from the name, and always
// the same for it, so that nothing but the password's being wrong can be learned.
func (c *client) authenticate(ctx context.Context, d protocol.Doorman) error {
	stored, err := d.Verifier(ctx, c.login.User)
	if err != nil {
		return &protocol.Refusal{Code: protocol.RefuseUnavailable, Err: err,
			Public: "logins can't be checked at the moment; try again later or tell your Curfew administrator"}
	}
	made := c.front.decoyFor(c.login.User)
	known := made
	if stored != nil {
		if known, err = parseVerifier(stored); err != nil {
			return fmt.Errorf("stored verifier of %q: %w", c.login.User, err)
		}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return known, nil })
	if err != nil {
		return fmt.Errorf("scram: %w", err)
	}
	ok, err := c.exchange(server.NewConversation())
	if err != nil {
		return err
	}
	if !ok || stored == nil {
		return &protocol.Refusal{Code: protocol.RefuseLogin,
			Public: fmt.Sprintf("password authentication failed for user \"%s\"", c.login.User)}
	}
	c.login.Mechanism = "scram-sha-256"
	return nil
}

// exchange runs the SASL messages; false is a wrong proof.
func (c *client) exchange(conv *scram.ServerConversation) (bool, error) {
	malformed := func(err error) error {
		return &protocol.Refusal{Code: recorderViolation, Public: "malformed SCRAM message", Err: err}
	}
	if err := c.auth(authSASL, mechanism+"\x00\x00"); err != nil {
		return false, err
	}
	body, err := c.password()
	if err != nil {
		return false, err
	}
	name, rest, ok := cstring(body)
	if !ok || len(rest) < 4 {
		return false, malformed(nil)
	}
	if string(name) != mechanism {
		return false, &protocol.Refusal{Code: recorderViolation, Public: "client selected an invalid SASL authentication mechanism"}
	}
	size := int32(binary.BigEndian.Uint32(rest))
	first := rest[4:]
	switch {
	case size == -1 && len(first) == 0: // no initial response: it is asked for by an empty challenge
		if err := c.auth(authSASLContinue, ""); err != nil {
			return false, err
		}
		if first, err = c.password(); err != nil {
			return false, err
		}
	case int(size) != len(first):
		return false, malformed(nil)
	}
	challenge, err := conv.Step(string(first))
	if err != nil {
		return false, malformed(err)
	}
	if err := c.auth(authSASLContinue, challenge); err != nil {
		return false, err
	}
	if body, err = c.password(); err != nil {
		return false, err
	}
	final, err := conv.Step(string(body))
	if err != nil || !conv.Valid() {
		return false, nil
	}
	return true, c.auth(authSASLFinal, final)
}

// auth writes an authentication request.
func (c *client) auth(code uint32, data string) error {
	body := binary.BigEndian.AppendUint32(nil, code)
	_, err := c.conn.Write(appendMessage(nil, msgAuthentication, append(body, data...)))
	return err
}

// password reads the client's answer to an authentication request.
func (c *client) password() ([]byte, error) {
	typ, body, err := c.reader.next(limitBeforeLogin)
	if errors.Is(err, errTooLong) {
		return nil, &protocol.Refusal{Code: recorderViolation, Public: "message is too long for a login"}
	}
	if err != nil {
		return nil, err
	}
	switch typ {
	case msgPassword:
		return body, nil
	case msgTerminate:
		return nil, io.EOF
	}
	return nil, &protocol.Refusal{Code: recorderViolation, Public: fmt.Sprintf("expected password response, got message type %d", typ)}
}

// parseVerifier reads what PostgreSQL would keep: SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
func parseVerifier(text []byte) (v scram.StoredCredentials, err error) {
	malformed := errors.New("malformed verifier") // never shows the verifier itself
	scheme, rest, ok := bytes.Cut(text, []byte("$"))
	if !ok || string(scheme) != mechanism {
		return v, malformed
	}
	factors, keys, ok1 := bytes.Cut(rest, []byte("$"))
	iterations, salt, ok2 := bytes.Cut(factors, []byte(":"))
	stored, server, ok3 := bytes.Cut(keys, []byte(":"))
	if !ok1 || !ok2 || !ok3 {
		return v, malformed
	}
	decode := func(b []byte) []byte {
		raw, derr := base64.StdEncoding.DecodeString(string(b))
		if derr != nil {
			err = malformed
		}
		return raw
	}
	n, aerr := strconv.Atoi(string(iterations))
	v.Salt, v.Iters = string(decode(salt)), n
	v.StoredKey, v.ServerKey = decode(stored), decode(server)
	if err != nil || aerr != nil || n < 1 || len(v.Salt) == 0 || len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return scram.StoredCredentials{}, malformed
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
