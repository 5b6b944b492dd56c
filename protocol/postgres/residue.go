package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
)

// Residue is what a person leaves behind in the database. There are two kinds.
//
// The account's own: everything that pg_shdepend lists for the role, in every database. Objects are
// re-owned by curfew_quarantine and lose every grant; rights and default privileges go away.
//
// The group's: after SET ROLE an object belongs to the group and the account's list stays empty. No
// snapshot of what the group owned before is kept anywhere, because the server has one: each row of its
// catalogs names the transaction that wrote it. The account notes, in its comment, the transaction that
// made it, before its first session; whatever a role that it can become owns by a row written since then
// is new, or was changed. That survives any restart, and costs nothing to keep. It can't tell two people
// apart who had the same group at the same time; then Shared names the other accounts.
//
// New definer functions and views of a group are quarantined too (the broker holds the group, so it may
// re-own them): they would show any stranger what the group may see. The exception is a level with
// set_role, whose holders are meant to make things in the group's name: there, one that nobody beyond
// the group may use is left in place. What existed before and was changed is reported, not touched: it
// is the application's. Triggers and rules can't be re-owned; they are reported. All of these alert.

// reached is a role that the account can become.
type reached struct {
	oid    int64
	name   string
	shared []string // other accounts that can
}

func oids(can []reached) []int64 {
	list := make([]int64, 0, len(can))
	for _, r := range can {
		list = append(list, r.oid)
	}
	return list
}

// place is a database in which something was left, or may have been.
type place struct {
	database  string
	own       bool    // the account itself left something here, or may have: it can't be dropped before
	things    bool    // there are objects or rights of the account's own here, or may be by now
	relations []int64 // views of its groups to be quarantined
	routines  []int64 // definer functions of its groups to be quarantined
}

// trace is one row of residue.sql.
type trace struct {
	class, object  int64
	kind, describe string
	owner, dep     string
	own            bool // the account's, not a group's
	made           bool // made since the account was, not only changed
	alert, exposed bool
}

// reach asks which roles the account can become.
func (a *account) reach(ctx context.Context, r row) (can []reached, err error) {
	groups := append(slices.Clone(a.spec.Level.Roles), r.note.Roles...)
	err = a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("reach"), int64(r.oid), groups)
		if err != nil {
			return err
		}
		can, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (x reached, err error) {
			return x, row.Scan(&x.oid, &x.name, &x.shared)
		})
		return err
	})
	can = slices.DeleteFunc(can, func(x reached) bool { return x.name == quarantine })
	return can, err
}

// look notes what the account leaves behind, in every database, and keeps it where a restart finds it
// before anything is changed: in the role's comment.
func (a *account) look(ctx context.Context, r row, can []reached) ([]place, error) {
	places, err := a.places(ctx, r, can)
	if err != nil {
		return nil, err
	}
	residue := slices.Clone(r.note.Residue)
	a.mu.Lock()
	residue = merge(residue, a.clean.Residue)
	a.mu.Unlock()
	members, err := a.members(ctx, r.oid)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		residue = merge(residue, []protocol.Residue{{Kind: "membership", Owner: a.spec.Name, Action: "revoked", Alert: true,
			Object: fmt.Sprintf("role %s was given role %s", m, a.spec.Name)}})
	}
	for i := range places {
		places[i].things = len(members) > 0 // who may still make something in its name
		found, err := a.lookIn(ctx, r, can, &places[i])
		if err != nil {
			return nil, err
		}
		residue = merge(residue, found)
	}
	if err := a.keep(ctx, r, residue); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.clean.Residue = residue
	a.mu.Unlock()
	return places, a.engine.cfg.Step.Do("clean.noted")
}

// places are the databases to look at; the broker's own is always one of them, for what belongs to none.
func (a *account) places(ctx context.Context, r row, can []reached) (places []place, err error) {
	err = a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("databases"), int64(r.oid), oids(can))
		if err != nil {
			return err
		}
		places, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p place, err error) {
			return p, row.Scan(&p.database, &p.own)
		})
		return err
	})
	home := func(p place) bool { return p.database == a.engine.broker.Database }
	if err == nil && !slices.ContainsFunc(places, home) {
		places = append(places, place{database: a.engine.broker.Database})
	}
	for i := range places {
		// Rights on the database itself belong to no database in pg_shdepend; DROP OWNED anywhere clears them.
		places[i].own = places[i].own || home(places[i])
	}
	return places, err
}

