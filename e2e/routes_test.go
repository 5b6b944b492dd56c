package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/control/api"
)

// called is what a call by hand was answered.
type called struct {
	status int
	header http.Header
	body   []byte
}

// call makes one with a token, which may be none, and headers of the caller's own.
func (s *town) call(t *testing.T, token, method, path, body string, headers ...string) called {
	t.Helper()
	r := must(http.NewRequestWithContext(t.Context(), method, "http://"+s.curfew.API+path, strings.NewReader(body)))(t)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res := must(http.DefaultClient.Do(r))(t)
	defer res.Body.Close()
	return called{res.StatusCode, res.Header, must(io.ReadAll(res.Body))(t)}
}

// sits gives each of these people a login of their own over the API.
func (s *town) sits(t *testing.T, names ...string) map[string]*api.Client {
	t.Helper()
	ids := must(s.curfew.Identities())(t)
	all := map[string]*api.Client{}
	for _, name := range names {
		all[name] = must(s.curfew.Sit(t.Context(), ids, name, shows))(t)
	}
	return all
}

// door is a route: what is sent there, and how it answers those who may not. R, G, S, L and V stand for a request, the grant of another, its
// sealed session, its live one, and the review of the sealed one: all of them alice's.
type door struct {
	path, body string
	no         map[string]int
}

// doors has every route that there is, by its name in the OpenAPI document.
func doors() map[string]door {
	strangers := func(others ...any) map[string]int {
		no := map[string]int{"dana": 404}
		for i := 0; i < len(others); i += 2 {
			no[others[i].(string)] = others[i+1].(int)
		}
		return no
	}
	grants := func(others ...any) map[string]int { return strangers(append(others, "bob", 404)...) } // nobody decided on it
	return map[string]door{
		"login-start": {}, "login-finish": {}, "logout-backchannel": {},
		"logout": {path: "/v1/logout"}, "whoami": {path: "/v1/whoami"}, "targets": {path: "/v1/targets"}, "ask": {path: "/v1/requests", body: "{}"},
		"explain":  {path: "/v1/explain", body: `{"as": "alice@example.test", "target": "orders", "level": "owner", "duration": "1m"}`, no: map[string]int{"dana": 403, "bob": 403}},
		"requests": {path: "/v1/requests"}, "grants": {path: "/v1/grants"}, "sessions": {path: "/v1/sessions"}, "reviews": {path: "/v1/reviews"},
		"request":    {path: "/v1/requests/R", no: strangers()},
		"approve":    {path: "/v1/requests/R/approve", body: "{}", no: strangers("alice", 403)},
		"deny":       {path: "/v1/requests/R/deny", body: "{}", no: strangers("alice", 403)},
		"cancel":     {path: "/v1/requests/R/cancel", no: strangers("bob", 403, "sam", 403)},
		"comment":    {path: "/v1/requests/R/comments", body: `{"text": "x"}`, no: strangers()},
		"extend":     {path: "/v1/grants/G/extend", body: `{"duration": "1m"}`, no: grants("sam", 403)},
		"grant":      {path: "/v1/grants/G", no: grants()},
		"report":     {path: "/v1/grants/G/report", no: grants()},
		"password":   {path: "/v1/grants/G/password", no: grants("sam", 403)},
		"release":    {path: "/v1/grants/G/release", no: grants("sam", 403)},
		"revoke":     {path: "/v1/grants/G/revoke", body: "{}", no: grants()},
		"session":    {path: "/v1/sessions/S", no: grants()},
		"kill":       {path: "/v1/sessions/L/kill", body: "{}", no: grants()},
		"recording":  {path: "/v1/sessions/S/recording", no: grants("alice", 403)},
		"review":     {path: "/v1/reviews/V", body: `{"ok": true}`, no: grants("alice", 403)},
		"export":     {path: "/v1/export?session=S", no: grants("alice", 403)},
		"checkpoint": {path: "/v1/checkpoint"}, "key": {path: "/v1/key"},
	}
}

// Every route lets in those whom it is for and nobody else, in words that tell nobody whether there is what they may not see; lists
// hold what one may see. Whoever adds a route says here for whom it is.
func TestEveryRoute(t *testing.T) { everywhere(t, everyRoute) }

