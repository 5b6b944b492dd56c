package mysql

import (
	"bytes"
	"context"
	"errors"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// pluginOpenID is how MySQL 9's clients show a token: 0x01, and the token as a length-encoded string.
const pluginOpenID = "authentication_openid_connect_client"

const openIDVersion = 0x01

// proveByToken has the client show a token of an identity provider for the name that it gave: by the plugin for
// that, or as its password. Whether anybody has that name makes no difference to what it is asked.
func (c *client) proveByToken(ctx context.Context, d protocol.Doorman, name protocol.Name, r response) error {
	if !c.secure() {
		return &protocol.Refusal{Code: protocol.RefuseTLS,
			Public: "a token goes through TLS alone: connect with --ssl-mode=VERIFY_IDENTITY (mysql) or --ssl-verify-server-cert (mariadb)"}
	}
	if c.caps&capPluginAuth == 0 {
		return &protocol.Refusal{Code: protocol.RefuseUnsupported, Public: "this client can't show a token; upgrade it"}
	}
	plugin, read, how := pluginOpenID, parseOpenID, protocol.MechanismOpenID
	if name.Token {
		plugin, read, how = pluginClear, parseClear, protocol.MechanismToken
	}
	if r.plugin != plugin || len(r.answer) == 0 {
		r.plugin = plugin
		if err := c.change(&r); err != nil {
			return err
		}
	}
	grant := ""
	shown, err := read(r.answer)
	if err == nil {
		grant, err = d.Token(ctx, protocol.TokenLogin{Name: name, Bearer: shown})
	}
	var why, denied *protocol.Refusal
	if errors.As(err, &why) && why.Code == protocol.RefuseToken && errors.As(c.denied(r), &denied) {
		return &protocol.Refusal{Code: protocol.RefuseToken, Public: denied.Public + ": " + why.Public, Err: why.Err}
	}
	if err != nil {
		return err
	}
	c.login.User, c.login.Mechanism = grant, how
	return nil
}

// parseOpenID reads the plugin's one packet.
func parseOpenID(packet []byte) (string, error) {
	malformed := &protocol.Refusal{Code: recorder.EndViolation, Public: "malformed " + pluginOpenID + " packet"}
	if len(packet) == 0 {
		return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "no token was shown; name its file: --authentication-openid-connect-client-id-token-file=FILE"}
	}
	if packet[0] != openIDVersion {
		return "", malformed
	}
	token, rest, ok := lenencBytes(packet[1:])
	if !ok || len(rest) > 0 || len(token) == 0 || bytes.IndexByte(token, 0) >= 0 {
		return "", malformed
	}
	// A file that an editor has written ends with a line.
	return string(bytes.TrimSpace(token)), nil
}

// parseClear reads a token that comes as a password.
func parseClear(packet []byte) (string, error) {
	if token := password(packet); token != "" {
		return token, nil
	}
	return "", &protocol.Refusal{Code: protocol.RefuseToken, Public: "no token was shown: it goes where the password does"}
}
