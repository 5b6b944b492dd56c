package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

func TestWhatWasIntended(t *testing.T) {
	everywhere(t, whatWasIntended)
}

// whatWasIntended: a request says what it is for; what was run is held against that, statement by statement, with
// whatever was bound to its parameters, and by a rule that keeps their values off the record.
func whatWasIntended(t *testing.T, s *town) {
	secret := word(t)
	bound := "SELECT CAST(? AS CHAR(100))"
	if s.pg != nil {
		bound = "SELECT CAST($1 AS varchar)"
	}
	var r api.Request
	if err := s.alice.JSON(t.Context(), &r, "request", s.target, "--level", "counted", "--for", "10m", "--reason", "4711",
		"--sql", "SELECT 'one' ;\n"+strings.ToLower(bound[:6])+bound[6:]+"; SELECT 'never'"); err != nil {
		t.Fatal(err)
	}
	if r.Parameters != "types" {
		t.Errorf("nobody is told what is not recorded: %+v", r)
	}
	creds := must(s.alice.Credentials(t.Context(), r.Grant))(t)
	in := s.enter(t, creds)
	session := s.newestSessionOf(t, r.Grant)
	exec1(t, in, "SELECT  'one' /* as agreed */")
	exec1(t, in, "SELECT 'two'")
	if err := boundTo(t, in, bound, secret); err != nil {
		t.Fatal(err)
	}
	must(s.alice.Run(t.Context(), "release", r.Grant))(t)
	s.sealedAs(t, session.ID, "released")

	var got api.Report
	if err := s.sam.JSON(t.Context(), &got, "report", r.Grant); err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{}
	for _, l := range got.Statements {
		verdicts[l.Text] = string(l.Verdict)
	}
	if verdicts["SELECT  'one' /* as agreed */"] != "inside" || verdicts["SELECT 'two'"] != "outside" || verdicts[bound] != "inside" || got.Inside != 2 || len(got.Unread) != 0 {
		t.Errorf("%+v", got)
	}
	if len(got.Planned) != 3 || got.Planned[0].Executed != 1 || got.Planned[1].Executed != 1 || got.Planned[2].Verdict != "not executed" {
		t.Errorf("%+v", got.Planned)
	}
	out := must(s.sam.Run(t.Context(), "replay", session.ID, "-o", "json"))(t)
	if strings.Contains(out, secret) || !strings.Contains(out, `"withheld":true`) || !strings.Contains(out, `"parameters":"types"`) {
		t.Errorf("the value of a parameter is on record, or it is not said that it is not")
	}
	s.closedLate(t, r.Grant, "released", 20*time.Second)
}

// boundTo runs a query with a value bound to its parameter.
func boundTo(t *testing.T, c conn, query, value string) error {
	t.Helper()
	var got string
	var err error
	switch c := c.(type) {
	case pgConn:
		err = c.QueryRow(t.Context(), query, value).Scan(&got)
	case myConn:
		err = c.QueryRowContext(t.Context(), query, value).Scan(&got)
	default:
		t.Fatalf("a connection of %T", c)
	}
	if err == nil && got != value {
		t.Errorf("got %q, bound %q", got, value)
	}
	return err
}
