package mysql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// account is one grant's user on this server. Its story is told in provision.go, cut.go and clean.go;
// this file holds what its sessions share.
type account struct {
	engine *Engine
	spec   protocol.AccountSpec
	secret string // the user's password, 256 random bits as text; "" for one that was only recalled

	killing  chan struct{} // holds one token: the right to kill backends, so that each has one outcome
	cleaning chan struct{} // holds one token: the right to make or clean the user

	mu       sync.Mutex // guards what follows; never held across I/O
	links    map[session]struct{}
	outcomes map[session]protocol.Outcome // of links whose backend was killed, or was gone when it was to be
	doomed   map[session]struct{}         // links whose backend is to be killed: whoever has the token kills them all
	killed   []ending                     // the same by time, for the receipt
	released map[uint32]time.Time         // backends of links that are gone, until the server has let go of them
	noticed  map[uint32]time.Time         // backends that Watch does not know, since it first saw them
	prepared map[string]struct{}          // XA ids that sessions prepared
	before   map[string]struct{}          // XA ids that were prepared when the account was made; nil: not known
	since    time.Time                    // when it was made, by the server's clock; zero: not known
	closing  bool                         // no session may join any more
	cut      protocol.Cut                 // what cutting has learned so far
	vacant   time.Time                    // since when nobody is in, by a look after the lock
	clean    protocol.Clean               // what cleaning has learned so far
}

// session is what an account must know of a client's connection: a *link.
type session interface {
	pid() uint32        // the server's id of its backend; 0 until the server has told it
	greeted() uint32    // the id that its client was greeted with
	inFlight() uint64   // id of the oldest statement without a result; 0 = none
	prepared() []string // XA ids that its statements prepared, as X'…',X'…',n
}

// transactor is a session that knows from the server's last word whether a transaction is open.
type transactor interface{ transaction() bool }

// ending is one killed backend.
type ending struct {
	at      time.Time
	outcome protocol.Outcome
}

func newAccount(e *Engine, spec protocol.AccountSpec) *account {
	a := &account{
		engine: e, spec: spec,
		killing: make(chan struct{}, 1), cleaning: make(chan struct{}, 1),
		links: map[session]struct{}{}, outcomes: map[session]protocol.Outcome{}, doomed: map[session]struct{}{},
		released: map[uint32]time.Time{}, noticed: map[uint32]time.Time{}, prepared: map[string]struct{}{},
	}
	a.killing <- struct{}{}
	a.cleaning <- struct{}{}
	a.learn(spec.Prepared)
	return a
}

// Name is the user's name.
func (a *account) Name() string { return a.spec.Name }

// roleSuffix makes the name of an account's role. MariaDB keeps users and roles apart, but where one of each
// has the same name, 11.8 takes DEFINER = CURRENT_ROLE for the user's word.
const roleSuffix = "_role"

// role is the name of the account's role, on MariaDB.
func (a *account) role() string { return a.spec.Name + roleSuffix }

// errClosing refuses a session that comes too late.
var errClosing = errors.New("the account is being closed")

// add lets a session join. It is called before the session dials the database, so that a backend which
// is just being opened has somebody to answer for it; l.pid is 0 until the server has told it.
// extra: it is the one connection above what the level allows. A stock client's Ctrl-C is a connection of
// its own that says KILL, so one more than the level's is let in, for nothing else than that.
func (a *account) add(l session) (extra bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return false, errClosing
	}
	extra = len(a.links) >= sessions(a.spec.Level)
	a.links[l] = struct{}{}
	return extra, nil
}

// remove lets a session go. Its backend may take a moment longer to go, too.
func (a *account) remove(l session) {
	pid, xids := l.pid(), l.prepared()
	a.learn(xids)
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, joined := a.links[l]; !joined {
		return
	}
	if _, killed := a.outcomes[l]; pid != 0 && !killed {
		a.released[pid] = time.Now()
	}
	delete(a.links, l)
	delete(a.outcomes, l)
}

// learn keeps XA ids that this grant's sessions prepared.
func (a *account) learn(xids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, xid := range xids {
		a.prepared[xid] = struct{}{}
	}
}

