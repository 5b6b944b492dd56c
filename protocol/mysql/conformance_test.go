package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/enginetest"
	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// TestConformance: what every engine must do, on a server of its own.
func TestConformance(t *testing.T) {
	if !enginetest.Child() {
		need(t)
	}
	enginetest.Run(t, enginetest.Kit{
		Start:  startConformance,
		Engine: conformanceEngine,
		Front: func(e protocol.Engine, log *slog.Logger) protocol.Front {
			return NewFront(FrontConfig{Engine: e.(*Engine), Log: log})
		},
		Level:       conformanceLevel,
		Connect:     connectDriver,
		Bulk:        bulkDriver,
		Cancellable: cancellableDriver,
		DBA:         enginetest.Login{User: mysqltest.Admin, Password: mysqltest.Password},
		App:         enginetest.Login{User: "app", Password: "app"},
		Stranger:    enginetest.Login{User: "stranger", Password: "stranger"},
		Dialect:     conformanceDialect(),
	})
}

var conformanceLevel = protocol.Level{Name: "writer", Roles: []string{"marks_writer"}, LocalInfile: true}

// conformanceServer is a real server that remembers its settings.
type conformanceServer struct{ *mysqltest.Server }

// conformanceSettings have MariaDB count commits by user, so that the fate of a transaction can be known.
func conformanceSettings() []string {
	list := append(settings(), "max_connections=200", "local_infile=ON")
	if isMariaDB() {
		list = append(list, "userstat=1")
	}
	return list
}

func isMariaDB() bool {
	bin, err := mysqltest.Bin()
	return err == nil && strings.Contains(bin, "maria")
}

func (s conformanceServer) Broker() string { return s.URL(testBroker, "marks") }
func (s conformanceServer) Restart() error { return s.Run(conformanceSettings()...) }

func startConformance(ctx context.Context) (enginetest.Server, error) {
	raw, err := mysqltest.Start(conformanceSettings()...)
	if err != nil {
		return nil, err
	}
	s := conformanceServer{raw}
	if err := prepareConformance(ctx, s); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// prepareConformance is the DBA's part.
func prepareConformance(ctx context.Context, s conformanceServer) error {
	e, err := New(ctx, Config{Target: "marks", URL: s.Broker(), Installation: testInstallation})
	if err != nil {
		return err
	}
	defer e.Close()
	if err := s.SQL(ctx, "", "CREATE DATABASE marks", "CREATE DATABASE elsewhere"); err != nil {
		return err
	}
	adminURL := strings.Replace(s.Broker(), testBroker+"@", mysqltest.Admin+":"+mysqltest.Password+"@", 1)
	if err := Apply(ctx, adminURL, e.Setup([]protocol.Level{conformanceLevel}), testBroker, brokerPassword); err != nil {
		return err
	}
	const writes = "SELECT, INSERT, UPDATE, DELETE, EXECUTE, CREATE, ALTER, DROP, INDEX, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE," +
		" TRIGGER, EVENT, CREATE TEMPORARY TABLES"
	return s.SQL(ctx, "marks",
		"CREATE TABLE marks (what VARCHAR(100) NOT NULL)", "CREATE VIEW elsewhere.marks AS SELECT * FROM marks.marks",
		"CREATE TABLE two (n INT PRIMARY KEY)", "INSERT INTO two VALUES (1), (2)", "CREATE TABLE watched (what VARCHAR(100))",
		"CREATE TABLE secret (word VARCHAR(20))", "INSERT INTO secret VALUES ('sesame')",
		"CREATE PROCEDURE speak() BEGIN SELECT 1; SELECT 'two', 2; END",
		"GRANT "+writes+" ON marks.* TO marks_writer", "GRANT "+writes+" ON elsewhere.* TO marks_writer",
		"CREATE USER app@'%' IDENTIFIED BY 'app'", "GRANT "+writes+" ON marks.* TO app@'%'",
		"CREATE USER stranger@'%' IDENTIFIED BY 'stranger'", "GRANT EXECUTE ON marks.* TO stranger@'%'",
		"GRANT SELECT, CREATE ON marks.left_view TO stranger@'%'")
}

func conformanceEngine(ctx context.Context, c enginetest.Config) (protocol.Engine, error) {
	return New(ctx, Config{Target: "marks", URL: c.URL, Password: brokerPassword, Installation: c.Installation, Step: c.Step, Log: c.Log})
}

// connectDriver has the driver log in over a connection of the suite's.
func connectDriver(dial enginetest.Dial, user, password, database string) (driver.Connector, error) {
	c := gomysql.NewConfig()
	c.User, c.Passwd, c.DBName, c.Net, c.Addr = user, password, database, "tcp", "127.0.0.1:1"
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	c.MultiStatements, c.Logger = true, &gomysql.NopLogger{}
	connector, err := gomysql.NewConnector(c)
	return patient{connector}, err
}

// patient tries again when the driver could not read a challenge for ed25519: it takes a last byte of zero
// for a terminator, so that one login in 256 fails.
type patient struct{ driver.Connector }

func (p patient) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := p.Connector.Connect(ctx)
	if errors.Is(err, gomysql.ErrMalformPkt) {
		c, err = p.Connector.Connect(ctx)
	}
	return c, err
}

