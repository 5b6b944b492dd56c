package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/export"
)

// Desk joins the API to the desk, the ledger and the recordings. It is Requests, Grants, Sessions,
// Reviews, Evidence and Foresight; what somebody may do or see is the desk's word alone.
type Desk struct {
	Desk       *control.Desk
	Ledger     export.Ledger               // *store.Store
	Recordings export.Recordings           // *recorder.Library
	Dialects   map[string]recorder.Dialect // by engine: a report reads SQL by them
	// Traffic tells of a session that goes on on this node; nil: none does.
	Traffic func(session string) (t Traffic, ok bool)
	Log     *slog.Logger
}

// Traffic is what a session that goes on has moved so far.
type Traffic struct {
	FromClient, FromServer, Statements uint64
	Idle                               time.Duration
}

// Explain shows the desk's refusals; it is Config.Explain.
func Explain(err error) *Problem {
	var e *control.Error
	if errors.As(err, &e) {
		// The two packages have the same codes: api names them for the wire, control for the desk.
		return explainStepUp(e)
	}
	var over *control.EndedError
	if errors.As(err, &over) {
		return NewProblem(CodeConflict, over.Public, "").Because(err)
	}
	return nil
}

// Targets implements Requests.
func (d *Desk) Targets(ctx context.Context, who auth.Identity) ([]Target, error) {
	offers, err := d.Desk.Targets(ctx, who)
	if err != nil {
		return nil, err
	}
	p := d.Desk.Policy()
	return showAll(offers, func(o control.TargetOffer) Target {
		return Target{Name: o.Target, Engine: o.Engine, Levels: showAll(o.Offers, func(o policy.Offer) TargetLevel {
			return TargetLevel{
				Name: o.Level, Longest: Duration(o.Longest), Approvals: o.Approvals, Reason: o.Reason,
				Rule: o.Rule, Approvers: approvers(p, o),
			}
		})}
	}), nil
}

func approvers(p *policy.Policy, o policy.Offer) string {
	for i := range p.Rules {
		if p.Rules[i].Name == o.Rule && o.Approvals > 0 {
			return ShowApprovers(p.Rules[i].Approvals)
		}
	}
	return ""
}

// Ask implements Requests.
func (d *Desk) Ask(ctx context.Context, who auth.Identity, a Ask) (policy.Request, error) {
	return d.Desk.Ask(ctx, who, policy.Ask{
		Target: a.Target, Level: a.Level, Duration: a.Duration.Std(), Start: a.Start, Reason: a.Reason,
		Ticket: a.Ticket, SQL: a.SQL, BreakGlass: a.BreakGlass,
	})
}

// Decide implements Requests.
func (d *Desk) Decide(ctx context.Context, who auth.Identity, id string, approve bool, comment string) (policy.Request, error) {
	return d.Desk.Decide(ctx, who, id, approve, comment)
}

// Comment implements Requests.
func (d *Desk) Comment(ctx context.Context, who auth.Identity, id, text string) (policy.Request, error) {
	return d.Desk.Comment(ctx, who, id, text)
}

// Extend implements Requests.
func (d *Desk) Extend(ctx context.Context, who auth.Identity, grant string, e Extend) (policy.Request, error) {
	return d.Desk.Extend(ctx, who, grant, control.More{For: e.Duration.Std(), Reason: e.Reason, Ticket: e.Ticket})
}

// Reviews implements Reviews.
func (d *Desk) Reviews(ctx context.Context, who auth.Identity, f ReviewFilter) ([]Review, error) {
	rs, err := d.Desk.Reviews(ctx, who, control.ReviewFilter{Mine: f.Mine, Due: f.Due, Target: f.Target, After: f.After, Limit: f.Limit})
	return showAll(rs, d.showReview), err
}

// Review implements Reviews.
func (d *Desk) Review(ctx context.Context, who auth.Identity, id string, r Reviewed) (Review, error) {
	done, err := d.Desk.Review(ctx, who, id, r.OK, r.Finding)
	if err != nil {
		return Review{}, err
	}
	return d.showReview(done), nil
}

func (d *Desk) showReview(r control.Review) Review {
	out := Review{
		ID: r.ID, Grant: r.Grant, Session: r.Session, Person: ShowPerson(r.Identity), Target: r.Target, Level: r.Level,
		By: r.By.Words(), Made: utc(r.Made), Due: utc(r.Due), Status: "due", Done: utc(r.Done), Finding: r.Finding,
	}
	if out.By == "nobody" {
		out.By = "readers of " + r.Target
	}
	switch {
	case r.Done.IsZero() && !d.Desk.Now().Before(r.Due):
		out.Status = "overdue"
	case r.Done.IsZero():
	case r.OK:
		out.Status = "ok"
	default:
		out.Status = "finding"
	}
	if !r.Done.IsZero() {
		p := ShowPerson(r.Reviewer)
		out.Reviewer = &p
	}
	return out
}