// gids gives every XA id that this grant's sessions prepared.
func (a *account) gids() []string {
	for _, l := range a.joined() {
		a.learn(l.prepared())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.prepared))
}

// joined gives the sessions of now.
func (a *account) joined() []session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.links))
}

// sessionOf gives the session of this account whose client was greeted with id; nil: it is none of its.
func (a *account) sessionOf(id uint32) session {
	for _, l := range a.joined() {
		if l.greeted() == id {
			return l
		}
	}
	return nil
}

// shut lets no session join any more.
func (a *account) shut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closing = true
}

// kill kills a session's backend and learns what became of what it was doing, or gives what Cut has
// learned already. Sessions end in crowds: whoever has the token kills the backends of all that wait for it.
func (a *account) kill(ctx context.Context, l session) (protocol.Outcome, error) {
	if l.pid() == 0 { // it never got in
		return protocol.Outcome{Fate: protocol.FateNone}, nil
	}
	if o, ok := a.outcome(l); ok {
		return o, nil
	}
	a.doom(l)
	defer a.spare(l)
	if err := take(ctx, a.killing); err != nil {
		return unproven(l), err
	}
	defer give(a.killing)
	if o, ok := a.outcome(l); ok {
		return o, nil
	}
	batch, pids := a.batch(l)
	ends, err := a.drain(ctx, pids...)
	if err != nil {
		return unproven(l), fmt.Errorf("kill backend %d of %s: %w", l.pid(), a.spec.Name, err)
	}
	a.note(ends)
	a.gone(batch)
	o, _ := a.outcome(l)
	return o, nil
}

func (a *account) doom(l session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doomed[l] = struct{}{}
}

func (a *account) spare(l session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.doomed, l)
}

// batch gives l and the other sessions whose backends are to be killed, and those backends; none means all of the
// account's, because it is being closed.
func (a *account) batch(l session) (list []session, pids []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list = append(list, l)
	for other := range a.doomed {
		if _, known := a.outcomes[other]; !known && other != l {
			list = append(list, other)
		}
	}
	if a.closing {
		return list, nil
	}
	for _, l := range list {
		pids = append(pids, l.pid())
	}
	return list, pids
}

// gone notes which of these had ended by themselves, or by a KILL of somebody's.
func (a *account) gone(batch []session) {
	for _, l := range batch {
		if _, known := a.outcome(l); known {
			continue
		}
		o := unproven(l)
		a.mu.Lock()
		a.outcomes[l] = o
		a.mu.Unlock()
	}
}

// unproven is the outcome of a backend that nobody saw go, which does not prove what it did before.
func unproven(l session) protocol.Outcome {
	o := protocol.Outcome{Backend: strconv.FormatUint(uint64(l.pid()), 10), InFlight: l.inFlight(), Fate: protocol.FateUnknown}
	if o.InFlight == 0 {
		o.Fate = protocol.FateNone
	}
	return o
}

// outcome is what became of a link's backend, if it was killed.
func (a *account) outcome(l session) (protocol.Outcome, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o, ok := a.outcomes[l]
	return o, ok
}

// note keeps the outcomes of killed backends, with the sessions they belonged to.
func (a *account) note(ends []end) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range ends {
		o := protocol.Outcome{Backend: strconv.FormatUint(uint64(e.pid), 10), TxID: e.txid(), Fate: e.fate(), InFlight: e.inFlight}
		if e.link != nil {
			a.outcomes[e.link] = o
		}
		_, ours := a.released[e.pid]
		// After a restart nobody remembers the sessions of the process before: they were ours.
		o.Foreign = e.link == nil && !ours && a.secret != ""
		a.killed = append(a.killed, ending{at: now, outcome: o})
	}
}

// endings gives the outcomes of backends that were killed after at.
func (a *account) endings(at time.Time) []protocol.Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []protocol.Outcome
	for _, k := range a.killed {
		if !k.at.Before(at) {
			list = append(list, k.outcome)
		}
	}
	return list
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

// take waits for a token.
func take(ctx context.Context, token chan struct{}) error {
	select {
	case <-token:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func give(token chan struct{}) { token <- struct{}{} }
