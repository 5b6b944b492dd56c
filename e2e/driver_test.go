package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// driver is a client library and what is on record of its prepared statements.
type driver struct {
	name    string
	command []string // run in testdata/driver; without one play
	play    func(ctx context.Context, creds harness.Credentials, table string) error
	// types are what its prepared INSERT of typed values sends, place by place: see ground.typed.
	types []string
	// texts says where the recording has another text for a value than ground.typed has.
	texts map[int]string
	check func(t *testing.T, recs []*record)
}

// column of the table that every driver works on, and the text of the value that every driver writes there.
type column struct{ name, sql, text string }

// ground is what the drivers of one kind of database are tried on.
type ground struct {
	town  *town
	level string
	typed []column // NULL stands for itself
	with  string   // what values go with a statement: its execution, or an event before that
	row   string   // the prepared SELECT of one row, behind the table's name

	created  func(s *town, table string) []string // the SQL that makes the table
	kept     func(t *testing.T, s *town, table string)
	recorded func(t *testing.T, recs []*record)
}

// runs plays a driver with TLS and without, and checks what is in the database and on record.
func (d driver) runs(t *testing.T, on func() *ground) {
	t.Parallel()
	for _, tls := range []bool{true, false} {
		t.Run(map[bool]string{true: "tls", false: "plain"}[tls], func(t *testing.T) {
			t.Parallel()
			g := on()
			s := g.town
			table := fmt.Sprintf("driver_%d", time.Now().UnixNano())
			for _, sql := range g.created(s, table) {
				if err := s.server.Exec(t.Context(), s.target, sql); err != nil {
					t.Fatal(err)
				}
			}
			grant := must(s.alice.Granted(t.Context(), s.target, g.level, 10*time.Minute, s.bob))(t)
			creds := must(s.alice.Credentials(t.Context(), grant.ID))(t)
			if !tls {
				creds.CAFile, creds.SSLMode = "", "disable"
			}
			if d.play == nil {
				d.play = d.program
			}
			if err := d.play(t.Context(), creds, table); err != nil {
				t.Fatal(err)
			}
			g.kept(t, s, table)
			must(s.alice.Run(t.Context(), "release", grant.ID))(t)
			s.receipt(t, grant.ID, "released")
			recs := s.recordings(t, grant.ID)
			for _, rec := range recs {
				if (rec.header.TLS != "") != tls {
					t.Errorf("session %s: TLS is %q", rec.name, rec.header.TLS)
				}
			}
			if d.types != nil {
				d.values(t, g, recs, table)
			}
			g.recorded(t, recs)
			d.check(t, recs)
		})
	}
}

// program runs a driver's program with the credentials in its environment.
func (d driver) program(ctx context.Context, creds harness.Credentials, table string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.command[0], d.command[1:]...)
	cmd.Dir = filepath.Join("testdata", "driver")
	cmd.Env = append(os.Environ(), "DB_HOST="+creds.Host, "DB_PORT="+strconv.Itoa(creds.Port), "DB_USER="+creds.User,
		"DB_PASSWORD="+creds.Password, "DB_NAME="+creds.Database, "DB_CA="+creds.CAFile, "DB_TABLE="+table)
	out, err := harness.Run(cmd)
	if err == nil && !strings.HasSuffix(out, "ok\n") {
		err = fmt.Errorf("%s did not come to its end:\n%s", d.name, out)
	}
	return err
}

// values checks the parameters of the prepared INSERT, by type and by value.
func (d driver) values(t *testing.T, g *ground, recs []*record, table string) {
	t.Helper()
	found := find(recs, g.with, "INSERT INTO "+table+" ("+g.typed[0].name+", "+g.typed[1].name+", ")
	if len(found) != 1 || len(found[0].params) != len(g.typed) {
		t.Fatalf("the INSERT of typed values is on record %d times", len(found))
	}
	for i, p := range found[0].params {
		want := g.typed[i].text
		if other, ok := d.texts[i]; ok {
			want = other
		}
		if p.null != (want == "NULL") || !p.null && string(p.data) != want || p.typ != d.types[i] {
			t.Errorf("%s is on record as %s %q (null: %v), want %s %q", g.typed[i].name, p.typ, p.data, p.null, d.types[i], want)
		}
	}
	selects := find(recs, g.with, "SELECT * FROM "+table+g.row)
	if len(selects) != 3 {
		t.Fatalf("the prepared SELECT is on record %d times", len(selects))
	}
	for _, st := range selects {
		if len(st.params) != 1 || string(st.params[0].data) != "-42" {
			t.Errorf("a run of the prepared SELECT is on record with %+v", st.params)
		}
	}
	for _, st := range find(recs, "execute", "SELECT * FROM "+table+g.row) {
		if len(st.results) != 1 || st.results[0].Rows != 1 {
			t.Errorf("a run of the prepared SELECT is on record with %+v", st.results)
		}
	}
}

// returned checks that these statements are on record once each, with so many rows.
func returned(t *testing.T, recs []*record, want map[string]int) {
	t.Helper()
	for words, rows := range want {
		found := find(recs, "simple", words)
		if len(found) == 0 {
			found = find(recs, "execute", words)
		}
		if len(found) != 1 || len(found[0].results) != 1 || found[0].results[0].Rows != rows {
			t.Errorf("%s: not once on record with %d rows: %d statements", words, rows, len(found))
			continue
		}
		if r := found[0].results[0]; strings.Contains(strings.ToLower(words), "repeat") && r.Bytes < 1000*rows {
			t.Errorf("%s: %d bytes", words, r.Bytes)
		}
	}
}

func find(recs []*record, kind, words string) (found []*statement) {
	for _, rec := range recs {
		found = append(found, rec.find(kind, words)...)
	}
	return found
}