func bulkDriver(ctx context.Context, c *sql.Conn, mark string, data io.Reader) error {
	gomysql.RegisterReaderHandler(mark, func() io.Reader { return data })
	defer gomysql.DeregisterReaderHandler(mark)
	_, err := c.ExecContext(ctx, "LOAD DATA LOCAL INFILE 'Reader::"+mark+"' INTO TABLE marks (what)")
	return err
}

func cancellableDriver(ctx context.Context, dial enginetest.Dial, user, password, database string) (k enginetest.Cancellable, err error) {
	var g *greeted
	connector, err := connectDriver(func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		g = &greeted{Conn: conn}
		return g, err
	}, user, password, database)
	if err != nil {
		return k, err
	}
	k.DB = sql.OpenDB(connector)
	k.DB.SetMaxOpenConns(1)
	if err := k.DB.PingContext(ctx); err != nil {
		return k, errors.Join(err, k.DB.Close())
	}
	id, err := g.id()
	kill := func(ctx context.Context, user, password string) error {
		connector, err := connectDriver(dial, user, password, database)
		if err != nil {
			return err
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		_, err = db.ExecContext(ctx, fmt.Sprintf("KILL QUERY %d", id))
		return err
	}
	k.Cancel = func(ctx context.Context) error { return kill(ctx, user, password) }
	k.Forge = func(ctx context.Context, user, password string) error {
		var said *gomysql.MySQLError
		if err := kill(ctx, user, password); !errors.As(err, &said) {
			return fmt.Errorf("the answer to a forged KILL: %v", err)
		}
		return nil
	}
	return k, err
}

// greeted keeps what the server said first, which has the connection's id in it.
type greeted struct {
	net.Conn
	mu    sync.Mutex
	first []byte
}

func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.first) < 256 {
		g.first = append(g.first, b[:n]...)
	}
	return n, err
}

// id is what a stock client names in KILL.
func (g *greeted) id() (uint32, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, rest, ok := cstring(g.first[min(headerSize+1, len(g.first)):])
	if !ok || len(rest) < 4 {
		return 0, fmt.Errorf("no greeting: %q", g.first)
	}
	return binary.LittleEndian.Uint32(rest), nil
}

func conformanceDialect() enginetest.Dialect {
	password := "SET PASSWORD = '%s'"
	if isMariaDB() {
		password = "SET PASSWORD = PASSWORD('%s')"
	}
	return enginetest.Dialect{
		Database:    "marks",
		Deaf:        []string{"bulk"},
		Placeholder: func(int) string { return "?" },
		Sleep: func(mark string, seconds int) string {
			return fmt.Sprintf("SELECT SLEEP(%d), '%s'", seconds, mark)
		},
		InsertThenSleep: func(mark string, seconds int) string {
			return fmt.Sprintf("INSERT INTO marks (what) SELECT IF(n = 1 OR SLEEP(%[2]d) >= 0, '%[1]s', '') FROM two ORDER BY n", mark, seconds)
		},
		SetPassword: func(_, secret string) string { return fmt.Sprintf(password, secret) },
		Become:      []string{"USE elsewhere"},
		Prepare: func(gid, work string) []string {
			return []string{"XA START '" + gid + "'", work, "XA END '" + gid + "'", "XA PREPARE '" + gid + "'"}
		},
		RollBack: func(gid string) string { return "XA ROLLBACK '" + gid + "'" },
		Leave: func(_, name string) enginetest.Leaving {
			return enginetest.Leaving{
				Own: []string{"CREATE TABLE IF NOT EXISTS " + name + " (a INT)",
					"CREATE OR REPLACE VIEW " + name + "_view AS SELECT * FROM secret"},
				Undo: []string{"DROP VIEW IF EXISTS " + name + "_view", "DROP TABLE IF EXISTS " + name},
			}
		},
		Leftovers: conformanceLeftovers(),
		Sessions: func(account string) string {
			return "SELECT COUNT(*) FROM information_schema.processlist WHERE db IS NOT NULL AND command <> 'Connect' AND user = '" + account + "'" // who only knocks has no database yet
		},
		Running: func(account, text string) string {
			return "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '" + account + "' AND info LIKE '%" + text + "%'"
		},
		Written: func(account string) string {
			// Not by information_schema.innodb_trx: who asks for that often has it stand still for everybody.
			return "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep' AND info LIKE 'INSERT%' AND user = '" + account + "'"
		},
		Accounts: func(prefix string) string {
			return fmt.Sprintf("SELECT COUNT(*) FROM mysql.user WHERE LEFT(user, %d) = '%s'", len(prefix), prefix)
		},
		Prepared: recoverable,
		Dialogue: conformanceDialogue,
	}
}

