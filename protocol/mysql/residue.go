package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// Residue is what a person leaves behind in the database. Neither server knows who made a table, and none
// runs with its maker's rights: that stands in the recording. What does, has a DEFINER: views, routines,
// triggers and events. All of the account's are found, under whatever host, and those of its role.
//
// Views, routines and events are re-owned by curfew_quarantine, which is locked and has no rights, so that
// a planted one runs with none; what they say, and the settings they were made under, stay. Events are
// disabled. How depends on the kind: an event has ALTER DEFINER = … EVENT. A view is altered to its own text.
// MariaDB's routines and packages lie in mysql.proc, where the definer is a column: nothing else of the row
// is touched, in one statement.
//
// Two kinds are left as they are. A trigger whose definer has no rights breaks every INSERT of the application,
// and it can't be given another without dropping it. And MySQL has no way to change a routine's definer but to
// drop and make it again, between which the application would miss it. They keep the account on the server,
// locked; a residue with an alert and an error in words say what a DBA has to do.
//
// A level with set_role (MariaDB) may make things in the name of its roles. Those that were made or changed
// since the account was made are reported, with an alert, as are all those of which the server does not say
// when. Rights that the account gave to others, and prepared transactions that nobody knows whose they are,
// are reported, too. Users and roles that it made can't be known: no role of people may have CREATE USER,
// and `curfew check` says so.

// object is something with a definer.
type object struct {
	kind, database, name string
	table                string // a trigger's
	security             string // whose rights it runs with: DEFINER or INVOKER
	definer              string
	touched              time.Time // zero: the server does not say
}

// what names the object in the database's own words.
func (o object) what() string {
	text := o.kind + " " + o.database + "." + o.name
	if o.table != "" {
		text += " on " + o.table
	}
	return text
}

// sql names the object in a statement.
func (o object) sql() string { return identifier(o.database) + "." + identifier(o.name) }

