package web_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/control/web"
	"github.com/curfewdb/curfew/internal/provider"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a desk with its pages, and an identity provider.
type house struct {
	t      *testing.T
	key    []byte
	issuer string
	url    string
	store  *store.Store
	desk   *control.Desk
	logins *control.Logins
	links  *control.Links
	log    *bytes.Buffer

	mu      sync.Mutex
	refused map[bool]int // by link or not
}

// nasty is what somebody writes who hopes that others' browsers take it for more than text.
const nasty = `</dd><script>alert(1)</script><img src=x onerror=alert(2)>"'` + "`" + `{{.Form}}`

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, key: []byte("the key of this test"), log: &bytes.Buffer{}, refused: map[bool]int{}}
	var people http.Handler
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { people.ServeHTTP(w, r) }))
	t.Cleanup(issuer.Close)
	h.issuer = issuer.URL
	users := provider.DemoUsers()
	users[0].FullName = nasty
	people, err := provider.New(provider.Options{Issuer: issuer.URL, Key: h.key, Users: users})
	h.must(err)
	dir := t.TempDir()
	h.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "ledger.key")})
	h.must(err)
	t.Cleanup(func() { h.store.Close() })
	log := slog.New(slog.NewTextHandler(h.log, nil))
	h.desk, err = control.New(t.Context(), control.Options{Store: h.store, Policy: rules(), Log: log,
		Enrol: func(string, string) ([]byte, error) { return nil, nil }})
	h.must(err)
	t.Cleanup(h.desk.Close)
	op, err := auth.Discover(t.Context(), auth.IssuerConfig{URL: issuer.URL, ClientID: provider.CLI})
	h.must(err)
	sealer, err := auth.OpenSealer(filepath.Join(dir, "sealing.key"))
	h.must(err)
	var pages http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pages.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	h.logins, err = control.NewLogins(control.LoginOptions{Store: h.store, Desk: h.desk, Providers: []*auth.Provider{op}, Sealer: sealer,
		Web: srv.URL + web.CallbackPath, Log: log})
	h.must(err)
	h.links = control.NewLinks(h.store, []byte("another key"), srv.URL)
	pages, err = web.New(h.config())
	h.must(err)
	return h
}

func (h *house) config() web.Config {
	return web.Config{URL: h.url, Issuers: h.logins.Issuers(), Logins: h.logins, Desk: h.desk, Links: h.links,
		Refused: func(_ string, link bool) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.refused[link]++
		}, Log: slog.New(slog.NewTextHandler(h.log, nil))}
}

