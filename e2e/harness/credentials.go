package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/control/api"
)

// Credentials is what a stock client needs.
type Credentials struct {
	api.Credentials
	CAFile string `json:"ca_file"`
}

// URL is a libpq connection string.
func (c Credentials) URL() string {
	q := url.Values{}
	if c.SSLMode != "" {
		q.Set("sslmode", c.SSLMode)
	}
	if c.CAFile != "" {
		q.Set("sslrootcert", c.CAFile)
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password),
		Host: c.Host + ":" + strconv.Itoa(c.Port), Path: "/" + c.Database, RawQuery: q.Encode()}
	return u.String()
}

// Connect logs in with pgx, through Curfew.
func (c Credentials) Connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, c.URL())
}

// PSQL is Debian's psql, through Curfew, stopping at the first error. The password is in its
// environment, where no list of processes shows it.
func (c Credentials) PSQL(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "psql", append([]string{"-X", "-v", "ON_ERROR_STOP=1"}, args...)...)
	cmd.Env = append(os.Environ(), "PGHOST="+c.Host, "PGPORT="+strconv.Itoa(c.Port), "PGUSER="+c.User, "PGPASSWORD="+c.Password,
		"PGDATABASE="+c.Database, "PGSSLMODE="+c.SSLMode, "PGSSLROOTCERT="+c.CAFile, "PGCONNECT_TIMEOUT=15", "PAGER=cat")
	return cmd
}

// MariaDB is the stock mariadb, or another of its clients, through Curfew; MySQL's own where ProgramsEnv says
// so. The password is in its environment.
func (c Credentials) MariaDB(ctx context.Context, name string, args ...string) *exec.Cmd {
	file, mysql := program(name)
	where := []string{"--no-defaults", "--protocol=tcp", "--host=" + c.Host, "--port=" + strconv.Itoa(c.Port), "--user=" + c.User}
	switch {
	case c.CAFile != "" && mysql:
		where = append(where, "--ssl-ca="+c.CAFile, "--ssl-mode=VERIFY_IDENTITY")
	case c.CAFile != "":
		where = append(where, "--ssl-ca="+c.CAFile, "--ssl-verify-server-cert")
	}
	cmd := exec.CommandContext(ctx, file, append(where, args...)...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+c.Password)
	return cmd
}

// MySQL logs in with go-sql-driver, through Curfew; change may alter how.
func (c Credentials) MySQL(ctx context.Context, change ...func(*mysql.Config)) (*MySQLConn, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName, cfg.Addr = c.User, c.Password, c.Database, net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	if c.CAFile != "" {
		var err error
		if cfg.TLS, err = tlsFor(c.CAFile); err != nil {
			return nil, err
		}
	}
	for _, f := range change {
		f(cfg)
	}
	return openMySQL(ctx, cfg)
}

// tlsFor trusts the certificates in a file, and no others.
func tlsFor(caFile string) (*tls.Config, error) {
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", caFile)
	}
	return &tls.Config{RootCAs: roots}, nil
}
