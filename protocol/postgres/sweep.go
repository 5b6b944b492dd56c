package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

const (
	namePrefix = "curfew_"
	quarantine = "curfew_quarantine"

	// leftoverMost bounds the end of one leftover: one that can't be ended must not keep the others waiting.
	leftoverMost = 10 * time.Second
)

// Sweep looks for accounts of this installation that live does not know and ends them, receipt or not;
// any other Curfew's account is reported, never touched. live is asked after the server was: an intent
// is durable before its account exists, so none that is just being made can be taken for a leftover.
// A finding of severity "error" is an account that could not be ended this time.
func (e *Engine) Sweep(ctx context.Context, live func(account string) bool) ([]protocol.Finding, error) {
	type role struct{ name, comment string }
	var roles []role
	err := e.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("sweep"))
		if err != nil {
			return err
		}
		roles, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r role, err error) {
			return r, row.Scan(&r.name, &r.comment)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var findings []protocol.Finding
	for _, r := range roles {
		installation, grant, _ := strings.Cut(strings.TrimPrefix(r.name, namePrefix), "_")
		switch {
		case installation != e.cfg.Installation:
			findings = append(findings, protocol.Finding{Severity: "note",
				What: fmt.Sprintf("%s is the account of another Curfew installation (%s); it is left alone", r.name, installation),
				Fix:  fmt.Sprintf("If that installation is gone for good: ALTER ROLE %[1]s NOLOGIN; then, in every database, REASSIGN OWNED BY %[1]s TO %[2]s; DROP OWNED BY %[1]s; and at last DROP ROLE %[1]s;", r.name, quarantine)})
		case !live(r.name):
			findings = append(findings, e.endLeftover(ctx, r.name, grant, r.comment)...)
		}
		if ctx.Err() != nil {
			return findings, context.Cause(ctx)
		}
	}
	return findings, nil
}

// endLeftover ends an account that no intent stands for.
func (e *Engine) endLeftover(ctx context.Context, name, grant, comment string) []protocol.Finding {
	var n note
	if json.Unmarshal([]byte(comment), &n) != nil {
		n = note{} // the server still knows its groups and what it owns
	}
	ctx, cancel := context.WithTimeout(ctx, leftoverMost)
	defer cancel()
	account := e.Recall(protocol.AccountSpec{Installation: e.cfg.Installation, Grant: grant, Name: name,
		Requester: n.Requester, End: n.End, Level: protocol.Level{Name: n.Level, Roles: n.Roles, SetRole: n.SetRole}})
	cut, err := account.Cut(ctx)
	var clean protocol.Clean
	if err == nil {
		clean, err = account.Clean(ctx)
	}
	if err != nil {
		return []protocol.Finding{{Severity: "error",
			What: fmt.Sprintf("%s has no grant and could not be ended yet: %v", name, err),
			Fix:  "Curfew tries again with the next sweep; `curfew check` says what the broker lacks."}}
	}
	list := []protocol.Finding{{Severity: "warning",
		What: fmt.Sprintf("%s (%s) had no grant; %d backends were terminated and it was dropped", name, n.Requester, len(cut.Outcomes))}}
	for _, r := range clean.Residue {
		severity := "note"
		if r.Alert {
			severity = "warning"
		}
		list = append(list, protocol.Finding{Severity: severity,
			What: fmt.Sprintf("%s left behind in database %s: %s (%s)", name, r.Database, r.Object, r.Action)})
	}
	return list
}
