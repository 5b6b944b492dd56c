package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/policy"
)

// Kinds of notices.
const (
	NoticeRequestCreated = "request.created" // somebody is to decide
	NoticeRequestDecided = "request.decided" // somebody has, and more approvals are needed
	NoticeRequestEnded   = "request.ended"   // approved, denied, lapsed, cancelled
	NoticeGrantEnded     = "grant.ended"
	NoticeGrantExtended  = "grant.extended"
	NoticeBreakGlass     = "break_glass"
	NoticeReviewDue      = "review.due"
	NoticeReviewDone     = "review.done"
	NoticeReviewOverdue  = "review.overdue"
)

// mostNotices bounds what waits for destinations that can't be reached: the oldest gives way.
const mostNotices = 10_000

// Notice is something that people are to be told. It names what it is about; the text is made when it is sent.
type Notice struct {
	N       int64     `json:"-"`  // its place in the order
	ID      string    `json:"id"` // the same however often it is sent; made by Notify
	Kind    string    `json:"kind"`
	Created time.Time `json:"created"` // set by Notify

	Request string `json:"request,omitempty"`
	Grant   string `json:"grant,omitempty"`
	Session string `json:"session,omitempty"` // what is to be reviewed, if it is a session
	By      string `json:"by,omitempty"`      // who did it, for people
	Text    string `json:"text,omitempty"`    // their words: a comment, a reason, a finding
}

// Notify has people told of something, if the transaction is committed.
func (tx *Tx) Notify(n Notice) error {
	n.ID, n.Created = policy.NewID("n", 16), tx.now.UTC()
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("store: notice: %w", err)
	}
	if err := tx.exec(`INSERT INTO notices (id, created, doc) VALUES (?, ?, ?)`, n.ID, nanos(n.Created), raw); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM notices WHERE n <= (SELECT max(n) FROM notices) - ?`, mostNotices)
}

// LastNotice is the place of the newest notice there ever was; 0: there was none.
func (tx *Tx) LastNotice() (n int64, err error) {
	err = found(tx.row(`SELECT seq FROM sqlite_sequence WHERE name = 'notices'`).Scan(&n), "notices")
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return n, err
}

// Notices gives those behind a place, the oldest first.
func (tx *Tx) Notices(after int64, limit int) ([]Notice, error) {
	rows, err := tx.sql.QueryContext(tx.ctx, `SELECT n, doc FROM notices WHERE n > ? ORDER BY n LIMIT ?`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("store: notices: %w", err)
	}
	defer rows.Close()
	var all []Notice
	for rows.Next() {
		var n Notice
		var place int64
		var raw []byte
		if err := rows.Scan(&place, &raw); err != nil {
			return nil, fmt.Errorf("store: notices: %w", err)
		}
		if err := json.Unmarshal(raw, &n); err != nil {
			return nil, fmt.Errorf("store: notices: %w", err)
		}
		n.N = place
		all = append(all, n)
	}
	return all, found(rows.Err(), "notices")
}

// ForgetNotices drops what everybody has, up to a place, and what is older than oldest.
func (tx *Tx) ForgetNotices(upTo int64, oldest time.Time) error {
	return tx.exec(`DELETE FROM notices WHERE n <= ? OR created < ?`, upTo, nanos(oldest))
}

// Destination is how far one destination has come.
type Destination struct {
	Name  string
	N     int64     // everything up to here is told, or given up
	Tries int       // failed ones of what comes next
	Due   time.Time // it is not tried before
}

// PutDestination writes how far a destination has come.
func (tx *Tx) PutDestination(d Destination) error {
	return tx.exec(`INSERT INTO destinations (name, n, tries, due) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET n = excluded.n, tries = excluded.tries, due = excluded.due`,
		d.Name, d.N, d.Tries, nanos(d.Due))
}

// Destination gives how far a destination has come, or ErrNotFound.
func (tx *Tx) Destination(name string) (Destination, error) {
	d := Destination{Name: name}
	var due int64
	err := found(tx.row(`SELECT n, tries, due FROM destinations WHERE name = ?`, name).Scan(&d.N, &d.Tries, &due), "destination")
	d.Due = fromNanos(due)
	return d, err
}
