package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/policy"
)

var errBroken = errors.New("disk of the store: secret detail")

// fake stands for everything below the API. It is the smallest thing that has the promised behaviour:
// alice's token is "alice", one request r1 is there, g1 is its grant, s1 its session.
type fake struct {
	mu       sync.Mutex // guards what follows
	request  policy.Request
	calls    []string
	failures []string
	decided  chan struct{} // closed when the request is not open any more

	fail   error // every call answers it
	half   bool  // downloads break off half way
	before error // downloads fail before the first byte
}

func newFake() *fake {
	return &fake{
		decided: make(chan struct{}),
		request: policy.Request{
			ID: "r1", Identity: alice(), Target: "orders", Level: "writer", Duration: 30 * time.Minute, Reason: "why",
			Created: time.Unix(1000, 0), Status: policy.Open,
			Terms: policy.Terms{Approvals: policy.Approvals{Count: 1, From: policy.Who{Groups: []string{"leads"}}}},
		},
	}
}

// failed notes strangers that were counted.
func (f *fake) failed(how string) func(from string) {
	return func(from string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failures = append(f.failures, how+from)
	}
}

func alice() auth.Identity {
	return auth.Identity{Issuer: "https://idp", Subject: "a", Email: "alice@example.test", Groups: []string{"developers"}}
}

func (f *fake) called(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
	return f.fail
}

func (f *fake) Start(_ context.Context, s api.LoginStart, session, from string) (api.LoginStarted, error) {
	return api.LoginStarted{Login: "l1", AuthURL: "https://idp/auth", State: "st"}, f.called("start " + s.Flow + " " + host(from))
}

func (f *fake) Finish(_ context.Context, in api.LoginFinish, _ string) (api.LoggedIn, error) {
	if err := f.called("finish " + in.Login); err != nil {
		return api.LoggedIn{}, err
	}
	switch in.Code {
	case "":
		return api.LoggedIn{Pending: true}, nil
	case "wrong":
		return api.LoggedIn{}, api.NewProblem(api.CodeUnauthenticated, "wrong code", "log in again")
	}
	return api.LoggedIn{Token: "alice"}, nil
}

func (f *fake) Whoami(_ context.Context, token string) (auth.Identity, error) {
	if token != "alice" {
		return auth.Identity{}, api.NewProblem(api.CodeUnauthenticated, "your session has ended", "log in: curfew login")
	}
	return alice(), nil
}

func (f *fake) Logout(_ context.Context, token string) error { return f.called("logout " + token) }

func (f *fake) Targets(context.Context, auth.Identity) ([]api.Target, error) {
	return []api.Target{{Name: "orders", Levels: []api.TargetLevel{{Name: "writer", Longest: api.Duration(time.Hour)}}}}, f.called("targets")
}

func (f *fake) Ask(_ context.Context, _ auth.Identity, a api.Ask) (policy.Request, error) {
	return f.request, f.called("ask " + a.Target + " " + a.Level + " " + a.Duration.String() + " " + a.Reason)
}

func (f *fake) Decide(_ context.Context, _ auth.Identity, id string, approve bool, comment string) (policy.Request, error) {
	word := "deny "
	if approve {
		word = "approve "
	}
	err := f.called(word + id + " " + comment)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.request.Status, f.request.Grant = policy.Approved, "g1"
	close(f.decided)
	return f.request, err
}

func (f *fake) CancelRequest(_ context.Context, _ auth.Identity, id string) (policy.Request, error) {
	return f.request, f.called("cancel " + id)
}

func (f *fake) Comment(_ context.Context, _ auth.Identity, id, text string) (policy.Request, error) {
	return f.request, f.called("comment " + id + " " + text)
}

func (f *fake) Extend(_ context.Context, _ auth.Identity, grant string, e api.Extend) (policy.Request, error) {
	return f.request, f.called("extend " + grant + " " + e.Duration.String() + " " + e.Reason)
}

func (f *fake) Reviews(_ context.Context, _ auth.Identity, q api.ReviewFilter) ([]api.Review, error) {
	return []api.Review{{ID: "s1"}}, f.called(fmt.Sprintf("reviews %t %t", q.Mine, q.Due))
}

func (f *fake) Review(_ context.Context, _ auth.Identity, id string, r api.Reviewed) (api.Review, error) {
	return api.Review{ID: id}, f.called(fmt.Sprintf("review %s %t %s", id, r.OK, r.Finding))
}

func (f *fake) Requests(_ context.Context, _ auth.Identity, q api.RequestFilter) ([]policy.Request, error) {
	return nil, f.called("requests " + q.Status + " " + q.Target)
}

func (f *fake) Request(_ context.Context, _ auth.Identity, id string) (policy.Request, error) {
	if id != "r1" {
		return policy.Request{}, api.NewProblem(api.CodeNotFound, "there is no request that you may see", "")
	}
	err := f.called("request " + id)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.request, err
}

func (f *fake) Wait(ctx context.Context, who auth.Identity, id string) (policy.Request, error) {
	if err := f.called("wait " + id); err != nil {
		return policy.Request{}, err
	}
	select {
	case <-ctx.Done():
		return policy.Request{}, ctx.Err()
	case <-f.decided:
		return f.Request(ctx, who, id)
	}
}

