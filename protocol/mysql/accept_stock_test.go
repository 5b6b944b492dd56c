package mysql

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// lobby lets stock clients in at the package's server, as the administrator.
type lobby struct {
	port   string
	door   protocol.Doorman
	logins chan protocol.Login
	errs   chan error
}

// newLobby serves a Front on addresses of loopback.
func newLobby(t *testing.T, cfg FrontConfig, host string) *lobby {
	t.Helper()
	return newLobbyWith(t, cfg, host, newKeeper())
}

func newLobbyWith(t *testing.T, cfg FrontConfig, host string, door protocol.Doorman) *lobby {
	t.Helper()
	tg := targetOf(t, need(t), "sslmode=prefer")
	cfg.Engine = &Engine{target: tg, prober: newProber(tg)}
	f := NewFront(cfg)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	lb := &lobby{door: door, port: strconv.Itoa(l.Addr().(*net.TCPAddr).Port), logins: make(chan protocol.Login, 100), errs: make(chan error, 100)}
	var open sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { lb.errs <- lb.serve(ctx, f, conn) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); open.Wait() })
	return lb
}

// serve lets one client in and carries bytes until either side hangs up.
func (lb *lobby) serve(ctx context.Context, f *Front, conn net.Conn) error {
	accepted, err := f.Accept(ctx, conn, lb.door)
	if err != nil {
		conn.Close()
		return err
	}
	c := accepted.(*client)
	u, err := dialUpstream(ctx, landing{
		target: f.cfg.Engine.target, prober: f.cfg.Engine.prober, user: mysqltest.Admin, secret: mysqltest.Password,
		database: c.database, caps: c.caps, charset: c.charset, maxPacket: c.maxPacket, attrs: c.login.Attributes,
	})
	if err != nil {
		c.Close(err)
		return err
	}
	if err := c.welcome(ctx, u); err != nil {
		return err
	}
	lb.logins <- c.Login()
	defer context.AfterFunc(ctx, func() { u.conn.Close(); c.conn.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(u.conn, io.MultiReader(strings.NewReader(string(c.reader.rest())), c.conn))
		u.conn.Close()
	}()
	_, _ = io.Copy(c.conn, u.conn)
	c.Close(nil)
	<-done
	return nil
}

// login is what the last client that got in said of itself.
func (lb *lobby) login(t *testing.T) protocol.Login {
	t.Helper()
	select {
	case l := <-lb.logins:
		return l
	default:
		t.Fatal("nobody got in")
		return protocol.Login{}
	}
}

// TestDriver: go-sql-driver gets in by each of its plugins, with prepared statements and in plain text.
func TestDriver(t *testing.T) {
	cert, pool := selfSigned(t)
	if err := driver.RegisterTLSConfig("wire", &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	defer driver.DeregisterTLSConfig("wire")
	for _, withTLS := range []bool{false, true} {
		cfg := FrontConfig{}
		if withTLS {
			cfg = FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, RequireTLS: true}
		}
		lb := newLobby(t, cfg, "127.0.0.1")
		open := func(password string, change func(*driver.Config)) error {
			c := driver.NewConfig()
			c.User, c.Passwd, c.Net, c.Addr, c.DBName = "gknown", password, "tcp", "127.0.0.1:"+lb.port, "test"
			c.ConnectionAttributes = "program_name:tally"
			c.Logger = &driver.NopLogger{}
			if withTLS {
				c.TLSConfig = "wire"
			}
			change(c)
			connector, err := driver.NewConnector(c)
			if err != nil {
				return err
			}
			db := sql.OpenDB(connector)
			defer db.Close()
			var database string
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT DATABASE()").Scan(&database); err != nil {
				return err
			}
			if err := db.QueryRowContext(t.Context(), "SELECT ? + 1", 41).Scan(&n); err != nil {
				return err
			}
			if database != "test" || n != 42 {
				return errors.New("a wrong answer")
			}
			return nil
		}
		plain := func(*driver.Config) {}
		if err := open(personPassword, plain); err != nil {
			t.Fatal(err)
		}
		if l := lb.login(t); l.Application != "tally" || l.Attributes["_client_name"] != "Go-MySQL-Driver" || l.Database != "test" || withTLS != (l.TLS != "") {
			t.Errorf("%+v", l)
		}
		var said *driver.MySQLError
		if err := open("wrong", plain); !errors.As(err, &said) || said.Number != 1045 || string(said.SQLState[:]) != "28000" {
			t.Errorf("%v", err)
		}
		if err := open(personPassword, func(c *driver.Config) { c.DBName = "nowhere" }); !errors.As(err, &said) || said.Number != 1049 {
			t.Errorf("%v", err)
		}
		if withTLS {
			if err := open(personPassword, func(c *driver.Config) { c.TLSConfig = "false" }); !errors.As(err, &said) || said.Number != 3159 {
				t.Errorf("%v", err)
			}
		}
	}
}

