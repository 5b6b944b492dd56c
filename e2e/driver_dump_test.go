package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// keepsake has one of everything that a dump has to carry.
const keepsake = `
CREATE DATABASE keepsake CHARACTER SET utf8mb4;
CREATE DATABASE restored CHARACTER SET utf8mb4;
USE keepsake;
CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL COMMENT 'Größe; ''quoted''', UNIQUE (name));
CREATE TABLE child (id BIGINT UNSIGNED PRIMARY KEY, parent INT, price DECIMAL(30,10), ratio DOUBLE, data LONGBLOB, words LONGTEXT, day DATE, at DATETIME(6),
	choice ENUM('a', 'b;', 'ü'), twice DOUBLE AS (ratio * 2) STORED, nothing INT, FOREIGN KEY (parent) REFERENCES parent (id));
INSERT INTO parent (name) VALUES ('Grüße'), ('世界 🎈'), ('back\\slash; -- no comment'), ('');
INSERT INTO child (id, parent, price, ratio, data, words, day, at, choice)
	SELECT 18446744073709551615 - seq, 1 + seq % 4, seq / 7, seq / 3, UNHEX(SHA2(seq, 512)), CONCAT('Zeile\n', REPEAT(CHAR(0x20 + seq % 90), seq % 500)),
		'2026-01-01' + INTERVAL seq DAY, '2026-01-01 00:00:00.000001' + INTERVAL seq HOUR, 1 + seq % 3 FROM shop.seq_1_to_1000;
INSERT INTO child (id, data, words) VALUES (1, REPEAT(X'00ff275c0a', 400000), REPEAT('lang 世 ', 200000));
CREATE VIEW families AS SELECT p.name, COUNT(*) AS children FROM parent p JOIN child c ON c.parent = p.id GROUP BY p.name;
CREATE PROCEDURE rename_all(IN suffix TEXT) BEGIN DECLARE done INT DEFAULT 0; UPDATE parent SET name = CONCAT(name, suffix, ';'); END;
CREATE TRIGGER on_child BEFORE INSERT ON child FOR EACH ROW BEGIN IF NEW.words IS NULL THEN SET NEW.words = 'none;'; END IF; END;
GRANT ALL ON keepsake.* TO shop_writer;
GRANT ALL ON restored.* TO shop_writer;
`

// keepsakes are made one by one: MySQL takes a semicolon behind them for a part of them.
var keepsakes = []string{
	"CREATE FUNCTION doubled(a INT) RETURNS INT DETERMINISTIC RETURN a * 2",
	"CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR DISABLE DO DELETE FROM child WHERE day < NOW() - INTERVAL 10 YEAR",
}

// What only one of them has, and the right without which nobody but its definer sees what a routine does.
const (
	keepsakeMariaDB = "CREATE SEQUENCE tickets START WITH 100 INCREMENT BY 10; GRANT SELECT ON mysql.proc TO shop_writer"
	keepsakeMySQL   = `CREATE TABLE place (id INT PRIMARY KEY, doc JSON, at POINT NOT NULL SRID 4326, hidden INT INVISIBLE DEFAULT 7, SPATIAL INDEX (at), INDEX ((id + 1)));
		INSERT INTO place (id, doc, at) VALUES (1, '{"ü": ["世", null]}', ST_SRID(POINT(7.5, 51.5), 4326));
		GRANT SHOW_ROUTINE, FLUSH_TABLES ON *.* TO shop_writer`
)

// A dump through Curfew equals one past it, and what is restored from it through Curfew equals it again.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	s := shop
	more, options := keepsakeMariaDB, []string(nil)
	if s.my.IsMySQL() {
		more, options = keepsakeMySQL, []string{"--no-tablespaces", "--set-gtid-purged=OFF"} // they take rights over the whole server
	}
	if err := s.my.Exec(t.Context(), "", keepsake+more); err != nil {
		t.Fatal(err)
	}
	for _, sql := range keepsakes {
		if err := s.my.Exec(t.Context(), "keepsake", sql); err != nil {
			t.Fatal(err)
		}
	}
	g := must(s.alice.Granted(t.Context(), s.target, "writer", 10*time.Minute, s.bob))(t)
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	options = append(options, "--skip-dump-date")
	everything := append([]string{"--single-transaction", "--routines", "--triggers", "--events", "--hex-blob", "--default-character-set=utf8mb4"}, options...)
	dump := func(cmd *exec.Cmd) string { return stable(must(harness.Run(cmd))(t)) }
	through := func(database string) string {
		return dump(creds.MariaDB(t.Context(), "mariadb-dump", append(everything, database)...))
	}
	direct := dump(s.my.Client(t.Context(), "mariadb-dump", append(everything, "keepsake")...))
	text := through("keepsake")
	same(t, "through Curfew", text, direct)

	restore := creds.MariaDB(t.Context(), "mariadb", "--default-character-set=utf8mb4", "restored")
	restore.Stdin = strings.NewReader(asMe(text))
	must(harness.Run(restore))(t)
	same(t, "after a restore", asMe(through("restored")), asMe(direct))

	// The person is the definer of what was restored: another story.
	if err := s.my.Exec(t.Context(), "", "DROP DATABASE restored"); err != nil {
		t.Fatal(err)
	}

	// A dump whose blobs go as they are.
	blobs := append([]string{"--skip-hex-blob", "--no-create-info"}, append(options, "keepsake", "child")...)
	plain := creds.MariaDB(t.Context(), "mariadb-dump", blobs...)
	same(t, "with plain blobs", dump(plain), dump(s.my.Client(t.Context(), "mariadb-dump", blobs...)))

	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	recs := s.recordings(t, g.ID)
	for _, words := range []string{"SELECT /*!40001 SQL_NO_CACHE */", "START TRANSACTION", "CREATE TABLE `child`", "INSERT INTO `parent` VALUES"} {
		if len(find(recs, "simple", words)) == 0 {
			t.Errorf("%s is not on record", words)
		}
	}
}

var (
	// hosts are in the comments at the head of a dump.
	hosts    = regexp.MustCompile(`(?m)^-- (Host|Server version|MariaDB dump).*$`)
	definers = regexp.MustCompile("DEFINER=`[^`]*`@`[^`]*`")
	names    = regexp.MustCompile("`(keepsake|restored)`|Database: (keepsake|restored)|for database '(keepsake|restored)'")
)

func stable(dump string) string { return hosts.ReplaceAllString(dump, "-- $1") }

// asMe leaves out who made what and in which database: that is what a restore changes.
func asMe(dump string) string {
	return names.ReplaceAllString(definers.ReplaceAllString(dump, "DEFINER=CURRENT_USER"), "`db`")
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			t.Errorf("%s: line %d of %d is %.300q, want (of %d) %.300q", what, i+1, len(a), a[i], len(b), b[min(i, len(b)-1)])
			return
		}
	}
	t.Errorf("%s: %d lines, want %d", what, len(a), len(b))
}
