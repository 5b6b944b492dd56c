package harness

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// MariaDB is one server with a directory of its own, on loopback: this machine's, or the MariaDB or MySQL that
// mysqltest's environment names.
type MariaDB struct {
	Addr string // host:port
	CA   string // PEM file of the server's own certificate

	server   *mysqltest.Server
	settings []string
}

// StartMariaDB makes and starts a server with the shop and other databases, group roles and broker. dir is
// for its certificate.
func StartMariaDB(ctx context.Context, dir string, settings ...string) (*MariaDB, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// The server, which runs as somebody else, must be able to walk to its certificate.
	for up := dir; up != "/" && up != os.TempDir(); up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			return nil, err
		}
	}
	cert, key, err := selfSigned()
	if err != nil {
		return nil, err
	}
	m := &MariaDB{CA: filepath.Join(dir, "mariadb-ca.pem")}
	keyFile := filepath.Join(dir, "mariadb-key.pem") // of a server that lives as long as a test
	if err := errors.Join(os.WriteFile(m.CA, cert, 0o644), os.WriteFile(keyFile, key, 0o644)); err != nil {
		return nil, err
	}
	m.settings = append([]string{"ssl-cert=" + m.CA, "ssl-key=" + keyFile, "max-connections=400", "max-allowed-packet=128M",
		// Slow INSERTs of stories that run side by side don't wait for each other.
		"innodb-autoinc-lock-mode=2", "innodb-lock-wait-timeout=10", "local-infile=ON"}, settings...)
	if !isMySQL() {
		m.settings = append(m.settings, "userstat=1") // commits are counted, by user: what became of a statement can be told
	}
	if m.server, err = mysqltest.Start(m.settings...); err != nil {
		return nil, err
	}
	m.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(m.server.Port))
	if err := m.populate(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Target is the target shop as Curfew is told of it, TARGET=URL.
func (m *MariaDB) Target() string { return Shop + "=" + m.BrokerURL(Shop) }

// BrokerURL is how the broker reaches a database.
func (m *MariaDB) BrokerURL(database string) string {
	u := url.URL{Scheme: "mysql", Host: m.Addr, Path: "/" + database, User: url.UserPassword("curfew_broker", BrokerPassword),
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {m.CA}}.Encode()}
	return u.String()
}

// Login logs in directly, past Curfew.
func (m *MariaDB) Login(ctx context.Context, user, password, database string) (*MySQLConn, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Addr = user, password, database, m.Addr
	tls, err := tlsFor(m.CA)
	if err != nil {
		return nil, err
	}
	cfg.TLS = tls
	return openMySQL(ctx, cfg)
}

// Connect logs in as the DBA.
func (m *MariaDB) Connect(ctx context.Context, database string) (*MySQLConn, error) {
	return m.Login(ctx, mysqltest.Admin, mysqltest.Password, database)
}

// Client is the stock mariadb, or another of its clients, as the DBA and past Curfew.
func (m *MariaDB) Client(ctx context.Context, name string, args ...string) *exec.Cmd {
	direct := Credentials{CAFile: m.CA}
	direct.Host, direct.Port, direct.User, direct.Password = "127.0.0.1", m.server.Port, mysqltest.Admin, mysqltest.Password
	return direct.MariaDB(ctx, name, args...)
}

// Exec runs statements as the DBA, one after the other.
func (m *MariaDB) Exec(ctx context.Context, database, text string) error {
	c, err := m.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Run(ctx, text)
}

// Ask runs one query as the DBA and gives its first column, row by row, as text.
func (m *MariaDB) Ask(ctx context.Context, database, text string, args ...any) ([]string, error) {
	c, err := m.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Column(ctx, text, args...)
}

// shopTables and shopSetup are what a DBA runs once on a server, in the databases' own words. The shop's own
// program logs in as app; stranger may call and look at what others leave behind.
const shopTables = `
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE DATABASE other CHARACTER SET utf8mb4;
CREATE DATABASE vault;
CREATE TABLE shop.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, item TEXT NOT NULL, at TIMESTAMP(6) NOT NULL DEFAULT NOW(6));
CREATE TABLE other.orders LIKE shop.orders;
INSERT INTO shop.orders (item) VALUES ('anvil'), ('bell'), ('candle');
CREATE TABLE vault.secret (id INT PRIMARY KEY, pan TEXT NOT NULL);
INSERT INTO vault.secret VALUES (1, '4111 1111 1111 1111');
`

