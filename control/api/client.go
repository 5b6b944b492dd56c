package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client speaks the API. Every error that it returns is a *Problem: the server's own, or one with
// CodeUnreachable when there was no answer.
type Client struct {
	Server string // https://curfew.example.com
	Token  string // Curfew session token; empty before login
	Agent  string // User-Agent
	HTTP   *http.Client

	// StepUp answers a problem with CodeStepUp: it logs the person in again, and gives the token of the session
	// that took the old one's place. What was asked is then asked again, once. nil: the problem is the answer.
	StepUp func(ctx context.Context, p *Problem) (token string, err error)
}

// answerLimit bounds an answer that is not a download.
const answerLimit = 64 << 20

// StartLogin begins a login.
func (c *Client) StartLogin(ctx context.Context, s LoginStart) (LoginStarted, error) {
	return exchange[LoginStarted](ctx, c, http.MethodPost, "/v1/login/start", nil, s)
}

// FinishLogin ends a login, or says that it is still pending.
func (c *Client) FinishLogin(ctx context.Context, f LoginFinish) (LoggedIn, error) {
	return exchange[LoggedIn](ctx, c, http.MethodPost, "/v1/login/finish", nil, f)
}

// Logout ends the login that the client's token belongs to.
func (c *Client) Logout(ctx context.Context) error {
	_, err := exchange[struct{}](ctx, c, http.MethodPost, "/v1/logout", nil, nil)
	return err
}

// Whoami tells whose token the client has.
func (c *Client) Whoami(ctx context.Context) (Person, error) {
	return exchange[Person](ctx, c, http.MethodGet, "/v1/whoami", nil, nil)
}

// Targets lists what the person may ask for.
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	return exchange[[]Target](ctx, c, http.MethodGet, "/v1/targets", nil, nil)
}

// Ask makes a request.
func (c *Client) Ask(ctx context.Context, a Ask) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/requests", nil, a)
}

// Requests lists requests.
func (c *Client) Requests(ctx context.Context, f RequestFilter) ([]Request, error) {
	q := url.Values{}
	set(q, "status", f.Status)
	set(q, "target", f.Target)
	setBool(q, "mine", f.Mine)
	setBool(q, "decide", f.Decide)
	set(q, "after", f.After)
	setInt(q, "limit", f.Limit)
	return exchange[[]Request](ctx, c, http.MethodGet, "/v1/requests", q, nil)
}

// Request gives one request. With wait, the answer comes when it is no longer open, or after that time.
func (c *Client) Request(ctx context.Context, id string, wait time.Duration) (Request, error) {
	q := url.Values{}
	if wait > 0 {
		q.Set("wait", strconv.FormatInt(wait.Milliseconds(), 10)+"ms")
	}
	return exchange[Request](ctx, c, http.MethodGet, "/v1/requests/"+url.PathEscape(id), q, nil)
}

// Approve says yes to a request.
func (c *Client) Approve(ctx context.Context, id, comment string) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/requests/"+url.PathEscape(id)+"/approve", nil, Comment{comment})
}

// Deny says no to a request.
func (c *Client) Deny(ctx context.Context, id, comment string) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/requests/"+url.PathEscape(id)+"/deny", nil, Comment{comment})
}

// Cancel withdraws one's own request.
func (c *Client) Cancel(ctx context.Context, id string) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/requests/"+url.PathEscape(id)+"/cancel", nil, nil)
}

// Comment says something on a request.
func (c *Client) Comment(ctx context.Context, id, text string) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/requests/"+url.PathEscape(id)+"/comments", nil, NewRemark{text})
}

// Extend asks for more time under a grant.
func (c *Client) Extend(ctx context.Context, grant string, e Extend) (Request, error) {
	return exchange[Request](ctx, c, http.MethodPost, "/v1/grants/"+url.PathEscape(grant)+"/extend", nil, e)
}

