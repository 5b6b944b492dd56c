package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/xdg-go/scram"
)

// network is a net with hosts that each say one thing to whoever logs in there, or nothing; who is not there can't
// be dialled.
type network struct {
	says   map[string][]byte
	dialed []string
	open   int
}

// call is a connection in such a net.
type call struct {
	net.Conn
	n    *network
	to   net.Addr
	shut bool
}

func (c *call) RemoteAddr() net.Addr { return c.to }

func (c *call) Close() error {
	if !c.shut {
		c.shut = true
		c.n.open--
	}
	return c.Conn.Close()
}

// dial is how a target is reached: by name, at an address of its own.
func (n *network) dial(_ context.Context, _, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	n.dialed = append(n.dialed, host)
	says, there := n.says[host]
	if !there {
		return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		if _, _, err := readStartup(theirs); err == nil && says != nil {
			_, _ = theirs.Write(says)
		}
		_, _ = io.Copy(io.Discard, theirs)
	}()
	n.open++
	return &call{Conn: ours, n: n, to: &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(len(host))), Port: 5432}}, nil
}

// hosts is a target of several hosts.
func (n *network) hosts(names ...string) *pgconn.Config {
	c := &pgconn.Config{Host: names[0], Port: 5432, DialFunc: n.dial, ConnectTimeout: 7 * time.Second}
	for _, name := range names[1:] {
		c.Fallbacks = append(c.Fallbacks, &pgconn.FallbackConfig{Host: name, Port: 5432})
	}
	return c
}

// TestHosts: the next of a target's hosts is asked after what is about the host, not after what would be said there
// alike; one that says nothing has its time; and nothing stays open at those that would not do.
func TestHosts(t *testing.T) {
	R, S, E, K, Z := byte(msgAuthentication), byte(msgParameterStatus), byte(msgErrorResponse), byte(msgBackendKeyData), byte(msgReadyForQuery)
	in := reply(R, letIn, K, "\x00\x00\x00\x07abcd", Z, "I")
	standby := reply(R, letIn, S, "in_hot_standby\x00on\x00", K, "\x00\x00\x00\x07abcd", Z, "I")
	says := func(code string) []byte { return reply(E, "SFATAL\x00VFATAL\x00C"+code+"\x00Mno\x00\x00") }
	for name, c := range map[string]struct {
		first   []byte // nil: it can't be reached
		primary bool   // is wanted
		next    bool   // is asked
		fails   string // the code that is told in the end
		took    time.Duration
	}{
		"not there":                  {next: true},
		"starting":                   {first: says("57P03"), next: true},
		"full":                       {first: says("53300"), next: true},
		"a wrong password":           {first: says("28P01"), fails: "28P01"},
		"no such database":           {first: says("3D000"), fails: "3D000"},
		"no right to":                {first: says("42501"), fails: "42501"},
		"a setting that there isn't": {first: says("22023"), fails: "22023"},
		"a code cut short":           {first: says("22"), next: true},
		"says nothing":               {first: []byte{}, next: true, took: 7 * time.Second},
		"a standby":                  {first: standby, primary: true, next: true},
		"a standby, which will do":   {first: standby},
		"a primary":                  {first: in, primary: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{says: map[string][]byte{"second": in}}
				if c.first != nil {
					n.says["first"] = c.first
				}
				config := n.hosts("first", "second")
				if c.primary {
					config.ValidateConnect = func(context.Context, *pgconn.PgConn) error { return nil }
				}
				began := time.Now()
				u, err := dialUpstream(t.Context(), landing{conn: config, user: "u", password: "secret", database: "d"})
				want := []string{"first"}
				if c.next {
					want = append(want, "second")
				}
				if !slices.Equal(n.dialed, want) || time.Since(began) != c.took {
					t.Errorf("dialled %q in %s", n.dialed, time.Since(began))
				}
				var said *serverError
				if errors.As(err, &said); (c.fails != "") != (err != nil) || said != nil && said.code != c.fails {
					t.Errorf("%v", err)
				}
				if err == nil {
					if at := (&net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(len(want[len(want)-1]))), Port: 5432}).String(); u.route.address != at || u.pid != 7 {
						t.Errorf("its cancel requests go to %s, for %d", u.route.address, u.pid)
					}
					u.conn.Close()
				}
				if n.open != 0 {
					t.Errorf("%d connections stay open", n.open)
				}
			})
		})
	}
	t.Run("nobody waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := &network{says: map[string][]byte{"first": {}, "second": in}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := dialUpstream(ctx, landing{conn: n.hosts("first", "second"), user: "u", database: "d"}); err == nil || len(n.dialed) != 1 || n.open != 0 {
				t.Errorf("%v: dialled %q, %d open", err, n.dialed, n.open)
			}
		})
	})
}