const shopSetup = `
CREATE ROLE shop_reader; CREATE ROLE shop_writer; CREATE ROLE shop_owner;
GRANT SELECT ON shop.orders TO shop_reader;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE,
	EXECUTE, EVENT, CREATE TEMPORARY TABLES, LOCK TABLES ON shop.* TO shop_writer;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, EXECUTE ON other.* TO shop_writer;
GRANT ALL ON shop.* TO shop_owner;
GRANT SELECT ON vault.* TO shop_owner;
CREATE USER curfew_broker@127.0.0.1 IDENTIFIED BY '` + BrokerPassword + `';
GRANT CREATE USER, PROCESS, CONNECTION ADMIN, SHOW VIEW, TRIGGER, EVENT, SET USER, CREATE VIEW, DROP ON *.* TO curfew_broker@127.0.0.1;
GRANT SELECT (Host, User, is_role, x509_subject, plugin, Select_priv, Insert_priv, Update_priv, Delete_priv, Create_priv, Drop_priv,
	Reload_priv, Shutdown_priv, Process_priv, File_priv, Grant_priv, Super_priv, Create_user_priv) ON mysql.user TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.db TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.roles_mapping TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.tables_priv TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.procs_priv TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.proxies_priv TO curfew_broker@127.0.0.1;
GRANT SELECT, UPDATE (definer, created) ON mysql.proc TO curfew_broker@127.0.0.1;
CREATE USER curfew_quarantine@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' ACCOUNT LOCK;
GRANT shop_reader TO curfew_broker@127.0.0.1 WITH ADMIN OPTION;
GRANT shop_writer TO curfew_broker@127.0.0.1 WITH ADMIN OPTION;
GRANT shop_owner TO curfew_broker@127.0.0.1 WITH ADMIN OPTION;
CREATE USER app@127.0.0.1 IDENTIFIED BY 'app';
GRANT ALL ON shop.* TO app@127.0.0.1;
CREATE USER stranger@127.0.0.1 IDENTIFIED BY 'stranger';
GRANT EXECUTE, SHOW VIEW ON shop.* TO stranger@127.0.0.1;
`

func (m *MariaDB) populate(ctx context.Context) error {
	if m.IsMySQL() {
		return m.Exec(ctx, "", shopTables+shopSetupMySQL)
	}
	return m.Exec(ctx, "", shopTables+shopSetup)
}

// Leftovers lists what is in the server of accounts whose names match the LIKE pattern: users and
// connections. Prepared transactions have no owner here.
func (m *MariaDB) Leftovers(ctx context.Context, account string) ([]string, error) {
	return m.Ask(ctx, "mysql", `
		SELECT CONCAT('user ', User) FROM mysql.user WHERE User LIKE ? AND User NOT IN ('curfew_broker', 'curfew_quarantine')
		UNION ALL SELECT CONCAT('connection ', USER, ' ', COALESCE(INFO, '')) FROM information_schema.PROCESSLIST WHERE USER LIKE ? AND USER <> 'curfew_broker'`,
		account, account)
}

// Prepared lists the ids of transactions that are prepared for two-phase commit: gtrid and bqual in one.
func (m *MariaDB) Prepared(ctx context.Context) (ids []string, err error) {
	c, err := m.Connect(ctx, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	rows, err := c.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var format, gtrid, bqual, id string
		if err := rows.Scan(&format, &gtrid, &bqual, &id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// Log is what the server has said.
func (m *MariaDB) Log() string { return m.server.Log() }

// Close ends the server at once, as a machine that fails would, and removes its data.
func (m *MariaDB) Close() error { return m.server.Stop() }

// Kill is kill -9; Restart starts the server again, on the same port with the same data.
func (m *MariaDB) Kill() error    { return m.server.Kill() }
func (m *MariaDB) Restart() error { return m.server.Run(m.settings...) }

// MySQLConn is one connection of go-sql-driver, without a pool around it.
type MySQLConn struct {
	*sql.Conn
	db *sql.DB
}

func openMySQL(ctx context.Context, cfg *mysql.Config) (*MySQLConn, error) {
	cfg.Net, cfg.Logger, cfg.MultiStatements = "tcp", &mysql.NopLogger{}, true
	cfg.CheckConnLiveness = false // it would take a server's last words for a broken connection
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &MySQLConn{c, db}, nil
}

// Close says goodbye.
func (c *MySQLConn) Close() error { return errors.Join(c.Conn.Close(), c.db.Close()) }

// Run runs statements to the end of their last result.
func (c *MySQLConn) Run(ctx context.Context, text string) error {
	_, err := c.ExecContext(ctx, text)
	return err
}

// Column runs one query and gives its first column, row by row, as text.
func (c *MySQLConn) Column(ctx context.Context, text string, args ...any) (values []string, err error) {
	rows, err := c.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimSpace(text), err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v sql.NullString
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v.String)
	}
	return values, rows.Err()
}