// recoverable lists the global ids of prepared transactions.
func recoverable(ctx context.Context, db *sql.DB) (list []string, err error) {
	rows, err := db.QueryContext(ctx, "XA RECOVER")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var format, global, branch int
		var data string
		if err := rows.Scan(&format, &global, &branch, &data); err != nil {
			return nil, err
		}
		list = append(list, data[:global])
	}
	return list, rows.Err()
}

// conformanceLeftovers: definers don't have the rights of their roles, so what an account defines does no
// harm by itself. On MariaDB a role can define.
func conformanceLeftovers() []enginetest.Leftover {
	list := []enginetest.Leftover{
		{Name: "a view", Kind: "view", Object: "left_view", Alert: true,
			Make: []string{"CREATE VIEW left_view AS SELECT * FROM secret"}, Undo: []string{"DROP VIEW IF EXISTS left_view"}},
		{Name: "a definer function", Kind: "function", Object: "left_fn", Alert: true, Stays: !isMariaDB(),
			Make: []string{"CREATE FUNCTION left_fn() RETURNS TEXT READS SQL DATA RETURN (SELECT word FROM secret LIMIT 1)"},
			Undo: []string{"DROP FUNCTION IF EXISTS left_fn"}},
		{Name: "a definer procedure", Kind: "procedure", Object: "left_proc", Alert: true, Stays: !isMariaDB(),
			Make: []string{"CREATE PROCEDURE left_proc() SELECT word FROM secret"}, Undo: []string{"DROP PROCEDURE IF EXISTS left_proc"}},
		{Name: "a trigger", Kind: "trigger", Object: "left_trigger", Alert: true, Stays: true,
			Make: []string{"CREATE TRIGGER left_trigger BEFORE INSERT ON watched FOR EACH ROW SET NEW.what = 'planted'"},
			Open: []string{"INSERT INTO watched VALUES ('the application')"}, Undo: []string{"DROP TRIGGER IF EXISTS left_trigger"}},
		{Name: "an event", Kind: "event", Object: "left_event", Alert: true,
			Make: []string{"CREATE EVENT left_event ON SCHEDULE EVERY 1 DAY DO INSERT INTO marks (what) VALUES ('event')"},
			Open: []string{"INSERT INTO marks (what) VALUES ('still open')"}, Undo: []string{"DROP EVENT IF EXISTS left_event"}},
	}
	if isMariaDB() {
		list = append(list, enginetest.Leftover{Name: "a view of the role's", Kind: "view", Object: "left_view", Alert: true,
			Make:   []string{"CREATE DEFINER = CURRENT_ROLE VIEW left_view AS SELECT * FROM secret"},
			Closed: []string{"SELECT * FROM left_view"}, Undo: []string{"DROP VIEW IF EXISTS left_view"}})
	}
	return list
}