// turnedAway is how often somebody was: at links, and elsewhere.
func (h *house) turnedAway() (links, others int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refused[true], h.refused[false]
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func rules() *policy.Policy {
	developers, leads := policy.Who{Groups: []string{"developers"}}, policy.Who{Groups: []string{"leads"}}
	return &policy.Policy{Hash: "sha256:1", Text: "one",
		Targets: map[string]policy.Target{"orders": {Levels: map[string]policy.Level{
			"writer": {Roles: []string{"orders_writer"}}, "owner": {Roles: []string{"orders_owner"}, SetRole: true}}}},
		Rules: []policy.Rule{
			{Name: "write", Who: developers, Targets: []string{"orders"}, Levels: []string{"writer"}, Longest: time.Hour,
				Approvals: policy.Approvals{Count: 1, From: leads}},
			{Name: "own", Who: developers, Targets: []string{"orders"}, Levels: []string{"owner"}, Longest: time.Hour,
				Approvals: policy.Approvals{Count: 1, From: leads, MFA: &policy.MFA{ACR: []string{provider.ACR}, Within: time.Hour}}},
		}}
}

func (h *house) person(name string, groups ...string) auth.Identity {
	return auth.Identity{Issuer: h.issuer, Subject: name, Email: name + "@example.test", Name: nasty, Groups: groups}
}

// asks is alice's request for a level, and a link to it.
func (h *house) asks(level string) (policy.Request, string) {
	h.t.Helper()
	r, err := h.desk.Ask(h.t.Context(), h.person("alice", "developers"), policy.Ask{Target: "orders", Level: level, Duration: time.Minute, Reason: "fix 4711 " + nasty})
	h.must(err)
	link, err := h.links.Make(h.t.Context(), r, "n1", "chat")
	h.must(err)
	return r, link
}

func (h *house) status(id string) policy.Status {
	h.t.Helper()
	r, err := h.desk.Request(h.t.Context(), h.person("bob", "leads"), id)
	h.must(err)
	return r.Status
}

func (h *house) entries(typ string) (n int) {
	h.t.Helper()
	h.must(h.store.Entries(h.t.Context(), 0, func(line []byte) error {
		e, err := ledger.Decode(line)
		if e.Type == typ {
			n++
		}
		return err
	}))
	return n
}

// browser has cookies and no scripts; it follows no redirect by itself.
type browser struct {
	*house
	client *http.Client
	name   string // who sits before it
}

type page struct {
	status   int
	body     string
	location string
	header   http.Header
}

func (h *house) browser(name string) *browser {
	jar, err := cookiejar.New(nil)
	h.must(err)
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &browser{house: h, client: c, name: name}
}

func (b *browser) do(r *http.Request) page {
	b.t.Helper()
	res, err := b.client.Do(r)
	b.must(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	b.must(err)
	return page{res.StatusCode, string(body), res.Header.Get("Location"), res.Header}
}

// at gives an address of the pages.
func (b *browser) at(to string) string {
	if strings.HasPrefix(to, "/") {
		return b.url + to
	}
	return to
}

func (b *browser) get(to string) page {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.at(to), nil)
	b.must(err)
	return b.do(r)
}

func (b *browser) post(to string, form url.Values, headers ...string) page {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.at(to), strings.NewReader(form.Encode()))
	b.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return b.do(r)
}

// back logs in at the provider, which the page sent the browser to, and gives the address it comes back to.
func (b *browser) back(authURL string) string {
	b.t.Helper()
	q, err := provider.LoginAs(b.t.Context(), authURL, b.key, b.name)
	b.must(err)
	return web.CallbackPath + "?" + q.Encode()
}

// follow goes where pages lead, with logins on the way, until there is something to read.
func (b *browser) follow(to string) page {
	b.t.Helper()
	for range 6 {
		p := b.get(to)
		switch {
		case strings.HasPrefix(p.location, b.issuer):
			to = b.back(p.location)
		case p.location != "":
			if !strings.HasPrefix(p.location, "/web/") {
				b.t.Fatalf("%s leads to %s", to, p.location)
			}
			to = p.location
		case strings.Contains(p.body, `href="/web/login?`):
			to = strings.ReplaceAll(regexp.MustCompile(`href="(/web/login\?[^"]*)"`).FindStringSubmatch(p.body)[1], "&amp;", "&")
		default:
			return p
		}
	}
	b.t.Fatal("the pages lead in a circle")
	return page{}
}

var formField = regexp.MustCompile(`name="form" value="([^"]+)"`)

func (p page) form(t *testing.T) string {
	t.Helper()
	m := formField.FindStringSubmatch(p.body)
	if m == nil {
		t.Fatalf("no form:\n%s", p.body)
	}
	return m[1]
}

func (p page) says(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(p.body, w) {
			t.Errorf("status %d, does not say %q:\n%s", p.status, w, p.body)
		}
	}
}

