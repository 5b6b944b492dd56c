package postgres

import (
	"embed"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
)

// The SQL that Curfew runs lies in sql/, one file a step, as a DBA would write it: queries take $1,
// statements that can't take parameters use psql's variables (:"name" an identifier, :'name' a
// literal, :name as it is).
//
//go:embed sql/*.sql
var sqlFiles embed.FS

// query gives the text of sql/<name>.sql.
func query(name string) string {
	b, err := sqlFiles.ReadFile("sql/" + name + ".sql")
	if err != nil {
		panic(err) // a name in this package's own source
	}
	return string(b)
}

// vars are values for psql's variables.
type vars map[string]string

var variable = regexp.MustCompile(`:(?:"([a-z_]+)"|'([a-z_]+)'|\b([a-z_]+)\b)`)

// statement gives the text of sql/<name>.sql with its variables filled in. Comments are cut out first:
// they may hold colons, and the server has no use for them.
func statement(name string, v vars) (string, error) {
	return fill(uncomment(query(name)), v)
}

func fill(text string, v vars) (string, error) {
	var missing error
	text = strings.ReplaceAll(text, "::", "\x00") // a cast is no variable
	out := variable.ReplaceAllStringFunc(text, func(m string) string {
		key := strings.Trim(m, `:"'`)
		val, ok := v[key]
		if !ok {
			missing = fmt.Errorf("sql variable %s has no value", key)
		}
		switch m[1] {
		case '"':
			return pgx.Identifier{val}.Sanitize()
		case '\'':
			return literal(val)
		}
		return val
	})
	return strings.ReplaceAll(out, "\x00", "::"), missing
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

// literal quotes a string for SQL whatever standard_conforming_strings says.
func literal(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}
