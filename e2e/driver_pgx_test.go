package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/curfewdb/curfew/e2e/harness"
)

func TestPgx(t *testing.T) {
	driver{
		name: "pgx", play: playPgx,
		types: []string{"int4", "int8", "numeric", "float8", "bool", "text", "bytea", "text", "timestamptz", "date", "time", "uuid", "jsonb", "text[]", "int4[]"},
		check: func(t *testing.T, recs []*record) {
			canceled(t, recs, 1)
			copied(t, recs, 0, 1, 1)
			inOrder(t, recs)
			if n := len(find(recs, "simple", "listen to_the_driver")); n != 1 {
				t.Errorf("LISTEN is on record %d times", n)
			}
		},
	}.runs(t, onOrders)
}

func playPgx(ctx context.Context, creds harness.Credentials, table string) error {
	c, err := creds.Connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	for _, step := range []func(context.Context, *pgx.Conn, string) error{pgxTyped, pgxRows, pgxError, pgxTransaction, pgxBatch, pgxPipeline, pgxCopy, pgxListen} {
		if err := step(ctx, c, table); err != nil {
			return err
		}
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	return pgxCancel(ctx, creds)
}

func pgxTyped(ctx context.Context, c *pgx.Conn, table string) error {
	quoted, umlaut, plain, two := `quo"te`, "ü,", "plain", "two words"
	var price pgtype.Numeric
	if err := price.Scan("12345678901234.567890"); err != nil {
		return err
	}
	moment := time.Date(2026, 2, 28, 23, 59, 58, 123456000, time.UTC)
	clock := pgtype.Time{Microseconds: (12*3600 + 34*60 + 56) * 1e6, Valid: true}
	values := []any{-42, int64(1<<63 - 1), price, 0.1, true, `Grüße, "O'Hara" \ 世界 🎈`, []byte("\x00\xff'\"\\\n"), nil, moment, moment, clock,
		"6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01", `{"a": [1, "ü"]}`, []*string{&plain, &two, &quoted, nil, &umlaut}, []int32{1, -2, 3}}
	_, err := c.Exec(ctx, "INSERT INTO "+table+" (id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers)"+
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)", values...)
	if err != nil {
		return err
	}
	for range 3 {
		rows, err := c.Query(ctx, "SELECT * FROM "+table+" WHERE id = $1", -42)
		if err != nil {
			return err
		}
		got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToMap)
		if err != nil {
			return err
		}
		if at, ok := got["moment"].(time.Time); !ok || !at.Equal(moment) || got["name"] != values[5] || string(got["data"].([]byte)) != "\x00\xff'\"\\\n" ||
			fmt.Sprint(got["tags"]) != `[plain two words quo"te <nil> ü,]` || got["nothing"] != nil {
			return fmt.Errorf("the row is %v", got)
		}
	}
	return nil
}

func pgxRows(ctx context.Context, c *pgx.Conn, _ string) error {
	for sql, want := range map[string]int{"SELECT n FROM generate_series(1, 1000) n": 2893, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)": 5_000_000} {
		rows, err := c.Query(ctx, sql)
		if err != nil {
			return err
		}
		length := 0
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				return err
			}
			length += len(fmt.Sprint(values[0]))
		}
		if rows.Err() != nil || length != want {
			return fmt.Errorf("%s: %d characters, %w", sql, length, rows.Err())
		}
	}
	return nil
}

func pgxError(ctx context.Context, c *pgx.Conn, _ string) error {
	var pg *pgconn.PgError
	if _, err := c.Exec(ctx, "SELECT * FROM there_is_no_such_table"); !errors.As(err, &pg) || pg.Code != "42P01" {
		return fmt.Errorf("the error is %w", err)
	}
	return nil
}

func pgxTransaction(ctx context.Context, c *pgx.Conn, table string) error {
	for id, end := range []func(pgx.Tx, context.Context) error{pgx.Tx.Rollback, pgx.Tx.Commit} {
		tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO "+table+" (id, name) VALUES ($1, $2)", id+1, []string{"rolled back", "committed"}[id])
		if err := errors.Join(err, end(tx, ctx)); err != nil {
			return err
		}
	}
	return nil
}

func pgxBatch(ctx context.Context, c *pgx.Conn, table string) error {
	var b pgx.Batch
	for id := 1000; id < 1100; id++ {
		b.Queue("INSERT INTO "+table+" (id, name) VALUES ($1, $2)", id, fmt.Sprintf("batch %d", id))
	}
	return c.SendBatch(ctx, &b).Close()
}