var conformanceDialogue = []enginetest.Line{
	{SQL: "SELECT 1 AS one",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "SELECT CURRENT_USER(), DATABASE()",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "SELECT ? + ?, ?, CAST(? AS DECIMAL(5,2)), ?, ?, ?, ?", Args: []any{int64(41), int64(1), "it's", "1.50", []byte{0, 255}, true, nil, 2.5},
		Records: `prepare SQL; execute bigint="41" bigint="1" char="it's" char="1.50" char="\x00\xff" tinyint="1" null=null double="2.5"; result rows=1 idle; command`},
	{SQL: "SELECT CAST(1 AS SIGNED), CAST(2 AS UNSIGNED), 1.5e0, 12.345, 'x', NULL, DATE '2026-11-22', TIMESTAMP '2026-11-22 10:00:00', TIME '-10:00:00', x'00ff', TRUE, JSON_OBJECT('a', 1)",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "SELECT n, REPEAT('x', n) FROM two WHERE n > ?", Args: []any{1},
		Records: `prepare SQL; execute bigint="1"; result rows=1 idle; command`},
	{SQL: "SELECT REPEAT('large ', 500000)",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "SELECT LENGTH(?)", Args: []any{strings.Repeat("large ", 50000)},
		Records: "prepare SQL; execute char=(300000 bytes); result rows=1 idle; command"},
	{SQL: "CREATE TEMPORARY TABLE talk (id INT AUTO_INCREMENT PRIMARY KEY, what TEXT)", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "INSERT INTO talk (what) VALUES ('a'), ('b'), (NULL)", Exec: true,
		Records: "simple SQL; result rows=3 id=1 idle"},
	{SQL: "UPDATE talk SET what = ? WHERE id > ?", Args: []any{"c", 1}, Exec: true,
		Records: `prepare SQL; execute char="c" bigint="1"; result rows=2 idle; command`},
	{SQL: "DELETE FROM talk WHERE FALSE", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SELECT 1; SELECT 2 FROM DUAL WHERE FALSE; INSERT INTO talk (what) VALUES ('d'); SELECT 3",
		Records: "simple SQL; result rows=1 idle; result rows=0 idle; result rows=1 id=4 idle; result rows=1 idle"},
	{SQL: "SELECT * FROM talk ORDER BY id",
		Records: "simple SQL; result rows=4 idle"},
	{SQL: "SELECT * FROM talk WHERE id < ? ORDER BY id", Args: []any{3},
		Records: `prepare SQL; execute bigint="3"; result rows=2 idle; command`},
	{SQL: "CALL speak()",
		Records: "simple SQL; result rows=1 idle; result rows=1 idle; result rows=0 idle"},
	{SQL: "SELECT nonsense",
		Records: "simple SQL; result rows=0 code=42S22 errno=1054"},
	{SQL: "SELECT 1; SELECT nonsense; SELECT 3",
		Records: "simple SQL; result rows=1 idle; result rows=0 code=42S22 errno=1054"},
	{SQL: "SELECT ? FROM nowhere", Args: []any{1},
		Records: "prepare SQL; result rows=0 code=42S02 errno=1146"},
	{SQL: "INSERT INTO talk (id) VALUES (1)", Exec: true,
		Records: "simple SQL; result rows=0 code=23000 errno=1062"},
	{SQL: "INSERT INTO talk (id) VALUES (?)", Args: []any{1}, Exec: true,
		Records: `prepare SQL; execute bigint="1"; result rows=0 code=23000 errno=1062; command`},
	{SQL: "INSERT INTO mysql.user VALUES ('x')", Exec: true,
		Records: "simple SQL; result rows=0 code=42000 errno=1142"},
	{SQL: "INSERT INTO talk (what) VALUES (REPEAT('x', CAST('12 monkeys' AS SIGNED)))", Exec: true,
		Records: "simple SQL; result rows=0 code=22007 errno=1292"},
	{SQL: "BEGIN", Exec: true,
		Records: "simple SQL; result rows=0 open"},
	{SQL: "INSERT INTO talk (what) VALUES ('e')", Exec: true,
		Records: "simple SQL; result rows=1 id=5 open"},
	{SQL: "ROLLBACK", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "USE elsewhere", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SELECT DATABASE()",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "USE marks", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SELECT 1/0",
		Records: "simple SQL; result rows=1 warnings=1 idle"},
	{SQL: "SET @a = 'x'", Exec: true,
		Records: "simple SQL; result rows=0 idle"},
	{SQL: "SELECT @a, @@session.autocommit",
		Records: "simple SQL; result rows=1 idle"},
	{SQL: "", Exec: true,
		Records: "simple; result rows=0 code=42000 errno=1065"},
	{SQL: "SHOW WARNINGS",
		Records: "simple SQL; result rows=1 idle"},
}
