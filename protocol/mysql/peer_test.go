package mysql

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// peer is one end of a login, played packet by packet.
type peer struct {
	t testing.TB
	packetReader
	wire net.Conn
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	p := &peer{t: t, wire: conn}
	p.conn = conn
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	return p
}

func (p *peer) send(payload []byte) {
	p.t.Helper()
	msg := appendPacket(nil, p.seq, payload)
	p.seq++
	if _, err := p.wire.Write(msg); err != nil {
		p.t.Error(err)
	}
}

func (p *peer) recv() []byte {
	p.t.Helper()
	payload, err := p.read(limitLogin)
	if err != nil {
		p.t.Errorf("the other side: %v", err)
	}
	return bytes.Clone(payload)
}

// words reads an ERR packet.
func (p *peer) words(caps capability) errPacket {
	p.t.Helper()
	payload := p.recv()
	if len(payload) == 0 || payload[0] != packetErr {
		p.t.Fatalf("no ERR packet: %q", payload)
	}
	e, ok := parseErr(payload, caps)
	if !ok {
		p.t.Fatalf("malformed ERR packet %q", payload)
	}
	return e
}

// scripted plays a server on a port of its own, once for each function.
func scripted(t *testing.T, scripts ...func(*peer)) *target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, script := range scripts {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			script(newPeer(t, conn))
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &target{network: "tcp", address: l.Addr().String(), user: "broker", timeout: 5 * time.Second}
}

// mysqlGreeting is what MySQL 9.7 says, and mariadbGreeting what MariaDB 11.8 does.
func mysqlGreeting() server {
	return server{version: "9.7.4", major: 9, minor: 7, caps: 0xdfffffff, charset: 255, status: statusAutocommit, plugin: pluginCachingSHA2}
}

func mariadbGreeting() server {
	return server{version: "11.8.6-MariaDB", mariadb: true, major: 11, minor: 8, caps: 0x3d_81fffffe, charset: 45, status: statusAutocommit, plugin: pluginNative}
}

// encodeGreeting writes a greeting as a server does.
func encodeGreeting(s server, id uint32, scramble []byte) []byte {
	c := &client{front: &Front{}, server: s, id: id, scramble: scramble}
	b := c.greeting()
	at := len(s.version) + 2 + 4 + 9
	b[at], b[at+1], b[at+5], b[at+6] = byte(s.caps), byte(s.caps>>8), byte(s.caps>>16), byte(s.caps>>24)
	b[at+14], b[at+15], b[at+16], b[at+17] = byte(s.caps>>32), byte(s.caps>>40), byte(s.caps>>48), byte(s.caps>>56)
	plugin := append([]byte(c.defaultPlugin()), 0)
	return append(append(bytes.TrimSuffix(b, plugin), s.plugin...), 0)
}

// certificate makes one for 127.0.0.1 and localhost, and for other names if there are any, and who trusts it.
func selfSigned(t testing.TB, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "curfew test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: names,
	}
	if len(names) == 0 {
		template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// pemFiles writes a certificate and its key where a server that runs as somebody else can read them.
func pemFiles(t testing.TB, cert tls.Certificate) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// gathered is a connection that keeps what is written to it.
type gathered struct {
	net.Conn
	bytes.Buffer
}

func (g *gathered) Write(b []byte) (int, error) { return g.Buffer.Write(b) }
func (g *gathered) Read(b []byte) (int, error)  { return g.Buffer.Read(b) }
