// Package pgtest starts real PostgreSQL servers for tests: a cluster in a temporary directory, on a free
// port of 127.0.0.1 and nowhere else, gone when the test package is done. Servers refuse to run as root;
// if the tests do, the server runs as the user postgres or nobody.
//
// A package starts one in TestMain and shares it: initdb takes a second. Nothing of it is for products.
package pgtest

import (
	"context"
	"errors"
	"fmt"
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

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/internal/testport"
)

// Server is a running PostgreSQL.
type Server struct {
	Port int
	dir  string
	bin  string
	cmd  *exec.Cmd
	done chan error
}

// BinEnv names an environment variable with the directory of the server's programs; unset, Debian's
// newest is taken.
const BinEnv = "CURFEW_POSTGRES_BIN"

// ErrMissing says that there is no PostgreSQL server on this machine.
var ErrMissing = errors.New("no PostgreSQL server found: apt-get install postgresql, or set " + BinEnv)

// Bin finds the directory of initdb and postgres.
func Bin() (string, error) {
	if dir := os.Getenv(BinEnv); dir != "" {
		return dir, nil
	}
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	number := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // a directory of another name comes first
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return number(a) - number(b) })
	for _, dir := range slices.Backward(dirs) {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			return dir, nil
		}
	}
	return "", ErrMissing
}

// Start makes a cluster and starts it with these settings ("max_prepared_transactions=10"). Superuser is
// postgres with the password Password; local logins take scram-sha-256, as in real life.
func Start(settings ...string) (*Server, error) { return StartWith(nil, settings...) }

// StartWith is Start with files in the data directory, by name, some of them in place of initdb's: a
// pg_hba.conf, certificates and keys that settings name.
func StartWith(files map[string]string, settings ...string) (*Server, error) {
	bin, err := Bin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for name, text := range files {
		if err := s.write(filepath.Join("data", name), text); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	if err := s.Run(settings...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// write puts a file where the server finds it, and nobody else can read it.
func (s *Server) write(name, text string) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	u, err := unprivileged()
	if err != nil || u == nil {
		return err
	}
	return os.Chown(path, int(u.Uid), int(u.Gid))
}

// Password is the superuser's. The server listens on loopback only and lives as long as a test.
const Password = "pgtest"

// init makes the cluster.
func (s *Server) init() error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o644); err != nil {
		return err
	}
	if u, err := unprivileged(); err != nil {
		return err
	} else if u != nil {
		if err := os.Chown(s.dir, int(u.Uid), int(u.Gid)); err != nil {
			return err
		}
	}
	cmd, err := s.command("initdb", "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C", "--no-sync")
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// Run starts the server on the cluster (again), on the same port if it had one.
func (s *Server) Run(settings ...string) error {
	if s.Port == 0 {
		port, err := testport.Next()
		if err != nil {
			return err
		}
		s.Port = port
	}
	args := []string{"-D", filepath.Join(s.dir, "data"), "-c", "listen_addresses=127.0.0.1", "-c", "port=" + strconv.Itoa(s.Port),
		"-c", "unix_socket_directories=" + s.dir, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB"}
	for _, set := range settings {
		args = append(args, "-c", set)
	}
	cmd, err := s.command("postgres", args...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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
	deadline := time.Now().Add(30 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, s.DSN("postgres", Password, "postgres"))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case exit := <-s.done:
			s.done <- exit
			return fmt.Errorf("postgres ended: %w\n%s", errors.Join(exit, err), s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("postgres does not answer: %w\n%s", err, s.Log())
		}
	}
}

// Kill ends the server at once, as a crash would; Run starts it again on the same cluster and port.
func (s *Server) Kill() error { return s.end(syscall.SIGQUIT) }

// Stop ends the server and removes the cluster.
func (s *Server) Stop() error {
	return errors.Join(s.end(syscall.SIGINT), os.RemoveAll(s.dir))
}

func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill() // its answer is the Wait below
		<-s.done
	}
	s.cmd = nil
	return nil
}

// DSN is the address for a user and a database.
func (s *Server) DSN(user, password, database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", user, password, s.Port, database)
}

// URL is the address without a password, as the configuration wants it.
func (s *Server) URL(user, database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", user, s.Port, database)
}

// SuperDSN is the address for the superuser.
func (s *Server) SuperDSN(database string) string { return s.DSN("postgres", Password, database) }

// Log is what the server has said.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// SQL runs statements as the superuser, in one connection.
func (s *Server) SQL(ctx context.Context, database string, statements ...string) error {
	c, err := pgx.Connect(ctx, s.SuperDSN(database))
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// Value asks the superuser's question and gives the answer as text.
func (s *Server) Value(ctx context.Context, database, sql string, args ...any) (string, error) {
	c, err := pgx.Connect(ctx, s.SuperDSN(database))
	if err != nil {
		return "", err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var v any
	if err := c.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		return "", fmt.Errorf("%s: %w", sql, err)
	}
	return fmt.Sprint(v), nil
}

// command runs one of the server's programs as somebody who is not root.
func (s *Server) command(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "PG") })
	u, err := unprivileged()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if name == "postgres" {
		dieWithUs(cmd.SysProcAttr)
	}
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
	for _, name := range []string{"postgres", "nobody"} {
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
	return nil, errors.New("the tests run as root, PostgreSQL must not, and there is neither postgres nor nobody to run it")
}
