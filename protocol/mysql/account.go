package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/crew"
)

// account is one grant's user on this server. Its story is told in provision.go, cut.go and clean.go;
// this file holds what its sessions and the server say of it.
type account struct {
	*crew.Crew // its sessions, and what became of their backends
	engine     *Engine
	spec       protocol.AccountSpec
	secret     string     // the user's password, 256 random bits as text; "" for one that was only recalled
	cleaning   crew.Token // the right to make or clean the user

	mu      sync.Mutex           // guards what follows; never held across I/O
	noticed map[uint32]time.Time // backends that Watch does not know, since it first saw them
	before  map[string]struct{}  // XA ids that were prepared when the account was made; nil: not known
	since   time.Time            // when it was made, by the server's clock; zero: not known
	clean   protocol.Clean       // what cleaning has learned so far
}

// transactor is a session that knows from the server's last word whether a transaction is open.
type transactor interface{ transaction() bool }

func newAccount(e *Engine, spec protocol.AccountSpec) *account {
	a := &account{Crew: crew.New(), engine: e, spec: spec, cleaning: crew.NewToken(), noticed: map[uint32]time.Time{}}
	a.Learn(spec.Prepared)
	return a
}

// Name is the user's name.
func (a *account) Name() string { return a.spec.Name }

// roleSuffix makes the name of an account's role. MariaDB keeps users and roles apart, but where one of each
// has the same name, 11.8 takes DEFINER = CURRENT_ROLE for the user's word.
const roleSuffix = "_role"

// role is the name of the account's role, on MariaDB.
func (a *account) role() string { return a.spec.Name + roleSuffix }

// add lets a session join. extra: it is the one connection above what the level allows. A stock client's Ctrl-C
// is a connection of its own that says KILL, so one more than the level's is let in, for nothing else than that.
func (a *account) add(s crew.Session) (extra bool, err error) {
	others, err := a.Join(s)
	return others >= sessions(a.spec.Level), err
}

// sessionOf gives the session of this account whose client was greeted with id; nil: it is none of its.
func (a *account) sessionOf(id uint32) crew.Session {
	for _, s := range a.Joined() {
		if g, ok := s.(interface{ greeted() uint32 }); ok && g.greeted() == id {
			return s
		}
	}
	return nil
}

// kill kills a session's backend and learns what became of what it was doing.
func (a *account) kill(ctx context.Context, s crew.Session) (protocol.Outcome, error) {
	return a.Kill(ctx, s, func(ctx context.Context, only ...uint32) error {
		ends, err := a.drain(ctx, only...)
		if err != nil {
			return fmt.Errorf("kill backend %d of %s: %w", s.Backend(), a.spec.Name, err)
		}
		a.note(ends)
		return nil
	})
}

// note keeps the outcomes of killed backends.
func (a *account) note(ends []end) {
	list := make([]crew.End, 0, len(ends))
	for _, e := range ends {
		list = append(list, crew.End{Backend: e.pid, Session: e.link, InFlight: e.inFlight, TxID: e.txid(), Fate: e.fate()})
	}
	a.Note(list, a.secret == "")
}

// row is what the server knows of an account.
type row struct {
	hosts []string // one, unless somebody has made another user of that name
	note  note
}

// note is what Curfew keeps with the user, for itself after a restart and for the DBA: on MySQL in the
// user's attribute, from the beginning; on MariaDB, which has no place for a comment, only once the account
// is locked for good, as the subject of a certificate that it would have to show.
type note struct {
	Installation string             `json:"installation"`
	Grant        string             `json:"grant"`
	Requester    string             `json:"requester"`
	End          time.Time          `json:"end"`
	Level        string             `json:"level"`
	Roles        []string           `json:"roles"`
	Residue      []protocol.Residue `json:"residue,omitempty"` // noted before cleaning began
}

// newNote is what the user's note will say.
func (a *account) newNote(end time.Time) note {
	return note{Installation: a.spec.Installation, Grant: a.spec.Grant, Requester: a.spec.Requester,
		End: end.UTC(), Level: a.spec.Level.Name, Roles: a.spec.Level.Roles}
}

// text is the note as JSON without a single backslash: where it stands a string must be a plain literal, in
// which a backslash means one thing or another by the SQL mode. What would need one is written as %XX.
func (n note) text() string {
	n.Requester, n.Level = noteEscape(n.Requester), noteEscape(n.Level)
	n.Roles, n.Residue = slices.Clone(n.Roles), slices.Clone(n.Residue)
	for i, role := range n.Roles {
		n.Roles[i] = noteEscape(role)
	}
	for i := range n.Residue {
		r := &n.Residue[i]
		r.Database, r.Object, r.Owner = noteEscape(r.Database), noteEscape(r.Object), noteEscape(r.Owner)
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(n) // plain values: can't fail
	return strings.TrimSpace(b.String())
}

func noteEscape(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "?") {
		if r < ' ' || r == 0x7f || strings.ContainsRune("%\"\\\u2028\u2029", r) {
			b.WriteString(url.PathEscape(string(r)))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func noteUnescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

func parseNote(text string) (n note) {
	if json.Unmarshal([]byte(text), &n) != nil {
		return note{} // none, or somebody has written another over ours
	}
	n.Requester, n.Level = noteUnescape(n.Requester), noteUnescape(n.Level)
	for i, role := range n.Roles {
		n.Roles[i] = noteUnescape(role)
	}
	for i := range n.Residue {
		r := &n.Residue[i]
		r.Database, r.Object, r.Owner = noteUnescape(r.Database), noteUnescape(r.Object), noteUnescape(r.Owner)
	}
	return n
}

// errNoUser says that the account is not (any more) on the server.
var errNoUser = errors.New("the account does not exist on the server")

// row asks the server, on the closing line.
func (a *account) row(ctx context.Context) (r row, err error) {
	err = a.engine.closing.do(ctx, func(ctx context.Context, c *conn) (err error) {
		r, err = readRow(ctx, c, a.spec.Name)
		return err
	})
	return r, err
}

func readRow(ctx context.Context, c *conn, name string) (r row, err error) {
	err = c.rows(ctx, "account", func(rows *sql.Rows) error {
		var host, text string
		if err := rows.Scan(&host, &text); err != nil {
			return err
		}
		r.hosts = append(r.hosts, host)
		if n := parseNote(text); n.Grant != "" {
			r.note = n
		}
		return nil
	}, name)
	if err == nil && len(r.hosts) == 0 {
		err = errNoUser
	}
	return r, err
}
