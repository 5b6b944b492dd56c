package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/curfewdb/curfew/policy"
)

type (
	none        struct{}
	body[T any] struct{ Body T }
	byID        struct {
		ID string `path:"id" maxLength:"64"`
	}
	byIDWith[T any] struct {
		ID   string `path:"id" maxLength:"64"`
		Body T
	}
)

// Page is a part of a list.
type Page struct {
	After string `query:"after" maxLength:"64" doc:"An id: what comes behind it in the list; the Link header of the page before has it"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// listing is one page of a list. Link leads to the next (RFC 8288), if there may be one.
type listing[T any] struct {
	Link string `header:"Link" doc:"rel=next: the next page, if there may be one"`
	Body []T
}

func list[T, U any](c *call, p Page, all []T, show func(T) U, id func(U) string, err error) (*listing[U], error) {
	if err != nil {
		return nil, err
	}
	l := &listing[U]{Body: showAll(all, show)}
	if n := len(l.Body); n == p.Limit {
		q := c.url.Query()
		q.Set("after", id(l.Body[n-1]))
		l.Link = "<" + c.url.Path + "?" + q.Encode() + `>; rel="next"`
	}
	return l, nil
}

func reply[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{Body: v}, nil
}

func (s *server) loginRoutes() {
	unlocked := map[string]any{open: true}
	register(s, huma.Operation{
		OperationID: "login-start", Method: http.MethodPost, Path: "/v1/login/start", Metadata: unlocked,
		Summary: "Begin a login", Tags: []string{"login"},
		Description: "With a session token in the Authorization header, the login is a step-up: it must be the same " +
			"person's, and takes that session's place.",
	}, func(ctx context.Context, c *call, in *struct {
		Session string `header:"Authorization" maxLength:"1024"`
		Body    LoginStart
	}) (*body[LoginStarted], error) {
		session, _ := bearerToken(in.Session)
		return reply(s.Logins.Start(ctx, in.Body, session, c.from))
	})
	type finished struct {
		Status int
		Body   LoggedIn
	}
	register(s, huma.Operation{
		OperationID: "login-finish", Method: http.MethodPost, Path: "/v1/login/finish", Metadata: unlocked,
		Summary: "End a login", Tags: []string{"login"},
		Description: "Answers 202 with pending while a device login is not finished.",
	}, func(ctx context.Context, c *call, in *body[LoginFinish]) (*finished, error) {
		l, err := s.Logins.Finish(ctx, in.Body, c.from)
		if err != nil {
			p := s.explain(ctx, err)
			if p.Status < http.StatusInternalServerError {
				s.failed(c.from)
			}
			return nil, p
		}
		if l.Pending {
			return &finished{Status: http.StatusAccepted, Body: l}, nil
		}
		return &finished{Status: http.StatusOK, Body: l}, nil
	})
	register(s, huma.Operation{
		OperationID: "logout", Method: http.MethodPost, Path: "/v1/logout",
		Summary: "End this login", Tags: []string{"login"},
	}, func(ctx context.Context, c *call, _ *none) (*none, error) {
		return nil, s.Logins.Logout(ctx, c.token)
	})
	register(s, huma.Operation{
		OperationID: "whoami", Method: http.MethodGet, Path: "/v1/whoami",
		Summary: "Who is logged in", Tags: []string{"login"},
	}, func(_ context.Context, c *call, _ *none) (*body[Person], error) {
		return reply(ShowPerson(c.who), nil)
	})
}

func (s *server) requestRoutes() {
	tags := []string{"requests"}
	register(s, huma.Operation{
		OperationID: "targets", Method: http.MethodGet, Path: "/v1/targets",
		Summary: "What this person may ask for", Tags: tags,
	}, func(ctx context.Context, c *call, _ *none) (*body[[]Target], error) {
		ts, err := s.Requests.Targets(ctx, c.who)
		return reply(showAll(ts, func(t Target) Target { return t }), err)
	})
	register(s, huma.Operation{
		OperationID: "ask", Method: http.MethodPost, Path: "/v1/requests", DefaultStatus: http.StatusCreated,
		Summary: "Ask for access", Tags: tags,
	}, func(ctx context.Context, c *call, in *body[Ask]) (*body[Request], error) {
		return replyRequest(s.Requests.Ask(ctx, c.who, in.Body))
	})
	register(s, huma.Operation{
		OperationID: "requests", Method: http.MethodGet, Path: "/v1/requests",
		Summary: "One's own requests, and those one may decide or read about", Tags: tags,
	}, func(ctx context.Context, c *call, in *struct {
		Status string `query:"status" enum:"open,approved,denied,lapsed,cancelled"`
		Target string `query:"target" maxLength:"128"`
		Mine   bool   `query:"mine"`
		Decide bool   `query:"decide" doc:"Only open ones that this person may decide now"`
		Page
	}) (*listing[Request], error) {
		rs, err := s.Requests.Requests(ctx, c.who, RequestFilter{
			Status: in.Status, Target: in.Target, Mine: in.Mine, Decide: in.Decide, After: in.After, Limit: in.Limit,
		})
		return list(c, in.Page, rs, showRequest, func(r Request) string { return r.ID }, err)
	})
	register(s, huma.Operation{
		OperationID: "request", Method: http.MethodGet, Path: "/v1/requests/{id}",
		Summary: "One request; with wait, when it is no longer open", Tags: tags,
	}, func(ctx context.Context, c *call, in *struct {
		ID   string `path:"id" maxLength:"64"`
		Wait string `query:"wait" pattern:"^[0-9]{1,5}(ms|s|m)$" patternDescription:"a duration like 30s" doc:"At most 1m"`
	}) (*body[Request], error) {
		return replyRequest(s.waitFor(ctx, c, in.ID, in.Wait))
	})
	for _, verdict := range []struct {
		name    string
		approve bool
	}{{"approve", true}, {"deny", false}} {
		register(s, huma.Operation{
			OperationID: verdict.name, Method: http.MethodPost, Path: "/v1/requests/{id}/" + verdict.name,
			Summary: verdict.name + " a request", Tags: tags,
		}, func(ctx context.Context, c *call, in *byIDWith[Comment]) (*body[Request], error) {
			return replyRequest(s.Requests.Decide(ctx, c.who, in.ID, verdict.approve, in.Body.Comment))
		})
	}
	register(s, huma.Operation{
		OperationID: "cancel", Method: http.MethodPost, Path: "/v1/requests/{id}/cancel",
		Summary: "Withdraw one's own request", Tags: tags,
	}, func(ctx context.Context, c *call, in *byID) (*body[Request], error) {
		return replyRequest(s.Requests.CancelRequest(ctx, c.who, in.ID))
	})
	register(s, huma.Operation{
		OperationID: "comment", Method: http.MethodPost, Path: "/v1/requests/{id}/comments", DefaultStatus: http.StatusCreated,
		Summary: "Say something on a request, without deciding on it", Tags: tags,
		Description: "For everybody who may see it, before its end and after. The answer is the request.",
	}, func(ctx context.Context, c *call, in *byIDWith[NewRemark]) (*body[Request], error) {
		return replyRequest(s.Requests.Comment(ctx, c.who, in.ID, in.Body.Text))
	})
	register(s, huma.Operation{
		OperationID: "extend", Method: http.MethodPost, Path: "/v1/grants/{id}/extend", DefaultStatus: http.StatusCreated,
		Summary: "Ask for more time under one's own grant", Tags: tags,
		Description: "The answer is a request, which is decided like the grant's own; once it is approved the grant's end moves, " +
			"and sessions go on as they are.",
	}, func(ctx context.Context, c *call, in *byIDWith[Extend]) (*body[Request], error) {
		return replyRequest(s.Requests.Extend(ctx, c.who, in.ID, in.Body))
	})
}

// waitFor answers when the request is not open any more, or after wait with the request as it is.
func (s *server) waitFor(ctx context.Context, c *call, id, wait string) (policy.Request, error) {
	r, err := s.Requests.Request(ctx, c.who, id)
	if err != nil || wait == "" || r.Status != policy.Open {
		return r, err
	}
	d, err := time.ParseDuration(wait)
	if err != nil {
		return r, NewProblem(CodeInvalid, "wait must be a duration like 30s", "").Because(err)
	}
	patience, stop := context.WithTimeout(ctx, min(d, maxWait))
	defer stop()
	r, err = s.Requests.Wait(patience, c.who, id)
	if err != nil && errors.Is(patience.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return s.Requests.Request(ctx, c.who, id)
	}
	return r, err
}

func replyRequest(r policy.Request, err error) (*body[Request], error) {
	if err != nil {
		return nil, err
	}
	return &body[Request]{Body: showRequest(r)}, nil
}

func (s *server) showGrant(g policy.Grant) Grant {
	return showGrant(g, s.Grants.EngineOf(g.Target), s.Now())
}

func (s *server) grantRoutes() {
	tags := []string{"grants"}
	show := func(g policy.Grant, err error) (*body[Grant], error) {
		if err != nil {
			return nil, err
		}
		return reply(s.showGrant(g), nil)
	}
	register(s, huma.Operation{
		OperationID: "grants", Method: http.MethodGet, Path: "/v1/grants",
		Summary: "One's own grants, and those one may revoke or read about", Tags: tags,
	}, func(ctx context.Context, c *call, in *struct {
		Active bool   `query:"active" doc:"Only those that may be used now"`
		Target string `query:"target" maxLength:"128"`
		Mine   bool   `query:"mine"`
		Page
	}) (*listing[Grant], error) {
		gs, err := s.Grants.Grants(ctx, c.who, GrantFilter{Active: in.Active, Target: in.Target, Mine: in.Mine, After: in.After, Limit: in.Limit})
		return list(c, in.Page, gs, s.showGrant, func(g Grant) string { return g.ID }, err)
	})
	register(s, huma.Operation{
		OperationID: "grant", Method: http.MethodGet, Path: "/v1/grants/{id}",
		Summary: "One grant, with its receipt once it was cut off", Tags: tags,
	}, func(ctx context.Context, c *call, in *byID) (*body[Grant], error) {
		g, err := s.Grants.Grant(ctx, c.who, in.ID)
		if err != nil {
			return nil, err
		}
		out := s.showGrant(g)
		if out.Status == GrantEnded {
			if out.Receipt, err = s.Grants.Receipt(ctx, g); err != nil {
				return nil, err
			}
		}
		return reply(out, nil)
	})
	register(s, huma.Operation{
		OperationID: "password", Method: http.MethodPost, Path: "/v1/grants/{id}/password",
		Summary:     "Make a new grant password, and what a stock client needs beside it",
		Description: "Voids the old password for new logins.", Tags: tags,
	}, func(ctx context.Context, c *call, in *byID) (*body[Credentials], error) {
		return reply(s.Grants.Password(ctx, c.who, in.ID))
	})
	register(s, huma.Operation{
		OperationID: "release", Method: http.MethodPost, Path: "/v1/grants/{id}/release",
		Summary: "The task is done: end one's own grant now", Tags: tags,
	}, func(ctx context.Context, c *call, in *byID) (*body[Grant], error) {
		return show(s.Grants.Release(ctx, c.who, in.ID))
	})
	register(s, huma.Operation{
		OperationID: "revoke", Method: http.MethodPost, Path: "/v1/grants/{id}/revoke",
		Summary: "End a grant now", Tags: tags,
	}, func(ctx context.Context, c *call, in *byIDWith[Comment]) (*body[Grant], error) {
		return show(s.Grants.Revoke(ctx, c.who, in.ID, in.Body.Comment))
	})
}

func (s *server) reviewRoutes() {
	tags := []string{"reviews"}
	register(s, huma.Operation{
		OperationID: "reviews", Method: http.MethodGet, Path: "/v1/reviews",
		Summary: "What is to be reviewed, and what was, the earliest due first", Tags: tags,
	}, func(ctx context.Context, c *call, in *struct {
		Mine   bool   `query:"mine" doc:"Only about what this person did"`
		Due    bool   `query:"due" doc:"Only what is still to be done, and this person may"`
		Target string `query:"target" maxLength:"128"`
		Page
	}) (*listing[Review], error) {
		rs, err := s.Reviews.Reviews(ctx, c.who, ReviewFilter{Mine: in.Mine, Due: in.Due, Target: in.Target, After: in.After, Limit: in.Limit})
		return list(c, in.Page, rs, func(r Review) Review { return r }, func(r Review) string { return r.ID }, err)
	})
	register(s, huma.Operation{
		OperationID: "review", Method: http.MethodPost, Path: "/v1/reviews/{id}",
		Summary: "Say what one has found in what somebody else did", Tags: tags,
		Description: "It is said once. The id is that of the session, or of the grant for which the glass was broken.",
	}, func(ctx context.Context, c *call, in *byIDWith[Reviewed]) (*body[Review], error) {
		return reply(s.Reviews.Review(ctx, c.who, in.ID, in.Body))
	})
}
