package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/slack"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/chat/teams"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/email/smtp"
	"github.com/nicholas-fedor/shoutrrr/pkg/services/incident/pagerduty"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
)

// newSender makes the sender of a destination. Its errors don't show the address: that is a secret.
func newSender(d Destination) (sender, error) {
	if d.Webhook != "" {
		return newWebhook(d)
	}
	u, err := url.Parse(strings.TrimSpace(d.URL))
	if err != nil {
		return nil, errors.New("its url is none")
	}
	switch u.Scheme {
	case "slack":
		s := &slack.Service{}
		return &chat{s, slackText}, setUp(s, u)
	case "teams":
		s := &teams.Service{}
		return &chat{s, teamsText}, setUp(s, u)
	case "pagerduty":
		s := &pagerduty.Service{}
		return &chat{s, pagerText}, setUp(s, u)
	case "smtp":
		return newMailer(d, u)
	}
	return nil, fmt.Errorf("its url begins with %q: slack, teams, smtp and pagerduty are known; anything else can be told by webhook", u.Scheme)
}

func setUp(s types.Service, u *url.URL) error {
	if err := s.Initialize(u, log.New(io.Discard, "", 0)); err != nil {
		return errors.New("its url lacks something that " + u.Scheme + " needs")
	}
	return nil
}

// chat is a service that takes a text, written in its own way.
type chat struct {
	service types.Service
	text    func(message) (string, types.Params)
}

func (c *chat) send(_ context.Context, m message) error {
	text, params := c.text(m)
	return harmless(c.service.Send(text, &params))
}

// slackText writes mrkdwn: three characters are what makes mentions and links there.
func slackText(m message) (string, types.Params) {
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace
	var b strings.Builder
	for _, f := range m.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, escape(f.Value))
	}
	if m.Link != "" {
		fmt.Fprintf(&b, "<%s|%s>\n", m.Link, call(m))
	}
	color := "#0b57d0"
	if m.Urgent {
		color = "danger"
	}
	return b.String(), types.Params{"title": escape(m.Title), "color": color}
}

// teamsText writes the Markdown of message cards, which lets HTML through.
func teamsText(m message) (string, types.Params) {
	var b strings.Builder
	for _, f := range m.Facts {
		fmt.Fprintf(&b, "**%s:** %s\n", f.Name, markdown(f.Value))
	}
	if m.Link != "" {
		fmt.Fprintf(&b, "[%s](%s)\n", call(m), m.Link)
	}
	return strings.TrimSuffix(b.String(), "\n"), types.Params{"title": markdown(m.Title)}
}

var marks = regexp.MustCompile("[\\\\`*_{}\\[\\]()#+\\-.!|~]")

func markdown(s string) string { return marks.ReplaceAllString(html.EscapeString(s), `\$0`) }

// pagerText writes an event: one line, and the id by which a second one is known as the same.
func pagerText(m message) (string, types.Params) {
	params := types.Params{"severity": "info", "source": "curfew", "dedup_key": m.Notice.ID}
	if m.Urgent {
		params["severity"] = "critical"
	}
	if m.Link != "" {
		params["contexts"] = "link:" + m.Link
	}
	text := m.Title
	for _, f := range m.Facts {
		if f.Name == "Reason" {
			text += "; reason: " + f.Value
		}
	}
	return text, params
}

// call says what the link is for.
func call(m message) string {
	if strings.Contains(m.Link, "/web/links/") {
		return "Log in and decide"
	}
	return "Open the request"
}

// mailer sends e-mails, each to one address.
type mailer struct {
	service *smtp.Service
	to      []string // that the destination names
}

// newMailer takes smtp://user:password@host:port/?from=…[&to=…]. TLS is demanded, unless the address says
// otherwise or the server is this machine's own.
func newMailer(d Destination, u *url.URL) (*mailer, error) {
	q := u.Query()
	m := &mailer{service: &smtp.Service{}}
	for _, key := range []string{"to", "toaddresses"} {
		for _, list := range q[key] {
			m.to = append(m.to, strings.Split(list, ",")...)
		}
	}
	if len(m.to) == 0 {
		if d.To == ToChannel {
			return nil, errors.New("its url names nobody: add to=somebody@example.com, or say to: approvers or requester")
		}
		q.Set("to", "nobody@invalid") // it is set anew for each message
	}
	if host := u.Hostname(); !q.Has("usestarttls") && !q.Has("starttls") && !q.Has("encryption") && host != "127.0.0.1" && host != "localhost" && host != "::1" {
		q.Set("requirestarttls", "yes")
	}
	u.RawQuery = q.Encode()
	return m, setUp(m.service, u)
}

