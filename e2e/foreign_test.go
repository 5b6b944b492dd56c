package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// A person can change their own account's password, and then log in past the proxy, unrecorded.
func TestALoginPastTheProxyEndsTheGrant(t *testing.T) {
	everywhere(t, pastTheProxy)
}

func pastTheProxy(t *testing.T, s *town) {
	w := word(t)
	g, _, c := s.connected(t, "writer", 10*time.Minute)
	account := s.current(t, c)
	exec1(t, c, s.password(account, "only-alice-knows"))
	direct := must(s.direct(t.Context(), account, "only-alice-knows"))(t)
	defer func() { _ = direct.close() }() // the server has hung up
	exec1(t, direct, "BEGIN; INSERT INTO orders (item) VALUES ('"+w+"')")
	err := harness.Eventually(t.Context(), 15*time.Second, func(ctx context.Context) error {
		if err := direct.run(ctx, "SELECT 1"); err == nil {
			return errors.New("the direct session lives")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := s.receipt(t, g.ID, "foreign")
	if n := s.committed(t, w); n != "0" {
		t.Errorf("%s rows were committed", n)
	}
	if _, err := s.direct(t.Context(), account, "only-alice-knows"); err == nil {
		t.Error("the account still lets her in")
	}
	s.told(t, ends(t, goExec(t.Context(), c, "SELECT 1")), "grant")
	alerts := s.ledger(t, "account.foreign", g.ID)
	if len(alerts) == 0 || !strings.Contains(alerts[0], `"killed":true`) {
		t.Errorf("alerts on the ledger: %v", alerts)
	}
	// The secret that was typed is not on record.
	if slices.ContainsFunc(s.recorded(t, g.ID), func(line string) bool { return strings.Contains(line, "only-alice-knows") }) {
		t.Errorf("the password is on record; receipt %+v", r)
	}
}
