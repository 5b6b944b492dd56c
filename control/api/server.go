package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/curfewdb/curfew/auth"
)

// Limits of the API.
const (
	maxBody    = 64 << 10         // bytes of a request body
	maxHeader  = 32 << 10         // bytes of a request's header
	maxBearer  = 16 << 10         // of which a token may have; a workload's own is a few thousand
	maxWait    = time.Minute      // of a long poll
	slowClient = 30 * time.Second // to send a request, or to take the next piece of an answer
)

// Config is what the API stands on. Everything but FailedLogin, Alive, Ready and Explain is required.
type Config struct {
	Version   string
	Logins    Logins
	Requests  Requests
	Grants    Grants
	Sessions  Sessions
	Reviews   Reviews
	Evidence  Evidence
	Foresight Foresight

	// Answers lets calls with a key of their caller's act once; nil: keys mean nothing.
	Answers Answers
	// FailedLogin counts a stranger who showed a bad token or failed to log in, by address without port.
	FailedLogin func(from string)
	// FailedToken counts who showed a token of an identity provider's that is not good here, and FailedLogout a
	// logout token; nil: FailedLogin does.
	FailedToken, FailedLogout func(from string)
	// SignOut acts on an identity provider's word that somebody has signed out there; nil: none is taken.
	SignOut func(ctx context.Context, logoutToken string) error
	// Alive says whether this process turns: nil, or what is stuck. Only the log hears what.
	Alive func() error
	// Ready says whether Curfew can do its work: nil, or what it lacks. Only the log hears what.
	Ready func(ctx context.Context) error
	// Explain turns an error of the packages below into a Problem; nil or a nil answer: it is internal.
	Explain func(err error) *Problem

	Now func() time.Time // time.Now, or the store's
	Log *slog.Logger
}

type server struct {
	Config
	api   huma.API
	calls calls
}

// New builds the handler that serves the API, /healthz, /readyz and /openapi.json.
func New(c Config) http.Handler {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &server{Config: c}
	mux := http.NewServeMux()
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	s.api = humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Curfew", Version: c.Version,
				Description: "Just-in-time access to databases: ask, decide, connect, end, prove.",
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					bearer: {Type: "http", Scheme: "bearer", Description: "Curfew session token, from /v1/login/finish; or a workload's token of its own issuer"},
				},
			},
			OnAddOperation: []huma.AddOpFunc{documentProblem},
		},
		OpenAPIPath:   "/openapi",
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{toProblem},

		RejectUnknownQueryParameters: true, // a misspelt filter must not answer with everything
	})
	s.api.UseMiddleware(s.authenticate)
	s.loginRoutes()
	s.backchannelRoute()
	s.requestRoutes()
	s.grantRoutes()
	s.sessionRoutes()
	s.reviewRoutes()
	s.evidenceRoutes()
	s.foresightRoutes()
	mux.HandleFunc("GET /docs", s.docs())
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, NewProblem(CodeNotFound, "there is nothing at "+r.Method+" "+r.URL.Path, "see /openapi.json for what there is"))
	})
	return s.guard(s.once(mux))
}

// NewServer is an http.Server for the handler, with limits on what a stranger may take up. Deadlines
// for writing are set per answer, because downloads and long polls have times of their own.
func NewServer(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
}

// guard is around every answer: security headers, limits, and no panic reaches a client's eyes.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // answers carry secrets and what only this person may see
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		rc := http.NewResponseController(w)
		// Not supported by a test's recorder, which needs no deadline.
		_ = rc.SetWriteDeadline(time.Now().Add(maxWait + slowClient))
		r.Body = sent{http.MaxBytesReader(w, r.Body, maxBody+1)}
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				incident := rand.Text()
				s.Log.Error("api panicked", "incident", incident, "method", r.Method, "path", r.URL.Path, "panic", v)
				writeProblem(w, internal(incident))
			}
		}()
		ctx := context.WithValue(r.Context(), callKey{}, &call{from: r.RemoteAddr, url: r.URL, control: rc})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// sent is what a client sends. Where it breaks off that is the client's doing, and huma knows one such thing by itself:
// a body that takes too long. Anything else would be an error of the server's.
type sent struct{ io.ReadCloser }

func (b sent) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var large *http.MaxBytesError
	if err != nil && err != io.EOF && !errors.As(err, &large) {
		err = brokenOff{err}
	}
	return n, err
}

// brokenOff is a net.Error, as one that took too long is.
type brokenOff struct{ error }

func (b brokenOff) Unwrap() error { return b.error }
func (brokenOff) Timeout() bool   { return true }
func (brokenOff) Temporary() bool { return false }

const bearer = "session"