func (f *fake) grant() policy.Grant {
	return policy.Grant{ID: "g1", Request: "r1", Identity: alice(), Target: "orders", Level: "writer", Start: time.Unix(1000, 0), End: time.Unix(2000, 0)}
}

func (f *fake) EngineOf(string) string { return "" }

func (f *fake) Grants(_ context.Context, _ auth.Identity, q api.GrantFilter) ([]policy.Grant, error) {
	return []policy.Grant{f.grant()}, f.called("grants " + q.Target)
}

func (f *fake) Grant(_ context.Context, _ auth.Identity, id string) (policy.Grant, error) {
	g := f.grant()
	g.Ended, g.EndCode = time.Unix(1400, 0), "released"
	return g, f.called("grant " + id)
}

func (f *fake) Receipt(_ context.Context, g policy.Grant) (*api.Receipt, error) {
	return &api.Receipt{Account: "curfew_x_" + g.ID, LateMS: 1.5, Cut: []byte(`{"left":0}`)}, f.called("receipt " + g.ID)
}

func (f *fake) Password(_ context.Context, _ auth.Identity, grant string) (api.Credentials, error) {
	return api.Credentials{Grant: grant, User: grant, Password: "pw"}, f.called("password " + grant)
}

func (f *fake) Release(_ context.Context, _ auth.Identity, id string) (policy.Grant, error) {
	return f.grant(), f.called("release " + id)
}

func (f *fake) Revoke(_ context.Context, _ auth.Identity, id, reason string) (policy.Grant, error) {
	return f.grant(), f.called("revoke " + id + " " + reason)
}

func (f *fake) Sessions(_ context.Context, _ auth.Identity, q api.SessionFilter) ([]api.Session, error) {
	return []api.Session{{ID: "s1"}}, f.called("sessions " + q.Grant)
}

func (f *fake) Session(_ context.Context, _ auth.Identity, id string) (api.Session, error) {
	return api.Session{ID: id}, f.called("session " + id)
}

func (f *fake) Kill(_ context.Context, _ auth.Identity, id string, k api.Kill) (policy.Grant, error) {
	return f.grant(), f.called(fmt.Sprintf("kill %s %s %t", id, k.Reason, k.Revoke))
}

func (f *fake) Recording(_ context.Context, _ auth.Identity, id, from string) (io.ReadCloser, error) {
	if err := f.called("recording " + id + " " + host(from)); err != nil {
		return nil, err
	}
	if f.half {
		return io.NopCloser(io.MultiReader(strings.NewReader(lines), errReader{})), nil
	}
	return io.NopCloser(strings.NewReader(lines)), nil
}

func (f *fake) Export(_ context.Context, _ auth.Identity, s api.Scope, format, _ string) (func(context.Context, io.Writer) error, error) {
	if err := f.called("export " + format + " " + s.Grant); err != nil {
		return nil, err
	}
	return func(_ context.Context, w io.Writer) error {
		if f.before != nil {
			return f.before
		}
		if _, err := io.WriteString(w, lines); err != nil || !f.half {
			return err
		}
		return errBroken
	}, nil
}

func (f *fake) Explain(_ context.Context, _ auth.Identity, what api.Suppose) (policy.Explanation, error) {
	return policy.Explanation{Person: what.As, Outcome: policy.OutcomeRefused}, f.called("explain " + what.As + " " + what.Target + " " + what.Duration.String())
}

func (f *fake) Report(_ context.Context, _ auth.Identity, grant, from string) (api.Report, error) {
	return api.Report{Grant: grant, Unread: []string{"s9"}}, f.called("report " + grant + " " + host(from))
}

func (f *fake) Checkpoint(context.Context) ([]byte, error) {
	return []byte("curfew/abc\n1\nroot\n"), f.called("checkpoint")
}
func (f *fake) VerifierKey() string { return "curfew-abc+1+key" }

// lines is more than any buffer between the two ends holds.
var lines = strings.Repeat(`{"seq":0,"type":"header"}`+"\n", 20000)

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func host(from string) string {
	h, _, ok := strings.Cut(from, ":")
	if !ok {
		return "no port: " + from
	}
	return h
}

// serve runs the API over the fake and gives a logged-in client.
func serve(t *testing.T, f *fake) *api.Client {
	t.Helper()
	var log strings.Builder
	h := api.New(api.Config{
		Version: "test", Logins: f, Requests: f, Grants: f, Sessions: f, Reviews: f, Evidence: f, Foresight: f,
		FailedLogin: f.failed(""), FailedToken: f.failed("token "), FailedLogout: f.failed("logout "), SignOut: f.signOut,
		Ready: func(context.Context) error { return f.fail },
		Explain: func(err error) *api.Problem {
			if errors.Is(err, context.DeadlineExceeded) {
				return api.NewProblem(api.CodeUnavailable, "too slow", "try again")
			}
			return nil
		},
		Now: func() time.Time { return time.Unix(1500, 0) },
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	srv := httptest.NewUnstartedServer(h)
	srv.Config = api.NewServer(t.Context(), h, slog.New(slog.DiscardHandler))
	srv.Start()
	t.Cleanup(srv.Close)
	return &api.Client{Server: srv.URL, Token: "alice", HTTP: srv.Client()}
}

func (f *fake) saw(t *testing.T, want string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == want {
			return
		}
	}
	t.Errorf("no call %q among %q", want, f.calls)
}
