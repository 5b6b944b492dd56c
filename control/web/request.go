package web

import (
	"errors"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/policy"
)

// waiting lists what the person may decide now.
func (s *server) waiting(w http.ResponseWriter, r *http.Request) {
	who, token, err := s.who(r)
	if err != nil {
		s.outside(w, r, "Requests that wait for a decision", way{}, err)
		return
	}
	open, err := s.Desk.Requests(r.Context(), who, control.RequestFilter{Status: policy.Open, Limit: 1000})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	p, now := s.Desk.Policy(), s.Now()
	var mine []policy.Request
	for _, one := range open {
		if may, _ := decides(p, who, one, now); may {
			mine = append(mine, one)
		}
	}
	s.show(w, http.StatusOK, "waiting.html", map[string]any{"Who": who, "Form": formToken(token), "Requests": mine})
}

// outside is what somebody sees who is not logged in; an error other than that is shown.
func (s *server) outside(w http.ResponseWriter, r *http.Request, title string, to way, err error) {
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeUnauthenticated {
		s.door(w, title, to)
		return
	}
	s.refuse(w, r, err)
}

// decides reports whether who may decide on a request, and what their login lacks to approve it.
func decides(p *policy.Policy, who auth.Identity, r policy.Request, now time.Time) (may bool, lacks *policy.StepUp) {
	err := p.MayDecide(who, r, true, now)
	var weak *policy.StepUpError
	if errors.As(err, &weak) {
		return true, &weak.StepUp
	}
	return err == nil, nil
}

// decision is what the page shows.
type decision struct {
	Who     auth.Identity
	Form    string // token
	Now     time.Time
	Request policy.Request
	End     time.Time // if it is approved now
	Missing int
	Parties []policy.Who
	Changed bool // another policy is in force by now

	May    bool   // there is a form
	Denies bool   // to deny only: this person has approved already
	Why    string // why there is none
	Draft  string // a comment that was typed before the login had to be a better one
	Notice string // what has just happened
}

// request is the page on which somebody decides. A login that is too weak or too old for that goes to the
// identity provider first, and comes back.
func (s *server) request(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	who, token, err := s.who(r)
	if err != nil {
		to := way{}
		if requestID.MatchString(id) {
			to.request = id
		}
		s.outside(w, r, "Somebody asks for your decision", to, err)
		return
	}
	one, err := s.Desk.Request(r.Context(), who, id)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	if _, lacks := decides(s.Desk.Policy(), who, one, s.Now()); lacks != nil {
		if r.URL.Query().Has(afterStepUp) { // once more would be once more in vain
			s.show(w, http.StatusUnauthorized, "message.html", message{Title: "Your login is still not enough for this decision",
				Text: "It takes one that shows " + lacks.Words() + ".", Href: way{request: one.ID}.path(), Label: "Log in once more"})
			return
		}
		s.begin(w, r, "", way{request: one.ID, again: true}, control.Asked(*lacks), token)
		return
	}
	s.showRequest(w, who, token, one, "")
}

func (s *server) showRequest(w http.ResponseWriter, who auth.Identity, token string, one policy.Request, notice string) {
	p, now := s.Desk.Policy(), s.Now()
	d := decision{Who: who, Form: formToken(token), Now: now, Request: one, Changed: p.Hash != one.Policy, Notice: notice}
	start := now
	if one.Start.After(start) {
		start = one.Start
	}
	d.End = start.Add(one.Duration)
	d.Missing, d.Parties = policy.Lacking(one)
	switch err := p.MayDecide(who, one, true, now); {
	case err == nil:
		d.May, d.Draft = true, s.drafts.take(who, one.ID)
	case errors.Is(err, policy.ErrTwice):
		d.May, d.Denies, d.Why = true, true, "You have approved this request. While it is open you may still deny it."
	case errors.Is(err, policy.ErrSelf):
		d.Why = "This is your own request: somebody else has to decide on it."
	case errors.Is(err, policy.ErrEnded):
		d.Why = "There is nothing left to decide."
	default:
		d.Why = "You may see this request; deciding on it is for others."
	}
	s.show(w, http.StatusOK, "request.html", d)
}

