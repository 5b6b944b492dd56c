package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// BrokerPassword is the broker's on every server of a harness: it is gone with its directory.
const BrokerPassword = "broker-of-a-temporary-server"

// Postgres is one server in a temporary directory.
type Postgres struct {
	Addr string // host:port
	Dir  string
	CA   string // PEM file of the server's own certificate

	cmd *exec.Cmd
}

// StartPostgres makes and starts a server with the orders and other databases, group roles and broker, and
// with these settings ("max_connections=500").
func StartPostgres(ctx context.Context, dir string, settings ...string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	p := &Postgres{Dir: dir}
	if p.Addr, err = FreeAddr(); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "pg")
	if err := p.prepare(data); err != nil {
		return nil, err
	}
	initdb := p.command(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := p.configure(data, settings); err != nil {
		return nil, err
	}
	if err := p.start(bin, data); err != nil {
		return nil, err
	}
	if err := p.populate(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) start(bin, data string) error {
	logFile, err := os.Create(filepath.Join(p.Dir, "postgres.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	// Its life does not hang on a context: Close ends it.
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data)
	p.cmd.SysProcAttr = p.unprivileged()
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = logFile, logFile, data
	return p.cmd.Start()
}

// postgresBin finds the server's programs: where CURFEW_POSTGRES_BIN says, where Debian keeps them (the
// newest), or in the path.
func postgresBin() (string, error) {
	if dir := os.Getenv("CURFEW_POSTGRES_BIN"); dir != "" {
		return dir, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL's server is not installed: apt-get install postgresql")
	}
	return filepath.Dir(path), nil
}

// PostgresProgram finds a stock client, pg_dump or psql: where CURFEW_POSTGRES_PROGRAMS says, or in the path.
func PostgresProgram(name string) (string, error) {
	if dir := os.Getenv("CURFEW_POSTGRES_PROGRAMS"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	return exec.LookPath(name)
}

// prepare makes the data directory and gives it to the user that the server runs as.
func (p *Postgres) prepare(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	c := p.unprivileged().Credential
	if c == nil {
		return nil
	}
	// The server must be able to walk to its directory.
	for dir := filepath.Dir(data); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Chown(data, int(c.Uid), int(c.Gid))
}

// unprivileged: PostgreSQL refuses to run as root.
func (p *Postgres) unprivileged() *syscall.SysProcAttr {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
	}
	return &syscall.SysProcAttr{}
}

func (p *Postgres) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = p.unprivileged()
	cmd.Dir = os.TempDir()
	return cmd
}

func (p *Postgres) configure(data string, settings []string) error {
	host, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	cert, key, err := selfSigned()
	if err != nil {
		return err
	}
	p.CA = filepath.Join(p.Dir, "server-ca.pem")
	conf := fmt.Sprintf(`
listen_addresses = '%s'
port = %s
unix_socket_directories = ''
fsync = off
max_prepared_transactions = 10
track_activities = on
ssl = on
%s
`, host, port, strings.Join(settings, "\n"))
	hba := "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	add := func(path string, text []byte, mode os.FileMode) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, mode)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		if c := p.unprivileged().Credential; c != nil {
			err = errors.Join(err, f.Chown(int(c.Uid), int(c.Gid)))
		}
		return errors.Join(err, f.Close())
	}
	return errors.Join(
		os.Remove(filepath.Join(data, "pg_hba.conf")),
		add(filepath.Join(data, "postgresql.conf"), []byte(conf), 0o600),
		add(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o600),
		add(filepath.Join(data, "server.crt"), cert, 0o600),
		add(filepath.Join(data, "server.key"), key, 0o600),
		os.WriteFile(p.CA, cert, 0o644),
	)
}

// Superuser is who the DBA of the stories is.
const Superuser = "postgres"

// URL is how user reaches database directly, past Curfew.
func (p *Postgres) URL(user, password, database string) string {
	u := url.URL{Scheme: "postgres", Host: p.Addr, Path: "/" + database, User: url.User(user),
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.CA}}.Encode()}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// Target is the target orders as Curfew is told of it, TARGET=URL.
func (p *Postgres) Target() string { return Orders + "=" + p.BrokerURL(Orders) }

