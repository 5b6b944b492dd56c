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
		Groups: id.Groups, ACR: id.ACR, AMR: id.AMR, AuthTime: utc(id.AuthTime), Declared: id.Declared,
	}
}

// ShowWho says in words whom a Who selects: "group leads or owners".
func ShowWho(w policy.Who) string {
	if w.Anyone {
		return "anybody else"
	}
	var parts []string
	add := func(word string, values []string) {
		if len(values) > 0 {
			parts = append(parts, word+strings.Join(values, " or "))
		}
	}
	add("group ", w.Groups)
	add("", w.Emails)
	add("subject ", w.Subjects)
	add("issuer ", w.Issuers)
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, ", ")
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
		Needed: r.Approvals.Count, Status: string(r.Status), Grant: r.Grant, Ended: utc(r.Ended), EndReason: r.EndReason,
	}
	if r.Approvals.Count > 0 {
		out.Approvers = ShowWho(r.Approvals.From)
	}
	for _, d := range r.Decisions {
		out.Decisions = append(out.Decisions, Decision{
			Person: ShowPerson(d.Identity), Approve: d.Approve, Comment: d.Comment, At: utc(d.At),
		})
	}
	return out
}

func showGrant(g policy.Grant, engine string, now time.Time) Grant {
	out := Grant{
		ID: g.ID, Request: g.Request, Person: ShowPerson(g.Identity), Target: g.Target, Engine: engine, Level: g.Level,
		Policy: g.Policy, Approvers: g.Approvers, Start: utc(g.Start), End: utc(g.End), Status: GrantEnded,
		Ended: utc(g.Ended), EndCode: g.EndCode, EndReason: g.EndReason, EndedBy: g.EndedBy,
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
