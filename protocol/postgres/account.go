package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/crew"
)

// account is one grant's role on this server. Its story is told in provision.go, cut.go and clean.go;
// this file holds what its sessions and the server say of it.
type account struct {
	*crew.Crew // its sessions, and what became of their backends
	engine     *Engine
	spec       protocol.AccountSpec
	secret     string     // the role's password, 256 random bits as text; "" for one that was only recalled
	cleaning   crew.Token // the right to make or clean the role

	mu    sync.Mutex     // guards what follows; never held across I/O
	oid   uint32         // the role's, once known
	clean protocol.Clean // what cleaning has learned so far
}

func newAccount(e *Engine, spec protocol.AccountSpec) *account {
	a := &account{Crew: crew.New(), engine: e, spec: spec, cleaning: crew.NewToken()}
	a.Learn(spec.Prepared)
	return a
}

// Name is the role's name.
func (a *account) Name() string { return a.spec.Name }

// kill terminates a session's backend and learns what became of what it was doing.
func (a *account) kill(ctx context.Context, s crew.Session) (protocol.Outcome, error) {
	return a.Kill(ctx, s, func(ctx context.Context, only ...uint32) error {
		if err := a.end(ctx, only...); err != nil {
			return fmt.Errorf("terminate backend %d of %s: %w", s.Backend(), a.spec.Name, err)
		}
		return nil
	})
}

// row is what the server knows of an account.
type row struct {
	oid   uint32
	login bool
	note  note
	since int64 // transaction that made it, 64 bits; what is newer may be the account's doing
}

// note is what Curfew keeps in the role's comment.
type note struct {
	Installation string             `json:"installation"`
	Grant        string             `json:"grant"`
	Requester    string             `json:"requester"`
	End          time.Time          `json:"end"`
	Level        string             `json:"level"`
	Roles        []string           `json:"roles"`
	SetRole      bool               `json:"set_role,omitempty"`
	Since        int64              `json:"since"`             // the transaction that made the account
	Residue      []protocol.Residue `json:"residue,omitempty"` // noted before cleaning began
}

// errNoRole says that the account is not (any more) on the server.
var errNoRole = errors.New("the account does not exist on the server")

// row asks the server, on the closing line.
func (a *account) row(ctx context.Context) (row, error) {
	var r row
	err := a.engine.closing.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		r, err = readRow(ctx, c, a.spec.Name)
		return err
	})
	return r, err
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// role is the role's oid, asked once.
func (a *account) role(ctx context.Context) (uint32, error) {
	a.mu.Lock()
	oid := a.oid
	a.mu.Unlock()
	if oid != 0 {
		return oid, nil
	}
	r, err := a.row(ctx)
	if err == nil {
		a.is(r.oid)
	}
	return r.oid, err
}

// is keeps the role's oid.
func (a *account) is(oid uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.oid = oid
}

func readRow(ctx context.Context, q querier, name string) (row, error) {
	return scanRow(q.QueryRow(ctx, query("account"), name))
}

// askRow is readRow among other questions.
func askRow(ask *pgx.Batch, name string, r *row) {
	ask.Queue(query("account"), name).QueryRow(func(from pgx.Row) (err error) {
		*r, err = scanRow(from)
		return err
	})
}

func scanRow(from pgx.Row) (row, error) {
	var r row
	var oid, fallback int64
	var comment string
	err := from.Scan(&oid, &r.login, &comment, &fallback)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, errNoRole
	}
	if err != nil {
		return r, err
	}
	r.oid = uint32(oid)
	if json.Unmarshal([]byte(comment), &r.note) != nil {
		r.note = note{} // somebody has written another comment over ours
	}
	switch {
	case r.note.Since > 0:
		r.since = r.note.Since
	case fallback > 0:
		r.since = fallback
	default:
		r.since = math.MaxInt64 // nothing can be told apart
	}
	return r, nil
}
