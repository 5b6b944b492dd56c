package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// keepLinks is how long a link is remembered after its time: so long it is answered with what became of it.
const keepLinks = 7 * 24 * time.Hour

// errLink is the one answer to every link that is not good, whatever is wrong with it.
var errLink = &Error{Code: CodeNotFound, Public: "this link is not good, or not any more: each leads one person to one request, once, until it is decided",
	Next: "if you decide on requests, log in, and see what waits for you"}

// Links are the addresses that notifications carry. A link leads to the page of its request, and nothing else:
// who may see and decide there is for the login to say. A token is made from a key that only this installation
// has, so that sending it again sends the same one; the store has its hash.
type Links struct {
	store linkStore
	key   []byte
	base  string // https://curfew.example.com
}

type linkStore interface {
	Update(ctx context.Context, fn func(*store.Tx) error) error
	View(ctx context.Context, fn func(*store.Tx) error) error
}

// NewLinks makes links below a base address, from a key that is kept.
func NewLinks(s *store.Store, key []byte, base string) *Links {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("curfew links"))
	return &Links{store: s, key: m.Sum(nil), base: strings.TrimSuffix(base, "/")}
}

// Make gives the link to a request for one recipient of one notice; the same for the same.
func (l *Links) Make(ctx context.Context, r policy.Request, notice, recipient string) (string, error) {
	m := hmac.New(sha256.New, l.key)
	m.Write([]byte(notice + "\x00" + recipient + "\x00" + r.ID))
	token := base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	err := l.store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutLink(store.Link{Hash: auth.HashToken(token), Request: r.ID, Expires: r.Lapses})
	})
	return l.base + "/web/links/" + token, err
}

// Page is the address of a request's page, without a link: for those who log in anyway.
func (l *Links) Page(request string) string {
	return l.base + "/web/requests/" + url.PathEscape(request)
}

// Look says whether a link may still be used, and for which request. Looking changes nothing: mail scanners and
// previews open whatever they see.
func (l *Links) Look(ctx context.Context, token string) (request string, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) error {
		link, err := tx.Link(auth.HashToken(token))
		if err == nil && (!link.Used.IsZero() || !tx.Now().Before(link.Expires)) {
			err = store.ErrNotFound
		}
		if err == nil {
			request = link.Request
			err = decidable(tx, request)
		}
		return err
	})
	return request, linkError(err)
}

// Use spends a link for somebody who has logged in and may decide on its request; anybody else leaves it as it
// is, for the one whom it was sent to.
func (l *Links) Use(ctx context.Context, p *policy.Policy, token string, who auth.Identity, from string) (request string, err error) {
	err = l.store.Update(ctx, func(tx *store.Tx) error {
		link, err := tx.Link(auth.HashToken(token))
		if err != nil {
			return err
		}
		r, err := tx.Request(link.Request)
		if err != nil {
			return err
		}
		if !p.Decider(who, r) {
			return store.ErrNotFound
		}
		if err := decidable(tx, r.ID); err != nil {
			return err
		}
		if _, err := tx.UseLink(link.Hash, who.Key()); err != nil {
			return err
		}
		request = r.ID
		return tx.Append(ledger.TypeLinkUsed, ledger.LinkUsed{Request: r.ID, Person: personOf(who), From: hostOf(from)})
	})
	return request, linkError(err)
}

// decidable refuses a request that is decided, or whose time to be is over.
func decidable(tx *store.Tx, request string) error {
	r, err := tx.Request(request)
	if err == nil && (r.Status != policy.Open || r.Late(tx.Now())) {
		err = store.ErrNotFound
	}
	return err
}

func linkError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrUsed):
		return errLink
	}
	return unavailable(err)
}
