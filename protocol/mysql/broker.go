package mysql

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"time"

	driver "github.com/go-sql-driver/mysql"
)

const (
	queryTimeout = 5 * time.Second // one short query on the closing line; a dead network shows by it
	lineBeat     = 5 * time.Second
	lineRetry    = 2 * time.Second
	pingTimeout  = 2 * time.Second
	poolConns    = 4
	poolIdle     = 5 * time.Minute

	// brokerMode is the SQL mode of the broker's connections. Without backslash escapes a string ends at its
	// quote, whatever is in it.
	brokerMode = "STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES"
)

var errClosed = errors.New("the engine is closed")

// openBroker makes a pool for the broker; nothing is dialled yet. lockWait is in seconds; empty: the server's own.
func openBroker(t *target, password, lockWait string) (*sql.DB, error) {
	c := driver.NewConfig()
	c.User, c.Passwd = t.user, password
	c.Net, c.Addr, c.Timeout = t.network, t.address, t.timeout
	c.TLS, c.AllowFallbackToPlaintext = t.tls, t.prefer
	c.InterpolateParams = true // it knows the SQL mode
	c.Params = map[string]string{"sql_mode": "'" + brokerMode + "'", "time_zone": "'+00:00'"}
	if lockWait != "" {
		c.Params["lock_wait_timeout"] = lockWait
	}
	c.ConnectionAttributes = "program_name:curfew"
	c.Logger = &driver.NopLogger{} // what it would say comes back as an error
	if err := c.Apply(driver.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, err
	}
	key := t.key
	if key == nil {
		key = nobodysKey()
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	c.ServerPubKey = hex.EncodeToString(sum[:]) // the driver takes it by name only
	driver.RegisterServerPubKey(c.ServerPubKey, key)
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(stubborn{connector}), nil
}

// nobodysKey is a key without a private half. Without one by name the driver would ask a server that it does not
// speak TLS with for its RSA key, and give the broker's password to whoever answers.
var nobodysKey = sync.OnceValue(func() *rsa.PublicKey {
	modulus := make([]byte, keyBits/8)
	_, _ = rand.Read(modulus) // never fails (crypto/rand)
	modulus[0] |= 0x80
	modulus[len(modulus)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
})

// stubborn makes up for the driver, which cuts a zero off the end of a server's challenge: one login in 256
// by ed25519 fails in that way and in no other, and the next one works.
type stubborn struct{ sqldriver.Connector }

func (p stubborn) Connect(ctx context.Context) (c sqldriver.Conn, err error) {
	for range 4 {
		if c, err = p.Connector.Connect(ctx); !errors.Is(err, driver.ErrMalformPkt) {
			break
		}
	}
	return c, err
}

// conn is one broker connection, and which kind of server it leads to.
type conn struct {
	*sql.Conn
	server  server
	id      uint32   // the line's: the server's id of the connection
	plugins []string // ways in which the server can check a password, once asked
}

// rows runs sql/<name>.sql and hands each row to scan.
func (c *conn) rows(ctx context.Context, name string, scan func(*sql.Rows) error, args ...any) error {
	return c.each(ctx, query(c.server.mariadb, name), scan, args...)
}

// each runs a query and hands each row to scan.
func (c *conn) each(ctx context.Context, text string, scan func(*sql.Rows) error, args ...any) error {
	_, err := c.ask(ctx, text, scan, args...)
	return err
}

// row runs a query for one row, and says which text was asked in the end.
func (c *conn) row(ctx context.Context, text string, args []any, dest ...any) (asked string, err error) {
	n := 0
	asked, err = c.ask(ctx, text, func(rows *sql.Rows) error { n++; return rows.Scan(dest...) }, args...)
	if err == nil && n == 0 {
		err = sql.ErrNoRows
	}
	return asked, err
}

func (c *conn) ask(ctx context.Context, text string, scan func(*sql.Rows) error, args ...any) (asked string, err error) {
	err = c.once(ctx, text, scan, args...)
	if is(err, errnoConvert) && strings.Contains(text, processlist) {
		text = strings.ReplaceAll(text, processlist, processlistRaw)
		err = c.once(ctx, text, scan, args...)
	}
	return text, err
}

// MySQL's list of connections can't be read by anybody while one of them, whoever's, runs a text that is not in
// its own character set. The other list can; what is not in that one (what runs an event) is found when
// the first can be read again.
const (
	errnoConvert   = 3854 // ER_CANNOT_CONVERT_STRING
	processlist    = "information_schema.processlist"
	processlistRaw = "performance_schema.processlist"
)

func (c *conn) once(ctx context.Context, text string, scan func(*sql.Rows) error, args ...any) error {
	rows, err := c.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// sets runs a block that gives several results, and hands the rows of each to the func of its turn.
func (c *conn) sets(ctx context.Context, block string, args []any, scans ...func(*sql.Rows) error) error {
	rows, err := c.QueryContext(ctx, block, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for i, scan := range scans {
		if i > 0 && !rows.NextResultSet() {
			return errors.Join(rows.Err(), errors.New("the server gave fewer results than it was asked for"))
		}
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
	}
	for rows.NextResultSet() { // the block's own end, or why it had one before
	}
	return rows.Err()
}

// strings runs a query that gives one column of text.
func (c *conn) strings(ctx context.Context, text string, args ...any) (list []string, err error) {
	err = c.each(ctx, text, func(r *sql.Rows) error {
		var s sql.NullString
		err := r.Scan(&s)
		list = append(list, s.String)
		return err
	}, args...)
	return list, err
}

// run runs the statements of sql/<name>.sql one by one: none of those that it is used for can be undone by
// a ROLLBACK.
func (c *conn) run(ctx context.Context, name string, v vars) error {
	list, err := filled(c.server.mariadb, name, v)
	if err != nil {
		return err
	}
	for _, text := range list {
		if _, err := c.ExecContext(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// discard hangs up instead of giving the connection back to its pool.
func (c *conn) discard() {
	_ = c.Raw(func(any) error { return sqldriver.ErrBadConn })
	_ = c.Close() // it is being thrown away
}

// line is the broker connection that stays open for closing alone, because a grant's own sessions can
// fill max_connections. One short query at a time; a broken connection is made anew, at once by whoever
// needs it, and in the background before anybody does.
type line struct {
	db     *sql.DB
	prober *prober
	log    *slog.Logger
	turn   chan struct{} // holds one token: the right to use conn, and to replace it
	conn   *conn         // nil: not connected
	lost   uint32        // id of a connection that was given up while it may still have been at work
	stop   context.CancelFunc
	tried  chan struct{} // closed when it was connected, or could not be, for the first time
	done   chan struct{}
}

func newLine(ctx context.Context, db *sql.DB, p *prober, log *slog.Logger) *line {
	ctx, stop := context.WithCancel(ctx)
	l := &line{db: db, prober: p, log: log, turn: make(chan struct{}, 1), stop: stop, tried: make(chan struct{}), done: make(chan struct{})}
	l.turn <- struct{}{}
	go l.keep(ctx)
	return l
}

// do runs one short piece of work on the line. If the connection turns out to be dead it is made anew
// and f runs again, so f must bear to be repeated.
func (l *line) do(ctx context.Context, f func(context.Context, *conn) error) error {
	select {
	case <-l.turn:
	case <-l.done:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { l.turn <- struct{}{} }()
	fresh := l.conn == nil
	err := l.once(ctx, f)
	if err != nil && !fresh && l.conn == nil && ctx.Err() == nil {
		err = l.once(ctx, f)
	}
	return err
}

// once connects if need be and runs f. The caller holds the turn.
func (l *line) once(ctx context.Context, f func(context.Context, *conn) error) error {
	if l.conn == nil {
		if err := l.connect(ctx); err != nil {
			return err
		}
	}
	query, cancel := context.WithTimeout(ctx, queryTimeout)
	err := f(query, l.conn)
	cancel()
	// After a failover the old address may answer as a replica: dial again, the primary may be found.
	if broken(err) || isReadOnly(err) {
		l.hangUp()
	}
	if isReadOnly(err) {
		return errReadOnly
	}
	return err
}

func (l *line) connect(ctx context.Context) error {
	ask := l.prober.server
	if l.lost != 0 {
		ask = l.prober.again
	}
	s, err := ask(ctx)
	if err != nil {
		return err
	}
	dial, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	c, err := l.db.Conn(dial)
	if err != nil {
		return err
	}
	l.conn = &conn{Conn: c, server: s}
	if err = c.QueryRowContext(dial, "SELECT CONNECTION_ID()").Scan(&l.conn.id); err == nil && l.lost != 0 {
		err = l.bury(dial)
	}
	if err != nil {
		l.hangUp()
		return err
	}
	l.lost = 0
	return nil
}

// bury ends the connection that was given up: what was asked there and waits for a lock must not happen some
// time later. A server that was restarted may have given its id to somebody else by now.
func (l *line) bury(ctx context.Context) error {
	var ours int
	_, err := l.conn.row(ctx, query(l.conn.server.mariadb, "ours"), []any{l.lost}, &ours)
	if err != nil || ours == 0 {
		return err
	}
	if _, err = l.conn.ExecContext(ctx, fmt.Sprintf("KILL CONNECTION %d", l.lost)); is(err, 1094) {
		return nil
	}
	return err
}

func (l *line) hangUp() {
	if l.conn != nil {
		l.lost = max(l.lost, l.conn.id)
		l.conn.discard()
		l.conn = nil
	}
}

// broken says whether an error leaves a connection of no use: whatever is not the server's word.
func broken(err error) bool {
	var said *driver.MySQLError
	return err != nil && !errors.As(err, &said) && !errors.Is(err, sql.ErrNoRows)
}

// isReadOnly says whether the server refused because it is a replica, or read-only for another reason.
func isReadOnly(err error) bool {
	return errors.Is(err, errReadOnly) || is(err, 1836) || is(err, 1290) && strings.Contains(err.Error(), "read-only")
}

// keep has the line open before it is needed.
func (l *line) keep(ctx context.Context) {
	defer l.end()
	down := false
	for first := true; ; first = false {
		err := l.do(ctx, func(ctx context.Context, c *conn) error { return c.PingContext(ctx) })
		if first {
			close(l.tried)
		}
		wait := lineBeat
		if err != nil {
			wait = lineRetry
		}
		if (err != nil) != down && ctx.Err() == nil {
			if down = err != nil; down {
				l.log.Error("the connection kept for closing is down; it is being made anew", "error", err)
			} else {
				l.log.Info("the connection kept for closing is up again")
			}
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (l *line) close() {
	l.stop()
	<-l.done
}

// end hangs up for good: the token is kept, so nobody connects again.
func (l *line) end() {
	<-l.turn
	l.hangUp()
	_ = l.db.Close()
	close(l.done)
}

// pause waits d, or reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
