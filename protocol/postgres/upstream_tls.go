package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol/relay"
)

// errNoTLS says that a server which must speak TLS does not.
var errNoTLS = errors.New("server refused TLS connection")

// route is the way to a server, which a session and its cancel requests share.
type route struct {
	network, address string
	config           *tls.Config // nil without TLS
	direct           bool        // TLS is begun without asking (sslnegotiation=direct)
	certificate      string      // sslcertmode: "require" wants the server to ask for ours
}

// secure puts TLS over conn, if the target wants it.
func secure(ctx context.Context, conn net.Conn, r route) (net.Conn, *tls.ConnectionState, error) {
	if r.config == nil {
		return conn, nil, nil
	}
	if !r.direct {
		if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
			return nil, nil, err
		}
		var answer [1]byte // one byte and no more: what follows belongs to TLS
		if _, err := io.ReadFull(conn, answer[:]); err != nil {
			return nil, nil, err
		}
		if answer[0] != 'S' {
			return nil, nil, errNoTLS
		}
	}
	config, shown := r.config, func() bool { return true }
	if r.certificate == "require" {
		config, shown = showing(r.config)
	}
	secured := tls.Client(relay.Under(conn, nil), config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("TLS handshake: %w", err)
	}
	state := secured.ConnectionState()
	if r.direct && state.NegotiatedProtocol != alpn {
		return nil, nil, errors.New("TLS handshake: the server does not say that it is PostgreSQL (ALPN), as sslnegotiation=direct needs")
	}
	if !shown() {
		return nil, nil, errors.New("TLS handshake: the server took no client certificate, which sslcertmode=require wants")
	}
	return secured, &state, nil
}

// showing is a configuration that knows whether a certificate was shown to the server.
func showing(base *tls.Config) (*tls.Config, func() bool) {
	config, shown := base.Clone(), false
	config.ClientSessionCache = nil
	config.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := &tls.Certificate{}, error(nil)
		if base.GetClientCertificate != nil {
			cert, err = base.GetClientCertificate(asked)
		}
		shown = err == nil && len(cert.Certificate) > 0
		return cert, err
	}
	return config, func() bool { return shown }
}

// checkFiles looks at the files that a target's URL names, before anything else reads them: its own errors
// say which.
func checkFiles(q url.Values) error {
	if q.Has("sslpassword") {
		return errors.New("url: sslpassword: a key with a passphrase is of no use here: keep it without one, mode 0600")
	}
	cert, key := q.Get("sslcert"), q.Get("sslkey")
	if (cert == "") != (key == "") {
		return errors.New("url: sslcert and sslkey belong together: name both")
	}
	if cert != "" {
		if _, err := loadCertificate(cert, key); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	root := q.Get("sslrootcert")
	if root == "" || root == "system" {
		return nil
	}
	text, err := os.ReadFile(root)
	if err != nil {
		return fmt.Errorf("url: sslrootcert: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return fmt.Errorf("url: sslrootcert: %s holds no certificate in PEM", root)
	}
	return nil
}

// loadCertificate reads a client certificate and its key.
func loadCertificate(cert, key string) (*tls.Certificate, error) {
	certText, err := os.ReadFile(cert)
	if err != nil {
		return nil, fmt.Errorf("sslcert: %w", err)
	}
	if block, _ := pem.Decode(certText); block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("sslcert: %s holds no certificate in PEM", cert)
	}
	if err := checkKeyMode(key); err != nil {
		return nil, err
	}
	keyText, err := os.ReadFile(key)
	if err != nil {
		return nil, fmt.Errorf("sslkey: %w", err)
	}
	pair, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return nil, fmt.Errorf("sslkey: %s with sslcert %s: %w", key, cert, err)
	}
	return &pair, nil
}

// checkKeyMode wants what libpq wants: a key that nobody else can read, or root's that a group can.
func checkKeyMode(key string) error {
	info, err := os.Stat(key)
	if err != nil {
		return fmt.Errorf("sslkey: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("sslkey: %s is not a regular file", key)
	}
	others, least := os.FileMode(0o077), "0600"
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 {
		others, least = 0o037, "0640"
	}
	if mode := info.Mode().Perm(); mode&others != 0 {
		return fmt.Errorf("sslkey: %s can be read or changed by others (mode %#o): chmod %s %s", key, mode, least, key)
	}
	return nil
}

// readAgain has the client certificate that a target's URL names read for each connection, so that one that
// was renewed needs no restart.
func readAgain(q url.Values, c *pgconn.Config) {
	cert, key := q.Get("sslcert"), q.Get("sslkey")
	if cert == "" || q.Get("sslcertmode") == "disable" {
		return
	}
	get := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return loadCertificate(cert, key) }
	set := func(config *tls.Config) {
		if config != nil {
			config.Certificates, config.GetClientCertificate = nil, get
		}
	}
	set(c.TLSConfig)
	for _, f := range c.Fallbacks {
		set(f.TLSConfig)
	}
}
