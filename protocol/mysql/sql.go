package mysql

import (
	"embed"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// The SQL that Curfew runs lies in sql/, one file a step, as a DBA would write it: queries take ?,
// statements that can't take parameters have variables in psql's manner (:"name" an identifier, :'name' a
// literal, :name as it is). Where MariaDB and MySQL differ a file is there twice, under name_mariadb and
// name_mysql.
//
//go:embed sql/*.sql
var sqlFiles embed.FS

// sqlFile gives sql/<name>.sql, or the one for this kind of server.
func sqlFile(mariadb bool, name string) string {
	flavour := "_mysql"
	if mariadb {
		flavour = "_mariadb"
	}
	b, err := sqlFiles.ReadFile("sql/" + name + flavour + ".sql")
	if err != nil {
		b, err = sqlFiles.ReadFile("sql/" + name + ".sql")
	}
	if err != nil {
		panic(err) // a name in this package's own source
	}
	return string(b)
}

// query gives the text of one statement.
func query(mariadb bool, name string) string {
	return strings.TrimSuffix(strings.TrimSpace(uncomment(sqlFile(mariadb, name))), ";")
}

// vars are values for variables.
type vars map[string]string

var variable = regexp.MustCompile(`:(?:"([a-z_]+)"|'([a-z_]+)'|\b([a-z_]+)\b)`)

// filled gives the statements of a file with its variables filled in. They are sent one by one: a
// connection that takes several at once would take a stranger's, too. Each ends with its line.
func filled(mariadb bool, name string, v vars) ([]string, error) {
	var list []string
	for text := range strings.SplitSeq(query(mariadb, name), ";\n") {
		text, err := fill(text, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if text = strings.TrimSpace(text); text != "" {
			list = append(list, text)
		}
	}
	return list, nil
}

func fill(text string, v vars) (string, error) {
	var missing error
	out := variable.ReplaceAllStringFunc(text, func(m string) string {
		key := strings.Trim(m, `:"'`)
		val, ok := v[key]
		if !ok {
			missing = fmt.Errorf("sql variable %s has no value", key)
		}
		switch m[1] {
		case '"':
			return identifier(val)
		case '\'':
			return literal(val)
		}
		return val
	})
	return out, missing
}

func uncomment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// identifier quotes a name. In backticks nothing but the backtick has a meaning, in any SQL mode.
func identifier(s string) string {
	return "`" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "`", "``") + "`"
}

// literal quotes a string for any SQL mode: whether a backslash has a meaning depends on it, so a string
// that has one is written in hex.
func literal(s string) string {
	if strings.ContainsAny(s, "\\\x00") {
		return "_utf8mb4 x'" + hex.EncodeToString([]byte(s)) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// user writes an account's name as SQL wants it.
func user(name, host string) string { return identifier(name) + "@" + identifier(host) }