// Reviews lists reviews.
func (c *Client) Reviews(ctx context.Context, f ReviewFilter) ([]Review, error) {
	q := url.Values{}
	setBool(q, "mine", f.Mine)
	setBool(q, "due", f.Due)
	set(q, "target", f.Target)
	set(q, "after", f.After)
	setInt(q, "limit", f.Limit)
	return exchange[[]Review](ctx, c, http.MethodGet, "/v1/reviews", q, nil)
}

// Review says what was found.
func (c *Client) Review(ctx context.Context, id string, r Reviewed) (Review, error) {
	return exchange[Review](ctx, c, http.MethodPost, "/v1/reviews/"+url.PathEscape(id), nil, r)
}

// Grants lists grants.
func (c *Client) Grants(ctx context.Context, f GrantFilter) ([]Grant, error) {
	q := url.Values{}
	setBool(q, "active", f.Active)
	set(q, "target", f.Target)
	setBool(q, "mine", f.Mine)
	set(q, "after", f.After)
	setInt(q, "limit", f.Limit)
	return exchange[[]Grant](ctx, c, http.MethodGet, "/v1/grants", q, nil)
}

// Grant gives one grant, with its receipt once there is one.
func (c *Client) Grant(ctx context.Context, id string) (Grant, error) {
	return exchange[Grant](ctx, c, http.MethodGet, "/v1/grants/"+url.PathEscape(id), nil, nil)
}

// Explain says what would come of an ask now.
func (c *Client) Explain(ctx context.Context, what Suppose) (Explanation, error) {
	return exchange[Explanation](ctx, c, http.MethodPost, "/v1/explain", nil, what)
}

// Report holds what was executed under a grant against what was intended.
func (c *Client) Report(ctx context.Context, grant string) (Report, error) {
	return exchange[Report](ctx, c, http.MethodGet, "/v1/grants/"+url.PathEscape(grant)+"/report", nil, nil)
}

// Password makes a new grant password; the old one is void for new logins.
func (c *Client) Password(ctx context.Context, grant string) (Credentials, error) {
	return exchange[Credentials](ctx, c, http.MethodPost, "/v1/grants/"+url.PathEscape(grant)+"/password", nil, nil)
}

// Release ends one's own grant: the task is done.
func (c *Client) Release(ctx context.Context, id string) (Grant, error) {
	return exchange[Grant](ctx, c, http.MethodPost, "/v1/grants/"+url.PathEscape(id)+"/release", nil, nil)
}

// Revoke ends a grant.
func (c *Client) Revoke(ctx context.Context, id, reason string) (Grant, error) {
	return exchange[Grant](ctx, c, http.MethodPost, "/v1/grants/"+url.PathEscape(id)+"/revoke", nil, Comment{reason})
}

// Sessions lists sessions.
func (c *Client) Sessions(ctx context.Context, f SessionFilter) ([]Session, error) {
	q := url.Values{}
	set(q, "grant", f.Grant)
	set(q, "target", f.Target)
	setBool(q, "open", f.Open)
	setBool(q, "mine", f.Mine)
	set(q, "after", f.After)
	setInt(q, "limit", f.Limit)
	return exchange[[]Session](ctx, c, http.MethodGet, "/v1/sessions", q, nil)
}

// Session gives one session.
func (c *Client) Session(ctx context.Context, id string) (Session, error) {
	return exchange[Session](ctx, c, http.MethodGet, "/v1/sessions/"+url.PathEscape(id), nil, nil)
}

// Kill ends a session; the answer is its grant.
func (c *Client) Kill(ctx context.Context, session string, k Kill) (Grant, error) {
	return exchange[Grant](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(session)+"/kill", nil, k)
}

// Recording opens a session's recording: plain JSON lines. A read error means that it is not all there.
func (c *Client) Recording(ctx context.Context, session string) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/sessions/"+url.PathEscape(session)+"/recording", nil)
}

