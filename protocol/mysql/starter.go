package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Starter is the SQL for a trial on somebody's own database, the one that the URL names: what its two
// levels may do, beside Setup.
func Starter(rawURL, reader, writer string) (string, error) {
	t, _, err := withPassword(rawURL)
	if err != nil {
		return "", err
	}
	if t.database == "" {
		return "", errors.New("url: names no database; the trial's roles are for one, e.g. mysql://root@localhost/shop")
	}
	return fill(sqlFile(true, "starter"), vars{"database": t.database, "reader": reader, "writer": writer})
}

// Admin says whether the login of a URL, which may hold a password, is an administrator: one that can run
// Setup, and must not be the broker.
func Admin(ctx context.Context, rawURL string) (admin bool, err error) {
	err = as(ctx, rawURL, func(c *conn) error {
		has, err := privileges(ctx, c)
		admin = has["CREATE USER"] // and may give it
		return err
	})
	return admin, err
}

// Apply runs setup SQL as the login of rawURL, and gives the broker its password as a verifier, so that
// nothing secret reaches the server's log. There is no transaction around it: the setup bears to be repeated.
func Apply(ctx context.Context, rawURL, sql, broker, password string) error {
	return as(ctx, rawURL, func(c *conn) error {
		for text := range strings.SplitSeq(uncomment(sql), ";\n") {
			text = strings.TrimSuffix(strings.TrimSpace(text), ";")
			if text == "" {
				continue
			}
			if _, err := c.ExecContext(ctx, text); err != nil {
				return fmt.Errorf("run the setup: %w", err)
			}
		}
		v, err := brokerProof(ctx, c, password)
		if err != nil {
			return err
		}
		hosts, err := c.strings(ctx, "SELECT Host FROM mysql.user WHERE User = ?", broker)
		if err == nil && len(hosts) == 0 {
			err = fmt.Errorf("the setup has not made %s", broker)
		}
		for _, host := range hosts {
			v["account"] = user(broker, host)
			err = errors.Join(err, c.run(ctx, "broker", v))
		}
		if err != nil {
			return fmt.Errorf("set the broker's password: %w", err)
		}
		return nil
	})
}

// brokerProof is how the broker is to log in. parsec, the newest, is not known to its driver.
func brokerProof(ctx context.Context, c *conn, password string) (vars, error) {
	if c.server.mariadb {
		active, err := c.strings(ctx, query(true, "plugins"))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(active, "ed25519") {
			return vars{"plugin": "mysql_native_password", "verifier": literal(nativeHash(password))}, nil
		}
		return vars{"plugin": "ed25519", "verifier": literal(ed25519Hash(password))}, nil
	}
	plugin, verifier, err := proofOf(ctx, c, password)
	return vars{"plugin": plugin, "verifier": verifier}, err
}

// BrokerURL is the URL of the same server and database for another login: the broker, without a password.
func BrokerURL(rawURL, broker string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", errors.New("url: not a URL") // the parser's own words would show a password in it
	}
	q := u.Query()
	q.Del("password")
	if !q.Has("sslmode") {
		q.Set("sslmode", trialTLS)
	}
	u.User, u.RawQuery = url.User(broker), q.Encode()
	if _, err := parseTarget(u.String()); err != nil {
		return "", err
	}
	return u.String(), nil
}

// trialTLS is how TLS is used where a trial's URL is silent about it: a database on this machine often has none.
const trialTLS = "prefer"

// withPassword reads a URL that may hold a password.
func withPassword(rawURL string) (*target, string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, "", errors.New("url: not a URL")
	}
	password, _ := u.User.Password()
	q := u.Query()
	if q.Has("password") {
		password = q.Get("password")
	}
	plain, err := BrokerURL(rawURL, u.User.Username())
	if err != nil {
		return nil, "", err
	}
	t, err := parseTarget(plain)
	return t, password, err
}

// as runs f on a connection of a URL's own login.
func as(ctx context.Context, rawURL string, f func(*conn) error) error {
	t, password, err := withPassword(rawURL)
	if err != nil {
		return err
	}
	s, err := newProber(t).server(ctx)
	if err != nil {
		return err
	}
	db, err := openBroker(t, password, "")
	if err != nil {
		return err
	}
	defer db.Close()
	var c *sql.Conn
	if c, err = db.Conn(ctx); err != nil {
		return err
	}
	defer c.Close()
	return f(&conn{Conn: c, server: s})
}
