package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

// TestEveryRoute calls each route through the client and sees what reaches the packages below.
func TestEveryRoute(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		do   func(c *api.Client) (any, error)
		call string // what the fake must have seen
		want string // part of the answer as JSON
	}{
		{"login start", func(c *api.Client) (any, error) { return c.StartLogin(ctx, api.LoginStart{Flow: "code"}) }, "start code 127.0.0.1", `"auth_url":"https://idp/auth"`},
		{"login finish", func(c *api.Client) (any, error) { return c.FinishLogin(ctx, api.LoginFinish{Login: "l1", Code: "c"}) }, "finish l1", `"token":"alice"`},
		{"login pending", func(c *api.Client) (any, error) { return c.FinishLogin(ctx, api.LoginFinish{Login: "l1"}) }, "finish l1", `"pending":true`},
		{"whoami", func(c *api.Client) (any, error) { return c.Whoami(ctx) }, "", `"email":"alice@example.test"`},
		{"logout", func(c *api.Client) (any, error) { return nil, c.Logout(ctx) }, "logout alice", ""},
		{"targets", func(c *api.Client) (any, error) { return c.Targets(ctx) }, "targets", `"longest":"1h"`},
		{"ask", func(c *api.Client) (any, error) {
			return c.Ask(ctx, api.Ask{Target: "orders", Level: "writer", Duration: api.Duration(90 * time.Minute), Reason: "x"})
		}, "ask orders writer 1h30m x", `"approvers":"group leads"`},
		{"requests", func(c *api.Client) (any, error) {
			return c.Requests(ctx, api.RequestFilter{Status: "open", Target: "orders"})
		}, "requests open orders", `[]`},
		{"request", func(c *api.Client) (any, error) { return c.Request(ctx, "r1", 0) }, "request r1", `"duration":"30m"`},
		{"approve", func(c *api.Client) (any, error) { return c.Approve(ctx, "r1", "fine") }, "approve r1 fine", `"grant":"g1"`},
		{"deny", func(c *api.Client) (any, error) { return c.Deny(ctx, "r1", "no") }, "deny r1 no", `"id":"r1"`},
		{"cancel", func(c *api.Client) (any, error) { return c.Cancel(ctx, "r1") }, "cancel r1", `"id":"r1"`},
		{"grants", func(c *api.Client) (any, error) { return c.Grants(ctx, api.GrantFilter{Target: "orders"}) }, "grants orders", `"status":"active"`},
		{"grant", func(c *api.Client) (any, error) { return c.Grant(ctx, "g1") }, "receipt g1", `"cut":{"left":0}`},
		{"password", func(c *api.Client) (any, error) { return c.Password(ctx, "g1") }, "password g1", `"password":"pw"`},
		{"release", func(c *api.Client) (any, error) { return c.Release(ctx, "g1") }, "release g1", `"id":"g1"`},
		{"revoke", func(c *api.Client) (any, error) { return c.Revoke(ctx, "g1", "bad") }, "revoke g1 bad", `"id":"g1"`},
		{"kill", func(c *api.Client) (any, error) { return c.Kill(ctx, "s1", api.Kill{Reason: "locks"}) }, "kill s1 locks false", `"id":"g1"`},
		{"kill and revoke", func(c *api.Client) (any, error) { return c.Kill(ctx, "s1", api.Kill{Revoke: true}) }, "kill s1  true", `"id":"g1"`},
		{"sessions", func(c *api.Client) (any, error) { return c.Sessions(ctx, api.SessionFilter{Grant: "g1"}) }, "sessions g1", `"id":"s1"`},
		{"session", func(c *api.Client) (any, error) { return c.Session(ctx, "s1") }, "session s1", `"id":"s1"`},
		{"recording", func(c *api.Client) (any, error) { return all(c.Recording(ctx, "s1")) }, "recording s1 127.0.0.1", "header"},
		{"export", func(c *api.Client) (any, error) { return all(c.Export(ctx, api.Scope{Grant: "g1"}, api.FormatBundle)) }, "export bundle g1", "header"},
		{"export jsonl", func(c *api.Client) (any, error) {
			return all(c.Export(ctx, api.Scope{From: time.Unix(1, 0)}, api.FormatJSONL))
		}, "export jsonl ", "header"},
		{"checkpoint", func(c *api.Client) (any, error) { b, err := c.Checkpoint(ctx); return string(b), err }, "checkpoint", `curfew/abc\n1\nroot\n`},
		{"explain", func(c *api.Client) (any, error) {
			return c.Explain(ctx, api.Suppose{As: "bob", Ask: api.Ask{Target: "orders", Level: "writer", Duration: api.Duration(time.Hour)}})
		}, "explain bob orders 1h", `"outcome":"refused"`},
		{"report", func(c *api.Client) (any, error) { return c.Report(ctx, "g1") }, "report g1 127.0.0.1", `"unread":["s9"]`},
		{"key", func(c *api.Client) (any, error) { return c.VerifierKey(ctx) }, "", `"curfew-abc+1+key"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			v, err := tt.do(serve(t, f))
			if err != nil {
				t.Fatal(err)
			}
			if tt.call != "" {
				f.saw(t, tt.call)
			}
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(b), tt.want) {
				t.Errorf("answer %.300s does not hold %s", b, tt.want)
			}
		})
	}
}

func all(r io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

type openAPI struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		Security  []map[string][]string `json:"security"`
		Responses map[string]struct {
			Content map[string]struct {
				Schema struct {
					Ref string `json:"$ref"`
				} `json:"schema"`
			} `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
}

func describe(t *testing.T, c *api.Client) openAPI {
	t.Helper()
	var doc openAPI
	res := get(t, c, "GET", "/openapi.json", "", "")
	if err := json.Unmarshal([]byte(res.body), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestClosedByDefault finds each route in the OpenAPI document, so that one that is added without a lock
// is found too.
func TestClosedByDefault(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	opened := map[string]bool{"/v1/login/start": true, "/v1/login/finish": true, "/v1/logout/backchannel": true}
	doc := describe(t, c)
	if len(doc.Paths) < 20 {
		t.Fatalf("only %d paths are described", len(doc.Paths))
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if opened[path] {
				if len(op.Security) != 0 {
					t.Errorf("%s is described as closed", path)
				}
				continue
			}
			if len(op.Security) != 1 {
				t.Errorf("%s %s is described as open", method, path)
			}
			target := strings.ReplaceAll(path, "{id}", "r1")
			for _, header := range []string{"", "Basic YWxpY2U6YWxpY2U=", "Bearer", "Bearer  ", "Bearer mallory", "alice"} {
				res := get(t, c, strings.ToUpper(method), target, header, "{}")
				if res.status != http.StatusUnauthorized || res.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s with %q: %d", method, path, header, res.status)
				}
			}
		}
	}
	if len(f.calls) != 0 {
		t.Errorf("strangers reached %q", f.calls)
	}
	if len(f.failures) == 0 || f.failures[0] != "token 127.0.0.1" { // none has the form of a session token
		t.Errorf("strangers were not counted: %q", f.failures)
	}
}

func TestBearerIsCaseInsensitive(t *testing.T) {
	c := serve(t, newFake())
	if res := get(t, c, "GET", "/v1/whoami", "bEaReR alice", ""); res.status != 200 {
		t.Error(res.status, res.body)
	}
}

func TestOpenAPIDescribesProblems(t *testing.T) {
	doc := describe(t, serve(t, newFake()))
	if doc.OpenAPI != "3.1.0" {
		t.Error(doc.OpenAPI)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			ref := op.Responses["default"].Content["application/problem+json"].Schema.Ref
			if ref != "#/components/schemas/Problem" {
				t.Errorf("%s %s: error schema %q", method, path, ref)
			}
		}
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func get(t *testing.T, c *api.Client, method, path, authorization, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.Server+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

func problemOf(t *testing.T, a answer) api.Problem {
	t.Helper()
	var p api.Problem
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q", ct)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if p.Status != a.status || p.Code == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d with %s", a.status, a.body)
	}
	return p
}

// TestAllBadFieldsAtOnce: one answer names every field that is wrong, and echoes no value.
func TestAllBadFieldsAtOnce(t *testing.T) {
	c := serve(t, newFake())
	a := get(t, c, "POST", "/v1/requests", "Bearer alice",
		`{"level":"","duration":"soon-secret","reason":"`+strings.Repeat("x", 2001)+`","nonsense":1}`)
	p := problemOf(t, a)
	if p.Status != 422 || p.Code != api.CodeInvalid {
		t.Errorf("%+v", p)
	}
	var named []string
	for _, e := range p.Errors {
		named = append(named, e.Field)
	}
	slices.Sort(named)
	want := []string{"body.duration", "body.level", "body.nonsense", "body.reason", "body.target"}
	if !slices.Equal(named, want) {
		t.Errorf("named %q, want %q", named, want)
	}
	if strings.Contains(a.body, "soon-secret") {
		t.Error("a value was echoed")
	}
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct {
		name, method, path, body string
		fail                     error
		status                   int
		code                     string
	}{
		{"not JSON", "POST", "/v1/requests", `{"target":`, nil, 400, api.CodeInvalid},
		{"misspelt filter", "GET", "/v1/requests?statsu=open", "", nil, 422, api.CodeInvalid},
		{"filter's value", "GET", "/v1/requests?status=opne", "", nil, 422, api.CodeInvalid},
		{"too large", "POST", "/v1/requests", `{"reason":"` + strings.Repeat("x", 80<<10) + `"}`, nil, 413, api.CodeTooLarge},
		{"no such request", "GET", "/v1/requests/r2", "", nil, 404, api.CodeNotFound},
		{"no such route", "GET", "/v1/nothing", "", nil, 404, api.CodeNotFound},
		{"refused", "GET", "/v1/targets", "", api.NewProblem(api.CodePolicy, "no rule", "ask"), 403, api.CodePolicy},
		{"late", "POST", "/v1/grants/g1/release", "", api.NewProblem(api.CodeConflict, "ended", ""), 409, api.CodeConflict},
		{"broken", "GET", "/v1/targets", "", errBroken, 500, api.CodeInternal},
		{"broken before a download", "GET", "/v1/export", "", errBroken, 500, api.CodeInternal},
		{"not ready", "GET", "/readyz", "", errBroken, 503, api.CodeUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.fail = tt.fail
			a := get(t, serve(t, f), tt.method, tt.path, "Bearer alice", tt.body)
			p := problemOf(t, a)
			if p.Status != tt.status || p.Code != tt.code {
				t.Errorf("%d %s: %s", p.Status, p.Code, p.Detail)
			}
			if strings.Contains(a.body, "secret detail") {
				t.Errorf("an inner error came out: %s", a.body)
			}
			if tt.code == api.CodeInternal && !regexp.MustCompile(`incident [A-Z2-7]{26}`).MatchString(p.Detail) {
				t.Errorf("no incident number in %q", p.Detail)
			}
		})
	}
}