// look notes what the account leaves behind, and keeps it where a restart finds it before anything is
// changed: with the user.
func (a *account) look(ctx context.Context, r row, others []string) (own []object, err error) {
	residue := slices.Clone(r.note.Residue)
	a.mu.Lock()
	residue = merge(residue, a.clean.Residue)
	a.mu.Unlock()
	members, err := a.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		residue = merge(residue, []protocol.Residue{{Kind: "membership", Owner: a.spec.Name, Action: "revoked", Alert: true,
			Object: fmt.Sprintf("%s was given role %s", m.holder, m.role)}})
	}
	for _, xid := range others {
		residue = merge(residue, []protocol.Residue{{Kind: "prepared transaction", Owner: "unknown", Action: "reported", Alert: true,
			Object: "XA " + xid + " was prepared in this grant's time, by nobody that its recordings show; XA ROLLBACK or XA COMMIT it if it is nobody's"}})
	}
	var found []protocol.Residue
	err = a.engine.here(ctx, func(ctx context.Context, c *conn) (err error) {
		if own, found, err = a.definers(ctx, c); err != nil {
			return err
		}
		given, err := a.given(ctx, c)
		found = append(found, given...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for residue: %w", err)
	}
	residue = merge(residue, found)
	if err := a.keep(ctx, r, residue); err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.clean.Residue = residue
	a.mu.Unlock()
	return own, a.engine.cfg.Step.Do("clean.noted")
}

// definers finds what runs with the rights of the account, or of a role that its level may act as.
func (a *account) definers(ctx context.Context, c *conn) (own []object, list []protocol.Residue, err error) {
	a.mu.Lock()
	since := a.since
	a.mu.Unlock()
	err = c.rows(ctx, "residue", func(rows *sql.Rows) error {
		var o object
		var touched string
		if err := rows.Scan(&o.kind, &o.database, &o.name, &o.table, &o.security, &o.definer, &touched); err != nil {
			return err
		}
		o.touched, _ = time.Parse(time.DateTime, touched)
		name, host := o.definer, ""
		if i := strings.LastIndexByte(name, '@'); i >= 0 {
			name, host = name[:i], name[i+1:]
		}
		res := protocol.Residue{Database: o.database, Kind: o.kind, Object: o.what(), Owner: name, Alert: o.security == "DEFINER"}
		switch {
		case name == a.spec.Name, name == a.role():
			own, res.Owner = append(own, o), a.spec.Name
			res.Action = "quarantined"
			if !reownable(c.server.mariadb, o) {
				res.Action, res.Alert = "reported", true
			}
		case host == "" && a.spec.Level.SetRole && slices.Contains(a.spec.Level.Roles, name) &&
			(since.IsZero() || o.touched.IsZero() || !o.touched.Before(since)):
			res.Action = "reported"
		default:
			return nil
		}
		list = append(list, res)
		return nil
	}, a.spec.Name)
	return own, list, err
}

// reownable says whether an object can be given another definer without harm.
func reownable(mariadb bool, o object) bool {
	switch o.kind {
	case "view", "event":
		return true
	case "trigger":
		return false
	}
	return mariadb
}

// given finds rights that the account gave to others. They stay: the broker has not what it could revoke.
func (a *account) given(ctx context.Context, c *conn) (list []protocol.Residue, err error) {
	err = c.rows(ctx, "given", func(rows *sql.Rows) error {
		var database, object, grantee, rights string
		err := rows.Scan(&database, &object, &grantee, &rights)
		list = append(list, protocol.Residue{Database: database, Kind: "grant", Owner: a.spec.Name, Action: "reported", Alert: true,
			Object: fmt.Sprintf("%s was given %s on %s", grantee, rights, object)})
		return err
	}, a.spec.Name, a.spec.Name, a.spec.Name)
	return list, err
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

// keep writes the residue into the user's note, if it says something new.
func (a *account) keep(ctx context.Context, r row, residue []protocol.Residue) error {
	if len(residue) == len(r.note.Residue) {
		return nil
	}
	n := r.note
	if n.Grant == "" {
		n = a.newNote(a.spec.End)
	}
	n.Residue = residue
	return a.engine.here(ctx, func(ctx context.Context, c *conn) error {
		return c.run(ctx, "note", vars{"account": user(a.spec.Name, r.hosts[0]), "note": n.text()})
	})
}

// quarantine re-owns what the account left. What can't be is named in the error, when the rest is done.
func (a *account) quarantine(ctx context.Context, own []object) error {
	var stuck []error
	done := 0
	rank := map[string]int{"event": -1} // first: they run by themselves
	slices.SortStableFunc(own, func(x, y object) int { return cmp.Compare(rank[x.kind], rank[y.kind]) })
	for _, o := range own {
		err := a.reown(ctx, o)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			stuck = append(stuck, fmt.Errorf("%s: %w", o.what(), err))
		default:
			done++
		}
	}
	if done > 0 {
		if err := a.engine.cfg.Step.Do("clean.quarantined"); err != nil {
			return err
		}
	}
	if len(stuck) == 0 {
		return nil
	}
	return fmt.Errorf("it stays locked on the server until a DBA has dealt with what runs with its rights: %w", errors.Join(stuck...))
}

// reown gives one object to curfew_quarantine, or says what a DBA has to do.
func (a *account) reown(ctx context.Context, o object) error {
	s, err := a.engine.prober.server(ctx)
	if err != nil {
		return err
	}
	if !reownable(s.mariadb, o) {
		kind := strings.ToUpper(o.kind)
		return fmt.Errorf("it can't be given another definer without harm; if the application does not need it: DROP %[1]s %[2]s; "+
			"else, when nobody uses it: SHOW CREATE %[1]s %[2]s; then DROP it and CREATE it with the application's DEFINER", kind, o.sql())
	}
	return a.engine.apart(ctx, func(ctx context.Context, c *conn) error {
		v := vars{"object": o.sql(), "database": o.database, "name": o.name, "quarantine": quarantine + "@" + quarantineHost,
			"quarantined": user(quarantine, quarantineHost)}
		var err error
		switch o.kind {
		case "view":
			err = a.reownView(ctx, c, o, v)
		case "event":
			err = reownEvent(ctx, c, v)
		default:
			err = reownRoutine(ctx, c, o)
		}
		if err != nil {
			return fmt.Errorf("%w; `curfew check` says what the broker lacks; or drop it: DROP %s %s", err, strings.ToUpper(o.kind), o.sql())
		}
		return nil
	})
}

// reownRoutine changes the definer of a routine or package and nothing else.
func reownRoutine(ctx context.Context, c *conn, o object) error {
	_, err := c.ExecContext(ctx, query(true, "reown_routine"), quarantine+"@"+quarantineHost, o.database, o.name, strings.ToUpper(o.kind), o.definer)
	return err
}

// reownEvent changes an event's definer and disables it, under the character sets that it was made under:
// ALTER EVENT keeps its text and SQL mode, and takes those from the session.
func reownEvent(ctx context.Context, c *conn, v vars) error {
	var client, connection string
	if err := c.QueryRowContext(ctx, query(c.server.mariadb, "event"), v["database"], v["name"]).Scan(&client, &connection); err != nil {
		return err
	}
	v["client"], v["connection"] = client, connection
	return c.run(ctx, "reown_event", v)
}

// reownView alters a view to its own text with another definer. The servers let nobody do that who could
// not have made it, so the broker takes on the account's roles. A view's text is kept in a form that is
// read in the empty SQL mode. If it is plain ASCII it is sent in the character set that the view was made
// in, so that this stays on record, too; else in UTF-8, in which it says the same.
func (a *account) reownView(ctx context.Context, c *conn, o object, v vars) error {
	if err := a.act(ctx, c); err != nil {
		return err
	}
	var name, text, client, connection string
	if err := c.QueryRowContext(ctx, "SHOW CREATE VIEW "+o.sql()).Scan(&name, &text, &client, &connection); err != nil {
		return err
	}
	head, rest, ok := cutDefiner(text)
	if !ok {
		return errors.New("its definition does not read as expected")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e }) {
		client = "utf8mb4"
	}
	v["client"], v["connection"] = client, connection
	if err := c.run(ctx, "view_settings", v); err != nil {
		return err
	}
	_, err := c.ExecContext(ctx, head+"DEFINER="+v["quarantined"]+rest)
	return err
}

