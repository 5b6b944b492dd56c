package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

// plant leaves behind what would show a stranger the table secret, if it came to belong to somebody
// who may read it.
const plant = `
CREATE TABLE NAME_table (a int);
CREATE VIEW NAME_view AS SELECT pan FROM secret;
CREATE FUNCTION NAME_peek() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT pan FROM secret';
GRANT SELECT ON NAME_view, NAME_table TO PUBLIC;
GRANT EXECUTE ON FUNCTION NAME_peek() TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
`

func TestWhatIsLeftBehindShowsAStrangerNothing(t *testing.T) {
	t.Parallel()
	s := shared
	g, creds, c := s.connected(t, "writer", 10*time.Minute)
	name := "left_" + g.ID
	other := creds
	other.Database = "other"
	for _, there := range []conn{c, s.enter(t, other)} {
		// A function's body is checked when it is made: the person has no right to secret.
		exec1(t, there, "SET check_function_bodies = off;"+strings.ReplaceAll(plant, "NAME", name))
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	r := s.receipt(t, g.ID, "released")
	for _, db := range []string{"orders", "other"} {
		for _, what := range []string{"_table", "_view", "_peek"} {
			s.hasResidue(t, r.Clean.Residue, db, name+what)
		}
		s.showsNothing(t, db, name)
	}
}

// After SET ROLE what a person makes belongs to the group, which may well read the secret.
func TestWhatIsLeftBehindInAGroupShowsAStrangerNothing(t *testing.T) {
	t.Parallel()
	s := shared
	g, _, c := s.connected(t, "owner", 10*time.Minute, s.bob, s.sam)
	name := "group_" + g.ID
	exec1(t, c, "SET ROLE orders_owner")
	exec1(t, c, strings.ReplaceAll(strings.Replace(plant, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;", "", 1), "NAME", name))
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	r := s.receipt(t, g.ID, "released")
	for _, what := range []string{"_view", "_peek"} {
		if !s.hasResidue(t, r.Clean.Residue, "orders", name+what).Alert {
			t.Errorf("no alert for %s", name+what)
		}
	}
	s.showsNothing(t, "orders", name)
}

func (s *town) hasResidue(t *testing.T, rs []protocol.Residue, db, object string) protocol.Residue {
	t.Helper()
	for _, r := range rs {
		if r.Database == db && strings.Contains(r.Object, object) {
			return r
		}
	}
	t.Errorf("%s in %s is not in the receipt's residue: %v", object, db, kinds(rs))
	return protocol.Residue{}
}

// showsNothing: what could show something belongs to the role that may see nothing, and a stranger is
// refused. Either alone would do today; the first also holds when somebody grants rights on it later.
func (s *town) showsNothing(t *testing.T, db, name string) {
	t.Helper()
	owners := s.ask(t, db, `SELECT relname || ' ' || relowner::regrole FROM pg_class WHERE relname = $1
		UNION ALL SELECT proname || ' ' || proowner::regrole FROM pg_proc WHERE proname = $2 ORDER BY 1`, name+"_view", name+"_peek")
	if want := []string{name + "_peek curfew_quarantine", name + "_view curfew_quarantine"}; !slices.Equal(owners, want) {
		t.Errorf("%s: owners %q, want %q", db, owners, want)
	}
	c := must(pgx.Connect(t.Context(), s.pg.URL("stranger", "stranger", db)))(t)
	defer c.Close(t.Context())
	for _, q := range []string{"SELECT pan FROM " + name + "_view", "SELECT " + name + "_peek()"} {
		var pan string
		if err := c.QueryRow(t.Context(), q).Scan(&pan); err == nil {
			t.Errorf("%s: %s shows a stranger %s", db, q, pan)
		}
	}
}
