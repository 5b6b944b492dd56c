package e2e

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/e2e/harness"
)

func TestGoSQLDriver(t *testing.T) {
	driver{
		name: "go-sql-driver", play: playGoSQL,
		types: []string{"bigint", "bigint unsigned", "char", "double", "char", "char", "null", "char", "char", "char"},
		check: func(t *testing.T, recs []*record) {
			for _, rec := range recs {
				if len(rec.copies) != 1 {
					t.Fatalf("files on record: %+v", rec.copies)
				}
				sum := sha256.Sum256([]byte(goFile()))
				if c := rec.copies[0]; c.Direction != "in" || c.Bytes != len(goFile()) || c.SHA256 != hex.EncodeToString(sum[:]) || !strings.Contains(c.Tag, "Reader::file-of-") {
					t.Errorf("the file is on record as %+v", c)
				}
				for _, st := range rec.find("execute", "SELECT LENGTH(?), SHA2(?, 256)") {
					if len(st.params[0].data) != 3<<20 || strings.Trim(string(st.params[0].data), "L") != "" {
						t.Errorf("a long parameter is on record with %d bytes", len(st.params[0].data))
					}
				}
			}
		},
	}.runs(t, onShop)
}

func goFile() string { return strings.Repeat("4000\tfrom a file\n", 10000) }

func playGoSQL(ctx context.Context, creds harness.Credentials, table string) error {
	c, err := creds.MySQL(ctx, func(cfg *mysql.Config) { cfg.MaxAllowedPacket = 64 << 10 }) // long parameters go out as long data
	if err != nil {
		return err
	}
	defer c.Close()
	day := time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)
	values := []any{-42, uint64(1<<64 - 1), "12345678901234.567890", 0.1, "Grüße, 世界 🎈", []byte("\x00\xff'\"\\\n"), nil,
		day.Add(24*time.Hour - 2*time.Second + 123456*time.Microsecond), day, "12:34:56"}
	_, err = c.ExecContext(ctx, "INSERT INTO "+table+" (id, big, price, ratio, name, data, nothing, moment, day, clock) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values...)
	if err != nil {
		return err
	}
	steps := []func(context.Context, *harness.MySQLConn, string) error{goReads, goError, goTransaction, goBig, goLoads, goLong}
	for _, step := range steps {
		if err := step(ctx, c, table); err != nil {
			return err
		}
	}
	return c.Close()
}

func goReads(ctx context.Context, c *harness.MySQLConn, table string) error {
	stmt, err := c.PrepareContext(ctx, "SELECT * FROM "+table+" WHERE id = ?")
	if err != nil {
		return err
	}
	for range 3 {
		var got [10]sql.NullString
		into := make([]any, len(got))
		for i := range got {
			into[i] = &got[i]
		}
		if err := stmt.QueryRowContext(ctx, -42).Scan(into...); err != nil {
			return err
		}
		for i, v := range got {
			if v.Valid != (myTyped[i].text != "NULL") || v.Valid && v.String != myTyped[i].text {
				return fmt.Errorf("%s is %+v", myTyped[i].name, v)
			}
		}
	}
	if err := stmt.Close(); err != nil {
		return err
	}
	rows, err := c.Column(ctx, "SELECT seq FROM seq_1_to_1000")
	if err != nil || len(rows) != 1000 {
		return fmt.Errorf("%d rows, %w", len(rows), err)
	}
	return nil
}

func goError(ctx context.Context, c *harness.MySQLConn, _ string) error {
	var my *mysql.MySQLError
	if err := c.Run(ctx, "SELECT * FROM there_is_no_such_table"); !errors.As(err, &my) || my.Number != 1146 {
		return fmt.Errorf("the error is %w", err)
	}
	return nil
}

func goTransaction(ctx context.Context, c *harness.MySQLConn, table string) error {
	for id, end := range []func(*sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
		tx, err := c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO "+table+" (id, name) VALUES (?, ?)", id+1, []string{"rolled back", "committed"}[id])
		if err := errors.Join(err, end(tx)); err != nil {
			return err
		}
	}
	return nil
}

func goBig(ctx context.Context, c *harness.MySQLConn, _ string) error {
	rows, err := c.Column(ctx, "SELECT REPEAT('x', 1000) FROM seq_1_to_5000")
	if len(rows) != 5000 {
		return fmt.Errorf("%d rows, %w", len(rows), err)
	}
	return err
}

func goLoads(ctx context.Context, c *harness.MySQLConn, table string) error {
	name := "file-of-" + table
	mysql.RegisterReaderHandler(name, func() io.Reader { return strings.NewReader(goFile()) })
	defer mysql.DeregisterReaderHandler(name)
	res, err := c.ExecContext(ctx, "LOAD DATA LOCAL INFILE 'Reader::"+name+"' INTO TABLE "+table+" (id, name)")
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); n != 10000 {
		return fmt.Errorf("%d rows of the file, %w", n, err)
	}
	return nil
}

// goLong sends a parameter by COM_STMT_SEND_LONG_DATA.
func goLong(ctx context.Context, c *harness.MySQLConn, _ string) error {
	long := strings.Repeat("L", 3<<20)
	var n int
	var sum string
	if err := c.QueryRowContext(ctx, "SELECT LENGTH(?), SHA2(?, 256)", long, long).Scan(&n, &sum); err != nil {
		return err
	}
	if want := sha256.Sum256([]byte(long)); n != len(long) || sum != hex.EncodeToString(want[:]) {
		return fmt.Errorf("%d bytes arrived, %s", n, sum)
	}
	return nil
}