// lookIn finds the residue in one database and says what is to be done there.
func (a *account) lookIn(ctx context.Context, r row, can []reached, p *place) ([]protocol.Residue, error) {
	var traces []trace
	err := a.engine.in(ctx, p.database, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("residue"), int64(r.oid), oids(can), r.since, p.database == a.engine.broker.Database)
		if err != nil {
			return err
		}
		traces, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t trace, err error) {
			return t, row.Scan(&t.class, &t.object, &t.kind, &t.describe, &t.owner, &t.dep, &t.own, &t.made, &t.alert, &t.exposed)
		})
		return err
	})
	switch {
	case err != nil && !p.own && ctx.Err() == nil && !errors.Is(err, errClosed):
		// The account itself left nothing there, so it can be dropped; what its groups got can't be known.
		return []protocol.Residue{{Database: p.database, Kind: "database", Owner: a.spec.Name, Action: "reported", Alert: true,
			Object: "could not be looked at: " + err.Error()}}, nil
	case err != nil:
		return nil, fmt.Errorf("look for residue in %s: %w", p.database, err)
	}
	var list []protocol.Residue
	for _, t := range traces {
		res := protocol.Residue{Database: p.database, Kind: kind(t), Object: t.describe, Owner: t.owner, Alert: t.alert}
		res.Action = a.judge(t, r.note.SetRole, p)
		p.things = p.things || t.own
		if !t.own {
			res.Shared = sharers(can, t.owner)
		}
		list = append(list, res)
	}
	return list, nil
}

// The classes that residue.sql names by the oid of their catalog; fixed in every PostgreSQL.
const (
	classRelation = 1259 // pg_class
	classRoutine  = 1255 // pg_proc
)

// judge says what happens to a trace, and adds what must be re-owned by name to the place.
func (a *account) judge(t trace, setRole bool, p *place) string {
	switch {
	case t.own && t.dep == "o" && t.kind != "default acl":
		return "quarantined"
	case t.own:
		return "revoked"
	case !t.alert, !t.made, (setRole || a.spec.Level.SetRole) && !t.exposed:
		return "reported"
	case t.class == classRelation && (t.kind == "view" || t.kind == "materialized view"):
		p.relations = append(p.relations, t.object)
		return "quarantined"
	case t.class == classRoutine:
		p.routines = append(p.routines, t.object)
		return "quarantined"
	}
	return "reported"
}

// kind is one of the database's own words for an object, but for rights.
func kind(t trace) string {
	switch {
	case t.kind == "default acl":
		return "default privileges"
	case t.dep == "a" || t.dep == "i":
		return "grant"
	case t.dep == "r":
		return "policy"
	}
	return t.kind
}

func sharers(can []reached, owner string) []string {
	for _, r := range can {
		if r.name == owner {
			return r.shared
		}
	}
	return nil
}

// merge adds what is new to what was noted earlier: a second look, after half of the cleaning, sees less.
func merge(noted, found []protocol.Residue) []protocol.Residue {
	for _, f := range found {
		known := func(n protocol.Residue) bool {
			return n.Database == f.Database && n.Kind == f.Kind && n.Object == f.Object
		}
		if !slices.ContainsFunc(noted, known) {
			noted = append(noted, f)
		}
	}
	return noted
}

// keep writes the residue into the role's comment, if it says something new.
func (a *account) keep(ctx context.Context, r row, residue []protocol.Residue) error {
	if len(residue) == len(r.note.Residue) {
		return nil
	}
	n := r.note
	if n.Since == 0 {
		n = a.newNote()
		n.Since = r.since
	}
	n.Residue = residue
	return a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return a.inTx(ctx, c, func(s *script) { s.addNote(a.spec.Name, n) })
	})
}
