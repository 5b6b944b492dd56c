package postgres

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol/postgres/pgtest"
)

// authority vouches for the certificates of these tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// leaf is a certificate with its key.
type leaf struct{ cert, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test's authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

// issue makes a certificate for 127.0.0.1, and for a client of that name.
func (a *authority) issue(name string) (leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return leaf{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return leaf{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}, err
}

// secured is a PostgreSQL that speaks TLS. It wants the account's password itself for the database clear,
// and a client certificate for certs.
type secured struct {
	*pgtest.Server
	authority *authority
	major     int
}

var theSecured struct {
	once sync.Once
	*secured
	err error
}

// tlsServer is started when the first test wants it, and shared.
func tlsServer(t testing.TB) *secured {
	t.Helper()
	if server == nil {
		t.Skip(pgtest.ErrMissing)
	}
	theSecured.once.Do(func() { theSecured.secured, theSecured.err = startTLSServer() })
	if theSecured.err != nil {
		t.Fatal(theSecured.err)
	}
	return theSecured.secured
}

func stopTLSServer() error {
	if theSecured.secured == nil {
		return nil
	}
	return theSecured.Stop()
}

func startTLSServer() (*secured, error) {
	authority, err := newAuthority()
	if err != nil {
		return nil, err
	}
	cert, err := authority.issue("server")
	if err != nil {
		return nil, err
	}
	s, err := pgtest.StartWith(map[string]string{
		"server.crt": string(cert.cert), "server.key": string(cert.key), "root.crt": string(authority.pem),
		"pg_hba.conf": "hostssl clear all 127.0.0.1/32 password\n" +
			"hostssl certs all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n" +
			"hostnossl clear,certs all 127.0.0.1/32 reject\n" +
			"host all all 127.0.0.1/32 scram-sha-256\n",
	}, "ssl=on", "ssl_ca_file=root.crt", "max_connections=60", "max_prepared_transactions=10")
	if err != nil {
		return nil, err
	}
	err = prepareTLSServer(s)
	major, verr := s.Value(context.Background(), "postgres", "SELECT current_setting('server_version_num')::int / 10000")
	if err != nil || verr != nil {
		return nil, fmt.Errorf("%w, %w, %w", err, verr, s.Stop())
	}
	n, err := strconv.Atoi(major)
	return &secured{s, authority, n}, err
}

func prepareTLSServer(s *pgtest.Server) error {
	ctx := context.Background()
	e, err := New(ctx, Config{Target: "orders", URL: s.URL("curfew_broker", "orders"), Installation: testInstallation})
	if err != nil {
		return err
	}
	defer e.Close()
	setup := e.Setup(testLevels)
	if err := s.SQL(ctx, "postgres", "CREATE DATABASE orders", "CREATE DATABASE clear", "CREATE DATABASE certs", setup,
		"ALTER ROLE curfew_broker PASSWORD '"+brokerPassword+"'"); err != nil {
		return err
	}
	return s.SQL(ctx, "orders", setup,
		"GRANT USAGE, CREATE ON SCHEMA public TO orders_writer",
		"CREATE TABLE stock (id int PRIMARY KEY, what text NOT NULL, n int CHECK (n >= 0))",
		"INSERT INTO stock VALUES (1, 'nails', 100), (2, 'screws', 50), (3, 'hinges', 7)",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON stock TO orders_writer")
}

func tlsMajor(t testing.TB) int { return tlsServer(t).major }

// pool trusts the tests' authority.
func (s *secured) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.authority.cert)
	return pool
}

// files writes the authority and a client certificate where a target's URL can name them.
func (s *secured) files(t testing.TB) (root, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	client, err := s.authority.issue("curfew")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"root.pem": s.authority.pem, "client.pem": client.cert, "client.key": client.key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "root.pem"), filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
}

// url is a target's; without sslmode in extra, it is verify-full.
func (s *secured) url(t testing.TB, database string, extra url.Values) string {
	t.Helper()
	root, _, _ := s.files(t)
	q := url.Values{"sslrootcert": {root}}
	for name, values := range extra {
		q[name] = values
	}
	u := url.URL{Scheme: "postgres", User: url.User("curfew_broker"), Host: fmt.Sprintf("127.0.0.1:%d", s.Port), Path: "/" + database, RawQuery: q.Encode()}
	return u.String()
}

// secureWire is a wire with TLS on both of its legs.
type secureWire struct {
	*wire
	client *tls.Config // of those who connect
}

// newSecureWire makes it; target is the target's URL, or empty.
func newSecureWire(t *testing.T, target string, cfg FrontConfig) *secureWire {
	t.Helper()
	s := tlsServer(t)
	cert, err := s.authority.issue("listener")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert.cert, cert.key)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.TLS == nil {
		cfg.TLS = serverTLS(pair)
	}
	if target == "" {
		target = s.url(t, "orders", nil)
	}
	e, err := New(t.Context(), Config{
		Target: "orders", URL: target, Password: brokerPassword, Installation: testInstallation,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	spec := newSpec(0)
	spec.Level.Sessions = 20
	got, err := e.Provision(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return &secureWire{wireTo(t, got.(*account), cfg), &tls.Config{RootCAs: s.pool(), ServerName: "127.0.0.1"}}
}

// selfSigned makes a certificate whose signature is of one algorithm.
func selfSigned(t testing.TB, algorithm x509.SignatureAlgorithm) tls.Certificate {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case x509.PureEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, SignatureAlgorithm: algorithm,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
