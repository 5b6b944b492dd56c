package e2e

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/curfewdb/curfew/e2e/harness"
)

// onMariaDB is the stage with the target shop, on a MariaDB or a MySQL.
func onMariaDB(my *harness.MariaDB) *stage {
	s := &stage{
		kind: "mysql", target: harness.Shop, url: my.Target(),
		server: my, my: my, deeds: mysqlDeeds(),
		login: func(ctx context.Context, c harness.Credentials) (conn, error) { return myDial(c.MySQL(ctx)) },
		direct: func(ctx context.Context, user, password string) (conn, error) {
			return myDial(my.Login(ctx, user, password, harness.Shop))
		},
		lastWords: myLastWords,
		account:   "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)",
		slowly: func(word string) string {
			return fmt.Sprintf("INSERT INTO orders (item) SELECT CONCAT('%s', SLEEP(0.1)) FROM seq_1_to_40", word)
		},
		commits: func(word string) string { return "SELECT COUNT(*) FROM orders WHERE item LIKE '" + word + "%'" },
		running: func(word string) string {
			return "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%" + word + `%' AND USER LIKE 'curfew\_%'`
		},
		open: func(grant string) string {
			return `SELECT COALESCE(INFO, 'idle') FROM information_schema.PROCESSLIST WHERE USER LIKE 'curfew\_%\_` + grant + "'"
		},
		password: func(_, password string) string { return "SET PASSWORD = PASSWORD('" + password + "')" },
		prepared: my.Prepared,
		share: func(ctx context.Context, account string) error { // nobody else can give away what the broker made
			c, err := my.Login(ctx, "curfew_broker", harness.BrokerPassword, "")
			if err != nil {
				return err
			}
			return errors.Join(c.Run(ctx, "GRANT "+account+"_role TO stranger@127.0.0.1"), c.Close())
		},
		steps:  []string{"provision.unlocked"},
		denied: "1045",
		crash: func(word, grant string) (left, stays []string) {
			// After the last of them a session can do nothing else.
			left = xa(xid(word), "INSERT INTO orders (item) VALUES ('"+word+"-prepared')")
			stays = []string{
				"INSERT INTO orders (item) VALUES ('" + word + "-kept')",
				"CREATE TABLE crash_" + grant + " (a int)",
				"CREATE VIEW crash_view_" + grant + " AS SELECT a FROM crash_" + grant,
			}
			return left, stays
		},
	}
	if my.IsMySQL() {
		s.inMySQL()
	}
	return s
}

// inMySQL says what MySQL says otherwise.
func (s *stage) inMySQL() {
	my := s.my
	s.never = []string{"clean.unshared"} // who was given the account loses it when it is dropped
	s.password = func(_, password string) string { return "SET PASSWORD = '" + password + "'" }
	s.share = func(ctx context.Context, account string) error {
		hosts, err := my.Ask(ctx, "mysql", "SELECT Host FROM user WHERE User = ?", account)
		if err != nil || len(hosts) != 1 {
			return fmt.Errorf("%s is at %q: %w", account, hosts, err)
		}
		return my.Exec(ctx, "", "GRANT "+account+"@'"+hosts[0]+"' TO stranger@127.0.0.1")
	}
}

// mysqlOutages are ways for a MySQL to be of no use to the broker. Who is in keeps the rights of the moment
// when they came in.
func mysqlOutages() map[string]outage {
	const broker, again = "curfew_broker@127.0.0.1", "CALL vault.kill_user('curfew_broker')"
	return map[string]outage{
		"read-only": {begin: []string{"SET GLOBAL super_read_only = 1"}, end: []string{"SET GLOBAL super_read_only = 0", "SET GLOBAL read_only = 0"},
			word: "read-only", reads: true},
		"without CREATE USER": {begin: []string{"REVOKE CREATE USER ON *.* FROM " + broker, again}, end: []string{"GRANT CREATE USER ON *.* TO " + broker, again},
			word: "curfew check"},
		"without CONNECTION_ADMIN": {begin: []string{"REVOKE CONNECTION_ADMIN ON *.* FROM " + broker, again}, end: []string{"GRANT CONNECTION_ADMIN ON *.* TO " + broker, again},
			stuck: true},
		"without the role": {begin: []string{"REVOKE shop_writer FROM " + broker}, end: []string{"GRANT shop_writer TO " + broker + " WITH ADMIN OPTION"},
			word: "curfew check", ends: true},
		"password changed": {begin: []string{"ALTER USER " + broker + " IDENTIFIED BY 'another'"}, end: []string{"ALTER USER " + broker + " IDENTIFIED BY '" + harness.BrokerPassword + "'"},
			ends: true},
	}
}

type myConn struct{ *harness.MySQLConn }

func myDial(c *harness.MySQLConn, err error) (conn, error) {
	if err != nil {
		return nil, err
	}
	return myConn{c}, nil
}

func (c myConn) run(ctx context.Context, sql string) error { return c.Run(ctx, sql) }

func (c myConn) column(ctx context.Context, sql string) ([]string, error) { return c.Column(ctx, sql) }

func (c myConn) close() error { return c.Close() }

func myLastWords(err error) (string, bool) {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		return "", false
	}
	killed := map[uint16]string{1927: "70100", 3169: "HY000"} // of a MariaDB, and of a MySQL
	return my.Message, killed[my.Number] == string(my.SQLState[:])
}