// The story: a link, a login, the page with all that one needs to know, a decision.
func TestDecision(t *testing.T) {
	h := newHouse(t)
	r, link := h.asks("writer")
	bob := h.browser("bob")
	// Mail scanners and previews open links: nothing comes of it, and nothing is told.
	for range 3 {
		p := h.browser("").get(link)
		if p.status != http.StatusOK || strings.Contains(p.body, "4711") || strings.Contains(p.body, "alice") || strings.Contains(p.body, "orders") {
			t.Fatalf("before the login:\n%s", p.body)
		}
	}
	p := bob.follow(link)
	p.says(t, "alice@example.test", "asks for", "writer", "orders", "fix 4711", "orders_writer", "10 connections", "<dt>Rule</dt><dd class=\"text\">write</dd>",
		"sha256:1", r.ID, "no grant in the 90 days before", "Nobody has said anything yet", "the provider asserts none", "class "+provider.Weak, `<button name="decision" value="approve"`, `for="comment"`)
	p = bob.post("/web/requests/"+r.ID, url.Values{"form": {p.form(t)}, "decision": {"approve"}, "comment": {"as agreed\r\nin the call"}})
	p.says(t, "You have approved this request.", "bob@example.test approved", "as agreed\nin the call", "There is nothing left to decide")
	if h.status(r.ID) != policy.Approved {
		t.Errorf("the request is %s", h.status(r.ID))
	}
	if n := h.entries(ledger.TypeLinkUsed); n != 1 {
		t.Errorf("the ledger knows of %d used links", n)
	}
	if links, others := h.turnedAway(); links+others != 0 {
		t.Errorf("%d and %d were turned away", links, others)
	}
	bob.post("/web/logout", url.Values{"form": {p.form(t)}}).says(t, "You are logged out")
	if p := bob.get("/web/requests/" + r.ID); strings.Contains(p.body, "4711") {
		t.Error("logged out, and it is still shown")
	}
}

// A denial, and the list of what waits, without any link.
func TestDenial(t *testing.T) {
	h := newHouse(t)
	r, _ := h.asks("writer")
	bob := h.browser("bob")
	bob.follow("/web/").says(t, `href="/web/requests/`+r.ID+`"`)
	p := bob.get("/web/requests/" + r.ID)
	p = bob.post("/web/requests/"+r.ID, url.Values{"form": {p.form(t)}, "decision": {"deny"}})
	p.says(t, "You have denied this request.")
	if h.status(r.ID) != policy.Denied {
		t.Errorf("the request is %s", h.status(r.ID))
	}
	bob.get("/web/").says(t, "Nothing waits for you now.")
	// Alice sees what became of it, and nothing to decide.
	p = h.browser("alice").follow("/web/requests/" + r.ID)
	p.says(t, "This request is denied", "This is your own request")
	if strings.Contains(p.body, `name="decision"`) {
		t.Error("the requester has a form")
	}
}

// A link is good for one person who may decide, once, while the request is open. Whoever else comes is told the
// same as somebody who made it up, and is counted.
func TestLinksThatAreNotGood(t *testing.T) {
	h := newHouse(t)
	r, link := h.asks("writer")
	first := h.browser("bob").get("/web/links/made-up-made-up-made-up-made-up")
	for n, c := range []struct {
		name, who string
	}{{"somebody who may not decide", "dana"}, {"the requester", "alice"}} {
		p := h.browser(c.who).follow(link)
		if p.status != http.StatusNotFound || p.body != first.body {
			t.Errorf("%s: %d\n%s", c.name, p.status, p.body)
		}
		if links, _ := h.turnedAway(); links != n+2 {
			t.Errorf("%s: %d links were counted", c.name, links)
		}
	}
	bob, slow := h.browser("bob"), h.browser("bob")
	back := slow.back(slow.get("/web/login?link=" + link[strings.LastIndex(link, "/")+1:]).location)
	bob.follow(link).says(t, "4711") // nobody has spent it meanwhile
	for name, p := range map[string]page{"a login that began before it was used": slow.get(back), "again": bob.get(link), "in another browser": h.browser("bob").get(link), "malformed": bob.get("/web/links/x%0d%0aSet-Cookie:%20a=b")} {
		if p.status != http.StatusNotFound || p.body != first.body || strings.Contains(p.header.Get("Set-Cookie"), "a=b") {
			t.Errorf("%s: %d\n%s", name, p.status, p.body)
		}
	}
	if links, _ := h.turnedAway(); links != 7 {
		t.Errorf("%d links were counted", links)
	}
	// One whose request was decided meanwhile, by whatever way.
	r2, link := h.asks("writer")
	_, err := h.desk.Decide(t.Context(), h.person("bob", "leads"), r2.ID, true, "")
	h.must(err)
	if p := h.browser("bob").get(link); p.status != http.StatusNotFound || p.body != first.body {
		t.Errorf("decided: %d", p.status)
	}
	// One that is over.
	h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutLink(store.Link{Hash: auth.HashToken("a-token-that-is-over-a-token"), Request: r.ID, Expires: tx.Now()})
	}))
	if p := h.browser("bob").get("/web/links/a-token-that-is-over-a-token"); p.status != http.StatusNotFound || p.body != first.body {
		t.Errorf("over: %d", p.status)
	}
	if n := h.entries(ledger.TypeLinkUsed); n != 1 {
		t.Errorf("the ledger knows of %d used links", n)
	}
}

