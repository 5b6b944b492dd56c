package notify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "a secret of more than sixteen bytes"

// nasty is what somebody writes who hopes that a medium takes it for more than text.
const nasty = "fix 4711\r\nBcc: everybody@example.com\n\n<!channel> <https://evil.example|Approve> [Approve](https://evil.example) **now** <script>alert(1)</script> \u202e& www.evil.example"

func person(name string, groups ...string) auth.Identity {
	return auth.Identity{Issuer: "https://id.example.test", Subject: name, Email: name + "@example.test", Groups: groups}
}

// desk is a store with requests in it, and links.
type desk struct {
	t     *testing.T
	store *store.Store
	log   *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "ledger.key")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &desk{t, s, &syncBuffer{}}
}

func request(id string) policy.Request {
	return policy.Request{ID: id, Identity: person("alice", "developers"), Target: "orders", Level: "writer", Duration: 90 * time.Minute, Reason: nasty,
		Rule: "write", Policy: "sha256:1", Status: policy.Open, Created: time.Now(), Lapses: time.Now().Add(time.Hour),
		Terms: policy.Terms{Approvals: policy.Approvals{Count: 1, From: policy.Who{Groups: []string{"leads"}, Emails: nil}}}}
}

// happens writes what there is to tell.
func (d *desk) happens(kind string, ids ...string) {
	d.t.Helper()
	err := d.store.Update(d.t.Context(), func(tx *store.Tx) (err error) {
		for _, id := range ids {
			err = errors.Join(err, tx.PutRequest(request(id)), tx.Notify(store.Notice{Kind: kind, Request: id, By: "alice@example.test", Text: nasty}))
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// Make and Page play control.Links.
func (d *desk) Make(_ context.Context, r policy.Request, notice, recipient string) (string, error) {
	return "https://curfew.example.com/web/links/" + notice + "_" + strings.ReplaceAll(recipient, " ", "-") + "_" + r.ID, nil
}
func (d *desk) Page(id string) string { return "https://curfew.example.com/web/requests/" + id }

func (d *desk) notifier(destinations ...Destination) *Notifier {
	d.t.Helper()
	p := &policy.Policy{Targets: map[string]policy.Target{"orders": {}}}
	n, err := New(Options{Store: d.store, Links: d, Policy: func() *policy.Policy { return p }, Destinations: destinations,
		Log: slog.New(slog.NewTextHandler(d.log, nil))})
	if err != nil {
		d.t.Fatal(err)
	}
	n.pause = 5 * time.Millisecond
	return n
}

// run runs it until the func is called.
func (d *desk) run(n *Notifier) (stop func()) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	d.t.Cleanup(stop)
	// A destination that is new hears of what happens from then on.
	d.until("every destination has a place", func() bool {
		known := true
		_ = d.store.View(d.t.Context(), func(tx *store.Tx) error {
			for _, p := range n.posts {
				_, err := tx.Destination(p.Name)
				known = known && err == nil
			}
			return nil
		})
		return known
	})
	return stop
}

func (d *desk) until(what string, is func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			d.t.Fatalf("not within 20 s: %s\n%s", what, d.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// receiver is somebody's webhook, which checks what it gets as the documentation says.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	events []Event
	fails  int // so many of the next are refused
	hangs  chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		m := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(m, "%s.%s.%s", q.Header.Get("webhook-id"), q.Header.Get("webhook-timestamp"), body)
		if got := q.Header.Get("webhook-signature"); got != "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
			t.Errorf("signature %q", got)
		}
		var e Event
		if err := json.Unmarshal(body, &e); err != nil || e.ID != q.Header.Get("webhook-id") {
			t.Errorf("%s: %v", body, err)
		}
		r.mu.Lock()
		hangs := r.hangs
		r.mu.Unlock()
		if hangs != nil {
			select {
			case <-hangs:
			case <-q.Context().Done():
			}
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
		if r.fails > 0 {
			r.fails--
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Event(nil), r.events...)
}

func (r *receiver) requests() (all string) {
	for _, e := range r.got() {
		all += e.Data.Request + " "
	}
	return all
}

func (r *receiver) at(name, to string) Destination {
	return Destination{Name: name, Webhook: r.URL + "/hook/T0KEN", Secret: secret, To: to}
}

// What is refused is sent again, the same under the same id, and nothing overtakes it.
func TestRetriesKeepTheOrder(t *testing.T) {
	d, r := newDesk(t), newReceiver(t)
	r.fails = 3
	d.run(d.notifier(r.at("hook", ToApprovers)))
	d.happens(store.NoticeRequestCreated, "r1")
	d.happens(store.NoticeRequestEnded, "r1") // is not for approvers
	d.happens(store.NoticeRequestCreated, "r2", "r3")
	d.until("all have come", func() bool { return len(r.got()) == 6 })
	if got := r.requests(); got != "r1 r1 r1 r1 r2 r3 " {
		t.Errorf("they came as %s", got)
	}
	all := r.got()
	for _, e := range all[1:4] {
		if e.ID != all[0].ID || e.Data.Link != all[0].Data.Link || !strings.Contains(e.Data.Link, "/web/links/") {
			t.Errorf("sent again as %+v, first as %+v", e, all[0])
		}
	}
	e := all[0]
	if e.Type != store.NoticeRequestCreated || e.Data.Reason != nasty || e.Data.Person.Email != "alice@example.test" || e.Data.Duration != "1h30m" || e.Data.Rule != "write" {
		t.Errorf("%+v", e)
	}
	if strings.Contains(d.log.String(), "T0KEN") {
		t.Errorf("the address is in the log:\n%s", d.log)
	}
}

// What was not taken when the process ended is sent by the next, and what was is not.
func TestRestart(t *testing.T) {
	d, r := newDesk(t), newReceiver(t)
	stop := d.run(d.notifier(r.at("hook", ToChannel)))
	d.happens(store.NoticeRequestCreated, "r1")
	d.until("the first is noted", func() bool {
		var at store.Destination
		_ = d.store.View(t.Context(), func(tx *store.Tx) (err error) { at, err = tx.Destination("hook"); return err })
		return at.N == 1
	})
	r.mu.Lock()
	r.fails = 1 << 20
	r.mu.Unlock()
	d.happens(store.NoticeRequestCreated, "r2")
	d.until("it was refused", func() bool { return len(r.got()) > 2 })
	stop()
	d.happens(store.NoticeRequestCreated, "r3")
	var at store.Destination
	if err := d.store.View(t.Context(), func(tx *store.Tx) (err error) { at, err = tx.Destination("hook"); return err }); err != nil || at.Tries == 0 {
		t.Errorf("%+v, %v", at, err)
	}
	r.mu.Lock()
	r.fails, r.events = 0, nil
	r.mu.Unlock()
	d.run(d.notifier(r.at("hook", ToChannel)))
	d.until("the rest has come", func() bool { return len(r.got()) == 2 })
	if got := r.requests(); got != "r2 r3 " {
		t.Errorf("they came as %s", got)
	}
	if l := r.got()[0].Data.Link; l != d.Page("r2") {
		t.Errorf("a channel's link is for everybody: %s", l)
	}
}

// One that hangs and one that is not there hold up nobody; each shows by its numbers.
func TestADeadDestinationHoldsUpNobody(t *testing.T) {
	d, good, hung := newDesk(t), newReceiver(t), newReceiver(t)
	hung.hangs = make(chan struct{})
	gone := Destination{Name: "gone", Webhook: "http://127.0.0.1:1/hook/T0KEN", Secret: secret, To: ToChannel}
	n := d.notifier(hung.at("hung", ToChannel), gone, good.at("good", ToChannel))
	n.patience.attempt = 20 * time.Millisecond
	stop := d.run(n)
	d.happens(store.NoticeRequestCreated, "r1", "r2", "r3")
	d.until("the good one has all", func() bool { return len(good.got()) == 3 })
	d.until("the others have failed", func() bool {
		s := n.Stats()
		return s[0].Failed > 1 && s[1].Failed > 1 && !s[0].Oldest.IsZero() && s[1].Waiting == 3 && s[2].Sent == 3 && s[2].Waiting == 0
	})
	if strings.Contains(d.log.String(), "T0KEN") {
		t.Errorf("the address is in the log:\n%s", d.log)
	}
	close(hung.hangs)
	stop()
}

// What nobody takes is given up after its time, loudly; what comes behind it is sent.
func TestGivenUp(t *testing.T) {
	d, r := newDesk(t), newReceiver(t)
	n := d.notifier(r.at("hook", ToChannel))
	n.patience.notice = 0
	r.fails = 1
	d.run(n)
	d.happens(store.NoticeRequestCreated, "r1", "r2")
	d.until("the second has come", func() bool { return len(r.got()) == 2 })
	if s := n.Stats()[0]; s.Lost != 1 {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(d.log.String(), "ALERT a notification is given up") {
		t.Errorf("nobody was alarmed:\n%s", d.log)
	}
}

// Too many that waited for one destination are missed by it alone, and it says so.
func TestMissed(t *testing.T) {
	d, r := newDesk(t), newReceiver(t)
	d.happens(store.NoticeRequestCreated, "r1", "r2", "r3")
	err := d.store.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.PutDestination(store.Destination{Name: "hook"}), tx.ForgetNotices(2, time.Time{}))
	})
	if err != nil {
		t.Fatal(err)
	}
	n := d.notifier(r.at("hook", ToChannel))
	d.run(n)
	d.until("the last has come", func() bool { return r.requests() == "r3 " })
	if s := n.Stats()[0]; s.Lost != 2 {
		t.Errorf("%+v", s)
	}
}

// Each medium gets people's words as text.
func TestWords(t *testing.T) {
	d := newDesk(t)
	n := d.notifier()
	r := request("r1")
	r.Identity.Email = "<!here>@example.test"
	p := &post{Destination: Destination{Name: "x", To: ToApprovers}}
	m, err := n.write(t.Context(), p, subject{Notice: store.Notice{ID: "n1", Kind: store.NoticeRequestCreated, Request: "r1"}, Request: r}, "")
	if err != nil {
		t.Fatal(err)
	}
	slack, params := slackText(m)
	teams, card := teamsText(m)
	pager, event := pagerText(m)
	for medium, text := range map[string]string{"slack": slack + params["title"], "teams": teams + card["title"], "pager": pager} {
		if !strings.Contains(text, "4711") || !strings.Contains(text, "writer") {
			t.Errorf("%s lacks something:\n%s", medium, text)
		}
		for _, bad := range []string{"https://evil", "\nBcc", "\r", "\u202e", "www.evil"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s holds %q:\n%s", medium, bad, text)
			}
		}
	}
	for _, bad := range []string{"<!channel>", "<!here>", "<https[", "<script"} {
		if strings.Contains(slack+params["title"], bad) {
			t.Errorf("slack holds %q", bad)
		}
	}
	for _, bad := range []string{"<script", "[Approve]", "**now**", "<!"} {
		if strings.Contains(teams+card["title"], bad) {
			t.Errorf("teams holds %q:\n%s", bad, teams)
		}
	}
	link := "https://curfew.example.com/web/links/n1_x-_r1"
	if strings.Count(slack, "https://") != 1 || !strings.Contains(slack, "<"+link+"|Log in and decide>") ||
		!strings.Contains(teams, "[Log in and decide]("+link+")") || event["contexts"] != "link:"+link || event["dedup_key"] != "n1" {
		t.Errorf("links:\n%s\n%s\n%v", slack, teams, event)
	}
	if long := words(strings.Repeat("ä", 2000)); len([]rune(long)) > longestWords+2 {
		t.Errorf("%d runes", len([]rune(long)))
	}
}

// post office: an SMTP server that keeps what it is given.
type office struct {
	net.Listener
	mu    sync.Mutex
	mails []string // "RCPT address\n" and the data
}

func newOffice(t *testing.T) *office {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &office{Listener: l}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { o.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); open.Wait() })
	return o
}

