package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

const (
	namePrefix = "curfew_"
	// quarantine is the user that takes over what people leave behind.
	quarantine     = "curfew_quarantine"
	quarantineHost = "localhost"

	// leftoverMost bounds the end of one leftover: one that can't be ended must not keep the others waiting.
	leftoverMost = 10 * time.Second
)

// Sweep looks for accounts of this installation that live does not know and ends them, receipt or not;
// any other Curfew's account is reported, never touched. live is asked after the server was: an intent
// is durable before its account exists, so none that is just being made can be taken for a leftover.
// A finding of severity "error" is an account that could not be ended this time.
func (e *Engine) Sweep(ctx context.Context, live func(account string) bool) ([]protocol.Finding, error) {
	var names []string
	err := e.here(ctx, func(ctx context.Context, c *conn) (err error) {
		names, err = c.strings(ctx, query(c.server.mariadb, "sweep"))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var findings []protocol.Finding
	for _, name := range names {
		installation, grant, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "_")
		switch {
		case installation != e.cfg.Installation:
			findings = append(findings, protocol.Finding{Severity: severityNote,
				What: fmt.Sprintf("%s is the account of another Curfew installation (%s); it is left alone", name, installation),
				Fix: fmt.Sprintf("If that installation is gone for good: SELECT User, Host FROM mysql.user WHERE User = '%[1]s'; then ALTER USER … ACCOUNT LOCK, "+
					"KILL its connections, look for its name as DEFINER in information_schema, and at last DROP USER … (on MariaDB also DROP ROLE IF EXISTS %[1]s_role)", name)})
		case !live(name):
			findings = append(findings, e.endLeftover(ctx, name, grant)...)
		}
		if ctx.Err() != nil {
			return findings, context.Cause(ctx)
		}
	}
	return findings, nil
}

// endLeftover ends an account that no intent stands for.
func (e *Engine) endLeftover(ctx context.Context, name, grant string) []protocol.Finding {
	ctx, cancel := context.WithTimeout(ctx, leftoverMost)
	defer cancel()
	var r row
	err := e.here(ctx, func(ctx context.Context, c *conn) (err error) {
		if r, err = readRow(ctx, c, name); errors.Is(err, errNoUser) {
			return nil // its role is left
		}
		return err
	})
	account := e.Recall(protocol.AccountSpec{Installation: e.cfg.Installation, Grant: grant, Name: name, Requester: r.note.Requester,
		End: r.note.End, Level: protocol.Level{Name: r.note.Level, Roles: r.note.Roles}})
	var cut protocol.Cut
	var clean protocol.Clean
	if err == nil {
		cut, err = account.Cut(ctx)
	}
	if err == nil {
		clean, err = account.Clean(ctx)
	}
	if err != nil {
		return []protocol.Finding{{Severity: severityError,
			What: fmt.Sprintf("%s has no grant and could not be ended yet: %v", name, err),
			Fix:  "Curfew tries again with the next sweep; `curfew check` says what the broker lacks."}}
	}
	whose := ""
	if r.note.Requester != "" {
		whose = " (" + r.note.Requester + ")"
	}
	list := []protocol.Finding{{Severity: severityWarning,
		What: fmt.Sprintf("%s%s had no grant; %d backends were terminated and it was dropped", name, whose, len(cut.Outcomes))}}
	for _, r := range clean.Residue {
		severity := severityNote
		if r.Alert {
			severity = severityWarning
		}
		list = append(list, protocol.Finding{Severity: severity,
			What: fmt.Sprintf("%s left behind in database %s: %s (%s)", name, r.Database, r.Object, r.Action)})
	}
	return list
}