func everyRoute(t *testing.T, s *town) {
	who := s.sits(t, "alice", "bob", "sam", "dana")
	alice := who["alice"]
	r := must(asks(t, alice, api.Ask{Target: s.target, Level: "owner", Reason: "a story"}))(t)
	counted := must(asks(t, alice, api.Ask{Target: s.target, Level: "counted", Reason: "a story"}))(t)
	g := must(alice.Grant(t.Context(), counted.Grant))(t)
	creds := s.trusting(t, must(alice.Password(t.Context(), g.ID))(t))
	done := s.enter(t, creds)
	exec1(t, done, "SELECT 1")
	sealed := s.newestSessionOf(t, g.ID)
	if err := done.close(); err != nil {
		t.Fatal(err)
	}
	s.sealedAs(t, sealed.ID, "client")
	exec1(t, s.enter(t, creds), "SELECT 1")
	live := s.newestSessionOf(t, g.ID)
	ids := strings.NewReplacer("/R", "/"+r.ID, "/G", "/"+g.ID, "/S", "/"+sealed.ID, "/L", "/"+live.ID, "/V", "/"+sealed.ID, "=S", "="+sealed.ID)

	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	if err := json.Unmarshal(s.call(t, "", "GET", "/openapi.json", "").body, &doc); err != nil {
		t.Fatal(err)
	}
	all, seen := doors(), 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			d, known := all[op.OperationID]
			if !known {
				t.Errorf("%s %s (%s): for whom is it?", method, path, op.OperationID)
				continue
			}
			if seen++; d.path == "" {
				continue // whoever comes there has no login yet
			}
			at, method := ids.Replace(d.path), strings.ToUpper(method)
			for _, token := range []string{"", "curfew_guessed", who["alice"].Token[:len(who["alice"].Token)-1]} {
				if c := s.call(t, token, method, at, d.body); c.status != http.StatusUnauthorized || !bytes.Contains(c.body, []byte(`"unauthenticated"`)) {
					t.Errorf("%s without a login: %d %s", op.OperationID, c.status, c.body)
				}
			}
			for name, status := range d.no {
				c := s.call(t, who[name].Token, method, at, d.body)
				if c.status != status {
					t.Errorf("%s by %s: %d %s", op.OperationID, name, c.status, c.body)
				}
				// What one may not see is answered as what there is not.
				if status != http.StatusNotFound {
					continue
				}
				none := strings.NewReplacer("/R", "/r000000000", "/G", "/g000000000", "/S", "/s0000000000", "/L", "/s0000000000", "/V", "/s0000000000", "=S", "=s0000000000")
				other := s.call(t, who[name].Token, method, none.Replace(d.path), d.body)
				same := func(b []byte) string {
					return strings.NewReplacer(r.ID, "ID", g.ID, "ID", sealed.ID, "ID", live.ID, "ID", "r000000000", "ID", "g000000000", "ID", "s0000000000", "ID").Replace(string(b))
				}
				if same(c.body) != same(other.body) || other.status != c.status {
					t.Errorf("%s by %s: %s, and of what there is not: %s", op.OperationID, name, c.body, other.body)
				}
			}
		}
	}
	if seen != len(all) {
		t.Errorf("%d of %d routes are there", seen, len(all))
	}
	for _, list := range []string{"requests", "grants", "sessions", "reviews"} {
		theirs := s.call(t, who["dana"].Token, "GET", "/v1/"+list+"?limit=1000", "").body
		for _, id := range []string{r.ID, g.ID, sealed.ID, live.ID} {
			if bytes.Contains(theirs, []byte(`"`+id+`"`)) {
				t.Errorf("dana sees %s in her list of %s", id, list)
			}
		}
		c := s.call(t, who["dana"].Token, "GET", "/v1/"+list+"?after="+map[string]string{"requests": r.ID, "grants": g.ID, "sessions": sealed.ID, "reviews": sealed.ID}[list], "")
		if c.status != http.StatusNotFound {
			t.Errorf("dana goes on behind what she can't see, in %s: %d %s", list, c.status, c.body)
		}
	}
	if got := must(alice.Request(t.Context(), r.ID, 0))(t); got.Status != "open" || len(got.Comments)+len(got.Decisions) > 0 {
		t.Errorf("somebody had their way: %+v", got)
	}
	if got := must(alice.Grant(t.Context(), g.ID))(t); got.Status != api.GrantActive || len(got.Extensions) > 0 {
		t.Errorf("somebody had their way: %+v", got)
	}
	must(alice.Cancel(t.Context(), r.ID))(t)
	must(alice.Release(t.Context(), g.ID))(t)
}

