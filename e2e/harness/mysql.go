package harness

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/curfewdb/curfew/protocol/mysql/mysqltest"
)

// isMySQL: the shop's server is a MySQL.
func isMySQL() bool {
	bin, err := mysqltest.Bin()
	return err == nil && !strings.Contains(filepath.Base(bin), "maria")
}

// IsMySQL says whether the server is a MySQL.
func (m *MariaDB) IsMySQL() bool { return !m.server.IsMariaDB() }

// ProgramsEnv names an environment variable with the directory of the shop's stock clients; unset, the
// machine's are taken.
const ProgramsEnv = "CURFEW_MYSQL_PROGRAMS"

// program is the file of a stock client that is asked for by the name that MariaDB gives it, and whether it
// is MySQL's.
func program(name string) (file string, mysql bool) {
	dir := os.Getenv(ProgramsEnv)
	if dir == "" {
		return name, false
	}
	if isMySQL() {
		return filepath.Join(dir, map[string]string{"mariadb": "mysql", "mariadb-dump": "mysqldump", "mariadb-slap": "mysqlslap"}[name]), true
	}
	return filepath.Join(dir, name), false
}

// StockMySQL says whether the shop's stock clients are MySQL's own.
func StockMySQL() bool {
	_, mysql := program("mariadb")
	return mysql
}

// shopSetupMySQL is shopSetup for a MySQL: what it has no tables seq_1_to_N of, roles' rights to what others
// make, and a DBA's procedure to end somebody's connections.
const shopSetupMySQL = `
SET SESSION cte_max_recursion_depth = 5000;
CREATE TABLE shop.seq_1_to_5000 (seq BIGINT PRIMARY KEY) AS WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 5000) SELECT seq FROM n;
CREATE VIEW shop.seq_1_to_1000 AS SELECT seq FROM shop.seq_1_to_5000 WHERE seq <= 1000;
CREATE VIEW shop.seq_1_to_600 AS SELECT seq FROM shop.seq_1_to_5000 WHERE seq <= 600;
CREATE VIEW shop.seq_1_to_100 AS SELECT seq FROM shop.seq_1_to_5000 WHERE seq <= 100;
CREATE VIEW shop.seq_1_to_40 AS SELECT seq FROM shop.seq_1_to_5000 WHERE seq <= 40;
CREATE ROLE shop_reader, shop_writer, shop_owner;
GRANT SELECT ON shop.orders TO shop_reader;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE,
	EXECUTE, EVENT, CREATE TEMPORARY TABLES, LOCK TABLES ON shop.* TO shop_writer;
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, EXECUTE ON other.* TO shop_writer;
GRANT ALL ON shop.* TO shop_owner;
GRANT SELECT ON vault.* TO shop_owner;
CREATE USER curfew_broker@127.0.0.1 IDENTIFIED BY '` + BrokerPassword + `';
GRANT CREATE USER, PROCESS, SHOW VIEW, TRIGGER, EVENT, CREATE VIEW, DROP ON *.* TO curfew_broker@127.0.0.1;
GRANT CONNECTION_ADMIN, XA_RECOVER_ADMIN, SHOW_ROUTINE, SET_ANY_DEFINER ON *.* TO curfew_broker@127.0.0.1;
GRANT SELECT ON mysql.* TO curfew_broker@127.0.0.1;
GRANT SELECT ON performance_schema.* TO curfew_broker@127.0.0.1;
CREATE USER curfew_quarantine@localhost IDENTIFIED BY RANDOM PASSWORD ACCOUNT LOCK;
GRANT shop_reader, shop_writer, shop_owner TO curfew_broker@127.0.0.1 WITH ADMIN OPTION;
CREATE USER app@127.0.0.1 IDENTIFIED BY 'app';
GRANT ALL ON shop.* TO app@127.0.0.1;
CREATE USER stranger@127.0.0.1 IDENTIFIED BY 'stranger';
GRANT EXECUTE, SHOW VIEW ON shop.* TO stranger@127.0.0.1;
CREATE PROCEDURE vault.kill_user(who TEXT) BEGIN
	DECLARE victim BIGINT UNSIGNED;
	DECLARE done BOOL DEFAULT FALSE;
	DECLARE victims CURSOR FOR SELECT ID FROM information_schema.PROCESSLIST WHERE USER = who;
	DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = TRUE;
	DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;
	OPEN victims;
	FETCH victims INTO victim;
	WHILE NOT done DO
		KILL victim;
		FETCH victims INTO victim;
	END WHILE;
	CLOSE victims;
END;
`
