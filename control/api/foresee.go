package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/intended"
)

// Foresight is what would come of an ask, and what came of one that said what it was for.
//
// Report has authorised the reader, and put each reading on the ledger, before it looks at a recording.
type Foresight interface {
	Explain(ctx context.Context, who auth.Identity, what Suppose) (policy.Explanation, error)
	Report(ctx context.Context, who auth.Identity, grant, from string) (Report, error)
}

// Suppose asks what would come of an ask now.
type Suppose struct {
	As string `json:"as,omitempty" maxLength:"512" doc:"Whose ask it would be, by e-mail or issuer#subject, for readers of every target; left out: one's own"`
	Ask
}

// Explanation says what would come of an ask, and what each rule has to do with it.
type Explanation struct {
	Person  string      `json:"person"`
	At      time.Time   `json:"at"`
	Policy  string      `json:"policy" doc:"Hash of the policy in force"`
	Outcome string      `json:"outcome" enum:"allowed,step_up,denied,refused,failed,invalid"`
	Rule    string      `json:"rule,omitempty" doc:"That decides"`
	Says    string      `json:"says,omitempty" doc:"What the asker would read"`
	Next    []string    `json:"next,omitempty" doc:"What comes then, in order"`
	Rules   []RuleStory `json:"rules" doc:"Of them all for readers of every target, else those that are for this person"`
}

// RuleStory is one rule's part.
type RuleStory struct {
	Rule    string   `json:"rule"`
	Deny    bool     `json:"deny,omitempty"`
	Decides bool     `json:"decides,omitempty"`
	Gives   string   `json:"gives"`
	Because []string `json:"because,omitempty" doc:"Why it does not decide: all of it"`
}

// Report holds what was executed under a grant against the SQL that its request said it was for.
type Report struct {
	Grant  string `json:"grant"`
	Person Person `json:"person"`
	Target string `json:"target"`
	Level  string `json:"level"`
	intended.Report
	Unread []string `json:"unread,omitempty" doc:"Sessions whose recording can't be read to its end: what they did is not, or not all, counted here"`
}

func (s *server) foresightRoutes() {
	register(s, huma.Operation{
		OperationID: "explain", Method: http.MethodPost, Path: "/v1/explain",
		Summary:     "What would come of an ask now, and what each rule has to do with it",
		Description: "Judged by the policy in force, with this person's login and past. Nothing is asked by it, and nothing is written.",
		Tags:        []string{"requests"}, DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, c *call, in *struct{ Body Suppose }) (*body[Explanation], error) {
		e, err := s.Foresight.Explain(ctx, c.who, in.Body)
		if err != nil {
			return nil, err
		}
		return reply(showExplanation(e), nil)
	})
	register(s, huma.Operation{
		OperationID: "report", Method: http.MethodGet, Path: "/v1/grants/{id}/report",
		Summary:     "Which executed statements were inside the SQL that the request named, and which were not",
		Description: "For readers of the target. That each recording was read, by whom and from where, is on the ledger before.",
		Tags:        []string{"evidence"},
	}, func(ctx context.Context, c *call, in *byID) (*body[Report], error) {
		return reply(s.Foresight.Report(ctx, c.who, in.ID, c.from))
	})
}

func showExplanation(e policy.Explanation) Explanation {
	return Explanation{
		Person: e.Person, At: utc(e.At), Policy: e.Policy, Outcome: string(e.Outcome), Rule: e.Rule, Says: e.Says, Next: e.Next,
		Rules: showAll(e.Rules, func(r policy.RuleStory) RuleStory { return RuleStory(r) }),
	}
}

// Explain implements Foresight.
func (d *Desk) Explain(ctx context.Context, who auth.Identity, what Suppose) (policy.Explanation, error) {
	a := what.Ask
	return d.Desk.Explain(ctx, who, what.As, policy.Ask{
		Target: a.Target, Level: a.Level, Duration: a.Duration.Std(), Start: a.Start, Reason: a.Reason,
		Ticket: a.Ticket, SQL: a.SQL, BreakGlass: a.BreakGlass,
	})
}

// Report implements Foresight.
func (d *Desk) Report(ctx context.Context, who auth.Identity, grant, from string) (Report, error) {
	g, err := d.Desk.Grant(ctx, who, grant)
	if err != nil {
		return Report{}, err
	}
	if !d.Desk.MayRead(who, g.Target) {
		return Report{}, NewProblem(CodeForbidden, "the policy's readers for "+g.Target+" don't include you",
			"ask one of them, or whoever keeps the policy to add you")
	}
	r, err := d.Desk.Request(ctx, who, g.Request)
	if err != nil {
		return Report{}, err
	}
	if r.SQL == "" {
		return Report{}, NewProblem(CodeNotFound, fmt.Sprintf("request %s did not say which SQL it was for", r.ID),
			"replay its sessions: curfew sessions --grant "+g.ID)
	}
	sessions, err := d.Desk.Sessions(ctx, who, control.SessionFilter{Grant: g.ID})
	if err != nil {
		return Report{}, err
	}
	out := Report{Grant: g.ID, Person: ShowPerson(g.Identity), Target: g.Target, Level: g.Level}
	judge := intended.NewJudge(r.ID, r.SQL, d.Dialects)
	for i := len(sessions) - 1; i >= 0; i-- { // the oldest first
		id := sessions[i].ID
		if _, err := d.Desk.ReadRecording(ctx, who, id, "report", from); err != nil {
			return Report{}, err
		}
		if err := d.judge(ctx, judge, id); err != nil {
			if ctx.Err() != nil {
				return Report{}, err
			}
			d.Log.ErrorContext(ctx, "recording left out of a report", "session", id, "error", err)
			out.Unread = append(out.Unread, id)
		}
	}
	out.Report = judge.Report(d.Desk.EngineOf(g.Target))
	return out, nil
}

func (d *Desk) judge(ctx context.Context, judge *intended.Judge, session string) (err error) {
	r, err := d.Recordings.Open(session)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return judge.Session().Read(ctx, r)
}
