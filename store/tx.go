package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

var errReadOnly = errors.New("a View changes nothing")

// Tx is one transaction: Update's, or View's which only reads. It is dead when the function it was
// given to returns.
type Tx struct {
	ctx    context.Context
	sql    *sql.Tx
	ready  *statements // of the connections that sql is one of
	s      *Store
	now    time.Time
	writes bool
	tree   ledger.Tree // grows with Append
	base   int64       // the tree's size when the transaction began
	after  func()      // run once it is committed, before the next Update
}

// Update runs fn in a transaction that is committed if fn returns nil. The entries that fn appends
// and a new signed checkpoint over them are committed with whatever fn changed. Updates run one after
// another; fn must not call Update itself, nor wait for anything but tx.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) (err error) {
	if s.observe != nil {
		began := time.Now()
		defer func() { s.observe(time.Since(began), err) }()
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return fmt.Errorf("store: %w", context.Cause(ctx))
	}
	late := false // somebody else gives the turn back
	defer func() {
		if !late {
			s.turn <- struct{}{}
		}
	}()
	if err := s.place.check(); err != nil {
		return err
	}
	var sqlTx *sql.Tx
	late, err = within(ctx, func() (err error) {
		sqlTx, err = s.beginTx(ctx, OpBegin, s.write, nil)
		return err
	}, func(err error) {
		if err == nil {
			sqlTx.Rollback() // nobody waits for it
		}
		s.turn <- struct{}{}
	})
	if err != nil {
		return err
	}
	defer sqlTx.Rollback() // after a commit it does nothing

	tx := &Tx{ctx: ctx, sql: sqlTx, ready: s.writing, s: s, now: s.Now(), writes: true}
	if err := s.settle(tx); err != nil {
		return err
	}
	tx.tree, tx.base = s.tree.Clone(), s.tree.Size()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.sign(); err != nil {
		return err
	}
	late, err = within(ctx, func() error { return s.do(OpCommit, sqlTx.Commit) }, func(err error) {
		s.committed(tx, err)
		s.turn <- struct{}{}
	})
	if late {
		return err
	}
	return s.committed(tx, err)
}

// committed takes note of what became of a commit; the caller has the turn.
func (s *Store) committed(tx *Tx, err error) error {
	if err != nil {
		s.pending = &tx.tree
		return fmt.Errorf("store: commit: %w", err)
	}
	s.tree = tx.tree
	s.size.Store(s.tree.Size())
	if tx.after != nil {
		tx.after()
	}
	return nil
}

// within does f, and waits for it until ctx ends and no longer: a disk that hangs holds up whoever has no time
// left. Then after is called with what comes of f, once it comes.
func within(ctx context.Context, f func() error, after func(error)) (late bool, err error) {
	done, left := make(chan error), make(chan struct{})
	go func() {
		err := f()
		select {
		case done <- err:
		case <-left:
			after(err)
		}
	}()
	select {
	case err := <-done:
		return false, err
	case <-ctx.Done():
		close(left)
		return true, fmt.Errorf("store: it takes too long: %w", context.Cause(ctx))
	}
}

func (s *Store) beginTx(ctx context.Context, op Op, db *sql.DB, o *sql.TxOptions) (tx *sql.Tx, err error) {
	err = s.do(op, func() (err error) {
		tx, err = db.BeginTx(ctx, o)
		return err
	})
	if err != nil {
		if tx != nil {
			tx.Rollback() // it had begun, and was reported as failed
		}
		return nil, fmt.Errorf("store: %w", err)
	}
	return tx, nil
}

// settle makes sure that the file still ends where this process wrote last, and finds out what became
// of a commit that was reported as failed.
func (s *Store) settle(tx *Tx) error {
	h, err := tx.head()
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case s.pending != nil && h.is(*s.pending):
		s.tree = *s.pending
		s.size.Store(s.tree.Size())
	case !h.is(s.tree):
		return fmt.Errorf("%w: its ledger ends at %d entries, %d were written", ErrTampered, h.size, s.tree.Size())
	}
	s.pending = nil
	return nil
}

// View runs fn on a snapshot that only reads.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	sqlTx, err := s.beginTx(ctx, OpView, s.read, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer sqlTx.Rollback() // nothing to keep
	return fn(&Tx{ctx: ctx, sql: sqlTx, ready: s.reading, s: s, now: s.Now()})
}

// Context is the transaction's own.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Now is the one time of this transaction: of its entries and of whatever it decides.
func (tx *Tx) Now() time.Time { return tx.now }

