package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// Intent is an account that may exist in a database; it is there from before the account is made
// until it is proven gone.
type Intent struct {
	ledger.AccountIntended
	Cut     bool // the first part of the receipt is written: nobody can use the account any more
	Created time.Time
}

// Session is one client connection under a grant.
type Session struct {
	ID       string           `json:"id"`
	Grant    string           `json:"grant"`
	Identity auth.Identity    `json:"identity"`
	Target   string           `json:"target"`
	Level    string           `json:"level"`
	Account  string           `json:"account"`
	Node     string           `json:"node"`
	Client   string           `json:"client"` // address:port
	Began    time.Time        `json:"began"`
	Ended    time.Time        `json:"ended,omitzero"`
	Sealed   *recorder.Sealed `json:"sealed,omitempty"` // nil while it runs
}

// SessionFilter selects sessions; zero fields select all.
type SessionFilter struct {
	Grant  string
	By     string // auth.Identity.Key of the person
	Target string
	Open   bool   // not sealed yet
	After  string // only what the list has behind this id
	Limit  int    // 0 = all
}

// Intents gives all accounts that may exist, the oldest first.
func (tx *Tx) Intents() ([]Intent, error) {
	rows, err := tx.sql.QueryContext(tx.ctx, `SELECT cut, created, doc FROM intents ORDER BY created, grant_id`)
	if err != nil {
		return nil, fmt.Errorf("store: intents: %w", err)
	}
	defer rows.Close()
	var all []Intent
	for rows.Next() {
		var in Intent
		var created int64
		var raw []byte
		if err := rows.Scan(&in.Cut, &created, &raw); err != nil {
			return nil, fmt.Errorf("store: intents: %w", err)
		}
		if err := json.Unmarshal(raw, &in.AccountIntended); err != nil {
			return nil, fmt.Errorf("store: intents: %w", err)
		}
		in.Created = fromNanos(created)
		all = append(all, in)
	}
	return all, found(rows.Err(), "intents")
}

// Session gives one session, or ErrNotFound.
func (tx *Tx) Session(id string) (Session, error) {
	return doc[Session](tx, "session", `SELECT doc FROM sessions WHERE id = ?`, id)
}

// Sessions gives the sessions that match, the latest first.
func (tx *Tx) Sessions(f SessionFilter) ([]Session, error) {
	var w where
	if f.Grant != "" {
		w.and("grant_id = ?", f.Grant)
	}
	if f.By != "" {
		w.and("person = ?", f.By)
	}
	if f.Target != "" {
		w.and("target = ?", f.Target)
	}
	if f.Open {
		w.and("ended = 0")
	}
	w.after("sessions", "began", f.After)
	return docs[Session](tx, "sessions", `SELECT doc FROM sessions`+w.limit("began DESC, id", f.Limit), w.args...)
}

func (tx *Tx) putSession(s Session) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("store: session %s: %w", s.ID, err)
	}
	return tx.exec(`INSERT INTO sessions (id, grant_id, person, target, began, ended, doc) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, doc = excluded.doc`,
		s.ID, s.Grant, s.Identity.Key(), s.Target, nanos(s.Began), nanos(s.Ended), raw)
}

// Intend makes the intent to create (or, with Adopt, to take over) an account durable. The account
// may be made only when this has returned nil.
func (s *Store) Intend(ctx context.Context, in ledger.AccountIntended) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("store: intent: %w", err)
	}
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.Append(ledger.TypeAccountIntended, in); err != nil {
			return err
		}
		return tx.exec(`INSERT INTO intents (grant_id, created, doc) VALUES (?, ?, ?)
			ON CONFLICT (grant_id) DO UPDATE SET cut = 0, doc = excluded.doc`, in.Grant, nanos(tx.now), raw)
	})
}

// Opened writes that a session begins. ErrNotFound if there is no such grant; a session that is known
// already is an error too, for a recording has one session.
func (s *Store) Opened(ctx context.Context, o ledger.SessionOpened) error {
	return s.Update(ctx, func(tx *Tx) error {
		g, err := tx.Grant(o.Grant)
		if err != nil {
			return err
		}
		switch _, err := tx.Session(o.Session); {
		case err == nil:
			return fmt.Errorf("session %s has begun before", o.Session)
		case !isNotFound(err):
			return err
		}
		if err := tx.Append(ledger.TypeSessionOpened, o); err != nil {
			return err
		}
		return tx.putSession(Session{
			ID: o.Session, Grant: o.Grant, Identity: g.Identity, Target: o.Target, Level: g.Level,
			Account: o.Account, Node: o.Node, Client: o.Client, Began: tx.now,
		})
	})
}

