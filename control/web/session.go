package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
)

// Cookies, both for this host alone and out of reach of scripts. Lax, because the way back from the identity
// provider begins at another site; forms have a token of their own.
const (
	sessionCookie = "curfew"       // a session token, as the command line has one
	loginCookie   = "curfew-login" // the handle of a login under way: only the browser that began it ends it
)

// cookie gives a cookie its name: browsers hold __Host- to what it says (this host, TLS, no other path).
func (s *server) cookie(name, value string, maxAge int) *http.Cookie {
	if s.secure {
		name = "__Host-" + name
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode}
}

func (s *server) cookieOf(r *http.Request, name string) string {
	c, err := r.Cookie(s.cookie(name, "", 0).Name)
	if err != nil {
		return ""
	}
	return c.Value
}

// who is the person whose browser this is, and their session's token.
func (s *server) who(r *http.Request) (auth.Identity, string, error) {
	token := s.cookieOf(r, sessionCookie)
	if token == "" || len(token) > 512 {
		return auth.Identity{}, "", &control.Error{Code: control.CodeUnauthenticated, Public: "you are not logged in"}
	}
	who, err := s.Logins.Whoami(r.Context(), token)
	return who, token, err
}

// formToken is what a form must carry to be this session's own. Whoever has it has not the session.
func formToken(session string) string {
	m := hmac.New(sha256.New, []byte(session))
	m.Write([]byte("curfew form"))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

var errForeign = &control.Error{Code: control.CodeForbidden, Public: "this form was not made for you, or your login has changed since it was",
	Next: "open the page again"}

// own checks that a form was made for this session by this server.
func (s *server) own(r *http.Request, session string) error {
	if err := s.origin.Check(r); err != nil {
		return errForeign
	}
	if !hmac.Equal([]byte(r.PostFormValue("form")), []byte(formToken(session))) {
		return errForeign
	}
	return nil
}

var (
	requestID = regexp.MustCompile(`^r[0-9a-z]{1,40}$`)
	linkToken = regexp.MustCompile(`^[A-Za-z0-9_-]{20,100}$`)
)

// way is where a login leads to: a link, a request, or the list. It is kept at the server, and is never an
// address.
type way struct {
	link, request string
	again         bool // it is the login that the page has sent for
}

// afterStepUp marks the page's address behind a login that it has sent for.
const afterStepUp = "after-login"

func (w way) note() string {
	v := url.Values{"link": {w.link}, "request": {w.request}}
	if w.again {
		v.Set("again", "yes")
	}
	return v.Encode()
}

func wayOf(note string) way {
	v, err := url.ParseQuery(note)
	if err != nil {
		return way{}
	}
	return way{link: v.Get("link"), request: v.Get("request"), again: v.Has("again")}
}

func (w way) path() string {
	switch {
	case !requestID.MatchString(w.request):
		return "/web/"
	case w.again:
		return "/web/requests/" + w.request + "?" + afterStepUp
	}
	return "/web/requests/" + w.request
}

// login begins a login. It may be reached from anywhere: all that somebody gains by sending a browser here is
// that its owner is asked to log in.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var to way
	if token := q.Get("link"); linkToken.MatchString(token) {
		to.link = token
	}
	if id := q.Get("request"); requestID.MatchString(id) {
		to.request = id
	}
	s.begin(w, r, q.Get("issuer"), to, auth.Asked{}, "")
}

