package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/curfewdb/curfew/e2e/harness"
)

func TestPq(t *testing.T) {
	driver{
		name: "lib/pq", play: playPq,
		types: []string{"int4", "int8", "numeric", "float8", "bool", "text", "bytea", "text", "timestamptz", "date", "time", "uuid", "jsonb", "text[]", "int4[]"},
		texts: map[int]string{4: "true", 6: `\x00ff27225c0a`, 8: "2026-02-28 23:59:58.123456Z", 13: `{"plain","two words","quo\"te",NULL,"ü,"}`},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 1)
			copied(t, recs, 1, 0, 0)
		},
	}.runs(t, onOrders)
}

func playPq(ctx context.Context, creds harness.Credentials, table string) error {
	db, err := sql.Open("postgres", creds.URL())
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []func(context.Context, *sql.Conn, string) error{pqTyped, pqRows, pqError, pqTransaction, pqBatch, pqCopy} {
		if err := step(ctx, c, table); err != nil {
			return err
		}
	}
	if err := pqCancel(ctx, db, c); err != nil {
		return err
	}
	if err := pqListen(ctx, creds, c); err != nil {
		return err
	}
	return errors.Join(c.Close(), db.Close())
}

func pqTyped(ctx context.Context, c *sql.Conn, table string) error {
	moment := time.Date(2026, 2, 28, 23, 59, 58, 123456000, time.UTC)
	tags := []sql.NullString{{String: "plain", Valid: true}, {String: "two words", Valid: true}, {String: `quo"te`, Valid: true}, {}, {String: "ü,", Valid: true}}
	name, data := `Grüße, "O'Hara" \ 世界 🎈`, []byte("\x00\xff'\"\\\n")
	_, err := c.ExecContext(ctx, "INSERT INTO "+table+" (id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers)"+
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
		-42, int64(1<<63-1), "12345678901234.567890", 0.1, true, name, data, nil, moment, "2026-02-28", "12:34:56",
		"6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01", `{"a": [1, "ü"]}`, pq.Array(tags), pq.Array([]int64{1, -2, 3}))
	if err != nil {
		return err
	}
	stmt, err := c.PrepareContext(ctx, "SELECT * FROM "+table+" WHERE id = $1")
	if err != nil {
		return err
	}
	for range 3 {
		var got [15]any
		into := make([]any, len(got))
		for i := range got {
			into[i] = &got[i]
		}
		if err := stmt.QueryRowContext(ctx, -42).Scan(into...); err != nil {
			return err
		}
		at, ok := got[8].(time.Time)
		if !ok || !at.Equal(moment) || got[0] != int64(-42) || got[4] != true || got[5] != name || string(got[6].([]byte)) != string(data) || got[7] != nil ||
			string(got[13].([]byte)) != `{plain,"two words","quo\"te",NULL,"ü,"}` {
			return fmt.Errorf("the row is %v", got)
		}
	}
	return stmt.Close()
}

func pqRows(ctx context.Context, c *sql.Conn, _ string) error {
	for query, want := range map[string]int{"SELECT n FROM generate_series(1, 1000) n": 2893, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)": 5_000_000} {
		rows, err := c.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		length := 0
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			length += len(text)
		}
		if rows.Err() != nil || length != want {
			return fmt.Errorf("%s: %d characters, %w", query, length, rows.Err())
		}
	}
	return nil
}

func pqError(ctx context.Context, c *sql.Conn, _ string) error {
	var pg *pq.Error
	if _, err := c.ExecContext(ctx, "SELECT * FROM there_is_no_such_table"); !errors.As(err, &pg) || pg.Code != "42P01" || pg.Position != "15" {
		return fmt.Errorf("the error is %w", err)
	}
	return nil
}

func pqTransaction(ctx context.Context, c *sql.Conn, table string) error {
	for id, end := range []func(*sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
		tx, err := c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO "+table+" (id, name) VALUES ($1, $2)", id+1, []string{"rolled back", "committed"}[id])
		if err := errors.Join(err, end(tx)); err != nil {
			return err
		}
	}
	return nil
}

func pqBatch(ctx context.Context, c *sql.Conn, table string) error {
	stmt, err := c.PrepareContext(ctx, "INSERT INTO "+table+" (id, name) VALUES ($1, $2)")
	if err != nil {
		return err
	}
	for id := 1000; id < 1100; id++ {
		if _, err := stmt.ExecContext(ctx, id, fmt.Sprintf("batch %d", id)); err != nil {
			return err
		}
	}
	return stmt.Close()
}

func pqCopy(ctx context.Context, c *sql.Conn, table string) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	stmt, err := tx.PrepareContext(ctx, pq.CopyIn(table, "id", "name"))
	if err != nil {
		return err
	}
	for id := 3000; id < 4000; id++ {
		if _, err := stmt.ExecContext(ctx, id, fmt.Sprintf("copied %d", id)); err != nil {
			return err
		}
	}
	if _, err := stmt.ExecContext(ctx); err != nil {
		return err
	}
	return errors.Join(stmt.Close(), tx.Commit())
}

// pqCancel ends a statement by its context: the driver sends a cancel request, and gives the connection up.
func pqCancel(ctx context.Context, db *sql.DB, watcher *sql.Conn) error {
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		watched <- harness.Eventually(ctx, 20*time.Second, func(ctx context.Context) error {
			var sleeping bool
			err := watcher.QueryRowContext(ctx, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user").Scan(&sleeping)
			if err == nil && !sleeping {
				err = errors.New("it does not sleep")
			}
			return err
		})
		cancel()
	}()
	var pg *pq.Error
	if _, err := db.ExecContext(short, "SELECT pg_sleep(60)"); !errors.As(err, &pg) || pg.Code != "57014" {
		return fmt.Errorf("a canceled statement ends with %w", errors.Join(err, <-watched))
	}
	return <-watched
}

func pqListen(ctx context.Context, creds harness.Credentials, c *sql.Conn) error {
	l := pq.NewListener(creds.URL(), time.Second, time.Second, nil)
	defer l.Close()
	if err := l.Listen("to_the_driver"); err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "NOTIFY to_the_driver, 'grüße'"); err != nil {
		return err
	}
	select {
	case n := <-l.Notify:
		if n == nil || n.Channel != "to_the_driver" || n.Extra != "grüße" {
			return fmt.Errorf("the notification is %+v", n)
		}
	case <-time.After(20 * time.Second):
		return errors.New("no notification within 20 s")
	}
	return nil
}