// Sealed writes that a session's recording is finished, and that it is to be reviewed if its grant's rule
// says so. Again for the same session it does nothing.
// ErrNotFound if the session was never Opened: after a crash between the two the healer opens it first.
func (s *Store) Sealed(ctx context.Context, e ledger.SessionSealed) error {
	return s.Update(ctx, func(tx *Tx) error {
		session, err := tx.Session(e.Sealed.Session)
		if err != nil {
			return err
		}
		if session.Sealed != nil {
			return nil
		}
		session.Ended, session.Sealed = tx.now, &e.Sealed
		if err := tx.Append(ledger.TypeSessionSealed, e); err != nil {
			return err
		}
		if err := tx.putSession(session); err != nil {
			return err
		}
		return tx.reviewSession(session)
	})
}

// Moved writes how far the open recordings have come. One that was sealed since that was looked at has
// nothing more to say, and one that never came on the ledger has nothing to say there.
func (s *Store) Moved(ctx context.Context, m ledger.SessionsMoved) error {
	return s.Update(ctx, func(tx *Tx) error {
		open := make([]recorder.TreeState, 0, len(m.Sessions))
		for _, state := range m.Sessions {
			session, err := tx.Session(state.Session)
			if err != nil && !isNotFound(err) {
				return err
			}
			if err == nil && session.Sealed == nil {
				open = append(open, state)
			}
		}
		if len(open) == 0 {
			return nil
		}
		return tx.Append(ledger.TypeSessionsMoved, ledger.SessionsMoved{Node: m.Node, Sessions: open})
	})
}

// Cut writes the first part of a grant's receipt: nobody can use the account any more.
func (s *Store) Cut(ctx context.Context, c ledger.AccountCut) error {
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.Append(ledger.TypeAccountCut, c); err != nil {
			return err
		}
		return tx.exec(`UPDATE intents SET cut = 1 WHERE grant_id = ?`, c.Grant)
	})
}

// Cleaned writes the second part of a receipt, the account is gone, and forgets the intent.
func (s *Store) Cleaned(ctx context.Context, c ledger.AccountCleaned) error {
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.Append(ledger.TypeAccountCleaned, c); err != nil {
			return err
		}
		return tx.exec(`DELETE FROM intents WHERE grant_id = ?`, c.Grant)
	})
}

// StillOpen writes that a part of a receipt is overdue.
func (s *Store) StillOpen(ctx context.Context, o ledger.AccountOpen) error {
	return s.append(ctx, ledger.TypeAccountOpen, o)
}

// Foreign writes that an account was used past the proxy.
func (s *Store) Foreign(ctx context.Context, f ledger.AccountForeign) error {
	return s.append(ctx, ledger.TypeAccountForeign, f)
}

// Degraded writes that recordings can't be kept.
func (s *Store) Degraded(ctx context.Context, d ledger.RecorderDegraded) error {
	return s.append(ctx, ledger.TypeRecorderDegraded, d)
}

// LiveIntents gives all accounts that may exist, for the sweep.
func (s *Store) LiveIntents(ctx context.Context) (all []Intent, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		all, err = tx.Intents()
		return err
	})
	return all, err
}

// OpenSessions gives the sessions that are not sealed, for the healer.
func (s *Store) OpenSessions(ctx context.Context) (ids []string, err error) {
	err = s.View(ctx, func(tx *Tx) error {
		open, err := tx.Sessions(SessionFilter{Open: true})
		for _, session := range open {
			ids = append(ids, session.ID)
		}
		return err
	})
	return ids, err
}

func (s *Store) append(ctx context.Context, typ string, data any) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.Append(typ, data) })
}

// change runs a statement that must hit a row.
func (tx *Tx) change(what, query string, args ...any) error {
	if !tx.writes {
		return errReadOnly
	}
	r, err := tx.run(query, args...)
	if err != nil {
		return fmt.Errorf("store: %s: %w", what, err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%s: %w", what, ErrNotFound), err)
	}
	return nil
}

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
