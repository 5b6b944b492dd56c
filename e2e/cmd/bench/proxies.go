package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// daemon is a proxy that Curfew is compared to.
type daemon struct {
	addr map[string]string // by what is behind it
	cmd  *exec.Cmd
	log  string
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// proxies starts HAProxy and pgbouncer, as somebody without privileges.
func (st *stage) proxies(ctx context.Context) error {
	dir := filepath.Join(st.dir, "proxies")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	addrs := map[string]string{}
	for _, name := range []string{"haproxy-pg", "haproxy-my", "pgbouncer"} {
		addr, err := harness.FreeAddr()
		if err != nil {
			return err
		}
		addrs[name] = addr
	}
	if err := st.bouncerFiles(dir, addrs["pgbouncer"]); err != nil {
		return err
	}
	conf := fmt.Sprintf(haproxyConf, addrs["haproxy-pg"], st.pg.Addr, addrs["haproxy-my"], st.my.Addr)
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(conf), 0o644); err != nil {
		return err
	}
	var err error
	if st.haproxy, err = st.daemon(ctx, dir, map[string]string{"postgres": addrs["haproxy-pg"], "mariadb": addrs["haproxy-my"]},
		"haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")); err != nil {
		return err
	}
	st.bouncer, err = st.daemon(ctx, dir, map[string]string{"postgres": addrs["pgbouncer"]}, "pgbouncer", filepath.Join(dir, "pgbouncer.ini"))
	return err
}

const haproxyConf = `global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind %s
    server one %s
listen mariadb
    bind %s
    server one %s
`

// TLS is with the certificate and key that Curfew's listeners have.
const bouncerConf = `[databases]
orders = host=%s port=%s
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = session
max_client_conn = 2000
default_pool_size = 1250
server_idle_timeout = 20
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = %s
client_tls_key_file = %s
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
`

func (st *stage) bouncerFiles(dir, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	serverHost, serverPort, err := net.SplitHostPort(st.pg.Addr)
	if err != nil {
		return err
	}
	users, cert, key := filepath.Join(dir, "users.txt"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	texts := map[string][]byte{
		users:                               fmt.Appendf(nil, "%q %q\n", "app", appPassword),
		filepath.Join(dir, "pgbouncer.ini"): fmt.Appendf(nil, bouncerConf, serverHost, serverPort, host, port, users, cert, key),
	}
	for from, to := range map[string]string{"tls.crt": cert, "tls.key": key} {
		if texts[to], err = os.ReadFile(filepath.Join(st.curfew.Dir, from)); err != nil {
			return err
		}
	}
	for path, text := range texts {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if c := nobody(); c != nil {
			if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// nobody is who the proxies run as when we are root, and nil when we are not.
func nobody() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if errors.Join(uerr, gerr) != nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// daemon starts a program that stays in the foreground, and waits until it listens.
func (st *stage) daemon(ctx context.Context, dir string, addrs map[string]string, program string, args ...string) (*daemon, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			return nil, fmt.Errorf("%s is not installed: .ci/deps bench installs it", program)
		}
	}
	d := &daemon{addr: addrs, cmd: exec.Command(path, args...), log: filepath.Join(dir, program+".log")}
	logFile, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	d.cmd.Stdout, d.cmd.Stderr, d.cmd.Dir = logFile, logFile, dir
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: nobody()}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	st.closers = append(st.closers, d.stop)
	for _, addr := range addrs {
		listens := func(ctx context.Context) error {
			var dialer net.Dialer
			c, err := dialer.DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			return c.Close()
		}
		if err := harness.Eventually(ctx, 10*time.Second, listens); err != nil {
			text, _ := os.ReadFile(d.log) // for the error's sake
			return nil, fmt.Errorf("%s does not listen: %w\n%s", program, err, text)
		}
	}
	return d, nil
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	var exit *exec.ExitError
	if err := d.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}