func TestHealthNeedsNoLogin(t *testing.T) {
	c := serve(t, newFake())
	for _, path := range []string{"/healthz", "/readyz", "/openapi.json", "/openapi.yaml"} {
		a := get(t, c, "GET", path, "", "")
		if a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
		for _, h := range []string{"X-Content-Type-Options", "X-Frame-Options", "Content-Security-Policy", "Referrer-Policy"} {
			if a.header.Get(h) == "" {
				t.Errorf("%s lacks %s", path, h)
			}
		}
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be cached", path)
		}
	}
}

// TestLongPoll: the answer comes with the decision, or with the end of the wait and the request as it is.
func TestLongPoll(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	r, err := c.Request(t.Context(), "r1", 20*time.Millisecond)
	if err != nil || r.Status != "open" {
		t.Fatalf("after the wait: %v %v", r.Status, err)
	}
	f.saw(t, "wait r1")

	got := make(chan api.Request, 1)
	go func() {
		r, err := c.Request(t.Context(), "r1", 50*time.Second)
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	if _, err := c.Approve(t.Context(), "r1", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case r = <-got:
	case <-time.After(10 * time.Second):
		t.Fatal("the decision did not wake the poll")
	}
	if r.Status != "approved" || r.Grant != "g1" {
		t.Errorf("%+v", r)
	}
	// Asked again, it answers the same at once.
	if again, err := c.Request(t.Context(), "r1", 50*time.Second); err != nil || again.Status != "approved" {
		t.Errorf("%+v %v", again, err)
	}
	if a := get(t, c, "GET", "/v1/requests/r1?wait=ages", "Bearer alice", ""); a.status != 422 {
		t.Errorf("a wait that is no duration: %d", a.status)
	}
}

// TestCutDownload: what breaks off half way must not look whole.
func TestCutDownload(t *testing.T) {
	f := newFake()
	f.half = true
	c := serve(t, f)
	for name, open := range map[string]func() (io.ReadCloser, error){
		"recording": func() (io.ReadCloser, error) { return c.Recording(t.Context(), "s1") },
		"export":    func() (io.ReadCloser, error) { return c.Export(t.Context(), api.Scope{}, "") },
	} {
		text, err := all(open())
		if err == nil {
			t.Errorf("%s: %d bytes, and no error", name, len(text))
		}
	}
	f.before = errBroken
	if _, err := all(c.Export(t.Context(), api.Scope{}, "")); err == nil {
		t.Error("an export that failed before the first byte looks empty")
	} else if p, ok := api.AsProblem(err); !ok || p.Code != api.CodeInternal {
		t.Errorf("%v", err)
	}
}

func TestFailedLoginsAreCounted(t *testing.T) {
	f := newFake()
	c := serve(t, f)
	if _, err := c.FinishLogin(t.Context(), api.LoginFinish{Login: "l1", Code: "wrong"}); err == nil {
		t.Fatal("no error")
	}
	if len(f.failures) != 1 {
		t.Errorf("%q", f.failures)
	}
}

func TestClientErrors(t *testing.T) {
	c := serve(t, newFake())
	gone := *c
	gone.Server = "http://127.0.0.1:1"
	_, err := gone.Whoami(t.Context())
	p, ok := api.AsProblem(err)
	if !ok || p.Code != api.CodeUnreachable || p.Next == "" {
		t.Errorf("%v", err)
	}
	// Identifiers can't lead to another route.
	if _, err := c.Request(t.Context(), "../grants/g1", 0); err == nil {
		t.Error("a path was made of an id")
	} else if p, _ := api.AsProblem(err); p == nil || p.Code != api.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		30 * time.Minute: "30m", time.Hour: "1h", 90 * time.Minute: "1h30m", 20 * time.Second: "20s",
		10 * time.Minute: "10m", time.Hour + time.Second: "1h0m1s", 0: "0s", 1500 * time.Millisecond: "1.5s",
	} {
		if got := api.Duration(d).String(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
		var back api.Duration
		if err := back.UnmarshalText([]byte(want)); err != nil || time.Duration(back) != d {
			t.Errorf("%q comes back as %v, %v", want, back, err)
		}
	}
}