// A call with a key of the caller's own acts once, however often it is sent, and is nobody else's; lists are read page by page.
func TestKeysAndPages(t *testing.T) {
	t.Parallel()
	s := shared
	who := s.sits(t, "alice", "dana", "bob")
	ask := `{"target": "orders", "level": "writer", "duration": "5m", "reason": "pages"}`
	key := word(t)
	id := func(c called) (r struct{ ID string }) {
		t.Helper()
		if err := json.Unmarshal(c.body, &r); err != nil || c.status != http.StatusCreated || r.ID == "" {
			t.Fatalf("%d %s", c.status, c.body)
		}
		return r
	}
	// Eight at one instant, and once more: one request.
	var mu sync.Mutex
	var first []called
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			c := s.call(t, who["alice"].Token, "POST", "/v1/requests", ask, "Idempotency-Key", key)
			mu.Lock()
			defer mu.Unlock()
			first = append(first, c)
		})
	}
	group.Wait()
	first = append(first, s.call(t, who["alice"].Token, "POST", "/v1/requests", ask, "Idempotency-Key", key))
	if first[8].header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("answered anew: %v", first[8].header)
	}
	made := id(first[8]).ID
	for _, c := range first {
		if c.status != http.StatusConflict && id(c).ID != made {
			t.Errorf("%s", c.body)
		}
	}
	if c := s.call(t, who["alice"].Token, "POST", "/v1/requests", strings.Replace(ask, "5m", "6m", 1), "Idempotency-Key", key); c.status != http.StatusConflict {
		t.Errorf("the same key for another ask: %d %s", c.status, c.body)
	}
	danas := s.call(t, who["dana"].Token, "POST", "/v1/requests", ask, "Idempotency-Key", key)
	if danas.header.Get("Idempotency-Replayed") != "" || id(danas).ID == made {
		t.Errorf("alice's answer is dana's: %s", danas.body)
	}
	if c := s.call(t, "", "POST", "/v1/requests", ask, "Idempotency-Key", key); c.status != http.StatusUnauthorized {
		t.Errorf("without a login: %d %s", c.status, c.body)
	}
	// An approval that is sent twice is one; what was refused is not kept.
	at := "/v1/requests/" + made + "/approve"
	if c := s.call(t, who["alice"].Token, "POST", at, "{}", "Idempotency-Key", key+"a"); c.status != http.StatusForbidden {
		t.Errorf("%d %s", c.status, c.body)
	}
	one := s.call(t, who["bob"].Token, "POST", at, "{}", "Idempotency-Key", key+"a")
	two := s.call(t, who["bob"].Token, "POST", at, "{}", "Idempotency-Key", key+"a")
	if one.status != http.StatusOK || two.status != http.StatusOK || !bytes.Equal(one.body, two.body) {
		t.Errorf("%d %s, then %d %s", one.status, one.body, two.status, two.body)
	}
	if r := must(who["alice"].Request(t.Context(), made, 0))(t); len(r.Decisions) != 1 {
		t.Errorf("%+v", r)
	}
	if c := s.call(t, who["alice"].Token, "POST", "/v1/grants/"+must(who["alice"].Request(t.Context(), made, 0))(t).Grant+"/password", "", "Idempotency-Key", key+"b"); c.status != http.StatusUnprocessableEntity {
		t.Errorf("a password twice: %d %s", c.status, c.body)
	}

	mine := []string{made}
	for range 3 {
		mine = append(mine, id(s.call(t, who["alice"].Token, "POST", "/v1/requests", ask)).ID)
	}
	var read []string
	for next := "/v1/requests?mine=true&limit=1"; next != "" && len(read) < 10_000; {
		c := s.call(t, who["alice"].Token, "GET", next, "")
		var page []struct{ ID string }
		if err := json.Unmarshal(c.body, &page); err != nil || c.status != http.StatusOK {
			t.Fatalf("%s: %d %s", next, c.status, c.body)
		}
		for _, r := range page {
			read = append(read, r.ID)
		}
		if next = ""; c.header.Get("Link") != "" {
			link, _, _ := strings.Cut(strings.TrimPrefix(c.header.Get("Link"), "<"), ">")
			next = must(url.Parse(link))(t).RequestURI()
		}
		if len(page) > 1 {
			t.Fatalf("a page of one has %d", len(page))
		}
	}
	slices.Reverse(read) // the newest come first
	at0 := slices.Index(read, mine[0])
	for i, id := range mine {
		if at := slices.Index(read, id); at < at0 || slices.Index(read[at+1:], id) >= 0 {
			t.Errorf("%d of mine, %s, is read at %d", i, id, at)
		}
	}
	for _, bad := range []string{"limit=0", "limit=1001", "limit=x", "after=" + id(danas).ID + "x", "afer=r1", "status=any"} {
		if c := s.call(t, who["alice"].Token, "GET", "/v1/requests?"+bad, ""); c.status != http.StatusUnprocessableEntity && c.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", bad, c.status, c.body)
		}
	}
	for _, r := range append(mine[1:], "") {
		if r != "" {
			must(who["alice"].Cancel(t.Context(), r))(t)
		}
	}
	must(who["dana"].Cancel(t.Context(), id(danas).ID))(t)
}

// A login ends when its person says so: its token is good for nothing more, anywhere, and a login's code is good once.
func TestAfterTheLogout(t *testing.T) {
	t.Parallel()
	s := shared
	ids := must(s.curfew.Identities())(t)
	c := must(s.curfew.Sit(t.Context(), ids, "dana"))(t)
	token := c.Token
	waits := make(chan error, 1)
	r := must(asks(t, c, api.Ask{Target: "orders", Level: "writer", Reason: "a story"}))(t)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := c.Request(ctx, r.ID, time.Second)
		waits <- err
	}()
	if err := <-waits; err != nil {
		t.Error(err)
	}
	must(c.Cancel(t.Context(), r.ID))(t)
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/whoami", "/v1/grants", "/v1/requests"} {
		if got := s.call(t, token, "GET", path, ""); got.status != http.StatusUnauthorized {
			t.Errorf("%s after the logout: %d %s", path, got.status, got.body)
		}
	}
	if got := s.call(t, token, "POST", "/v1/requests", fmt.Sprintf(`{"target": %q, "level": "writer", "duration": "5m", "reason": "x"}`, s.target), "Idempotency-Key", word(t)); got.status != http.StatusUnauthorized {
		t.Errorf("an ask after the logout: %d %s", got.status, got.body)
	}
}