// A decision that takes a stronger login: the page sends for it first, and shows nothing to decide with before.
func TestDecisionTakesAStrongerLogin(t *testing.T) {
	h := newHouse(t)
	r, link := h.asks("owner")
	bob := h.browser("bob")
	p := bob.get(link)
	p = bob.get(regexp.MustCompile(`/web/login\?[^"]*`).FindString(strings.ReplaceAll(p.body, "&amp;", "&")))
	p = bob.get(bob.back(p.location)) // weak, and enough to see who it is
	weak := bob.cookies()
	p = bob.get(p.location)
	if !strings.HasPrefix(p.location, h.issuer) || !strings.Contains(p.location, "acr_values="+url.QueryEscape(provider.ACR)) ||
		!strings.Contains(p.location, "max_age=") || strings.Contains(p.body, "4711") {
		t.Fatalf("not sent for a stronger login: %d %s\n%s", p.status, p.location, p.body)
	}
	// A provider that does less than it was asked for.
	u, err := url.Parse(p.location)
	h.must(err)
	q := u.Query()
	q.Del("acr_values")
	u.RawQuery = q.Encode()
	p = bob.get(bob.back(u.String()))
	p.says(t, "The login did not succeed", "as strongly, or as lately")
	if p := bob.get("/web/requests/" + r.ID); p.status != http.StatusSeeOther {
		t.Fatalf("a weak login came through: %d", p.status)
	}
	p = bob.follow("/web/requests/" + r.ID)
	p.says(t, "may take these roles on itself", "class "+provider.ACR+", by pwd, otp")
	// The weak session has ended: the strong one took its place.
	old := h.browser("bob")
	old.client.Jar.SetCookies(must(url.Parse(h.url)), weak)
	if p := old.get("/web/requests/" + r.ID); strings.Contains(p.body, "4711") || p.location != "" {
		t.Error("the session before the step-up is still good")
	}
	p = bob.post("/web/requests/"+r.ID, url.Values{"form": {p.form(t)}, "decision": {"approve"}})
	p.says(t, "You have approved")
	one, err := h.desk.Request(t.Context(), h.person("bob", "leads"), r.ID)
	h.must(err)
	if d := one.Decisions[0].Identity; d.ACR != provider.ACR || len(d.AMR) != 2 || d.AuthTime.IsZero() {
		t.Errorf("the decision's evidence: %+v", d)
	}
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func (b *browser) cookies() []*http.Cookie {
	return b.client.Jar.Cookies(must(url.Parse(b.url)))
}

// Another person's login can't take the place of the session that it was asked for.
func TestStepUpOfAnother(t *testing.T) {
	h := newHouse(t)
	r, _ := h.asks("owner")
	bob := h.browser("bob")
	p := bob.get(bob.back(bob.get("/web/login?request=" + r.ID).location))
	p = bob.get(p.location)
	bob.name = "sam"
	bob.get(bob.back(p.location)).says(t, "The login did not succeed", "You logged in as sam@example.test")
	if _, others := h.turnedAway(); others != 1 {
		t.Errorf("%d were counted", others)
	}
}

// Only this server's own form, in this browser's own session, decides anything.
func TestForgedForms(t *testing.T) {
	h := newHouse(t)
	r, _ := h.asks("writer")
	bob, other := h.browser("bob"), h.browser("bob")
	own := bob.follow("/web/requests/" + r.ID).form(t)
	foreign := other.follow("/web/requests/" + r.ID).form(t)
	at := "/web/requests/" + r.ID
	yes := func(form string) url.Values { return url.Values{"form": {form}, "decision": {"approve"}} }
	for name, try := range map[string]func() page{
		"no token":                func() page { return bob.post(at, yes("")) },
		"a made-up token":         func() page { return bob.post(at, yes("AAAA")) },
		"another session's token": func() page { return bob.post(at, yes(foreign)) },
		"from another site":       func() page { return bob.post(at, yes(own), "Sec-Fetch-Site", "cross-site") },
		"from a sister site":      func() page { return bob.post(at, yes(own), "Sec-Fetch-Site", "same-site") },
		"an old browser, another origin": func() page {
			return bob.post(at, yes(own), "Sec-Fetch-Site", "", "Origin", "https://evil.example")
		},
		"no session": func() page { return h.browser("").post(at, yes(own)) },
		"as a query": func() page { return bob.post(at+"?"+yes(own).Encode(), nil) },
		"by GET":     func() page { return bob.get(at + "?" + yes(own).Encode()) },
		"no choice":  func() page { return bob.post(at, url.Values{"form": {own}}) },
		"an endless form": func() page {
			return bob.post(at, url.Values{"form": {own}, "decision": {"approve"}, "comment": {strings.Repeat("x", 1<<20)}})
		},
		"a logout by force": func() page { return bob.post("/web/logout", url.Values{"form": {foreign}}) },
		"a comment with control characters": func() page {
			return bob.post(at, url.Values{"form": {own}, "decision": {"approve"}, "comment": {"a\x1b[2Jb\u202e"}})
		},
	} {
		p := try()
		if strings.Contains(p.body, "You have approved") || h.status(r.ID) != policy.Open {
			t.Fatalf("%s: decided", name)
		}
		if p.status == http.StatusInternalServerError {
			t.Errorf("%s: %d\n%s", name, p.status, p.body)
		}
	}
	bob.post(at, yes(own)).says(t, "You have approved") // the session lived through all of it
}

// Nobody is logged out by a page of another site: the cookie does not come along from there, and is not taken away.
func TestLogoutFromElsewhere(t *testing.T) {
	h := newHouse(t)
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"}} {
		p := h.browser("").post("/web/logout", url.Values{}, headers...)
		if p.status != http.StatusForbidden || p.header.Get("Set-Cookie") != "" {
			t.Errorf("%v: %d, %q", headers, p.status, p.header.Get("Set-Cookie"))
		}
	}
}

