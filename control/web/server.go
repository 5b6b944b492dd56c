package web

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/policy"
)

// CallbackPath is where the identity provider sends browsers back to, below the API's address.
const CallbackPath = "/web/callback"

// maxForm bounds what a form may send: a comment, and little else.
const maxForm = 32 << 10

// Logins is what the pages use of control.Logins.
type Logins interface {
	Start(ctx context.Context, s control.StartLogin) (control.StartedLogin, error)
	Finish(ctx context.Context, f control.FinishLogin) (control.LoggedIn, error)
	Whoami(ctx context.Context, token string) (auth.Identity, error)
	Logout(ctx context.Context, token string) error
}

// Desk is what the pages use of control.Desk.
type Desk interface {
	Policy() *policy.Policy
	Request(ctx context.Context, who auth.Identity, id string) (policy.Request, error)
	Requests(ctx context.Context, who auth.Identity, f control.RequestFilter) ([]policy.Request, error)
	Decide(ctx context.Context, who auth.Identity, id string, approve bool, comment string) (policy.Request, error)
}

// Links is what the pages use of control.Links.
type Links interface {
	Look(ctx context.Context, token string) (request string, err error)
	Use(ctx context.Context, p *policy.Policy, token string, who auth.Identity, from string) (request string, err error)
}

// Config is what the pages stand on.
type Config struct {
	URL     string // the API's address as browsers have it: https://curfew.example.com
	Issuers []string
	Logins  Logins
	Desk    Desk
	Links   Links

	// Refused counts who was turned away, by address: a bad link, or else a login or form that was not accepted.
	Refused func(from string, link bool)
	Now     func() time.Time
	Log     *slog.Logger
}

//go:embed pages/*.html pages/style.css
var files embed.FS

type server struct {
	Config
	secure bool // cookies go over TLS only
	pages  *template.Template
	style  []byte
	origin *http.CrossOriginProtection
	drafts drafts
}

// New builds the handler of everything below /web/.
func New(c Config) (http.Handler, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &server{Config: c, secure: u.Scheme == "https", origin: http.NewCrossOriginProtection()}
	if s.style, err = files.ReadFile("pages/style.css"); err != nil {
		return nil, err
	}
	if s.pages, err = template.New("").Funcs(words(c.Now)).ParseFS(files, "pages/*.html"); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /web/{$}", s.waiting)
	mux.HandleFunc("GET /web/style.css", s.stylesheet)
	mux.HandleFunc("GET /web/links/{token}", s.link)
	mux.HandleFunc("GET /web/login", s.login)
	mux.HandleFunc("GET "+CallbackPath, s.callback)
	mux.HandleFunc("GET /web/requests/{id}", s.request)
	mux.HandleFunc("POST /web/requests/{id}", s.decide)
	mux.HandleFunc("POST /web/logout", s.logout)
	mux.HandleFunc("/web/", func(w http.ResponseWriter, r *http.Request) {
		s.say(w, http.StatusNotFound, "There is no such page", "Follow the link that you were sent, or see what waits for you.")
	})
	return s.guard(mux), nil
}

// guard is around every page: what browsers are to forbid, limits, and no panic reaches anybody's eyes.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if s.secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		rc := http.NewResponseController(w)
		// Not supported by a test's recorder, which needs no deadlines.
		_ = rc.SetReadDeadline(time.Now().Add(30 * time.Second))
		_ = rc.SetWriteDeadline(time.Now().Add(time.Minute))
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				s.broken(w, r, errors.New("page panicked"), "panic", v)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *server) stylesheet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "max-age=3600")
	_, _ = w.Write(s.style) // the browser has gone, if this fails
}

// show writes a page whole, or an error in its place.
func (s *server) show(w http.ResponseWriter, status int, page string, data any) {
	var b strings.Builder
	if err := s.pages.ExecuteTemplate(&b, page, data); err != nil {
		s.Log.Error("page", "page", page, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String())) // the browser has gone, if this fails
}

// message is a page that says one thing.
type message struct {
	Title, Text string
	Href, Label string // where to go on
}

func (s *server) say(w http.ResponseWriter, status int, title, text string) {
	s.show(w, status, "message.html", message{Title: title, Text: text, Href: "/web/", Label: "What waits for your decision"})
}

// refuse shows an error of the desk or of the logins. What is not for the reader's eyes is in the log.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *control.Error
	if !errors.As(err, &e) {
		s.broken(w, r, err)
		return
	}
	title, status := "That can't be done", http.StatusConflict
	switch e.Code {
	case control.CodeNotFound:
		title, status = "There is no such request for you", http.StatusNotFound
	case control.CodeForbidden, control.CodePolicy:
		title, status = "That is not yours to do", http.StatusForbidden
	case control.CodeInvalid:
		title, status = "That can't be read", http.StatusUnprocessableEntity
	case control.CodeUnauthenticated:
		title, status = "The login did not succeed", http.StatusUnauthorized
	case control.CodeUnavailable:
		title, status = "Not now", http.StatusServiceUnavailable
		s.Log.ErrorContext(r.Context(), "page", "path", r.Pattern, "error", err)
	}
	s.say(w, status, title, sentence(e.Public)+" "+sentence(e.Next))
}

func (s *server) broken(w http.ResponseWriter, r *http.Request, err error, more ...any) {
	incident := rand.Text()
	s.Log.ErrorContext(r.Context(), "page failed", append([]any{"incident", incident, "path", r.Pattern, "error", err}, more...)...)
	s.say(w, http.StatusInternalServerError, "Something went wrong", "Nothing was changed. Give this number to whoever runs Curfew: "+incident)
}

// refused counts who was turned away.
func (s *server) refused(r *http.Request, link bool) {
	if s.Refused == nil {
		return
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	s.Refused(host, link)
}

// sentence makes one of what the desk says in halves.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}
