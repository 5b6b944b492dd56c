package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// ShowPerson gives an identity as the API shows it.
func ShowPerson(id auth.Identity) Person {
	return Person{
		Issuer: id.Issuer, Subject: id.Subject, Email: id.Email, Name: id.Name,
		Groups: id.Groups, ACR: id.ACR, AMR: id.AMR, AuthTime: utc(id.AuthTime), Declared: id.Declared, Workload: id.Workload,
	}
}

// ShowApprovers says in words who may agree: "group leads", "group leads and group dba, one of each at least".
func ShowApprovers(a policy.Approvals) string {
	if len(a.Parties) == 0 {
		return a.From.Words()
	}
	var parties []string
	for _, p := range a.Parties {
		parties = append(parties, p.Words())
	}
	words := strings.Join(parties, " and ")
	if len(parties) > 1 {
		words += ", one of each at least"
	}
	if from := a.From.Words(); from != "nobody" {
		words = from + ", with " + words
	}
	return words
}

// ShowApprovals says in words who must agree: "1 of group leads".
func ShowApprovals(count int, who string) string {
	if count == 0 {
		return "nobody: it is granted at once"
	}
	return fmt.Sprintf("%d of %s", count, who)
}

func showRequest(r policy.Request) Request {
	out := Request{
		ID: r.ID, Person: ShowPerson(r.Identity), Target: r.Target, Level: r.Level,
		Duration: Duration(r.Duration), Start: utc(r.Start), Reason: r.Reason,
		Created: utc(r.Created), Lapses: utc(r.Lapses), Rule: r.Rule, Policy: r.Policy,
		Needed: r.Approvals.Needed(), Status: string(r.Status), Grant: r.Grant, Ended: utc(r.Ended), EndReason: r.EndReason,
		Ticket: r.Ticket, SQL: r.SQL, BreakGlass: r.BreakGlass, Extends: r.Extends, Parameters: r.Record.Parameters,
	}
	if out.Needed > 0 {
		out.Approvers = ShowApprovers(r.Approvals)
	}
	if r.Status == policy.Open {
		out.Missing, _ = policy.Lacking(r)
	}
	for _, c := range r.Comments {
		out.Comments = append(out.Comments, Remark{Person: ShowPerson(c.Identity), Text: c.Text, At: utc(c.At)})
	}
	for _, d := range r.Decisions {
		out.Decisions = append(out.Decisions, Decision{
			Person: ShowPerson(d.Identity), Approve: d.Approve, Comment: d.Comment, Policy: d.Policy, At: utc(d.At),
		})
	}
	return out
}

func showGrant(g policy.Grant, engine string, now time.Time) Grant {
	out := Grant{
		ID: g.ID, Request: g.Request, Person: ShowPerson(g.Identity), Target: g.Target, Engine: engine, Level: g.Level,
		Policy: g.Policy, Approvers: g.Approvers, Start: utc(g.Start), End: utc(g.End), Status: GrantEnded,
		Ended: utc(g.Ended), EndCode: g.EndCode, EndReason: g.EndReason, EndedBy: g.EndedBy,
		BreakGlass: g.BreakGlass, WithLastSession: g.WithLastSession, Parameters: g.Record.Parameters,
	}
	if l := g.Limits; l != (policy.Limits{}) {
		out.Limits = &Limits{Sessions: l.Sessions, Idle: Duration(l.Idle), Rows: l.Rows, Bytes: l.Bytes}
	}
	for _, x := range g.Extensions {
		out.Extensions = append(out.Extensions, Extension{Request: x.Request, From: utc(x.From), To: utc(x.To), At: utc(x.At), Approvers: x.Approvers})
	}
	switch {
	case g.Active(now):
		out.Status = GrantActive
	case g.Ended.IsZero() && now.Before(g.Start):
		out.Status = GrantScheduled
	}
	return out
}

func showAll[A, B any](in []A, show func(A) B) []B {
	out := make([]B, 0, len(in)) // never nil: an empty list is [] in JSON, not null
	for _, a := range in {
		out = append(out, show(a))
	}
	return out
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