// act takes on the account's roles.
func (a *account) act(ctx context.Context, c *conn) error {
	text := "SET ROLE ALL"
	if c.server.mariadb {
		text = "SET ROLE " + identifier(a.role())
	}
	_, err := c.ExecContext(ctx, text)
	return err
}

// cutDefiner takes the definer out of what SHOW CREATE VIEW says, which begins with
// CREATE ALGORITHM=… DEFINER=`…`@`…` SQL SECURITY … and makes an ALTER of it.
func cutDefiner(text string) (head, rest string, ok bool) {
	const mark = "DEFINER="
	text, ok = strings.CutPrefix(text, "CREATE ")
	i := strings.Index(text, mark)
	if !ok || i < 0 || !strings.HasPrefix(text, "ALGORITHM=") {
		return "", "", false
	}
	head, rest = "ALTER "+text[:i], text[i+len(mark):]
	for n := range 2 { // name and host; a role has no host
		rest, ok = strings.CutPrefix(rest, "`")
		if !ok {
			return "", "", false
		}
		for {
			j := strings.IndexByte(rest, '`')
			if j < 0 {
				return "", "", false
			}
			rest = rest[j+1:]
			if !strings.HasPrefix(rest, "`") {
				break
			}
			rest = rest[1:]
		}
		if n == 0 {
			if rest, ok = strings.CutPrefix(rest, "@"); !ok {
				break
			}
		}
	}
	return head, rest, strings.HasPrefix(rest, " SQL SECURITY ")
}
