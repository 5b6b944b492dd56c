package postgres

import (
	"context"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
)

// Starter is the SQL for a trial on somebody's own database: what its two levels may do, beside Setup.
func Starter(reader, writer string) (string, error) {
	return fill(query("starter"), vars{"reader": reader, "writer": writer})
}

// Admin says whether the login of a URL, which may hold a password, is a superuser: one that can run
// Setup, and must not be the broker.
func Admin(ctx context.Context, rawURL string) (bool, error) {
	c, err := pgx.Connect(ctx, rawURL)
	if err != nil {
		return false, err
	}
	defer hangUp(ctx, c)
	var super bool
	err = c.QueryRow(ctx, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").Scan(&super)
	return super, err
}

// Apply runs setup SQL as the login of rawURL, in one transaction, and gives the broker its password as
// a verifier, so that nothing secret reaches the server's log.
func Apply(ctx context.Context, rawURL, sql, broker, password string) error {
	verifier, err := scramVerifier(password, clientIterations)
	if err != nil {
		return err
	}
	c, err := pgx.Connect(ctx, rawURL)
	if err != nil {
		return err
	}
	defer hangUp(ctx, c)
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after Commit there is nothing to roll back
	if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("run the setup: %w", err)
	}
	if _, err := tx.Exec(ctx, "ALTER ROLE "+pgx.Identifier{broker}.Sanitize()+" PASSWORD "+literal(verifier), pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("set the broker's password: %w", err)
	}
	return tx.Commit(ctx)
}

// BrokerURL is the URL of the same server and database for another login: the broker, without a password.
func BrokerURL(rawURL, broker string) (string, error) {
	cfg, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Del("user")
	q.Del("password")
	if !q.Has("sslmode") && cfg.TLSConfig == nil || len(cfg.Fallbacks) > 0 && !q.Has("sslmode") {
		q.Set("sslmode", "prefer")
	}
	u.User, u.RawQuery, u.Path = url.User(broker), q.Encode(), "/"+cfg.Database
	return u.String(), nil
}