// Export opens an export. A read error means that it is not all there.
func (c *Client) Export(ctx context.Context, s Scope, format string) (io.ReadCloser, error) {
	q := url.Values{}
	set(q, "format", format)
	set(q, "session", s.Session)
	set(q, "grant", s.Grant)
	set(q, "target", s.Target)
	setTime(q, "from", s.From)
	setTime(q, "to", s.To)
	return c.download(ctx, "/v1/export", q)
}

// Checkpoint gives the ledger's latest signed checkpoint.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	return c.text(ctx, "/v1/checkpoint")
}

// VerifierKey gives the key that checks checkpoints.
func (c *Client) VerifierKey(ctx context.Context) (string, error) {
	b, err := c.text(ctx, "/v1/key")
	return strings.TrimSpace(string(b)), err
}

func (c *Client) text(ctx context.Context, path string) ([]byte, error) {
	r, err := c.download(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, answerLimit))
	if err != nil {
		return nil, c.unreachable(err)
	}
	return b, nil
}

func (c *Client) download(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	res, err := c.send(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// exchange is one call with a JSON answer.
func exchange[T any](ctx context.Context, c *Client, method, path string, q url.Values, in any) (T, error) {
	var out T
	res, err := c.send(ctx, method, path, q, in)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return out, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, answerLimit)).Decode(&out); err != nil {
		return out, c.unreachable(fmt.Errorf("the answer is not what Curfew sends: %w", err))
	}
	return out, nil
}

// send gives an answer of the 200s, whose body the caller closes, or a *Problem; if the login has to be a
// better one, after a better login.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, in any) (*http.Response, error) {
	res, err := c.sendOnce(ctx, method, path, q, in)
	p, ok := AsProblem(err)
	if !ok || p.Code != CodeStepUp || c.StepUp == nil {
		return res, err
	}
	if c.Token, err = c.StepUp(ctx, p); err != nil {
		return nil, err
	}
	return c.sendOnce(ctx, method, path, q, in)
}

func (c *Client) sendOnce(ctx context.Context, method, path string, q url.Values, in any) (*http.Response, error) {
	var content io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, NewProblem(CodeInvalid, err.Error(), "").Because(err)
		}
		content = bytes.NewReader(b)
	}
	address := strings.TrimSuffix(c.Server, "/") + path
	if len(q) > 0 {
		address += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, content)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if c.Agent != "" {
		req.Header.Set("User-Agent", c.Agent)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.problem(res)
}

func (c *Client) problem(res *http.Response) *Problem {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	p := &Problem{}
	if kind == "application/problem+json" && json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(p) == nil && p.Code != "" {
		return p
	}
	p = NewProblem(CodeUnreachable, fmt.Sprintf("%s answered %q, which Curfew does not send", c.Server, res.Status),
		"check the server's address (--server, CURFEW_SERVER)")
	p.Status = res.StatusCode
	return p
}

func (c *Client) unreachable(err error) *Problem {
	if errors.Is(err, context.Canceled) {
		return NewProblem(CodeUnreachable, "interrupted", "").Because(err)
	}
	// The method and address that url.Error puts in front are said already.
	var inner *url.Error
	reason := err
	if errors.As(err, &inner) {
		reason = inner.Err
	}
	p := NewProblem(CodeUnreachable, fmt.Sprintf("no answer from the Curfew server at %s: %v", c.Server, reason),
		"check the address (--server, CURFEW_SERVER) and that the server runs").Because(err)
	p.Status, p.Title = 0, ""
	return p
}

func set(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func setBool(q url.Values, key string, value bool) {
	if value {
		q.Set(key, "true")
	}
}

func setInt(q url.Values, key string, value int) {
	if value > 0 {
		q.Set(key, strconv.Itoa(value))
	}
}

func setTime(q url.Values, key string, value time.Time) {
	if !value.IsZero() {
		q.Set(key, value.UTC().Format(time.RFC3339))
	}
}