// Append puts an entry on the ledger; data is the struct that package ledger names beside the type.
func (tx *Tx) Append(typ string, data any) error {
	if !tx.writes {
		return errReadOnly
	}
	e, err := ledger.NewEntry(tx.tree.Size(), tx.now, typ, data)
	if err != nil {
		return err
	}
	line, err := ledger.Encode(e)
	if err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO entries (n, line) VALUES (?, ?)`, e.Index, line); err != nil {
		return err
	}
	tx.tree.Append(ledger.LeafHash(line))
	return nil
}

// sign writes the checkpoint over what was appended, and the high-water mark of time.
func (tx *Tx) sign() error {
	if err := tx.setMeta(metaHigh, strconv.FormatInt(tx.now.UnixNano(), 10)); err != nil {
		return err
	}
	if tx.tree.Size() == tx.base {
		return nil
	}
	root := tx.tree.Root()
	msg, err := tx.s.signer.Sign(ledger.Checkpoint{
		Origin: ledger.Origin(tx.s.installation), Size: tx.tree.Size(), Root: root,
	})
	if err != nil {
		return fmt.Errorf("sign checkpoint: %w", err)
	}
	return tx.exec(`INSERT INTO head (one, size, root, checkpoint) VALUES (1, ?, ?, ?)
		ON CONFLICT (one) DO UPDATE SET size = excluded.size, root = excluded.root, checkpoint = excluded.checkpoint`,
		tx.tree.Size(), root.String(), msg)
}

type head struct {
	size       int64
	root       string
	checkpoint []byte
}

func (h head) is(t ledger.Tree) bool {
	return h.size == t.Size() && (h.size == 0 || h.root == t.Root().String())
}

func (tx *Tx) head() (h head, err error) {
	err = tx.row(`SELECT size, root, checkpoint FROM head`).Scan(&h.size, &h.root, &h.checkpoint)
	return h, found(err, "checkpoint")
}

func (tx *Tx) entries(from int64, fn func(line []byte) error) error {
	rows, err := tx.sql.QueryContext(tx.ctx, `SELECT line FROM entries WHERE n >= ? ORDER BY n`, from)
	if err != nil {
		return fmt.Errorf("store: entries: %w", err)
	}
	defer rows.Close()
	var line sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&line); err != nil {
			return fmt.Errorf("store: entries: %w", err)
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("store: entries: %w", err)
	}
	return nil
}

// Names of the rows of meta.
const (
	metaInstallation = "installation"
	metaHigh         = "high" // high-water mark of time, nanoseconds since 1970
)

func (tx *Tx) meta(name string) (value string, err error) {
	err = tx.row(`SELECT value FROM meta WHERE name = ?`, name).Scan(&value)
	return value, found(err, name)
}

func (tx *Tx) setMeta(name, value string) error {
	return tx.exec(`INSERT INTO meta (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}

func (tx *Tx) row(query string, args ...any) *sql.Row {
	if stmt := tx.ready.in(tx.ctx, tx.sql, query); stmt != nil {
		return stmt.QueryRowContext(tx.ctx, args...)
	}
	return tx.sql.QueryRowContext(tx.ctx, query, args...)
}

func (tx *Tx) rows(query string, args ...any) (*sql.Rows, error) {
	if stmt := tx.ready.in(tx.ctx, tx.sql, query); stmt != nil {
		return stmt.QueryContext(tx.ctx, args...)
	}
	return tx.sql.QueryContext(tx.ctx, query, args...)
}

func (tx *Tx) run(query string, args ...any) (sql.Result, error) {
	if stmt := tx.ready.in(tx.ctx, tx.sql, query); stmt != nil {
		return stmt.ExecContext(tx.ctx, args...)
	}
	return tx.sql.ExecContext(tx.ctx, query, args...)
}

func (tx *Tx) exec(query string, args ...any) error {
	if !tx.writes {
		return errReadOnly
	}
	if _, err := tx.run(query, args...); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// found turns the driver's word for an absent row into ErrNotFound.
func found(err error, what string) error {
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case err != nil:
		return fmt.Errorf("store: %s: %w", what, err)
	}
	return nil
}

// doc reads the one JSON value of a query's row.
func doc[T any](tx *Tx, what, query string, args ...any) (v T, err error) {
	var raw []byte
	if err := found(tx.row(query, args...).Scan(&raw), what); err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("store: %s: %w", what, err)
	}
	return v, nil
}

// docs reads the JSON values of all rows.
func docs[T any](tx *Tx, what, query string, args ...any) ([]T, error) {
	rows, err := tx.rows(query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", what, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return nil, fmt.Errorf("store: %s: %w", what, err)
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("store: %s: %w", what, err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: %s: %w", what, err)
	}
	return all, nil
}

// where builds the conditions of a filter; values go in as arguments only.
type where struct {
	sql  string
	args []any
}

func (w *where) and(condition string, args ...any) {
	if w.sql == "" {
		w.sql = " WHERE " + condition
	} else {
		w.sql += " AND " + condition
	}
	w.args = append(w.args, args...)
}

// after goes on behind a row of a list that is in the order of column DESC, id. There is nothing behind a
// row that is not there.
func (w *where) after(table, column, id string) {
	if id == "" {
		return
	}
	mark := "(SELECT " + column + " FROM " + table + " WHERE id = ?)"
	w.and("("+column+" < "+mark+" OR ("+column+" = "+mark+" AND id > ?))", id, id, id)
}

func (w *where) limit(order string, n int) string {
	s := w.sql + " ORDER BY " + order
	if n > 0 {
		s += " LIMIT " + strconv.Itoa(n)
	}
	return s
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