// What people write is text on the page, and never a header.
func TestInjection(t *testing.T) {
	h := newHouse(t)
	r, _ := h.asks("writer")
	bob := h.browser("bob")
	p := bob.follow("/web/requests/" + r.ID)
	p = bob.post("/web/requests/"+r.ID, url.Values{"form": {p.form(t)}, "decision": {"deny"}, "comment": {nasty}})
	for _, bad := range []string{"<script", "<img", "onerror=alert(2)>", `"'` + "`"} {
		if strings.Contains(p.body, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	p.says(t, "&lt;script&gt;alert(1)&lt;/script&gt;", "{{.Form}}")
	csp := p.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'", "style-src 'self'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("the policy lacks %q: %s", want, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || strings.Contains(p.body, "style=") || strings.Contains(p.body, "<style") {
		t.Errorf("the policy is not strict: %s", csp)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY"} {
		if p.header.Get(name) != want {
			t.Errorf("%s: %q", name, p.header.Get(name))
		}
	}
}

// Nobody is sent anywhere but to the provider and to these pages, whatever the address says.
func TestOpenRedirects(t *testing.T) {
	h := newHouse(t)
	for _, evil := range []string{"//evil.example", "https://evil.example", "/\\evil.example", "r1/../../..//evil.example", "r1%0d%0aLocation:https://evil.example", "javascript:alert(1)", "../../evil"} {
		bob := h.browser("bob")
		q := url.Values{"request": {evil}, "link": {evil}, "return": {evil}, "next": {evil}, "redirect_uri": {evil}}
		p := bob.get("/web/login?" + q.Encode())
		if !strings.HasPrefix(p.location, h.issuer+"/") || strings.Contains(p.location, "evil") {
			t.Fatalf("%s: %s", evil, p.location)
		}
		if p = bob.get(bob.back(p.location)); p.location != "/web/" {
			t.Errorf("%s: leads to %s", evil, p.location)
		}
	}
}

// A login is ended by the browser that began it, once.
func TestLoginsOfOthers(t *testing.T) {
	h := newHouse(t)
	bob, eve := h.browser("bob"), h.browser("sam")
	back := bob.back(bob.get("/web/login").location)
	// Eve has bob's answer, and no login of her own; then one of her own.
	eve.get(back).says(t, "This login was not begun here")
	eve.get("/web/login")
	eve.get(back).says(t, "The login did not succeed")
	if len(eve.cookies()) != 0 {
		t.Errorf("eve has %v", eve.cookies())
	}
	// Bob is sent to eve's answer: he is not made to be eve.
	bob.get("/web/login")
	bob.get(eve.back(eve.get("/web/login").location)).says(t, "The login did not succeed")
	p := bob.get("/web/login")
	back = bob.back(p.location)
	if p = bob.get(back); p.location != "/web/" {
		t.Fatalf("bob himself: %d %s", p.status, p.body)
	}
	bob.get(back).says(t, "This login was not begun here") // replayed
	if _, others := h.turnedAway(); others != 4 {
		t.Errorf("%d were counted", others)
	}
	if got := bob.get(web.CallbackPath + "?error=access_denied&error_description=" + url.QueryEscape(nasty)); strings.Contains(got.body, "<script") {
		t.Error("the provider's words are taken for more than text")
	}
}

// Where the address is https, cookies are bound to this host and to TLS.
func TestCookies(t *testing.T) {
	h := newHouse(t)
	c := h.config()
	c.URL = "https://curfew.example.com"
	pages, err := web.New(c)
	h.must(err)
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/web/login", nil))
	set := w.Header().Get("Set-Cookie")
	for _, want := range []string{"__Host-curfew-login=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(set, want) {
			t.Errorf("the cookie lacks %q: %s", want, set)
		}
	}
	if strings.Contains(set, "Domain=") || w.Header().Get("Strict-Transport-Security") == "" {
		t.Errorf("%s, %v", set, w.Header())
	}
}