func (o *office) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	fmt.Fprint(c, "220 here\r\n")
	to := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch word := strings.ToUpper(strings.Fields(line + " x")[0]); word {
		case "RCPT":
			to = strings.TrimSpace(line)
			fmt.Fprint(c, "250 ok\r\n")
		case "DATA":
			fmt.Fprint(c, "354 go on\r\n")
			var mail strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				mail.WriteString(line)
			}
			o.mu.Lock()
			o.mails = append(o.mails, to+"\n"+mail.String())
			o.mu.Unlock()
			fmt.Fprint(c, "250 ok\r\n")
		case "QUIT":
			fmt.Fprint(c, "221 bye\r\n")
			return
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

func (o *office) got() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.mails...)
}

// Mails go to the requester, or each to one of those who may decide, with a link of their own; what people have
// written makes no header, and an address that is more than one reaches nobody.
func TestMail(t *testing.T) {
	d, o := newDesk(t), newOffice(t)
	err := d.store.Update(t.Context(), func(tx *store.Tx) error {
		var err error
		for i, who := range []auth.Identity{person("bob", "leads"), person("dana", "developers"), person("carol", "leads"),
			{Issuer: "i", Subject: "eve", Email: "eve@example.test,everybody@example.test", Groups: []string{"leads"}},
			{Issuer: "i", Subject: "mallory", Email: "mallory@example.test\r\nBcc: all@example.test", Groups: []string{"leads"}}} {
			err = errors.Join(err, tx.PutLogin(store.Login{Hash: []byte{byte(i)}, Identity: who}))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	address := "smtp://" + o.Addr().String() + "/?from=curfew@example.test"
	d.run(d.notifier(Destination{Name: "leads", URL: address, To: ToApprovers}, Destination{Name: "askers", URL: address, To: ToRequester}))
	d.happens(store.NoticeRequestCreated, "r1")
	d.happens(store.NoticeRequestEnded, "r1")
	d.until("three mails", func() bool { return len(o.got()) == 3 })
	to := map[string]string{}
	for _, m := range o.got() {
		rcpt, mail, _ := strings.Cut(m, "\n")
		head, body, _ := strings.Cut(strings.ReplaceAll(mail, "\r\n", "\n"), "\n\n")
		to[rcpt] = body
		if strings.Contains(head, "4711") || strings.Contains(head, "Bcc") || strings.Count(head, "To: ") != 1 || !strings.Contains(head, "Subject: Curfew: request.") {
			t.Errorf("head:\n%s", head)
		}
		if !strings.Contains(body, "4711") || strings.Contains(body, "\nBcc") || strings.Contains(body, "https://evil") {
			t.Errorf("body:\n%s", body)
		}
	}
	bob, carol := to["RCPT TO:<bob@example.test>"], to["RCPT TO:<carol@example.test>"]
	if len(to) != 3 || !strings.Contains(bob, "leads-bob@example.test") || !strings.Contains(carol, "leads-carol@example.test") ||
		!strings.Contains(to["RCPT TO:<alice@example.test>"], d.Page("r1")) {
		t.Errorf("%q", to)
	}
}

// Nobody decides on a broken glass, so nobody's word on requests says who hears of it: whoever has to review it does,
// and so of every review that is due; never the person whose doing it is.
func TestMailOfABrokenGlass(t *testing.T) {
	for name, c := range map[string]struct {
		by   policy.Who
		want []string
	}{
		"the readers":         {policy.Who{}, []string{"audit@example.test", "sam@example.test"}},
		"whom the rule names": {policy.Who{Groups: []string{"owners"}, Emails: nil}, []string{"olga@example.test"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, o := newDesk(t), newOffice(t)
			r := request("r1")
			r.BreakGlass, r.Status, r.Approvals = true, policy.Approved, policy.Approvals{}
			r.Review = &policy.Review{Within: time.Hour, By: c.by}
			r.Identity.Groups = []string{"developers", "security", "owners"}
			err := d.store.Update(t.Context(), func(tx *store.Tx) (err error) {
				for i, who := range []auth.Identity{r.Identity, person("bob", "leads"), person("sam", "security"), person("olga", "owners")} {
					err = errors.Join(err, tx.PutLogin(store.Login{Hash: []byte{byte(i)}, Identity: who}))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			n := d.notifier(Destination{Name: "leads", URL: "smtp://" + o.Addr().String() + "/?from=curfew@example.test", To: ToApprovers})
			p := &policy.Policy{Targets: map[string]policy.Target{"orders": {}}, Readers: []policy.Reader{
				{Who: policy.Who{Groups: []string{"security"}}, Targets: []string{"*"}},
				{Who: policy.Who{Emails: []string{"audit@example.test", r.Identity.Email}}, Targets: []string{"orders"}},
				{Who: policy.Who{Emails: []string{"other@example.test"}}, Targets: []string{"shop"}}}}
			n.policy = func() *policy.Policy { return p }
			d.run(n)
			for _, kind := range []string{store.NoticeBreakGlass, store.NoticeReviewOverdue} {
				err := d.store.Update(t.Context(), func(tx *store.Tx) error {
					return errors.Join(tx.PutRequest(r), tx.Notify(store.Notice{Kind: kind, Request: r.ID}))
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			d.until("everybody's mails", func() bool { return len(o.got()) >= 2*len(c.want) })
			for i, m := range o.got() {
				if rcpt, _, _ := strings.Cut(m, "\n"); rcpt != "RCPT TO:<"+c.want[i%len(c.want)]+">" {
					t.Errorf("mail %d: %s, want %s", i, rcpt, c.want[i%len(c.want)])
				}
			}
		})
	}
}

// Mail goes in clear to this machine only, unless the address says so.
func TestMailTakesTLS(t *testing.T) {
	for address, want := range map[string]bool{
		"smtp://mail.example.com:587/?from=a@example.com":                true,
		"smtp://mail.example.com:587/?from=a@example.com&usestarttls=no": false,
		"smtp://127.0.0.1:25/?from=a@example.com":                        false,
	} {
		s, err := newSender(Destination{URL: address, To: ToRequester})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.(*mailer).service.Config.RequireStartTLS; got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// What can't be used is refused at the start, and what is wrong is said without the secret.
func TestBadDestinations(t *testing.T) {
	for name, d := range map[string]Destination{
		"no scheme":        {URL: "T0KEN"},
		"unknown":          {URL: "carrier://T0KEN@pigeon"},
		"no URL":           {URL: "slack://\x7fT0KEN"},
		"half a slack":     {URL: "slack://T0KEN"},
		"half a teams":     {URL: "teams://T0KEN"},
		"half a pager":     {URL: "pagerduty://events.pagerduty.com/T0KEN"},
		"mail to nobody":   {URL: "smtp://user:T0KEN@mail.example.com/?from=a@example.com", To: ToChannel},
		"mail from nobody": {URL: "smtp://user:T0KEN@mail.example.com/?to=a@example.com", To: ToChannel},
		"short secret":     {Webhook: "https://hook.example.com/T0KEN", Secret: "short T0KEN"},
		"no base64":        {Webhook: "https://hook.example.com/", Secret: "whsec_T0KEN!"},
	} {
		if _, err := newSender(d); err == nil || strings.Contains(err.Error(), "T0KEN") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range []error{fmt.Errorf("post https://hooks.slack.com/services/T0KEN: 403 no_service"), errors.New("token T0KEN is invalid")} {
		if got := harmless(err).Error(); strings.Contains(got, "T0KEN") {
			t.Errorf("%v", got)
		}
	}
	if got := harmless(errors.New("HTTP 403 for T0KEN")).Error(); got != "it answered 403" {
		t.Errorf("%v", got)
	}
}

// roundTrip plays the services whose addresses are fixed.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Slack is told through its own address, and what it says in refusal leads to no secret in the log.
func TestSlack(t *testing.T) {
	d := newDesk(t)
	answers := make(chan string, 2)
	answers <- "no_service T0KENT0KENT0KENT0KEN1234"
	answers <- "ok"
	bodies := make(chan string, 2)
	before := http.DefaultTransport
	http.DefaultTransport = roundTrip(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if r.URL.Host != "hooks.slack.com" {
			t.Errorf("sent to %s", r.URL.Host)
		}
		bodies <- string(body)
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(<-answers))}, err
	})
	t.Cleanup(func() { http.DefaultTransport = before })
	n := d.notifier(Destination{Name: "chat", URL: "slack://hook:T00000000-B00000000-T0KENT0KENT0KENT0KEN1234@webhook", To: ToApprovers})
	stop := d.run(n)
	d.happens(store.NoticeRequestCreated, "r1")
	d.until("it was taken", func() bool { return n.Stats()[0].Sent == 1 })
	stop()
	if a, b := <-bodies, <-bodies; a != b || !strings.Contains(a, "/web/links/") || !strings.Contains(a, "alice@example.test asks for writer on orders for 1h30m") {
		t.Errorf("%s\n%s", a, b)
	}
	if strings.Contains(d.log.String(), "T0KEN") {
		t.Errorf("the token is in the log:\n%s", d.log)
	}
}
