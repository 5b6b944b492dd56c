// Package mysqltest starts real MariaDB or MySQL servers for tests: a data directory in a temporary
// place, on a free port of 127.0.0.1 and nowhere else, gone when the test package is done. Servers refuse
// to run as root; if the tests do, the server runs as the user mysql or nobody.
//
// A package starts one in TestMain and shares it: it takes seconds. Nothing of it is for products.
package mysqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/internal/testport"
)

// Server is a running MariaDB or MySQL.
type Server struct {
	Port int
	dir  string
	bin  string
	cmd  *exec.Cmd
	done chan error
}

// BinEnv names an environment variable with the path of the server's program, mariadbd or mysqld; unset,
// Debian's is taken. Where the program's own files are not in the usual places it may be a script.
const BinEnv = "CURFEW_MYSQL_SERVER"

// ErrMissing says that there is no server on this machine.
var ErrMissing = errors.New("no MariaDB or MySQL server found: apt-get install mariadb-server, or set " + BinEnv)

// Bin finds the server's program.
func Bin() (string, error) {
	if path := os.Getenv(BinEnv); path != "" {
		return path, nil
	}
	for _, path := range []string{"/usr/sbin/mariadbd", "/usr/sbin/mysqld"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Password is the administrator's. The server listens on loopback only and lives as long as a test.
const Password = "mysqltest"

// Admin is the administrator: an account with all privileges from loopback.
const Admin = "dba"

// Start makes a data directory and starts a server on it with these settings ("max_connections=20"). The
// time zone is UTC, the data directory holds no anonymous user and one empty database, test.
func Start(settings ...string) (*Server, error) {
	bin, err := Bin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mysqltest-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := s.Run(settings...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// init makes the data directory.
func (s *Server) init() error {
	for _, d := range []string{s.dir, s.path("data"), s.path("tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
		if u, err := unprivileged(); err != nil {
			return err
		} else if u != nil {
			if err := os.Chown(d, int(u.Uid), int(u.Gid)); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(s.path("init.sql"), []byte(fmt.Sprintf(initSQL, Admin, Password)), 0o644); err != nil {
		return err
	}
	args := []string{"--no-defaults", "--datadir=" + s.path("data"), "--tmpdir=" + s.path("tmp")}
	if s.IsMariaDB() {
		return s.bootstrap(args)
	}
	return s.once(append(args, "--initialize-insecure"), "")
}

// initSQL runs at every start.
const initSQL = `CREATE USER IF NOT EXISTS '%[1]s'@'127.0.0.1' IDENTIFIED BY '%[2]s';
GRANT ALL PRIVILEGES ON *.* TO '%[1]s'@'127.0.0.1' WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS test;
`

// IsMariaDB says which of the two it is.
func (s *Server) IsMariaDB() bool { return strings.Contains(filepath.Base(s.bin), "maria") }

// bootstrap makes MariaDB's system tables, without the minute of talk of mariadb-install-db.
func (s *Server) bootstrap(args []string) error {
	share := "/usr/share/mysql"
	if dir := os.Getenv(ShareEnv); dir != "" {
		share = dir
	}
	script := "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n"
	for _, name := range []string{"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql", "maria_add_gis_sp_bootstrap.sql", "mysql_sys_schema.sql"} {
		for _, prefix := range []string{"", "mariadb"} { // newer ones have other names
			file := name
			if prefix != "" {
				file = strings.Replace(strings.Replace(name, "maria_", "mysql_", 1), "mysql_", "mariadb_", 1)
			}
			if b, err := os.ReadFile(filepath.Join(share, file)); err == nil {
				script += string(b) + "\n"
				break
			}
		}
	}
	args = append(args, "--bootstrap", "--max_allowed_packet=8M", "--net_buffer_length=16K",
		"--lc-messages-dir="+filepath.Join(share, "english", ".."), "--innodb-flush-log-at-trx-commit=0")
	return s.once(args, script)
}

// ShareEnv names an environment variable with the directory of a MariaDB's SQL files, where it is not the usual one.
const ShareEnv = "CURFEW_MYSQL_SHARE"

// once runs the server's program to its end.
func (s *Server) once(args []string, input string) error {
	cmd, err := s.command(args...)
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(s.bin), err, out)
	}
	return nil
}

// Run starts the server on the data directory (again), on the same port if it had one.
func (s *Server) Run(settings ...string) error {
	if s.Port == 0 {
		port, err := testport.Next()
		if err != nil {
			return err
		}
		s.Port = port
	}
	args := []string{"--no-defaults", "--datadir=" + s.path("data"), "--tmpdir=" + s.path("tmp"), "--socket=" + s.path("socket"),
		"--pid-file=" + s.path("pid"), "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--init-file=" + s.path("init.sql"),
		"--skip-name-resolve", "--default-time-zone=+00:00", "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M",
		"--performance-schema=OFF"}
	if !s.IsMariaDB() {
		// The packaged secure_file_priv is a directory that must exist; MariaDB's is empty.
		args = append(args, "--mysqlx=OFF", "--skip-log-bin", "--secure-file-priv=")
		args = slices.DeleteFunc(args, func(a string) bool { return a == "--performance-schema=OFF" })
	}
	for _, set := range settings {
		args = append(args, "--"+set)
	}
	cmd, err := s.command(args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	started, done := make(chan error), make(chan error, 1)
	go func() {
		// The kernel's parent-death signal goes by the thread that started the server: it must stay, and go on
		// afterwards, for it may have started others before.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.done = cmd, done
	return s.await()
}

// await waits until the server answers.
func (s *Server) await() error {
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := s.SQL(ctx, "", "DO 1")
		cancel()
		if err == nil {
			return nil
		}
		select {
		case exit := <-s.done:
			s.done <- exit
			return fmt.Errorf("the server ended: %w\n%s", errors.Join(exit, err), s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w\n%s", err, s.Log())
		}
	}
}

// Kill ends the server at once, as a crash would; Run starts it again on the same data and port.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop ends the server and removes its data.
func (s *Server) Stop() error {
	return errors.Join(s.end(syscall.SIGKILL), os.RemoveAll(s.dir))
}

func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.done
	s.cmd = nil
	return nil
}

// DSN is the address for a user and a database, as go-sql-driver/mysql takes it.
func (s *Server) DSN(user, password, database string) string {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = user, password, database
	c.Net, c.Addr = "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	return c.FormatDSN()
}

// URL is the address without a password, as the configuration wants it. It names MySQL's public key, without
// which nobody's first login of a new account gets through in clear text.
func (s *Server) URL(user, database string) string {
	address := fmt.Sprintf("mysql://%s@127.0.0.1:%d/%s?sslmode=disable", user, s.Port, database)
	if !s.IsMariaDB() {
		address += "&server_public_key=" + url.QueryEscape(s.path("data", "public_key.pem"))
	}
	return address
}

// AdminDSN is the address for the administrator.
func (s *Server) AdminDSN(database string) string { return s.DSN(Admin, Password, database) }

// Log is what the server has said.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.path("log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// SQL runs statements as the administrator, in one connection.
func (s *Server) SQL(ctx context.Context, database string, statements ...string) error {
	return s.with(ctx, database, func(c *sql.Conn) error {
		for _, text := range statements {
			if _, err := c.ExecContext(ctx, text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

// Value asks the administrator's question and gives the answer as text; NULL is "NULL".
func (s *Server) Value(ctx context.Context, database, text string, args ...any) (string, error) {
	var v sql.NullString
	err := s.with(ctx, database, func(c *sql.Conn) error {
		if err := c.QueryRowContext(ctx, text, args...).Scan(&v); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		return nil
	})
	if err == nil && !v.Valid {
		return "NULL", nil
	}
	return v.String, err
}

// with runs f on one connection of the administrator's.
func (s *Server) with(ctx context.Context, database string, f func(*sql.Conn) error) error {
	cfg, err := mysql.ParseDSN(s.AdminDSN(database))
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{} // a server that is not up yet is no news
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

func (s *Server) path(names ...string) string {
	return filepath.Join(append([]string{s.dir}, names...)...)
}

// command runs the server's program as somebody who is not root.
func (s *Server) command(args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(s.bin, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	u, err := unprivileged()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithUs(cmd.SysProcAttr)
	if u != nil {
		cmd.SysProcAttr.Credential = u
	}
	return cmd, nil
}

// unprivileged is who runs the server; nil: whoever runs the tests.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"mysql", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("the tests run as root, the server must not, and there is neither mysql nor nobody to run it")
}
