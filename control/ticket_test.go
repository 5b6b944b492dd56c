package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

func ticketed() *policy.Policy {
	p := testPolicy()
	p.Hash = "sha256:tickets"
	p.Rules[1].Ticket = &policy.TicketRule{Pattern: `OPS-\d+`, Confirm: "https://tickets.example.test"}
	return p
}

// A rule's ticket is confirmed before anything is written, for an extension too; a ticket that is not open is a
// no, and a system that can't be asked means that nothing is given.
func TestTicketsAreConfirmed(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		if err := w.Reload(t.Context(), ticketed()); err != nil {
			t.Fatal(err)
		}
		var asked []TicketQuestion
		var answer error
		w.confirm = func(_ context.Context, url string, q TicketQuestion) error {
			if url != "https://tickets.example.test" {
				t.Errorf("asked at %s", url)
			}
			asked = append(asked, q)
			return answer
		}
		ask := policy.Ask{Target: "orders", Level: "writer", Duration: 20 * time.Minute, Reason: "x", Ticket: "OPS-7"}
		r, err := w.Ask(t.Context(), alice, ask)
		if err != nil || r.Ticket != "OPS-7" {
			t.Fatalf("%+v, %v", r, err)
		}
		if q := asked[0]; len(asked) != 1 || q.Ticket != "OPS-7" || q.Email != alice.Email || q.Level != "writer" {
			t.Errorf("%+v", asked)
		}
		g := w.grant(w.approve(bob, r.ID).Grant)
		if r := w.more(alice, g.ID, time.Minute); r.Ticket != "OPS-7" || len(asked) != 2 {
			t.Errorf("%+v; asked %d times", r, len(asked))
		}
		answer = &Error{Code: CodePolicy, Public: "ticket OPS-7 does not do", Next: "name another one"}
		_, err = w.Ask(t.Context(), alice, ask)
		w.refused(err, CodePolicy, "does not do")
		answer = errors.New("connection refused")
		_, err = w.Ask(t.Context(), alice, ask)
		w.refused(err, CodeUnavailable, "could not be asked about OPS-7")
		before := len(asked)
		ask.Ticket = "none"
		_, err = w.Ask(t.Context(), alice, ask)
		w.refused(err, CodePolicy, "a ticket is required")
		ask.Level = "reader"
		if _, err = w.Ask(t.Context(), alice, ask); err != nil {
			t.Error(err)
		}
		if len(asked) != before {
			t.Error("asked about a ticket that no rule wants confirmed")
		}
		// The policy changes while the ticket is asked about.
		ask = policy.Ask{Target: "orders", Level: "writer", Duration: 20 * time.Minute, Reason: "x", Ticket: "OPS-7"}
		w.confirm = func(ctx context.Context, _ string, _ TicketQuestion) error {
			p := ticketed()
			p.Hash, p.Rules[1].Ticket.Confirm = "sha256:other", "https://elsewhere.example.test"
			return w.Reload(ctx, p)
		}
		_, err = w.Ask(t.Context(), alice, ask)
		w.refused(err, CodeUnavailable, "policy has changed in this moment")
	})
}

func TestAskTickets(t *testing.T) {
	var got TicketQuestion
	body, status := "", http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Method != http.MethodPost || r.URL.Path == "/moved" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		if status == http.StatusFound {
			rw.Header().Set("Location", "/moved")
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	}))
	defer srv.Close()
	ask := AskTickets(nil)
	q := TicketQuestion{Ticket: "OPS-1", Email: alice.Email, Target: "orders"}
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{200, `{"ok": true, "more": 1}`, ""},
		{200, `{"ok": false, "why": "it is closed"}`, "ticket OPS-1 does not do: it is closed"},
		{200, `{"ok": false, "why": "\u001b[2J"}`, "it is not open, or does not name you"},
		{200, `{"ok": false}`, "it is not open, or does not name you"},
		{200, `{"open": true}`, `no "ok"`},
		{200, `<html>`, "can't be read"},
		{200, strings.Repeat(" ", 70<<10) + `{"ok": true}`, "can't be read"},
		{500, `{"ok": true}`, "500"},
		{302, `{"ok": true}`, "302"},
	} {
		status, body = c.status, c.body
		err := ask(t.Context(), srv.URL, q)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d %.40s: %v", c.status, c.body, err)
		}
	}
	if got != q {
		t.Errorf("asked %+v", got)
	}
	if err := ask(t.Context(), "http://127.0.0.1:1", q); err == nil {
		t.Error("nobody was there, and said yes")
	}
}
