package provider

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// view is what the pages show.
type view struct {
	ID       string // of the login
	UserCode string
	Client   string
	Names    []string
	Hint     string
	Second   bool // the box for a second factor is ticked
	Problem  string
	Result   string
}

func (p *Provider) show(w http.ResponseWriter, status int, page string, v view) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	// No form-action: browsers hold the redirect to the client's loopback port against it.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	v.Names = p.state.names()
	if err := p.pages.ExecuteTemplate(w, page, v); err != nil {
		p.log.Warn("provider page", "page", page, "error", err)
	}
}

// loginView finds the login that a page or a form is about.
func (p *Provider) loginView(r *http.Request, id string) (view, bool) {
	req, err := p.state.AuthRequestByID(r.Context(), id)
	if err != nil || req.Done() {
		return view{Problem: "This login is over or was never begun. Go back to where you came from and try again."}, false
	}
	asked := req.(*authRequest).asked
	hint, _, _ := strings.Cut(asked.LoginHint, "@") // the demo identities' e-mails begin with their names
	return view{ID: id, Client: asked.ClientID, Hint: hint, Second: slices.Contains(asked.ACRValues, ACR)}, true
}

func (p *Provider) loginPage(w http.ResponseWriter, r *http.Request) {
	v, ok := p.loginView(r, r.URL.Query().Get("id"))
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	p.show(w, status, "login.html", v)
}

func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	id, name, second := r.PostFormValue("id"), r.PostFormValue("name"), r.PostFormValue("second") != ""
	v, ok := p.loginView(r, id)
	if !ok {
		p.show(w, http.StatusNotFound, "login.html", v)
		return
	}
	if !p.proven(id, name, strings.TrimSpace(r.PostFormValue("passcode")), r.PostFormValue("proof")) || p.state.finish(id, name, second) != nil {
		v.Hint, v.Second, v.Problem = name, second, "Wrong passcode, or this identity is disabled."
		p.show(w, http.StatusForbidden, "login.html", v)
		return
	}
	http.Redirect(w, r, "/authorize/callback?id="+url.QueryEscape(id), http.StatusSeeOther)
}

func (p *Provider) devicePage(w http.ResponseWriter, r *http.Request) {
	p.show(w, http.StatusOK, "device.html", view{UserCode: normal(r.URL.Query().Get("user_code"))})
}

func (p *Provider) device(w http.ResponseWriter, r *http.Request) {
	code, name := normal(r.PostFormValue("user_code")), r.PostFormValue("name")
	second := r.PostFormValue("second") != ""
	v := view{UserCode: code, Hint: name, Second: second}
	if !p.proven(code, name, strings.TrimSpace(r.PostFormValue("passcode")), r.PostFormValue("proof")) {
		v.Problem = "Wrong passcode."
		p.show(w, http.StatusForbidden, "device.html", v)
		return
	}
	allow := r.PostFormValue("action") == "allow"
	if p.state.decide(code, name, allow, second) != nil {
		v.Problem = "No login waits for this code, or this identity is disabled."
		p.show(w, http.StatusNotFound, "device.html", v)
		return
	}
	v.Result = "Refused. You can close this page."
	if allow {
		v.Result = "Done. Go back to your terminal."
	}
	p.show(w, http.StatusOK, "device.html", v)
}

// normal reads a user code as people type it.
func normal(code string) string {
	code = strings.ToUpper(strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, code))
	if len(code) == 8 {
		code = code[:4] + "-" + code[4:]
	}
	return code
}

// admin lets the key's holder in.
func (p *Provider) admin(do func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || !same([]byte(bearer), p.key) {
			http.Error(w, "the identities key is needed as bearer token", http.StatusUnauthorized)
			return
		}
		if err := do(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// adminUser takes {"disabled": true, "groups": ["leads"]}; what is left out stays.
func (p *Provider) adminUser(r *http.Request) error {
	var change struct {
		Disabled *bool     `json:"disabled"`
		Groups   *[]string `json:"groups"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&change); err != nil {
		return err
	}
	return p.state.change(r.PathValue("name"), func(u *user) {
		if change.Disabled != nil {
			u.disabled = *change.Disabled
		}
		if change.Groups != nil {
			u.Groups = *change.Groups
		}
	})
}

func (p *Provider) adminRotate(*http.Request) error { return p.state.rotate() }