// CancelRequest implements Requests.
func (d *Desk) CancelRequest(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	return d.Desk.CancelRequest(ctx, who, id)
}

// Requests implements Requests.
func (d *Desk) Requests(ctx context.Context, who auth.Identity, f RequestFilter) ([]policy.Request, error) {
	return d.Desk.Requests(ctx, who, control.RequestFilter{
		Status: policy.Status(f.Status), Target: f.Target, Mine: f.Mine, Decide: f.Decide, After: f.After, Limit: f.Limit,
	})
}

// Request implements Requests.
func (d *Desk) Request(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	return d.Desk.Request(ctx, who, id)
}

// Wait implements Requests.
func (d *Desk) Wait(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	return d.Desk.Wait(ctx, who, id)
}

// Grants implements Grants.
func (d *Desk) Grants(ctx context.Context, who auth.Identity, f GrantFilter) ([]policy.Grant, error) {
	return d.Desk.Grants(ctx, who, control.GrantFilter{Active: f.Active, Target: f.Target, Mine: f.Mine, After: f.After, Limit: f.Limit})
}

// Grant implements Grants.
func (d *Desk) Grant(ctx context.Context, who auth.Identity, id string) (policy.Grant, error) {
	return d.Desk.Grant(ctx, who, id)
}

// EngineOf implements Grants.
func (d *Desk) EngineOf(target string) string { return d.Desk.EngineOf(target) }

// Password implements Grants.
func (d *Desk) Password(ctx context.Context, who auth.Identity, grant string) (Credentials, error) {
	c, err := d.Desk.Password(ctx, who, grant)
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		Grant: c.Grant, Target: c.Target, Engine: c.Engine, Host: c.Host, Port: c.Port, Database: c.Database,
		User: c.User, Password: c.Password, SSLMode: c.SSLMode, CA: c.CA, End: utc(c.End),
	}, nil
}

// Release implements Grants.
func (d *Desk) Release(ctx context.Context, who auth.Identity, id string) (policy.Grant, error) {
	return d.Desk.Release(ctx, who, id)
}

// Revoke implements Grants.
func (d *Desk) Revoke(ctx context.Context, who auth.Identity, id, reason string) (policy.Grant, error) {
	return d.Desk.Revoke(ctx, who, id, reason)
}

// Sessions implements Sessions.
func (d *Desk) Sessions(ctx context.Context, who auth.Identity, f SessionFilter) ([]Session, error) {
	ss, err := d.Desk.Sessions(ctx, who, control.SessionFilter{Grant: f.Grant, Target: f.Target, Open: f.Open, Mine: f.Mine, After: f.After, Limit: f.Limit})
	return showAll(ss, d.showSession), err
}

// Kill implements Sessions.
func (d *Desk) Kill(ctx context.Context, who auth.Identity, session string, k Kill) (policy.Grant, error) {
	return d.Desk.Kill(ctx, who, session, k.Reason, k.Revoke)
}

// Session implements Sessions.
func (d *Desk) Session(ctx context.Context, who auth.Identity, id string) (Session, error) {
	s, err := d.Desk.Session(ctx, who, id)
	if err != nil {
		return Session{}, err
	}
	return d.showSession(s), nil
}

func (d *Desk) showSession(s control.Session) Session {
	out := Session{
		ID: s.ID, Grant: s.Grant, Target: s.Target, Level: s.Level, Person: ShowPerson(s.Identity),
		Account: s.Account, Node: s.Node, Client: s.Client, Began: utc(s.Began), Ended: utc(s.Ended),
	}
	if sealed := s.Sealed; sealed != nil {
		out.Statements, out.EndCode, out.EndReason, out.Fate = sealed.End.Statements, sealed.End.Code, sealed.End.Reason, sealed.End.Fate
		out.Interrupted, out.Events, out.Root = sealed.Interrupted, sealed.Count, sealed.Root
		return out
	}
	if d.Traffic == nil {
		return out
	}
	if t, ok := d.Traffic(s.ID); ok {
		out.Statements = t.Statements
		out.Live = &Live{FromClient: t.FromClient, FromServer: t.FromServer, Idle: Duration(t.Idle.Round(time.Millisecond))}
	}
	return out
}

// Recording implements Sessions.
func (d *Desk) Recording(ctx context.Context, who auth.Identity, session, from string) (io.ReadCloser, error) {
	s, err := d.Desk.ReadRecording(ctx, who, session, "replay", from)
	if err != nil {
		return nil, err
	}
	return d.Recordings.Open(s.ID)
}

// Checkpoint implements Evidence.
func (d *Desk) Checkpoint(ctx context.Context) ([]byte, error) { return d.Ledger.Checkpoint(ctx) }

// VerifierKey implements Evidence.
func (d *Desk) VerifierKey() string { return d.Ledger.VerifierKey() }
