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

// leaving is what the server knows of an account that is to go.
type leaving struct {
	row      row
	inside   int     // backends of it
	can      []int64 // roles that it can become
	prepared []waiting
	members  []string // roles that were given it, the broker aside
	places   []place
	traces   []trace // in the broker's own database
}

// waiting is a prepared transaction that is the grant's.
type waiting struct{ gid, database, owner string }

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

// leave asks the server all that there is to ask in the broker's own database of an account that nobody is to be
// in any more, in as few messages as that takes.
func (a *account) leave(ctx context.Context) (l leaving, err error) {
	err = a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		l = leaving{}
		a.mu.Lock()
		oid := a.oid
		a.mu.Unlock()
		groups := a.spec.Level.Roles
		if oid != 0 {
			var ask pgx.Batch
			askRow(&ask, a.spec.Name, &l.row)
			a.askReach(&ask, oid, groups, &l)
			if err := c.SendBatch(ctx, &ask).Close(); err != nil {
				return err
			}
		} else if l.row, err = readRow(ctx, c, a.spec.Name); err != nil {
			return err
		}
		// It was made anew, or its note names other groups than its grant.
		if more := union(groups, l.row.note.Roles); l.row.oid != oid || len(more) != len(groups) {
			var ask pgx.Batch
			a.askReach(&ask, l.row.oid, more, &l)
			if err := c.SendBatch(ctx, &ask).Close(); err != nil {
				return err
			}
		}
		return a.askTraces(ctx, c, &l)
	})
	if err == nil {
		a.is(l.row.oid)
	}
	return l, err
}

// union gives both, once.
func union(groups, more []string) []string {
	all := slices.Clone(groups)
	for _, g := range more {
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}

// askReach asks which roles the account can become, and whether anybody is in.
func (a *account) askReach(ask *pgx.Batch, oid uint32, groups []string, l *leaving) {
	ask.Queue(query("inside"), int64(oid)).QueryRow(func(r pgx.Row) error { return r.Scan(&l.inside) })
	ask.Queue(query("reach"), int64(oid), groups).Query(func(rows pgx.Rows) (err error) {
		l.can, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (oid int64, err error) { return oid, r.Scan(&oid, nil) })
		return err
	})
}

// askTraces asks what the account, and the roles that it can become, left where.
func (a *account) askTraces(ctx context.Context, c *pgx.Conn, l *leaving) error {
	var ask pgx.Batch
	oid := int64(l.row.oid)
	ask.Queue(query("prepared"), oid, l.can, a.Prepared()).Query(func(rows pgx.Rows) (err error) {
		l.prepared, err = readPrepared(rows)
		return err
	})
	ask.Queue(query("shared"), oid).Query(func(rows pgx.Rows) (err error) {
		l.members, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	ask.Queue(query("databases"), oid, l.can).Query(func(rows pgx.Rows) (err error) {
		l.places, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (p place, err error) {
			return p, r.Scan(&p.database, &p.own)
		})
		return err
	})
	ask.Queue(query("residue"), oid, l.can, l.row.since, true).Query(func(rows pgx.Rows) (err error) {
		l.traces, err = readTraces(rows)
		return err
	})
	if err := c.SendBatch(ctx, &ask).Close(); err != nil {
		return err
	}
	if home := a.engine.broker.Database; !slices.ContainsFunc(l.places, func(p place) bool { return p.database == home }) {
		l.places = append(l.places, place{database: home}) // for what belongs to no database
	}
	return nil
}

// look notes what the account leaves behind, in every database, and keeps it where a restart finds it
// before anything is changed: in the role's comment.
func (a *account) look(ctx context.Context, l leaving) error {
	residue := slices.Clone(l.row.note.Residue)
	a.mu.Lock()
	residue = merge(residue, a.clean.Residue)
	a.mu.Unlock()
	for _, m := range l.members {
		residue = merge(residue, []protocol.Residue{{Kind: "membership", Owner: a.spec.Name, Action: "revoked", Alert: true,
			Object: fmt.Sprintf("role %s was given role %s", m, a.spec.Name)}})
	}
	var found []protocol.Residue
	for i := range l.places {
		l.places[i].things = len(l.members) > 0 // who may still make something in its name
		some, err := a.lookIn(ctx, l, &l.places[i])
		if err != nil {
			return err
		}
		if l.places[i].database == a.engine.broker.Database {
			// Rights on the database itself belong to no database in pg_shdepend; DROP OWNED anywhere clears them.
			l.places[i].own = l.places[i].own || l.places[i].things
		}
		found = append(found, some...)
	}
	if err := a.share(ctx, l, found); err != nil {
		return err
	}
	residue = merge(residue, found)
	if err := a.keep(ctx, l.row, residue); err != nil {
		return err
	}
	a.mu.Lock()
	a.clean.Residue = residue
	a.mu.Unlock()
	return a.engine.cfg.Step.Do("clean.noted")
}

// share says beside what is a group's which other accounts hold that group.
func (a *account) share(ctx context.Context, l leaving, found []protocol.Residue) error {
	if !slices.ContainsFunc(found, func(r protocol.Residue) bool { return r.Owner != a.spec.Name }) {
		return nil
	}
	shared := map[string][]string{}
	err := a.engine.here(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, query("sharers"), int64(l.row.oid), l.can)
		if err != nil {
			return err
		}
		var group string
		var others []string
		_, err = pgx.ForEachRow(rows, []any{&group, &others}, func() error { shared[group] = slices.Clone(others); return nil })
		return err
	})
	for i := range found {
		found[i].Shared = shared[found[i].Owner]
	}
	return err
}

// lookIn finds the residue in one database and says what is to be done there.
func (a *account) lookIn(ctx context.Context, l leaving, p *place) ([]protocol.Residue, error) {
	traces, err := l.traces, error(nil)
	if p.database != a.engine.broker.Database {
		err = a.engine.in(ctx, p.database, func(ctx context.Context, c *pgx.Conn) error {
			rows, err := c.Query(ctx, query("residue"), int64(l.row.oid), l.can, l.row.since, false)
			if err != nil {
				return err
			}
			traces, err = readTraces(rows)
			return err
		})
	}
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
		res.Action = a.judge(t, l.row.note.SetRole, p)
		p.things = p.things || t.own
		list = append(list, res)
	}
	return list, nil
}

func readTraces(rows pgx.Rows) ([]trace, error) {
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (t trace, err error) {
		return t, r.Scan(&t.class, &t.object, &t.kind, &t.describe, &t.owner, &t.dep, &t.own, &t.made, &t.alert, &t.exposed)
	})
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
