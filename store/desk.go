package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// RequestFilter selects requests; zero fields select all.
type RequestFilter struct {
	Status policy.Status
	By     string // auth.Identity.Key of the requester
	Target string
	After  string // only what the list has behind this id
	Limit  int    // 0 = all
}

// GrantFilter selects grants; zero fields select all.
type GrantFilter struct {
	Active *bool // as policy.Grant.Active says at the transaction's time
	Live   bool  // not ended: active, or still to start
	By     string
	Target string
	After  string // only what the list has behind this id
	Limit  int    // 0 = all
}

// Login is one session of a person with Curfew itself.
type Login struct {
	Hash      []byte // SHA-256 of the session token
	Identity  auth.Identity
	Refresh   []byte // the provider's refresh token, sealed; nil if there is none
	Created   time.Time
	Expires   time.Time
	Refreshed time.Time
}

// PutRequest writes a request, new or changed.
func (tx *Tx) PutRequest(r policy.Request) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store: request %s: %w", r.ID, err)
	}
	return tx.exec(`INSERT INTO requests (id, status, person, target, created, doc) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET status = excluded.status, person = excluded.person,
			target = excluded.target, created = excluded.created, doc = excluded.doc`,
		r.ID, string(r.Status), r.Identity.Key(), r.Target, nanos(r.Created), raw)
}

// Request gives one request, or ErrNotFound.
func (tx *Tx) Request(id string) (policy.Request, error) {
	return doc[policy.Request](tx, "request", `SELECT doc FROM requests WHERE id = ?`, id)
}

// Requests gives the requests that match, the newest first.
func (tx *Tx) Requests(f RequestFilter) ([]policy.Request, error) {
	var w where
	if f.Status != "" {
		w.and("status = ?", string(f.Status))
	}
	switch {
	case f.By == "":
	case f.Status == policy.Open: // few are, so they are not looked for among all that the person ever had
		w.and("+person = ?", f.By)
	default:
		w.and("person = ?", f.By)
	}
	if f.Target != "" {
		w.and("target = ?", f.Target)
	}
	w.after("requests", "created", f.After)
	return docs[policy.Request](tx, "requests", `SELECT doc FROM requests`+w.limit("created DESC, id", f.Limit), w.args...)
}

// PutGrant writes a grant, new or changed; its verifier stays.
func (tx *Tx) PutGrant(g policy.Grant) error {
	raw, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("store: grant %s: %w", g.ID, err)
	}
	return tx.exec(`INSERT INTO grants (id, person, target, starts, ends, ended, doc) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET person = excluded.person, target = excluded.target,
			starts = excluded.starts, ends = excluded.ends, ended = excluded.ended, doc = excluded.doc`,
		g.ID, g.Identity.Key(), g.Target, nanos(g.Start), nanos(g.End), nanos(g.Ended), raw)
}

// Grant gives one grant, or ErrNotFound.
func (tx *Tx) Grant(id string) (policy.Grant, error) {
	return doc[policy.Grant](tx, "grant", `SELECT doc FROM grants WHERE id = ?`, id)
}

// Grants gives the grants that match, the latest start first.
func (tx *Tx) Grants(f GrantFilter) ([]policy.Grant, error) {
	var w where
	if f.Active != nil {
		active := "(ended = 0 AND starts <= ? AND ends > ?)"
		if !*f.Active {
			active = "NOT " + active
		}
		w.and(active, nanos(tx.now), nanos(tx.now))
	}
	if f.Live {
		w.and("ended = 0")
	}
	if f.By != "" {
		w.and("person = ?", f.By)
	}
	if f.Target != "" {
		w.and("target = ?", f.Target)
	}
	w.after("grants", "starts", f.After)
	return docs[policy.Grant](tx, "grants", `SELECT doc FROM grants`+w.limit("starts DESC, id", f.Limit), w.args...)
}

// PutVerifier sets what a grant's password is checked by, and so voids the password before it. With
// nil nobody can log in. ErrNotFound if there is no such grant.
func (tx *Tx) PutVerifier(grant string, verifier []byte) error {
	return tx.change("grant", `UPDATE grants SET verifier = ? WHERE id = ?`, verifier, grant)
}

// Verifier gives a grant's verifier, or nil if it has none or there is no such grant: who asks is a
// stranger, and must not be able to tell the two apart.
func (tx *Tx) Verifier(grant string) ([]byte, error) {
	var v []byte
	err := found(tx.row(`SELECT verifier FROM grants WHERE id = ?`, grant).Scan(&v), "verifier")
	if isNotFound(err) {
		return nil, nil
	}
	return v, err
}

// PutLogin writes a login, new or refreshed.
func (tx *Tx) PutLogin(l Login) error {
	raw, err := json.Marshal(l.Identity)
	if err != nil {
		return fmt.Errorf("store: login: %w", err)
	}
	return tx.exec(`INSERT INTO logins (hash, person, created, expires, refreshed, refresh, doc) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (hash) DO UPDATE SET person = excluded.person, created = excluded.created, expires = excluded.expires,
			refreshed = excluded.refreshed, refresh = excluded.refresh, doc = excluded.doc`,
		l.Hash, l.Identity.Key(), nanos(l.Created), nanos(l.Expires), nanos(l.Refreshed), l.Refresh, raw)
}

// Login gives the login with this token hash, expired or not, or ErrNotFound.
func (tx *Tx) Login(hash []byte) (Login, error) {
	return scanLogin(tx.row(loginColumns+` WHERE hash = ?`, hash))
}

// DeleteLogin forgets a login; one that is not there is no error.
func (tx *Tx) DeleteLogin(hash []byte) error {
	return tx.exec(`DELETE FROM logins WHERE hash = ?`, hash)
}

// Logins gives a person's logins, the newest first; with an empty key everybody's.
func (tx *Tx) Logins(identityKey string) ([]Login, error) {
	var w where
	if identityKey != "" {
		w.and("person = ?", identityKey)
	}
	rows, err := tx.sql.QueryContext(tx.ctx, loginColumns+w.limit("created DESC, hash", 0), w.args...)
	if err != nil {
		return nil, fmt.Errorf("store: logins: %w", err)
	}
	defer rows.Close()
	var all []Login
	for rows.Next() {
		l, err := scanLogin(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, found(rows.Err(), "logins")
}

const loginColumns = `SELECT hash, created, expires, refreshed, refresh, doc FROM logins`

func scanLogin(row interface{ Scan(...any) error }) (l Login, err error) {
	var created, expires, refreshed int64
	var raw []byte
	if err := found(row.Scan(&l.Hash, &created, &expires, &refreshed, &l.Refresh, &raw), "login"); err != nil {
		return Login{}, err
	}
	if err := json.Unmarshal(raw, &l.Identity); err != nil {
		return Login{}, fmt.Errorf("store: login: %w", err)
	}
	l.Created, l.Expires, l.Refreshed = fromNanos(created), fromNanos(expires), fromNanos(refreshed)
	return l, nil
}
