package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/xdg-go/scram"

	"github.com/curfewdb/curfew/protocol/relay"
)

// alpn is PostgreSQL's name in TLS. Who begins with TLS must say it (17 and later), so that no other
// protocol's client can be led here; who asks for TLS first may.
const alpn = "postgresql"

// noALPN is the fatal alert no_application_protocol (RFC 7301), as a record.
var noALPN = []byte{0x15, 3, 3, 0, 2, 2, 120}

// frontTLS is a listener's TLS. Sessions are not resumed, as PostgreSQL's are not: in one that is, no
// certificate is shown that a login could be bound to.
func frontTLS(base *tls.Config) *tls.Config {
	config := base.Clone()
	config.NextProtos = []string{alpn}
	config.SessionTicketsDisabled = true
	return config
}

// startTLS answers an SSLRequest.
func (c *client) startTLS(ctx context.Context) error {
	if c.front.cfg.TLS == nil {
		_, err := c.conn.Write([]byte{'N'})
		return err
	}
	if _, err := c.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return c.handshake(ctx, nil, nil)
}

// directTLS goes on with TLS that began without an SSLRequest; head was read of it.
func (c *client) directTLS(ctx context.Context, head []byte) error {
	if c.front.cfg.TLS == nil {
		return errors.New("TLS handshake: this listener has no TLS")
	}
	refuse := func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, alpn) {
			return nil, nil // with the configuration that there is
		}
		// The library has one alert for every error of this callback, and it is another.
		c.say(noALPN)
		if half, ok := c.raw.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		return nil, errors.New("TLS without an SSLRequest, and without ALPN " + alpn)
	}
	return c.handshake(ctx, head, refuse)
}

// handshake puts TLS over the connection, of which head was read already, and notes what was agreed on.
func (c *client) handshake(ctx context.Context, head []byte, direct func(*tls.ClientHelloInfo) (*tls.Config, error)) error {
	base := c.front.cfg.TLS
	config := base.Clone()
	var shown *tls.Certificate
	config.Certificates, config.GetConfigForClient = nil, direct
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (_ *tls.Certificate, err error) {
		shown, err = certificateFor(base, hello)
		return shown, err
	}
	secured := tls.Server(relay.Under(c.raw, head), config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn = secured
	state := secured.ConnectionState()
	c.login.TLS = describe(&state)
	c.bound = bindingOf(shown)
	return nil
}

// certificateFor chooses as the library does.
func certificateFor(base *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if base.GetCertificate != nil {
		return base.GetCertificate(hello)
	}
	for i := range base.Certificates {
		if hello.SupportsCertificate(&base.Certificates[i]) == nil {
			return &base.Certificates[i], nil
		}
	}
	if len(base.Certificates) > 0 {
		return &base.Certificates[0], nil
	}
	return nil, errors.New("the listener has no certificate")
}

// bindingOf is what ties a login to the certificate that the client was shown: its hash, by the algorithm
// of its signature (tls-server-end-point, RFC 5929). There is none where that names no hash (Ed25519).
func bindingOf(shown *tls.Certificate) scram.ChannelBinding {
	if shown == nil || len(shown.Certificate) == 0 {
		return scram.ChannelBinding{}
	}
	leaf := shown.Leaf
	if leaf == nil {
		parsed, err := x509.ParseCertificate(shown.Certificate[0])
		if err != nil {
			return scram.ChannelBinding{}
		}
		leaf = parsed
	}
	return endPoint(leaf)
}

func endPoint(leaf *x509.Certificate) scram.ChannelBinding {
	binding, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	if err != nil {
		return scram.ChannelBinding{}
	}
	return binding
}

// describe says which TLS it is.
func describe(state *tls.ConnectionState) string {
	return tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite)
}