// BrokerURL is how the broker reaches a database.
func (p *Postgres) BrokerURL(database string) string {
	return p.URL("curfew_broker", BrokerPassword, database)
}

// Connect logs in as the DBA.
func (p *Postgres) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, p.URL(Superuser, "", database))
}

// Exec runs statements as the DBA, in one implicit transaction.
func (p *Postgres) Exec(ctx context.Context, database, sql string) error {
	c, err := p.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	_, err = c.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Ask runs one query as the DBA and gives its first column, row by row, as text.
func (p *Postgres) Ask(ctx context.Context, database, sql string, args ...any) ([]string, error) {
	c, err := p.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		if err != nil {
			return "", err
		}
		return fmt.Sprint(values[0]), nil
	})
}

// setup is what a DBA runs once on a server; in the databases' own words, DATABASE by DATABASE.
const setup = `
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL, at timestamptz NOT NULL DEFAULT now());
INSERT INTO orders (item) VALUES ('anvil'), ('bell'), ('candle');
CREATE TABLE secret (id int PRIMARY KEY, pan text NOT NULL);
INSERT INTO secret VALUES (1, '4111 1111 1111 1111');
REVOKE ALL ON secret FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO orders_reader, orders_writer, orders_owner;
GRANT CREATE ON SCHEMA public TO orders_writer, orders_owner;
GRANT SELECT ON orders TO orders_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO orders_writer;
GRANT ALL ON orders, secret TO orders_owner;
GRANT USAGE, CREATE ON SCHEMA public TO curfew_quarantine;
`

const setupRoles = `
CREATE ROLE orders_reader NOLOGIN;
CREATE ROLE orders_writer NOLOGIN;
CREATE ROLE orders_owner NOLOGIN;
CREATE ROLE curfew_quarantine NOLOGIN;
CREATE ROLE curfew_broker LOGIN CREATEROLE NOSUPERUSER PASSWORD '` + BrokerPassword + `';
GRANT pg_signal_backend TO curfew_broker;
GRANT orders_reader, orders_writer, orders_owner, curfew_quarantine TO curfew_broker WITH ADMIN OPTION;
CREATE ROLE stranger LOGIN PASSWORD 'stranger';
`

func (p *Postgres) populate(ctx context.Context) error {
	up := func(ctx context.Context) error { return p.Exec(ctx, "postgres", "SELECT 1") }
	if err := Eventually(ctx, 20*time.Second, up); err != nil {
		text, rerr := os.ReadFile(filepath.Join(p.Dir, "postgres.log"))
		return errors.Join(fmt.Errorf("PostgreSQL did not start: %w\n%s", err, text), rerr)
	}
	if err := p.Exec(ctx, "postgres", setupRoles); err != nil {
		return err
	}
	for _, db := range []string{"orders", "other"} {
		if err := p.Exec(ctx, "postgres", "CREATE DATABASE "+db); err != nil {
			return err
		}
		if err := p.Exec(ctx, db, setup); err != nil {
			return err
		}
	}
	return nil
}

// Leftovers lists what is in the server of accounts whose names match the LIKE pattern: roles, backends,
// and prepared transactions.
func (p *Postgres) Leftovers(ctx context.Context, account string) ([]string, error) {
	return p.Ask(ctx, "postgres", `
		SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE $1 AND rolname NOT IN ('curfew_broker', 'curfew_quarantine')
		UNION ALL SELECT 'backend ' || usename || ' ' || coalesce(query, '') FROM pg_stat_activity WHERE usename LIKE $1 AND usename <> 'curfew_broker'
		UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts WHERE owner LIKE $1`, account)
}

// Close ends the server at once, as a machine that fails would. Restart starts it again.
func (p *Postgres) Close() error {
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// Restart starts a server that was closed, on the same port with the same data. It may not be ready yet.
func (p *Postgres) Restart() error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	return p.start(bin, filepath.Join(p.Dir, "pg"))
}