// Each field has a label, each page a title, a language and one heading; nothing needs a script or a mouse.
func TestAccessible(t *testing.T) {
	h := newHouse(t)
	r, _ := h.asks("writer")
	bob := h.browser("bob")
	pages := map[string]page{"door": bob.get("/web/"), "request": bob.follow("/web/requests/" + r.ID), "list": bob.get("/web/"), "nothing": bob.get("/web/nothing")}
	field := regexp.MustCompile(`<(?:input|textarea|select)[^>]*>`)
	for name, p := range pages {
		for what, n := range map[string]int{"<h1>": 1, `<html lang="en">`: 1, "<title>": 1, `<main id="main">`: 1, `href="#main"`: 1} {
			if strings.Count(p.body, what) != n {
				t.Errorf("%s: %d of %s", name, strings.Count(p.body, what), what)
			}
		}
		if regexp.MustCompile(`(?i)<script|<[^>]*\son[a-z]+=|tabindex="[1-9]|javascript:`).MatchString(p.body) {
			t.Errorf("%s needs a script or changes the order of keys", name)
		}
		for _, f := range field.FindAllString(p.body, -1) {
			id := regexp.MustCompile(` id="([^"]+)"`).FindStringSubmatch(f)
			if strings.Contains(f, `type="hidden"`) {
				continue
			}
			if id == nil || !strings.Contains(p.body, `<label for="`+id[1]+`"`) {
				t.Errorf("%s: %s has no label", name, f)
			}
		}
		for _, label := range regexp.MustCompile(`aria-labelledby="([^"]+)"`).FindAllStringSubmatch(p.body, -1) {
			if !strings.Contains(p.body, `id="`+label[1]+`"`) {
				t.Errorf("%s: nothing is called %s", name, label[1])
			}
		}
	}
}

// A store that can't be used changes nothing and is no internal error.
func TestUnavailable(t *testing.T) {
	h := newHouse(t)
	r, link := h.asks("writer")
	bob := h.browser("bob")
	form := bob.follow("/web/requests/" + r.ID).form(t)
	h.must(h.store.Close())
	for _, p := range []page{bob.get(link), bob.post("/web/requests/"+r.ID, url.Values{"form": {form}, "decision": {"approve"}})} {
		if p.status != http.StatusServiceUnavailable {
			t.Errorf("%d\n%s", p.status, p.body)
		}
	}
}