// clientEnv names another client than Debian's mariadb.
const clientEnv = "CURFEW_MYSQL_CLIENT"

// stockProgram finds the client, and says whether it is MariaDB's and which.
func stockProgram(t *testing.T) (program string, mariadb bool, major, minor int) {
	t.Helper()
	program, err := osexec.LookPath(cmp.Or(os.Getenv(clientEnv), "mariadb"))
	if err != nil {
		t.Fatal("no such client: apt-get install mariadb-client")
	}
	out, err := osexec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, version, _ := strings.Cut(string(out), " from ") // mariadb from 11.8.6-MariaDB, client 15.2 for …
	if version == "" {
		_, version, _ = strings.Cut(string(out), "Distrib ") // mariadb  Ver 15.1 Distrib 10.11.19-MariaDB, for …
	}
	if version == "" {
		_, version, _ = strings.Cut(string(out), "Ver ") // mysql  Ver 9.7.4 for …
	}
	major, minor = versionOf(version)
	return program, strings.Contains(string(out), "MariaDB"), major, minor
}

// stock runs a stock client.
func (lb *lobby) stock(t *testing.T, host, password string, args ...string) (string, error) {
	t.Helper()
	program, _, _, _ := stockProgram(t)
	args = append([]string{"--no-defaults", "--protocol=tcp", "-h", host, "-P", lb.port, "-u", "gknown", "-p" + password, "-N"}, args...)
	cmd := osexec.CommandContext(t.Context(), program, append(args, "-e", "SELECT DATABASE(), 6*7", "test")...)
	out, err := cmd.CombinedOutput()
	out = bytes.TrimPrefix(out, []byte("mysql: [Warning] Using a password on the command line interface can be insecure.\n"))
	return strings.TrimSpace(string(out)), err
}

// TestStockClient: the stock client gets in by each of its plugins, with and without TLS.
func TestStockClient(t *testing.T) {
	_, mariadb, _, _ := stockProgram(t)
	cert, _ := selfSigned(t)
	certFile, _ := pemFiles(t, cert)
	verified, plain := []string{"--ssl", "--ssl-verify-server-cert", "--ssl-ca=" + certFile}, []string{"--skip-ssl"}
	plugins := []string{"", pluginNative, pluginEd25519, pluginCachingSHA2, pluginClear}
	if !mariadb {
		verified, plain = []string{"--ssl-mode=VERIFY_IDENTITY", "--ssl-ca=" + certFile}, []string{"--ssl-mode=DISABLED", "--get-server-public-key"}
		plugins = []string{"", pluginCachingSHA2, pluginClear}
	}
	for _, plugin := range plugins {
		for _, withTLS := range []bool{false, true} {
			if plugin == pluginClear && !withTLS {
				continue // TestStockClearWithoutTLS
			}
			args := plain
			if withTLS {
				args = verified
			}
			if plugin != "" {
				args = append([]string{"--default-auth=" + plugin}, args...)
			}
			if plugin == pluginClear && !mariadb {
				args = append(args, "--enable-cleartext-plugin")
			}
			t.Run(fmt.Sprintf("%s, TLS %v", plugin, withTLS), func(t *testing.T) {
				lb := newLobby(t, FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, "127.0.0.1")
				if out, err := lb.stock(t, "127.0.0.1", personPassword, args...); err != nil || out != "test\t42" {
					t.Fatalf("%q %v", out, err)
				}
				l := lb.login(t)
				if plugin != "" && l.Mechanism != plugin || withTLS != (l.TLS != "") || l.Attributes["_client_name"] == "" || l.Application != "mysql" {
					t.Errorf("%+v", l)
				}
				if out, err := lb.stock(t, "127.0.0.1", "wrong", args...); err == nil || !strings.Contains(out, "ERROR 1045 (28000)") || !strings.Contains(out, "Access denied for user 'gknown'") {
					t.Errorf("%q %v", out, err)
				}
			})
		}
	}
}

