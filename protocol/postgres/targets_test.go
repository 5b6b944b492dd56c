package postgres

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol/enginetest"
)

// doormen know the users of several accounts.
type doormen struct {
	enginetest.NoTokens
	of map[string]*wire
}

func (d doormen) Verifier(ctx context.Context, user string) ([]byte, error) {
	if w := d.of[user]; w != nil {
		return w.doorman.Verifier(ctx, user)
	}
	return nil, nil
}

// TestOneListenerManyTargets: the user's name alone says where a session goes, on whichever target that is;
// two servers' sessions have cancel keys that don't meet.
func TestOneListenerManyTargets(t *testing.T) {
	plain, secured := newWire(t, 0, FrontConfig{}), newSecureWire(t, "", FrontConfig{})
	d := doormen{of: map[string]*wire{plain.user: plain, "other": secured.wire}}
	secured.doorman.user = "other"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var sessions sync.WaitGroup
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer conn.Close()
				c, err := plain.front.Accept(context.WithoutCancel(t.Context()), conn, d)
				if err != nil {
					return
				}
				w := d.of[c.Login().User]
				link, err := c.Attach(w.held, w.account)
				if err == nil {
					err = link.Relay(w.held, w.sink)
				}
				c.Close(err)
			})
		}
	}()
	seen := map[string]bool{}
	for user, w := range d.of {
		c, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/orders?sslmode=disable", user, grantPassword, l.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		var port, account string
		if err := c.QueryRow(t.Context(), "SELECT current_setting('port'), current_user").Scan(&port, &account); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(w.account.engine.conn.Port); port != want || account != w.account.spec.Name {
			t.Errorf("%s landed at port %s as %s, and should at %s as %s", user, port, account, want, w.account.spec.Name)
		}
		seen[fmt.Sprint(c.PgConn().PID())] = true
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != len(d.of) {
		t.Errorf("%d pids for %d sessions", len(seen), len(d.of))
	}
	l.Close()
	sessions.Wait()
}
