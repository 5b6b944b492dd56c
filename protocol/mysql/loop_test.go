//go:build linux && (amd64 || arm64)

package mysql

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// TestOnTheLoop: sessions are carried by a loop whichever of their legs has TLS. By goroutines of their own they would
// work just as well, at twice the CPU.
func TestOnTheLoop(t *testing.T) {
	need(t)
	cert, pool := selfSigned(t)
	certFile, keyFile := pemFiles(t, cert)
	s, err := mysqltest.Start(append(settings(), "ssl-cert="+certFile, "ssl-key="+keyFile, "ssl-ca="+certFile)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	if err := s.SQL(t.Context(), "", "CREATE DATABASE IF NOT EXISTS test"); err != nil {
		t.Fatal(err)
	}
	plain := s.URL(mysqltest.Admin, "test")
	verified := strings.Replace(plain, "sslmode=disable", "sslmode=verify-full&sslrootcert="+certFile, 1)
	for target, upstream := range map[string]bool{plain: false, verified: true} {
		w := wireTo(t, s, target, protocol.Level{}, FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
		for _, client := range []bool{false, true} {
			cfg := w.config("")
			if client {
				cfg.TLS = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
			}
			c := w.connectBy(cfg)
			var there, cipher string
			if err := c.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&there, &cipher); err != nil || upstream != (cipher != "") {
				t.Fatalf("upstream %t: %q %v", upstream, cipher, err)
			}
			if n := w.front.loops.Sessions(); n != 1 {
				t.Errorf("TLS client %t, upstream %t: the loops carry %d sessions of 1", client, upstream, n)
			}
			hangUp(t, c)
			w.bye()
		}
	}
}