// TestSelfSigned: a MariaDB client of today takes a certificate that nobody vouches for, because whoever shows it
// knows the password; and does not where somebody else shows theirs.
func TestSelfSigned(t *testing.T) {
	_, mariadb, major, minor := stockProgram(t)
	if !mariadb || major < 11 || major == 11 && minor < 4 {
		t.Skip("this client does not verify certificates by the password")
	}
	if !need(t).IsMariaDB() {
		t.Skip("MySQL has no such proof")
	}
	cert, _ := selfSigned(t)
	lb := newLobby(t, FrontConfig{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, "127.0.0.2") // on 127.0.0.1 it does not look
	if out, err := lb.stock(t, "127.0.0.2", personPassword); err != nil || out != "test\t42" {
		t.Errorf("%q %v", out, err)
	}
	if l := lb.login(t); l.TLS == "" || l.Mechanism != pluginNative {
		t.Errorf("%+v", l)
	}
	between := interpose(t, lb, "127.0.0.2")
	if out, err := between.stock(t, "127.0.0.2", personPassword); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("with somebody in between: %q %v", out, err)
	}
}

// interpose puts somebody with a certificate of their own between clients and a lobby.
func interpose(t *testing.T, lb *lobby, host string) *lobby {
	t.Helper()
	cert, _ := selfSigned(t)
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		inner, err := l.Accept()
		if err != nil {
			return
		}
		defer inner.Close()
		outer, err := net.Dial("tcp", net.JoinHostPort(host, lb.port))
		if err != nil {
			t.Error(err)
			return
		}
		defer outer.Close()
		from, to := newPeer(t, outer), newPeer(t, inner)
		to.send(from.recv()) // the greeting
		to.exact = true
		from.send(to.recv()) // the SSLRequest
		front, back := tls.Server(inner, &tls.Config{Certificates: []tls.Certificate{cert}}), tls.Client(outer, &tls.Config{InsecureSkipVerify: true})
		if front.Handshake() != nil || back.Handshake() != nil {
			t.Error("no TLS in between")
			return
		}
		go func() { _, _ = io.Copy(back, front); back.Close() }()
		_, _ = io.Copy(front, back)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &lobby{port: strconv.Itoa(l.Addr().(*net.TCPAddr).Port)}
}

// TestStockClearWithoutTLS: a password that went over the wire in clear is not taken.
func TestStockClearWithoutTLS(t *testing.T) {
	if _, mariadb, _, _ := stockProgram(t); !mariadb {
		t.Skip("MySQL's client does not send it unasked")
	}
	lb := newLobby(t, FrontConfig{}, "127.0.0.1")
	out, err := lb.stock(t, "127.0.0.1", personPassword, "--default-auth=mysql_clear_password", "--skip-ssl")
	if err == nil || !strings.Contains(out, "ERROR 3159 (HY000)") || !strings.Contains(out, "sent its password in clear") {
		t.Errorf("%q %v", out, err)
	}
}