// decide is the form of that page.
func (s *server) decide(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	who, token, err := s.who(r)
	if err != nil {
		s.refused(r, false)
		to := way{}
		if requestID.MatchString(id) {
			to.request = id
		}
		s.outside(w, r, "Your login is over: log in, and decide again", to, err)
		return
	}
	if err := r.ParseForm(); err != nil {
		s.refuse(w, r, &control.Error{Code: control.CodeInvalid, Public: "what was sent is no form of this page, or too long", Next: "go back and shorten the comment"})
		return
	}
	if err := s.own(r, token); err != nil {
		s.refused(r, false)
		s.refuse(w, r, err)
		return
	}
	approve := r.PostFormValue("decision") == "approve"
	if !approve && r.PostFormValue("decision") != "deny" {
		s.refuse(w, r, &control.Error{Code: control.CodeInvalid, Public: "neither approve nor deny was chosen", Next: "go back and choose"})
		return
	}
	comment := strings.ReplaceAll(r.PostFormValue("comment"), "\r\n", "\n") // as forms send it
	one, err := s.Desk.Decide(r.Context(), who, id, approve, comment)
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeStepUp {
		s.drafts.keep(who, id, comment, s.Now())
		s.show(w, http.StatusUnauthorized, "message.html", message{Title: "This decision takes a newer login",
			Text: "Nothing was decided yet. Log in once more; then this request is shown again, with your comment.",
			Href: way{request: id}.path(), Label: "Log in once more"})
		return
	}
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	said := "You have denied this request."
	if approve {
		said = "You have approved this request."
		if missing, _ := policy.Lacking(one); one.Status == policy.Open && missing > 0 {
			said += " It needs the word of others, too."
		}
	}
	s.showRequest(w, who, token, one, said)
}

// drafts keeps comments for people who have to log in again before they can send them; the zero value is ready.
type drafts struct {
	mu  sync.Mutex
	all map[string]draft // guarded by mu
}

type draft struct {
	text string
	at   time.Time
}

// mostDrafts bounds them, and draftTime is how long one waits.
const (
	mostDrafts = 1000
	draftTime  = 10 * time.Minute
)

func (d *drafts) keep(who auth.Identity, request, text string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]draft{}
	}
	for key, old := range d.all {
		if now.Sub(old.at) > draftTime || len(d.all) >= mostDrafts {
			delete(d.all, key)
		}
	}
	d.all[who.Key()+" "+request] = draft{text, now}
}

func (d *drafts) take(who auth.Identity, request string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := d.all[who.Key()+" "+request].text
	delete(d.all, who.Key()+" "+request)
	return text
}

// words are the functions of the templates.
func words(now func() time.Time) template.FuncMap {
	return template.FuncMap{
		"moment": func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
		"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"ago":    func(t time.Time) string { return span(now().Sub(t)) + " ago" },
		"until":  func(t time.Time) string { return "in " + span(t.Sub(now())) },
		"span":   span,
		"list":   func(all []string) string { return strings.Join(all, ", ") },
		"past":   past,
	}
}

// span writes a length of time as people do.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 48*time.Hour:
		d = d.Round(time.Hour)
	case d >= time.Hour:
		d = d.Round(time.Minute)
	default:
		d = d.Round(time.Second)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// past counts what somebody had on a target and level, and elsewhere.
func past(r policy.Request) (p struct{ Same, Target, All, BreakGlass int }) {
	for _, g := range r.Facts.Grants {
		p.All++
		if g.Target == r.Target {
			p.Target++
			if g.Level == r.Level {
				p.Same++
			}
		}
		if g.BreakGlass {
			p.BreakGlass++
		}
	}
	return p
}