// pgxPipeline has thirty runs under way at once, and an error amid them that ends those up to the next Sync.
func pgxPipeline(ctx context.Context, c *pgx.Conn, _ string) error {
	p := c.PgConn().StartPipeline(ctx)
	for i := range 30 {
		p.SendQueryParams("SELECT $1::int4 + 0", [][]byte{fmt.Append(nil, i)}, nil, nil, nil)
	}
	p.SendPipelineSync()
	p.SendQueryParams("SELECT 1/0", nil, nil, nil, nil)
	p.SendQueryParams("SELECT 'never looked at'", nil, nil, nil, nil)
	p.SendPipelineSync()
	if err := p.Flush(); err != nil {
		return err
	}
	for i := range 30 {
		results, err := p.GetResults()
		if err != nil {
			return err
		}
		if got := results.(*pgconn.ResultReader).Read(); got.Err != nil || len(got.Rows) != 1 || string(got.Rows[0][0]) != fmt.Sprint(i) {
			return fmt.Errorf("run %d of a pipeline gives %q, %w", i, got.Rows, got.Err)
		}
	}
	var pg *pgconn.PgError
	if err := p.Close(); !errors.As(err, &pg) || pg.Code != "22012" {
		return fmt.Errorf("the pipeline ends with %w", err)
	}
	return nil
}

func pgxCopy(ctx context.Context, c *pgx.Conn, table string) error {
	from := pgx.CopyFromSlice(1000, func(i int) ([]any, error) { return []any{3000 + i, fmt.Sprintf("copied %d", 3000+i)}, nil })
	if n, err := c.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "name"}, from); err != nil || n != 1000 {
		return fmt.Errorf("%d rows copied, %w", n, err)
	}
	var out strings.Builder
	_, err := c.PgConn().CopyTo(ctx, &out, "COPY (SELECT id, name FROM "+table+" WHERE id BETWEEN 3000 AND 3999 ORDER BY id) TO STDOUT")
	if err == nil && out.String() != aCopy() {
		err = fmt.Errorf("copied out: %.300q", out.String())
	}
	return err
}

func pgxListen(ctx context.Context, c *pgx.Conn, _ string) error {
	for _, sql := range []string{"listen to_the_driver", "NOTIFY to_the_driver, 'grüße'"} {
		if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	n, err := c.WaitForNotification(ctx)
	if err == nil && (n.Channel != "to_the_driver" || n.Payload != "grüße") {
		err = fmt.Errorf("the notification is %+v", n)
	}
	return err
}

// pgxCancel ends a statement by its context; the connection goes on.
func pgxCancel(ctx context.Context, creds harness.Credentials) error {
	cfg, err := pgx.ParseConfig(creds.URL())
	if err != nil {
		return err
	}
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: time.Minute}
	}
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	watcher, err := creds.Connect(ctx)
	if err != nil {
		return err
	}
	defer watcher.Close(context.WithoutCancel(ctx))
	short, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		watched <- harness.Eventually(ctx, 20*time.Second, func(ctx context.Context) error {
			var sleeping bool
			err := watcher.QueryRow(ctx, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user").Scan(&sleeping)
			if err == nil && !sleeping {
				err = errors.New("it does not sleep")
			}
			return err
		})
		cancel()
	}()
	var pg *pgconn.PgError
	if _, err := c.Exec(short, "SELECT pg_sleep(60)"); !errors.As(err, &pg) || pg.Code != "57014" {
		return fmt.Errorf("a canceled statement ends with %w", errors.Join(err, <-watched))
	}
	var five int
	if err := c.QueryRow(ctx, "SELECT 5").Scan(&five); err != nil || five != 5 {
		return fmt.Errorf("after a cancel: %d, %w", five, err)
	}
	return nil
}

// A parameter and a row of forty mebibytes: whole on both sides and on record.
func TestFortyMebibytesThroughPgx(t *testing.T) {
	t.Parallel()
	s := shared
	g := must(s.alice.Granted(t.Context(), s.target, "writer", 10*time.Minute, s.bob))(t)
	c := must(must(s.alice.Credentials(t.Context(), g.ID))(t).Connect(t.Context()))(t)
	defer c.Close(context.WithoutCancel(t.Context()))
	data := []byte(strings.Repeat("0123456789\x00\xff'\\\n+", 40<<20/16))
	var back []byte
	var sum string
	if err := c.QueryRow(t.Context(), "SELECT $1::bytea, encode(sha256($1), 'hex')", data).Scan(&back, &sum); err != nil {
		t.Fatal(err)
	}
	if want := digest(string(data)); sum != want || digest(string(back)) != want {
		t.Errorf("the digest of what arrived is %s, of what came back %s, want %s", sum, digest(string(back)), want)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	recs := s.recordings(t, g.ID)
	binds := find(recs, "bind", "SELECT $1::bytea, encode")
	if len(binds) != 1 || len(binds[0].params) != 1 || digest(string(binds[0].params[0].data)) != digest(string(data)) {
		t.Errorf("the parameter is on record %d times, or otherwise", len(binds))
	}
	for _, st := range find(recs, "execute", "SELECT $1::bytea, encode") {
		if len(st.results) != 1 || st.results[0].Rows != 1 || st.results[0].Bytes < len(data) {
			t.Errorf("the row is on record as %+v", st.results)
		}
	}
}
