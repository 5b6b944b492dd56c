package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/curfewdb/curfew/protocol"
)

const (
	mechanismOAuth = "OAUTHBEARER"
	kvsep          = "\x01" // RFC 7628's separator, and the whole of a client's answer to an error
)

// proveByToken has the client show a token of an identity provider for the name that it gave: by OAUTHBEARER
// (RFC 7628), or as its password. Whether anybody has that name makes no difference to what it is asked.
func (c *client) proveByToken(ctx context.Context, d protocol.Doorman, name protocol.Name) error {
	if !c.private() {
		return &protocol.Refusal{Code: protocol.RefuseTLS, Public: "a token goes through TLS alone: connect with sslmode=verify-full"}
	}
	token := c.oauth
	how := protocol.MechanismOAuth
	if name.Token {
		token, how = c.tokenAsPassword, protocol.MechanismToken
	}
	grant := ""
	shown, err := token(d)
	if err == nil {
		grant, err = d.Token(ctx, protocol.TokenLogin{Name: name, Bearer: shown})
	}
	var refusal *protocol.Refusal
	if errors.As(err, &refusal) && refusal.Code == protocol.RefuseToken && !name.Token {
		if failed := c.oauthFailed(d); failed != nil {
			return failed
		}
		return c.notByOAuth(refusal)
	}
	if err != nil {
		return err
	}
	c.login.User, c.login.Mechanism = grant, how
	return nil
}

// private says whether nobody else can read along.
func (c *client) private() bool {
	if c.login.TLS != "" {
		return true
	}
	local, ok := c.raw.LocalAddr().(*net.TCPAddr)
	return ok && local.IP.IsLoopback()
}

// notByOAuth is what PostgreSQL says, and why.
func (c *client) notByOAuth(why *protocol.Refusal) error {
	return &protocol.Refusal{Code: protocol.RefuseToken, Err: why.Err,
		Public: fmt.Sprintf("OAuth bearer authentication failed for user \"%s\": %s", c.login.User, why.Public)}
}

// tokenAsPassword is for clients that can send nothing else.
func (c *client) tokenAsPassword(protocol.Doorman) (string, error) {
	if err := c.auth(authCleartextPassword, ""); err != nil {
		return "", err
	}
	body, err := c.password("password")
	if err != nil {
		return "", err
	}
	token, rest, ok := cstring(body)
	if !ok || len(rest) > 0 {
		return "", &protocol.Refusal{Code: recorderViolation, Public: "invalid password packet size"}
	}
	return string(token), nil
}

// oauth asks for a token. A client that has none sends an empty one, is told where to get it, and comes back
// on another connection: then this one's purpose is done.
func (c *client) oauth(d protocol.Doorman) (string, error) {
	if err := c.auth(authSASL, mechanismOAuth+"\x00\x00"); err != nil {
		return "", err
	}
	first, err := c.initial(mechanismOAuth)
	if err != nil {
		return "", err
	}
	token, err := parseBearer(first)
	if err != nil || token != "" {
		return token, err
	}
	if err := c.oauthFailed(d); err != nil {
		return "", err
	}
	c.say(lastWords(false, c.notByOAuth(&protocol.Refusal{Public: "no token was shown"})))
	c.linger()
	return "", protocol.ErrHandled
}

// oauthFailed tells the client that its token is not good, and where to get another (RFC 7628 section
// 3.2.2), and reads its answer, which says nothing.
func (c *client) oauthFailed(d protocol.Doorman) error {
	offer, _ := d.Offer()
	words, err := json.Marshal(struct {
		Status        string `json:"status"`
		Configuration string `json:"openid-configuration,omitempty"`
		Scope         string `json:"scope,omitempty"`
	}{"invalid_token", offer.Configuration, offer.Scope})
	if err != nil {
		return err
	}
	if err := c.auth(authSASLContinue, string(words)); err != nil {
		return err
	}
	answer, err := c.password("SASL")
	if err != nil {
		return err
	}
	if string(answer) != kvsep {
		return malformedBearer("client did not send a kvsep response")
	}
	return nil
}

// initial reads the client's choice of the one mechanism that it was offered, and its first message.
func (c *client) initial(mechanism string) ([]byte, error) {
	body, err := c.password("SASL")
	if err != nil {
		return nil, err
	}
	name, rest, ok := cstring(body)
	if !ok || len(rest) < 4 {
		return nil, malformedBearer("no mechanism")
	}
	if string(name) != mechanism {
		return nil, &protocol.Refusal{Code: recorderViolation, Public: "client selected an invalid SASL authentication mechanism"}
	}
	size, first := int32(binary.BigEndian.Uint32(rest)), rest[4:]
	switch {
	case size == -1 && len(first) == 0: // it is asked for by an empty challenge
		if err := c.auth(authSASLContinue, ""); err != nil {
			return nil, err
		}
		return c.password("SASL")
	case int(size) != len(first):
		return nil, malformedBearer("wrong length")
	}
	return first, nil
}

func malformedBearer(why string) error {
	return &protocol.Refusal{Code: recorderViolation, Public: "malformed OAUTHBEARER message: " + why}
}

// parseBearer reads the client's one message (RFC 7628 section 3.1): a GS2 header, and pairs, one of which is
// auth. The token is empty where the client has none yet.
func parseBearer(message []byte) (token string, err error) {
	rest, ok := bytes.CutPrefix(message, []byte("n,"))
	if !ok {
		if rest, ok = bytes.CutPrefix(message, []byte("y,")); !ok {
			// "p=" would bind the token to the connection, for which this mechanism has no means.
			return "", malformedBearer("channel binding is not possible with it")
		}
	}
	switch {
	case bytes.HasPrefix(rest, []byte("a=")):
		return "", &protocol.Refusal{Code: protocol.RefuseUnsupported, Public: "client uses authorization identity, but it is not supported"}
	case !bytes.HasPrefix(rest, []byte(","+kvsep)):
		return "", malformedBearer("no key/value pairs")
	}
	rest = rest[1+len(kvsep):]
	auth, found := "", false
	for {
		pair, more, ok := bytes.Cut(rest, []byte(kvsep))
		if !ok {
			return "", malformedBearer("it ends in the middle")
		}
		if rest = more; len(pair) == 0 {
			break
		}
		key, value, ok := bytes.Cut(pair, []byte("="))
		if !ok || !isKey(key) || !isValue(value) {
			return "", malformedBearer("a pair is none")
		}
		if string(key) != "auth" {
			continue // host, port: for proxies
		}
		if found {
			return "", malformedBearer("two auth values")
		}
		auth, found = string(value), true
	}
	switch {
	case len(rest) > 0:
		return "", malformedBearer("something follows its end")
	case !found:
		return "", malformedBearer("no auth value")
	case auth == "":
		return "", nil
	}
	scheme, token, _ := strings.Cut(auth, " ")
	if token = strings.TrimLeft(token, " "); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "what was shown is no bearer token"}
	}
	return token, nil
}

// isKey: letters alone.
func isKey(b []byte) bool {
	return len(b) > 0 && bytes.IndexFunc(b, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) < 0
}

// isValue: what can be printed, and white space.
func isValue(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool {
		return (r < ' ' || r > '~') && r != '\t' && r != '\r' && r != '\n'
	}) < 0
}
