package api

import (
	"context"
	"mime"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
)

// backchannelRoute is where an identity provider tells that somebody has signed out there (OpenID Connect
// Back-Channel Logout 1.0). What it posts proves itself: nobody logs in for it.
func (s *server) backchannelRoute() {
	if s.SignOut == nil {
		return
	}
	register(s, huma.Operation{
		OperationID: "logout-backchannel", Method: http.MethodPost, Path: "/v1/logout/backchannel",
		Summary: "An identity provider tells that somebody has signed out there", Tags: []string{"login"},
		Description: "OpenID Connect Back-Channel Logout 1.0: a form with one logout_token. " +
			"The person's logins of that session end, and with the last of them their grants.",
		Metadata: map[string]any{open: true}, DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, c *call, in *struct {
		ContentType string `header:"Content-Type"`
		RawBody     []byte `contentType:"application/x-www-form-urlencoded"`
	}) (*none, error) {
		token := logoutToken(in.ContentType, in.RawBody)
		if token == "" {
			return nil, s.noLogout(c, NewProblem(CodeInvalid, "there is no logout_token in it", "post a form with one"))
		}
		if err := s.SignOut(ctx, token); err != nil {
			return nil, s.noLogout(c, s.explain(ctx, err))
		}
		return nil, nil
	})
}

// noLogout is 400 where the token was not accepted (section 2.8 of the specification), and counts it.
func (s *server) noLogout(c *call, p *Problem) *Problem {
	if p.Code == CodeInvalid {
		p.Status, p.Title = http.StatusBadRequest, http.StatusText(http.StatusBadRequest)
		s.count(s.FailedLogout, c.from)
	}
	return p
}

// logoutToken takes the token out of a form that holds it once.
func logoutToken(contentType string, body []byte) string {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return ""
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return ""
	}
	return form.Get("logout_token")
}
