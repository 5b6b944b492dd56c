package mysql

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
)

// trialTarget reads a URL as curfew dev is given it: with a password, and with TLS where the server has it.
func trialTarget(rawURL string) (u *url.URL, password string, err error) {
	if u, err = url.Parse(rawURL); err != nil {
		return nil, "", errors.New("url: not a URL") // the parser's own words would show it, and a password in it
	}
	password, _ = u.User.Password()
	q := u.Query()
	if !q.Has("sslmode") {
		q.Set("sslmode", "prefer")
	}
	u.User, u.RawQuery = url.User(u.User.Username()), q.Encode()
	return u, password, nil
}

// trialAdmin says whether the login of a URL is an administrator.
func trialAdmin(ctx context.Context, rawURL string) (admin bool, err error) {
	u, password, err := trialTarget(rawURL)
	if err != nil {
		return false, err
	}
	t, err := parseTarget(u.String())
	if err != nil {
		return false, err
	}
	db, err := openBroker(t, password, "")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, "SHOW GRANTS")
	if err != nil {
		return false, err
	}
	return grantsAll(rows)
}

// grantsAll looks for a right on everything that may be passed on.
func grantsAll(rows *sql.Rows) (all bool, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var grant string
		if err := rows.Scan(&grant); err != nil {
			return false, err
		}
		all = all || strings.Contains(grant, " ON *.* TO ") && strings.HasSuffix(grant, " WITH GRANT OPTION")
	}
	return all, rows.Err()
}

// trialBrokerURL is the URL of the same server and database for another login, without a password.
func trialBrokerURL(rawURL, broker string) (string, error) {
	u, _, err := trialTarget(rawURL)
	if err != nil {
		return "", err
	}
	u.User = url.User(broker)
	return u.String(), nil
}
