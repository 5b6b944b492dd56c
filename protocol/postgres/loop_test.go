//go:build linux && (amd64 || arm64)

package postgres

import (
	"crypto/tls"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestOnTheLoop: sessions are carried by a loop whichever of their legs has TLS. By goroutines of their own they would
// work just as well, at twice the CPU.
func TestOnTheLoop(t *testing.T) {
	s := tlsServer(t)
	for target, upstream := range map[string]bool{s.url(t, "orders", url.Values{"sslmode": {"disable"}}): false, s.url(t, "orders", nil): true} {
		w := newSecureWire(t, target, FrontConfig{})
		plain, err := pgx.ParseConfig(w.dsn(""))
		if err != nil {
			t.Fatal(err)
		}
		for client, cfg := range map[bool]*pgx.ConnConfig{false: plain, true: w.over(w.client, "")} {
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			var there bool
			if err := c.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&there); err != nil || there != upstream {
				t.Fatalf("upstream %t: %t %v", upstream, there, err)
			}
			if _, is := c.PgConn().Conn().(*tls.Conn); is != client {
				t.Errorf("TLS client %t: %t", client, is)
			}
			if n := w.front.loops.Sessions(); n != 1 {
				t.Errorf("TLS client %t, upstream %t: the loops carry %d sessions of 1", client, upstream, n)
			}
			c.Close(t.Context())
			if r := w.result(); r.err != nil {
				t.Fatal(r.err)
			}
		}
	}
}
