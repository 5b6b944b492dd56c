package mysql

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

// startTLS answers an SSLRequest.
func (c *client) startTLS(ctx context.Context) error {
	if c.front.cfg.TLS == nil {
		return &protocol.Refusal{Code: recorder.EndViolation, Public: "TLS was asked for and is not offered here"}
	}
	conn := tls.Server(relay.Under(c.raw, nil), c.showing(c.front.cfg.TLS))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn, c.reader.conn = conn, conn
	state := conn.ConnectionState()
	c.login.TLS = tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
	return nil
}

// showing is the listener's configuration, made to remember which certificate this client is shown.
func (c *client) showing(base *tls.Config) *tls.Config {
	cfg := base.Clone()
	cfg.Certificates = nil
	cfg.SessionTicketsDisabled = true // a resumed session shows none
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(base, hello)
		if err == nil && len(cert.Certificate) > 0 {
			c.shown = cert.Certificate[0]
		}
		return cert, err
	}
	return cfg
}

// choose is crypto/tls's choice of a certificate.
func choose(cfg *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cfg.GetCertificate != nil && (len(cfg.Certificates) == 0 || hello.ServerName != "") {
		if cert, err := cfg.GetCertificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range cfg.Certificates {
		if hello.SupportsCertificate(&cfg.Certificates[i]) == nil {
			return &cfg.Certificates[i], nil
		}
	}
	if len(cfg.Certificates) == 0 {
		return nil, errors.New("the listener has no certificate")
	}
	return &cfg.Certificates[0], nil
}

// vouch is MariaDB's answer to a certificate that nobody vouches for: 0x01 and, in hex, the SHA-256 of what
// the plugin keeps of the password, the scramble, and the SHA-256 of the certificate. Whoever sits in
// between shows another certificate, and does not know the first. Empty where there is nothing to say.
func (c *client) vouch() string {
	if !c.server.mariadb || c.kept == nil || c.shown == nil {
		return ""
	}
	fingerprint := sha256.Sum256(c.shown)
	h := sha256.New()
	h.Write(c.kept)
	h.Write(c.scramble)
	h.Write(fingerprint[:])
	return "\x01" + strings.ToUpper(hex.EncodeToString(h.Sum(nil)))
}