// begin sends the browser to the identity provider.
func (s *server) begin(w http.ResponseWriter, r *http.Request, issuer string, to way, asked auth.Asked, session string) {
	started, err := s.Logins.Start(r.Context(), control.StartLogin{
		Flow: "web", Issuer: issuer, From: r.RemoteAddr, Asked: asked, Session: session, Note: to.note(),
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	http.SetCookie(w, s.cookie(loginCookie, started.Login, 600))
	w.Header().Set("Location", started.AuthURL)
	w.WriteHeader(http.StatusSeeOther)
}

// callback ends a login.
func (s *server) callback(w http.ResponseWriter, r *http.Request) {
	handle, q := s.cookieOf(r, loginCookie), r.URL.Query()
	http.SetCookie(w, s.cookie(loginCookie, "", -1))
	if handle == "" || len(handle) > 256 {
		s.refused(r, false)
		s.show(w, http.StatusBadRequest, "message.html", message{Title: "This login was not begun here",
			Text: "It was begun in another browser, or too long ago.", Href: "/web/", Label: "Log in"})
		return
	}
	in, err := s.Logins.Finish(r.Context(), control.FinishLogin{Login: handle, Code: q.Get("code"), State: q.Get("state"), Issuer: q.Get("iss")})
	to := wayOf(in.Note)
	if err != nil {
		s.refused(r, false)
		s.again(w, r, to, err)
		return
	}
	http.SetCookie(w, s.cookie(sessionCookie, in.Token, int(in.Expires.Sub(s.Now()).Seconds())))
	if to.link != "" {
		if to.request, err = s.Links.Use(r.Context(), s.Desk.Policy(), to.link, in.Identity, r.RemoteAddr); err != nil {
			s.badLink(w, r, err)
			return
		}
	}
	http.Redirect(w, r, to.path(), http.StatusSeeOther)
}

// again shows why a login failed, and the way to try once more.
func (s *server) again(w http.ResponseWriter, r *http.Request, to way, err error) {
	var e *control.Error
	if !errors.As(err, &e) || e.Code == control.CodeUnavailable {
		s.refuse(w, r, err)
		return
	}
	href := "/web/login?" + url.Values{"link": {to.link}, "request": {to.request}}.Encode()
	if to.link == "" {
		href = to.path()
	}
	next := strings.TrimSuffix(e.Next, "curfew login")
	if next != e.Next {
		next = ""
	}
	s.show(w, http.StatusUnauthorized, "message.html", message{Title: "The login did not succeed",
		Text: sentence(e.Public) + " " + sentence(next), Href: href, Label: "Try again"})
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	if s.origin.Check(r) != nil { // the cookie does not come along from another site, and must not be taken away from there
		s.refuse(w, r, errForeign)
		return
	}
	_, token, err := s.who(r)
	if err == nil {
		if err = s.own(r, token); err == nil {
			err = s.Logins.Logout(r.Context(), token)
		}
		if err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	http.SetCookie(w, s.cookie(sessionCookie, "", -1))
	s.show(w, http.StatusOK, "message.html", message{Title: "You are logged out", Text: "This window can be closed.", Href: "/web/", Label: "Log in"})
}

// link is where a notification leads.
func (s *server) link(w http.ResponseWriter, r *http.Request) {
	token := r.PathValue("token")
	if !linkToken.MatchString(token) {
		s.badLink(w, r, nil)
		return
	}
	if _, err := s.Links.Look(r.Context(), token); err != nil {
		s.badLink(w, r, err)
		return
	}
	if who, _, err := s.who(r); err == nil {
		id, err := s.Links.Use(r.Context(), s.Desk.Policy(), token, who, r.RemoteAddr)
		if err != nil {
			s.badLink(w, r, err)
			return
		}
		http.Redirect(w, r, way{request: id}.path(), http.StatusSeeOther)
		return
	}
	s.door(w, "Somebody asks for your decision", way{link: token})
}

// door is a page with nothing on it but the ways to log in.
func (s *server) door(w http.ResponseWriter, title string, to way) {
	type option struct{ Href, Label string }
	var options []option
	for _, issuer := range s.Issuers {
		label := "Log in"
		if len(s.Issuers) > 1 {
			label = "Log in at " + issuer
		}
		q := url.Values{"issuer": {issuer}}
		if to.link != "" {
			q.Set("link", to.link)
		}
		if to.request != "" {
			q.Set("request", to.request)
		}
		options = append(options, option{"/web/login?" + q.Encode(), label})
	}
	s.show(w, http.StatusOK, "door.html", map[string]any{"Title": title, "Options": options})
}

// badLink answers every link that is not good in the same words.
func (s *server) badLink(w http.ResponseWriter, r *http.Request, err error) {
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeUnavailable {
		s.refuse(w, r, err)
		return
	}
	if err != nil && !errors.As(err, &e) {
		s.broken(w, r, err)
		return
	}
	s.refused(r, true)
	s.show(w, http.StatusNotFound, "message.html", message{Title: "This link is not good, or not any more",
		Text: "Each leads one person to one request, once, until the request is decided. If you decide on requests, log in, and see what waits for you.",
		Href: "/web/", Label: "What waits for your decision"})
}
