package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// Review is what somebody else must look at: one session, or, with no session, everything that was done
// under a break-glass grant.
type Review struct {
	ID       string        `json:"id"` // the session's, or the grant's
	Grant    string        `json:"grant"`
	Session  string        `json:"session,omitempty"`
	Identity auth.Identity `json:"identity"` // whose doing it is
	Target   string        `json:"target"`
	Level    string        `json:"level"`
	By       policy.Who    `json:"by"` // who may; nobody named: whoever may read the target's recordings
	Made     time.Time     `json:"made"`
	Due      time.Time     `json:"due"`
	Alerted  bool          `json:"alerted,omitempty"` // that it is overdue was said

	Done     time.Time     `json:"done,omitzero"` // zero: still to be done
	Reviewer auth.Identity `json:"reviewer,omitzero"`
	OK       bool          `json:"ok,omitempty"`
	Finding  string        `json:"finding,omitempty"`
}

// ReviewFilter selects reviews; zero fields select all.
type ReviewFilter struct {
	Open   bool      // not done yet
	Due    time.Time // due before this, if it is not zero
	By     string    // auth.Identity.Key of whose doing it is
	Target string
	Limit  int // 0 = all
}

// PutReview writes a review, new or changed.
func (tx *Tx) PutReview(r Review) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("store: review %s: %w", r.ID, err)
	}
	return tx.exec(`INSERT INTO reviews (id, grant_id, person, target, made, due, alerted, done, doc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET due = excluded.due, alerted = excluded.alerted, done = excluded.done, doc = excluded.doc`,
		r.ID, r.Grant, r.Identity.Key(), r.Target, nanos(r.Made), nanos(r.Due), r.Alerted, nanos(r.Done), raw)
}

// Review gives one review, or ErrNotFound.
func (tx *Tx) Review(id string) (Review, error) {
	return doc[Review](tx, "review", `SELECT doc FROM reviews WHERE id = ?`, id)
}

// Reviews gives the reviews that match, the earliest due first.
func (tx *Tx) Reviews(f ReviewFilter) ([]Review, error) {
	var w where
	if f.Open {
		w.and("done = 0")
	}
	if !f.Due.IsZero() {
		w.and("due <= ?", nanos(f.Due))
	}
	if f.By != "" {
		w.and("person = ?", f.By)
	}
	if f.Target != "" {
		w.and("target = ?", f.Target)
	}
	return docs[Review](tx, "reviews", `SELECT doc FROM reviews`+w.limit("due, id", f.Limit), w.args...)
}

// CountReviews counts those that are still to be done, and those of them that are overdue at now; fresh: of
// one of these nobody was told yet.
func (tx *Tx) CountReviews(now time.Time) (open, overdue int, fresh bool, err error) {
	err = tx.row(`SELECT count(*), count(CASE WHEN due <= ?1 THEN 1 END), count(CASE WHEN due <= ?1 AND alerted = 0 THEN 1 END) > 0
		FROM reviews WHERE done = 0`, nanos(now)).Scan(&open, &overdue, &fresh)
	return open, overdue, fresh, found(err, "reviews")
}

// Begun gives a person's grants that began between two times, the latest first; the last thousand of them. One
// that was ended before its begin never began.
func (tx *Tx) Begun(person string, from, to time.Time) ([]policy.Past, error) {
	var w where
	w.and("person = ? AND starts >= ? AND starts <= ?", person, nanos(from), nanos(to))
	w.and("(ended = 0 OR ended > starts)")
	return docs[policy.Past](tx, "grants", `SELECT doc FROM grants`+w.limit("starts DESC, id", 1000), w.args...)
}

// Owe makes a review, puts that on the ledger, and has whoever may do it told.
func (tx *Tx) Owe(r Review) error {
	r.Made = tx.now.UTC()
	if err := tx.PutReview(r); err != nil {
		return err
	}
	err := tx.Append(ledger.TypeReviewDue, ledger.ReviewDue{Review: r.ID, Grant: r.Grant, Session: r.Session,
		Person: PersonOf(r.Identity), Target: r.Target, Due: r.Due.UTC()})
	if err != nil {
		return err
	}
	return tx.Notify(Notice{Kind: NoticeReviewDue, Grant: r.Grant, Session: r.Session})
}

// reviewSession makes the review that a sealed session's grant wants. What was done under a break-glass
// grant is reviewed as a whole.
func (tx *Tx) reviewSession(s Session) error {
	g, err := tx.Grant(s.Grant)
	if err != nil || g.Review == nil || g.BreakGlass {
		return err
	}
	return tx.Owe(Review{ID: s.ID, Grant: g.ID, Session: s.ID, Identity: g.Identity, Target: g.Target, Level: g.Level,
		By: g.Review.By, Due: tx.now.Add(g.Review.Within)})
}

// PersonOf is an identity as the ledger keeps it.
func PersonOf(id auth.Identity) ledger.Person {
	return ledger.Person{
		Issuer: id.Issuer, Subject: id.Subject, Email: id.Email, Name: id.Name, Groups: id.Groups,
		ACR: id.ACR, AMR: id.AMR, AuthTime: id.AuthTime, Declared: id.Declared, Workload: id.Workload,
	}
}