type (
	callKey struct{}
	// call is what a handler may know of the HTTP request beneath it.
	call struct {
		from    string // address:port
		url     *url.URL
		control *http.ResponseController
		who     auth.Identity
		token   string
	}
)

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// open marks the few operations that need no session token.
const open = "open"

// authenticate closes every operation that is not marked open.
func (s *server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().Metadata[open] == true {
		next(ctx)
		return
	}
	c := callOf(ctx.Context())
	token, ok := bearerToken(ctx.Header("Authorization"))
	if !ok {
		s.refuse(ctx, unauthenticated("this needs a session token", nil))
		return
	}
	who, err := s.Logins.Whoami(ctx.Context(), token)
	if err != nil {
		p := s.explain(ctx.Context(), err)
		switch {
		case p.Code != CodeUnauthenticated:
		case auth.IsSessionToken(token):
			s.failed(c.from)
		default:
			s.count(s.FailedToken, c.from)
		}
		s.refuse(ctx, p)
		return
	}
	c.who, c.token = who, token
	next(ctx)
}

func bearerToken(header string) (string, bool) {
	const scheme = "bearer "
	if len(header) <= len(scheme) || !equalFold(header[:len(scheme)], scheme) || len(header) > maxBearer {
		return "", false
	}
	return header[len(scheme):], true
}

// equalFold compares ASCII, as RFC 9110 has it for authentication schemes.
func equalFold(a, lower string) bool {
	for i := range len(a) {
		c := a[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func unauthenticated(detail string, err error) *Problem {
	return NewProblem(CodeUnauthenticated, detail, "log in: curfew login").Because(err)
}

func (s *server) refuse(ctx huma.Context, p *Problem) {
	for name, values := range p.GetHeaders() {
		ctx.SetHeader(name, values[0])
	}
	ctx.SetHeader("Content-Type", p.ContentType(""))
	ctx.SetStatus(p.Status)
	_ = json.NewEncoder(ctx.BodyWriter()).Encode(p) // the client has gone, if this fails
}

func (s *server) failed(from string) {
	s.count(s.FailedLogin, from)
}

// count tells without its port where a stranger came from.
func (s *server) count(by func(from string), from string) {
	if by == nil {
		by = s.FailedLogin
	}
	if by == nil {
		return
	}
	if host, _, err := net.SplitHostPort(from); err == nil {
		from = host
	}
	by(from)
}

// explain gives the Problem that err is, or can be shown as; anything else is logged under an incident
// number, which is all that the client hears of it.
func (s *server) explain(ctx context.Context, err error) *Problem {
	if p, ok := AsProblem(err); ok {
		return p
	}
	if s.Explain != nil {
		if p := s.Explain(err); p != nil {
			return p
		}
	}
	incident := rand.Text()
	level := slog.LevelError
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		level = slog.LevelDebug // the client hung up, and nobody reads the answer
	}
	s.Log.Log(ctx, level, "api call failed", "incident", incident, "error", err)
	return internal(incident).Because(err)
}

// register adds an operation whose errors are all explained, and whose handler knows the call.
func register[I, O any](s *server, op huma.Operation, handler func(context.Context, *call, *I) (*O, error)) {
	op.MaxBodyBytes = maxBody
	op.BodyReadTimeout = slowClient
	if op.Metadata[open] != true {
		op.Security = []map[string][]string{{bearer: {}}}
	}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		c := callOf(ctx)
		// The body is in; its deadline would end a handler that waits for others.
		_ = c.control.SetReadDeadline(time.Time{})
		out, err := handler(ctx, c, in)
		if err != nil {
			return nil, s.explain(ctx, err)
		}
		return out, nil
	})
}

// toProblem rewrites what huma itself says about a malformed request.
func toProblem(_ huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		return fromModel(m), nil
	}
	return v, nil
}

// documentProblem puts Problem in the place of huma's own error model.
func documentProblem(o *huma.OpenAPI, op *huma.Operation) {
	schema := o.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for _, r := range op.Responses {
		if m := r.Content["application/problem+json"]; m != nil {
			m.Schema = schema
		}
	}
	delete(o.Components.Schemas.Map(), "ErrorModel")
	delete(o.Components.Schemas.Map(), "ErrorDetail")
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone, if this fails
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.Alive != nil {
		if err := s.Alive(); err != nil {
			s.Log.Error("stuck", "error", err)
			writeProblem(w, NewProblem(CodeUnavailable, "stuck", "the server's log says where"))
			return
		}
	}
	well(w)
}

// well is the same for everything that is well.
func well(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.Ready != nil {
		if err := s.Ready(r.Context()); err != nil {
			s.Log.Warn("not ready", "error", err)
			writeProblem(w, NewProblem(CodeUnavailable, "not ready", "the server's log says what it lacks"))
			return
		}
	}
	well(w)
}
