package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// Confirm asks whoever keeps tickets, at a URL that a rule names, whether one is open and names this person.
// A *Error is a no; any other error means that it could not be asked.
type Confirm func(ctx context.Context, url string, q TicketQuestion) error

// TicketQuestion is what is asked about a ticket, as JSON.
type TicketQuestion struct {
	Ticket  string    `json:"ticket"`
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Email   string    `json:"email"`
	Target  string    `json:"target"`
	Level   string    `json:"level"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

const (
	ticketTime   = 5 * time.Second
	ticketAnswer = 64 << 10 // bytes
)

// AskTickets is a Confirm that posts the question and expects 200 and {"ok": true}, or {"ok": false, "why": "…"}.
func AskTickets(client *http.Client) Confirm {
	if client == nil {
		client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return func(ctx context.Context, url string, q TicketQuestion) error {
		ctx, cancel := context.WithTimeout(ctx, ticketTime)
		defer cancel()
		body, err := json.Marshal(q)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("it answered %s", res.Status)
		}
		var answer struct {
			OK  *bool  `json:"ok"`
			Why string `json:"why"`
		}
		if err := json.NewDecoder(io.LimitReader(res.Body, ticketAnswer)).Decode(&answer); err != nil {
			return fmt.Errorf("its answer can't be read: %w", err)
		}
		switch {
		case answer.OK == nil:
			return errors.New(`its answer has no "ok"`)
		case *answer.OK:
			return nil
		case answer.Why == "" || readable("answer", answer.Why) != nil:
			answer.Why = "it is not open, or does not name you"
		}
		return &Error{Code: CodePolicy, Public: fmt.Sprintf("ticket %s does not do: %s", q.Ticket, answer.Why), Next: "name another one: --ticket"}
	}
}

// confirmation is where a ticket was confirmed; empty: nowhere.
type confirmation string

// covers refuses a rule that wants a ticket confirmed elsewhere: the policy changed while that was asked.
func (c confirmation) covers(r *policy.Rule) error {
	if r.Ticket == nil || r.Ticket.Confirm == "" || r.Ticket.Confirm == string(c) {
		return nil
	}
	return &Error{Code: CodeUnavailable, Public: "the policy has changed in this moment, and nothing was changed", Next: "try again"}
}

// confirmTicket has an ask's ticket confirmed, if the rule that would allow it wants that. It comes before the
// transaction, which must not wait for anybody.
func (d *Desk) confirmTicket(ctx context.Context, who auth.Identity, ask policy.Ask) (confirmation, error) {
	return d.confirmBy(ctx, who, ask, d.Policy())
}

// confirmUnder is the same for an extension, which only the rule of this name may allow. How long it is is
// judged later.
func (d *Desk) confirmUnder(ctx context.Context, who auth.Identity, ask policy.Ask, rule string) (confirmation, error) {
	return d.confirmBy(ctx, who, ask, only(d.Policy(), rule))
}

func (d *Desk) confirmBy(ctx context.Context, who auth.Identity, ask policy.Ask, p *policy.Policy) (confirmation, error) {
	if !confirms(p) {
		return "", nil
	}
	var v policy.Verdict
	err := d.store.View(ctx, func(tx *store.Tx) error {
		past, err := needed(tx, p, who, ask, tx.Now())
		v = p.Judge(who, ask, past, tx.Now())
		return err
	})
	switch {
	case err != nil:
		return "", failed(err, "target", ask.Target)
	case !v.Allowed || v.Rule.Ticket == nil || v.Rule.Ticket.Confirm == "":
		return "", nil // it is refused, or allowed without: the transaction says so
	}
	url := v.Rule.Ticket.Confirm
	err = d.confirm(ctx, url, TicketQuestion{Ticket: ask.Ticket, Issuer: who.Issuer, Subject: who.Subject, Email: who.Email,
		Target: ask.Target, Level: ask.Level, Reason: ask.Reason, At: d.store.Now().UTC()})
	var no *Error
	if errors.As(err, &no) {
		return "", no
	}
	if err != nil {
		d.log.Error("tickets can't be confirmed", "rule", v.Rule.Name, "url", url, "error", err)
		return "", &Error{Code: CodeUnavailable, Public: "whoever keeps the tickets could not be asked about " + ask.Ticket, Next: "try again in a moment; the server's log says why", Err: err}
	}
	return confirmation(url), nil
}

// confirms reports whether any rule wants tickets confirmed.
func confirms(p *policy.Policy) bool {
	for i := range p.Rules {
		if t := p.Rules[i].Ticket; t != nil && t.Confirm != "" {
			return true
		}
	}
	return false
}
