package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// MaxComments is how many comments one request may have, so that nobody can fill the ledger.
const MaxComments = 100

// Comment is a word on a request that decides nothing, by anybody who sees it, before its end or after.
func (d *Desk) Comment(ctx context.Context, who auth.Identity, id, text string) (policy.Request, error) {
	if err := nobody(who); err != nil {
		return policy.Request{}, err
	}
	if err := readable("comment", text); err != nil {
		return policy.Request{}, err
	}
	if text = strings.TrimSpace(text); text == "" {
		return policy.Request{}, &Error{Code: CodeInvalid, Public: "the comment is empty", Next: "say something: curfew comment " + id + ` "…"`}
	}
	var r policy.Request
	err := d.transact(ctx, func(tx *store.Tx, p *policy.Policy) (err error) {
		if r, err = visible(tx, p, who, id); err != nil {
			return err
		}
		if len(r.Comments) >= MaxComments {
			return &Error{Code: CodeConflict, Public: fmt.Sprintf("request %s has %d comments already", id, MaxComments), Next: "talk about it elsewhere"}
		}
		r.Comments = append(r.Comments, policy.Comment{Identity: who, Text: text, At: moment(tx)})
		if err := tx.PutRequest(r); err != nil {
			return err
		}
		return tx.Append(ledger.TypeRequestCommented, ledger.RequestCommented{Request: r.ID, Person: personOf(who), Text: text})
	}, func() {
		if r.Status == policy.Open {
			d.note(r)
		}
	})
	if err != nil {
		return policy.Request{}, failed(err, "request", id)
	}
	d.log.Info("comment", "request", r.ID, "person", who.Label())
	return r, nil
}
