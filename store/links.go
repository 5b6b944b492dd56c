package store

import (
	"errors"
	"time"
)

// ErrUsed: somebody has used the link already.
var ErrUsed = errors.New("the link was used already")

// Link leads one person to the page of one request. It lets nobody in: that is for their login.
type Link struct {
	Hash    []byte // SHA-256 of its token
	Request string
	Expires time.Time
	Used    time.Time // zero: not yet
	Person  string    // auth.Identity.Key of who used it
}

// PutLink writes a link; one that is there stays as it is.
func (tx *Tx) PutLink(l Link) error {
	return tx.exec(`INSERT INTO links (hash, request, expires, used, person) VALUES (?, ?, ?, 0, '') ON CONFLICT (hash) DO NOTHING`,
		l.Hash, l.Request, nanos(l.Expires))
}

// Link gives a link, good or not any more, or ErrNotFound.
func (tx *Tx) Link(hash []byte) (Link, error) {
	l := Link{Hash: hash}
	var expires, used int64
	err := found(tx.row(`SELECT request, expires, used, person FROM links WHERE hash = ?`, hash).Scan(&l.Request, &expires, &used, &l.Person), "link")
	l.Expires, l.Used = fromNanos(expires), fromNanos(used)
	return l, err
}

// UseLink marks a link as used by a person, once. Whoever comes later, that person too, gets ErrUsed; after
// its time it is gone, and nobody gets anything but ErrNotFound.
func (tx *Tx) UseLink(hash []byte, person string) (Link, error) {
	l, err := tx.Link(hash)
	switch {
	case err != nil:
		return l, err
	case !tx.now.Before(l.Expires):
		return l, ErrNotFound
	case !l.Used.IsZero():
		return l, ErrUsed
	}
	l.Used, l.Person = tx.now, person
	return l, tx.exec(`UPDATE links SET used = ?, person = ? WHERE hash = ?`, nanos(l.Used), person, hash)
}

// ForgetLinks drops the links whose time was over long ago.
func (tx *Tx) ForgetLinks(before time.Time) error {
	return tx.exec(`DELETE FROM links WHERE expires < ?`, nanos(before))
}
