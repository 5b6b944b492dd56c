package main

import (
	"context"
	"errors"
	"time"

	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/proxy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// The joints between the proxy and the rest: the desk's errors become what a client may read, the
// store's rows what the proxy asks for.

// grants is the desk, as the proxy sees it: proxy.Grants and protocol.Doorman.
type grants struct {
	desk *control.Desk
	tokens
}

var (
	_ proxy.Grants     = grants{}
	_ protocol.Doorman = grants{}
)

func (g grants) Verifier(ctx context.Context, user string) ([]byte, error) {
	return g.desk.Verifier(ctx, user)
}

func (g grants) Find(ctx context.Context, user string) (policy.Grant, error) {
	grant, err := g.desk.Find(ctx, user)
	return grant, refusal(err)
}

func (g grants) Recall(ctx context.Context, grant string) (policy.Grant, error) {
	return g.desk.Recall(ctx, grant)
}

func (g grants) End(ctx context.Context, grant, code, reason string) error {
	return g.desk.End(ctx, grant, code, reason, "curfew")
}

func (g grants) Hold(ctx context.Context, grant string) (context.Context, func(), error) {
	held, release, err := g.desk.Hold(ctx, grant)
	return held, release, refusal(err)
}

// cause is what holders of a grant hear of its end.
func cause(e *control.EndedError) error {
	return &protocol.Refusal{Code: e.Code, Public: e.Public}
}

// refusal turns what the desk says into what a client may read.
func refusal(err error) error {
	var over *control.EndedError
	if errors.As(err, &over) {
		return cause(over)
	}
	var own *control.Error
	if !errors.As(err, &own) {
		return err
	}
	code := protocol.RefuseNoGrant
	if own.Code == control.CodeUnavailable {
		code = protocol.RefuseUnavailable
	}
	public := own.Public
	if own.Next != "" {
		public += "; " + own.Next
	}
	return &protocol.Refusal{Code: code, Public: public, Err: own.Err}
}

// recordings is the library, as the proxy sees it.
type recordings struct{ library *recorder.Library }

var _ proxy.Recordings = recordings{}

func (r recordings) Create(h recorder.Header) (proxy.Recording, error) {
	w, err := r.library.Create(h)
	if err != nil {
		return nil, err // a nil *Writer must not become a Recording that is not nil
	}
	return w, nil
}

func (r recordings) Prepares(session string) ([]string, error) { return r.library.Prepares(session) }

// journal is the store, as the proxy sees it: proxy.Sessions and proxy.Accounts.
type journal struct{ *store.Store }

var (
	_ proxy.Sessions = journal{}
	_ proxy.Accounts = journal{}
)

// OfGrant implements proxy.Sessions. It asks as one who writes does, so that it misses no entry that is still
// under way.
func (j journal) OfGrant(ctx context.Context, grant string) (ids []string, err error) {
	err = j.Update(ctx, func(tx *store.Tx) error {
		sessions, err := tx.Sessions(store.SessionFilter{Grant: grant})
		for _, s := range sessions {
			ids = append(ids, s.ID)
		}
		return err
	})
	return ids, err
}

// Intended implements proxy.Accounts.
func (j journal) Intended(ctx context.Context) ([]proxy.Intent, error) {
	intents, err := j.LiveIntents(ctx)
	all := make([]proxy.Intent, 0, len(intents))
	for _, i := range intents {
		all = append(all, proxy.Intent{AccountIntended: i.AccountIntended, Cut: i.Cut})
	}
	return all, err
}

// wire is this node's sessions, as the desk and the API see them. The proxy is made after the desk.
type wire struct{ house *house }

var _ control.Wire = wire{}

// GrantOf implements control.Wire.
func (w wire) GrantOf(session string) (string, bool) {
	live, ok := w.house.proxy.Live(session)
	return live.Grant, ok
}

// Kill implements control.Wire.
func (w wire) Kill(session, public string) bool { return w.house.proxy.Kill(session, public) }

// Extended implements control.Wire. What is extended before the proxy is there, it finds extended.
func (w wire) Extended(grant string, end time.Time) {
	if w.house.proxy != nil {
		w.house.proxy.Extended(grant, end)
	}
}

func (w wire) traffic(session string) (api.Traffic, bool) {
	l, ok := w.house.proxy.Live(session)
	return api.Traffic{FromClient: l.FromClient, FromServer: l.FromServer, Statements: l.Statements, Idle: l.Idle}, ok
}

// answers is the store, as calls to the API that act once see it.
type answers struct{ *store.Store }

// Begin implements api.Answers.
func (a answers) Begin(ctx context.Context, key, asked []byte) (api.Answered, bool, error) {
	was, first, err := a.BeginAnswer(ctx, key, asked)
	return api.Answered(was), first, err
}

// Put implements api.Answers.
func (a answers) Put(ctx context.Context, key []byte, status int, body []byte) error {
	return a.PutAnswer(ctx, key, status, body)
}

// Drop implements api.Answers.
func (a answers) Drop(ctx context.Context, key []byte) error { return a.DropAnswer(ctx, key) }