// TestCancelAtTheServer: a cancel request is the session's own, to where the session is, and has been taken when the
// server hangs up; one that a server does not take ends with the time there is.
func TestCancelAtTheServer(t *testing.T) {
	for _, taken := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			u := &upstream{pid: 7, key: []byte("the key"), route: route{network: "tcp", address: "192.0.2.5:5432"}}
			const work = 3 * time.Second
			heard := make(chan []byte, 1)
			dial := func(_ context.Context, network, address string) (net.Conn, error) {
				if network != "tcp" || address != "192.0.2.5:5432" {
					t.Errorf("it goes to %s %s", network, address)
				}
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					msg := make([]byte, 12+len(u.key))
					_, _ = io.ReadFull(theirs, msg)
					heard <- msg
					time.Sleep(work)
					if !taken {
						time.Sleep(time.Hour)
					}
				}()
				return ours, nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			err := u.cancel(ctx, dial)
			want := binary.BigEndian.AppendUint32(nil, uint32(12+len(u.key)))
			want = append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(want, codeCancel), u.pid), u.key...)
			if got := <-heard; !bytes.Equal(got, want) {
				t.Errorf("the server heard %q, want %q", got, want)
			}
			switch took := time.Since(began); {
			case taken && (err != nil || took != work):
				t.Errorf("%v after %s", err, took)
			case !taken && (err == nil || took != time.Minute):
				t.Errorf("nobody took it: %v after %s", err, took)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

// TestWhatAServerSaysAtLogin: what it says of itself, and its notices, are kept for the client, as they came and in
// their order; what has no place in a login, or is longer than anything in it, ends it.
func TestWhatAServerSaysAtLogin(t *testing.T) {
	R, S, N, K, Z := byte(msgAuthentication), byte(msgParameterStatus), byte(msgNoticeResponse), byte(msgBackendKeyData), byte(msgReadyForQuery)
	const key = "\x00\x00\x00\x07abcd"
	said := reply(S, "server_version\x0015.9\x00", N, "SWARNING\x00Mcollation\x00\x00", S, "TimeZone\x00UTC\x00")
	u, _, err := puppet(t, pgconn.Config{}, scram.ChannelBinding{}, "", slices.Concat(reply(R, letIn), said, reply(K, key, Z, "I")))
	if err != nil || !bytes.Equal(u.status, said) || u.params["server_version"] != "15.9" || u.params["TimeZone"] != "UTC" {
		t.Errorf("%q %v: %v", u.status, u.params, err)
	}
	_, _, err = puppet(t, pgconn.Config{}, scram.ChannelBinding{}, "", reply(R, letIn, byte('D'), "\x00\x00", K, key, Z, "I"))
	if err == nil || !strings.Contains(err.Error(), `unexpected message 'D'`) {
		t.Errorf("a row amid the login: %v", err)
	}
	long := binary.BigEndian.AppendUint32(append(reply(R, letIn), N), limitLogin+1)
	if _, _, err = puppet(t, pgconn.Config{}, scram.ChannelBinding{}, "", long); !errors.Is(err, errTooLong) {
		t.Errorf("a notice of %d bytes: %v", limitLogin+1, err)
	}
}