func (c *mailer) send(_ context.Context, m message) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\r\n\r\n", m.Title)
	for _, f := range m.Facts {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	if m.Link != "" {
		fmt.Fprintf(&b, "\r\n%s: %s\r\n\r\nThe link lets nobody in: you log in with your identity provider.\r\n", call(m), m.Link)
	}
	// The subject has no words of anybody's: it is a header.
	params := types.Params{"to": m.To, "subject": "Curfew: " + m.Notice.Kind + " " + m.Request.ID}
	return harmless(c.service.Send(b.String(), &params))
}

// webhook tells an address in JSON, signed as Standard Webhooks has it.
type webhook struct {
	address string
	key     []byte
	client  *http.Client
}

func newWebhook(d Destination) (*webhook, error) {
	key := []byte(d.Secret)
	if encoded, ok := strings.CutPrefix(d.Secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, errors.New("its secret begins with whsec_ and is not base64")
		}
	}
	if len(key) < 16 {
		return nil, errors.New("its secret is shorter than 16 bytes")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return &webhook{address: d.Webhook, key: key, client: &http.Client{Transport: transport, Timeout: attemptTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Event is the body of a webhook.
type Event struct {
	ID      string    `json:"id"` // the same each time that it is sent
	Type    string    `json:"type"`
	Created time.Time `json:"timestamp"`
	Data    Data      `json:"data"`
}

// Data is what an event is about. What people have written is as they wrote it.
type Data struct {
	Title    string     `json:"title"`
	Request  string     `json:"request"`
	Status   string     `json:"status"`
	Person   Person     `json:"person"`
	Target   string     `json:"target"`
	Level    string     `json:"level"`
	Duration string     `json:"duration"`
	Start    *time.Time `json:"start,omitempty"`
	Reason   string     `json:"reason"`
	Ticket   string     `json:"ticket,omitempty"`
	Rule     string     `json:"rule"`
	Policy   string     `json:"policy"`
	Lapses   time.Time  `json:"lapses"`

	BreakGlass bool       `json:"break_glass,omitempty"`
	Grant      string     `json:"grant,omitempty"`
	End        *time.Time `json:"end,omitempty"`
	EndCode    string     `json:"end_code,omitempty"`
	Session    string     `json:"session,omitempty"`
	By         string     `json:"by,omitempty"`
	Text       string     `json:"text,omitempty"`
	Link       string     `json:"link,omitempty"`
}

// Person is who asks, and how they proved who they are.
type Person struct {
	Issuer   string   `json:"issuer"`
	Subject  string   `json:"subject"`
	Email    string   `json:"email,omitempty"`
	ACR      string   `json:"acr,omitempty"`
	AMR      []string `json:"amr,omitempty"`
	Declared bool     `json:"mfa_declared,omitempty"`
}

func event(m message) Event {
	r := m.Request
	d := Data{Title: m.Title, Request: r.ID, Status: string(r.Status), Target: r.Target, Level: r.Level, Duration: span(r.Duration),
		Person: Person{Issuer: r.Identity.Issuer, Subject: r.Identity.Subject, Email: r.Identity.Email, ACR: r.Identity.ACR, AMR: r.Identity.AMR, Declared: r.Identity.Declared},
		Reason: r.Reason, Ticket: r.Ticket, Rule: r.Rule, Policy: r.Policy, Lapses: r.Lapses, BreakGlass: r.BreakGlass,
		Grant: m.Grant.ID, EndCode: m.Grant.EndCode, Session: m.Notice.Session, By: m.Notice.By, Text: m.Notice.Text, Link: m.Link}
	if !r.Start.IsZero() {
		d.Start = &r.Start
	}
	if m.Grant.ID != "" {
		d.End = &m.Grant.End
	}
	return Event{ID: m.Notice.ID, Type: m.Notice.Kind, Created: m.Notice.Created, Data: d}
}

func (w *webhook) send(ctx context.Context, m message) error {
	body, err := json.Marshal(event(m))
	if err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address is none")
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "curfew")
	req.Header.Set("webhook-id", m.Notice.ID)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,"+sign(w.key, m.Notice.ID, at, body))
	res, err := w.client.Do(req)
	if err != nil {
		return harmless(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // what it says is nothing to us
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("it answered %d", res.StatusCode)
	}
	return nil
}

func sign(key []byte, id, at string, body []byte) string {
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%s.", id, at)
	m.Write(body)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}

var httpStatus = regexp.MustCompile(`\b[345][0-9]{2}\b`)

// harmless says of a failure what is known to hold no secret: addresses of services are secrets, and libraries
// put them into their errors.
func harmless(err error) error {
	if err == nil {
		return nil
	}
	var asked *url.Error
	if errors.As(err, &asked) {
		if asked.Timeout() {
			return errors.New("no answer in time")
		}
		return fmt.Errorf("it can't be reached: %w", asked.Err)
	}
	if status := httpStatus.FindString(err.Error()); status != "" {
		return errors.New("it answered " + status)
	}
	return errors.New("it was not taken")
}
