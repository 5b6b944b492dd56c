package mysql

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	defaultPort = "3306"
	defaultTLS  = "verify-full"

	// connectTime is how long a connection to the server may take, login included.
	connectTime = 10 * time.Second
)

// target is where a server is and how it is spoken to, as its URL says.
type target struct {
	network, address string // "tcp" and host:port, or "unix" and the socket's path
	user             string // the broker
	database         string // where a session begins that names none
	tls              *tls.Config
	prefer           bool           // clear text will do where the server has no TLS
	key              *rsa.PublicKey // the server's, for caching_sha2_password without TLS; nil: not known
	accountHost      string         // the host part of the accounts; empty: the proxy's own, as the server sees it
	timeout          time.Duration
}

// parseTarget reads mysql://broker@host:port/database?… The parameters:
//
//	sslmode            disable, prefer, require, verify-ca or verify-full (the default), as PostgreSQL means them
//	sslrootcert        PEM file with the certificates to trust; without it, the system's
//	sslcert, sslkey    PEM files with a client certificate
//	server_public_key  PEM file with the server's RSA key, by which caching_sha2_password works without TLS
//	account_host       the host part of the accounts that are made
//	connect_timeout    seconds
//	host, socket       a directory that holds mysqld.sock, or the path of a Unix socket
//
// The words of an error never show the URL: somebody may have put a password in it.
func parseTarget(rawURL string) (*target, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("url: not a URL") // the parser's own words would show it
	}
	if u.Scheme != "mysql" {
		return nil, errors.New("url: must begin with mysql://")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("url: malformed parameters")
	}
	if _, has := u.User.Password(); has || q.Has("password") {
		return nil, errors.New("url: holds a password; name it by reference in password: instead")
	}
	if u.User.Username() == "" {
		return nil, errors.New("url: names no user; it is the broker, e.g. mysql://curfew_broker@…")
	}
	t := &target{user: u.User.Username(), database: strings.TrimPrefix(u.Path, "/"), timeout: connectTime}
	if strings.Contains(t.database, "/") {
		return nil, errors.New("url: names more than one database")
	}
	for name, values := range q {
		if len(values) != 1 {
			return nil, fmt.Errorf("url: %s is given more than once", name)
		}
		switch name {
		case "sslmode", "sslrootcert", "sslcert", "sslkey", "host", "socket":
		case "account_host":
			t.accountHost = values[0]
		case "server_public_key":
			if t.key, err = readPublicKey(values[0]); err != nil {
				return nil, fmt.Errorf("url: server_public_key: %w", err)
			}
		case "connect_timeout":
			n, err := strconv.ParseUint(values[0], 10, 16)
			if err != nil || n == 0 {
				return nil, errors.New("url: connect_timeout must be a number of seconds")
			}
			t.timeout = time.Duration(n) * time.Second
		default:
			return nil, fmt.Errorf("url: %q is no parameter that is known here", name)
		}
	}
	if err := t.where(u, q); err != nil {
		return nil, err
	}
	if err := t.secureBy(q); err != nil {
		return nil, err
	}
	return t, nil
}

// where finds the server's address.
func (t *target) where(u *url.URL, q url.Values) error {
	host, socket := q.Get("host"), q.Get("socket")
	switch {
	case host != "" && socket != "":
		return errors.New("url: host and socket exclude each other")
	case (host != "" || socket != "") && u.Host != "":
		return errors.New("url: names a host and a socket")
	case socket != "":
		t.network, t.address = "unix", socket
	case filepath.IsAbs(host):
		t.network, t.address = "unix", filepath.Join(host, "mysqld.sock")
	case host != "":
		return errors.New("url: host must be a directory; a server's name stands before the path")
	case u.Hostname() == "":
		return errors.New("url: names no host")
	default:
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("url: invalid port")
		}
		t.network, t.address = "tcp", net.JoinHostPort(u.Hostname(), port)
	}
	return nil
}

// secureBy reads how TLS is spoken. A Unix socket needs none and has none, as with PostgreSQL.
func (t *target) secureBy(q url.Values) error {
	mode, root := q.Get("sslmode"), q.Get("sslrootcert")
	if mode == "" {
		mode = defaultTLS
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if host, _, err := net.SplitHostPort(t.address); err == nil {
		c.ServerName = host
	}
	if root != "" {
		text, err := os.ReadFile(root)
		if err != nil {
			return fmt.Errorf("url: sslrootcert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return errors.New("url: sslrootcert: holds no certificate")
		}
	}
	if q.Has("sslcert") != q.Has("sslkey") {
		return errors.New("url: sslcert and sslkey go together")
	}
	if q.Has("sslcert") {
		pair, err := tls.LoadX509KeyPair(q.Get("sslcert"), q.Get("sslkey"))
		if err != nil {
			return fmt.Errorf("url: sslcert=%s, sslkey=%s: %w", q.Get("sslcert"), q.Get("sslkey"), err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	switch {
	case mode == "disable":
		c = nil
	case mode == "prefer" || mode == "require" && root == "":
		c.InsecureSkipVerify = true //nolint:gosec // what these levels mean
		t.prefer = mode == "prefer"
	case mode == "verify-ca" || mode == "require": // with root certificates, require has always checked them
		c.InsecureSkipVerify = true //nolint:gosec // the chain is verified, the name is not
		c.VerifyConnection = verifyChain(c.RootCAs)
	case mode == defaultTLS:
	default:
		return errors.New("url: sslmode must be disable, prefer, require, verify-ca or verify-full")
	}
	if t.network == "tcp" {
		t.tls = c
	} else {
		t.prefer = false
	}
	return nil
}

// unsealed says whether there is no way for a password to reach the server in full: neither TLS for certain, nor
// its key, nor a Unix socket.
func (t *target) unsealed() bool {
	return t.network == "tcp" && t.key == nil && (t.tls == nil || t.prefer)
}

// verifyChain checks a server's certificate, but for its name.
func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("the server showed no certificate")
		}
		between := x509.NewCertPool()
		for _, cert := range state.PeerCertificates[1:] {
			between.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		return err
	}
}

// readPublicKey reads an RSA public key, as MySQL's public_key.pem holds it.
func readPublicKey(path string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("not a PEM file")
	}
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := any.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return key, nil
}
