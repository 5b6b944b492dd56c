package notify

import (
	"context"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// longestWords bounds what is told of what people have written; the page has all of it.
const longestWords = 600

// message is what a sender brings to somebody. All of it is plain text of one line; people's own words are
// made harmless by each sender in its medium's way.
type message struct {
	Notice  store.Notice
	To      string // an e-mail address, or empty: where the destination's address leads
	Title   string // no words of people's own but names
	Facts   []fact
	Link    string // the one address; empty: there is nothing to go to
	Urgent  bool
	Request policy.Request
	Grant   policy.Grant
}

// fact is one line: what it is, and what it is here.
type fact struct{ Name, Value string }

// write makes the message of a notice for one recipient.
func (n *Notifier) write(ctx context.Context, p *post, s subject, to string) (message, error) {
	r := s.Request
	m := message{Notice: s.Notice, To: to, Request: r, Grant: s.Grant}
	m.Title = title(s)
	m.Urgent = s.Kind == store.NoticeBreakGlass || s.Kind == store.NoticeReviewOverdue
	add := func(name, value string) {
		if value != "" {
			m.Facts = append(m.Facts, fact{name, words(value)})
		}
	}
	add("Person", r.Identity.Label())
	add("Access", r.Level+" on "+r.Target+" for "+span(r.Duration))
	if !r.Start.IsZero() {
		add("From", clock(r.Start))
	}
	if r.Identity.Declared {
		add("MFA", "declared by configuration, not proven")
	}
	add("Reason", r.Reason)
	add("Ticket", r.Ticket)
	add("Rule", r.Rule)
	if s.Text != r.Reason {
		add("Said", s.Text)
	}
	if s.By != "" && s.By != r.Identity.Label() {
		add("By", s.By)
	}
	if s.Grant.ID != "" {
		add("Grant", s.Grant.ID+", until "+clock(s.Grant.End))
	}
	add("Session", s.Session)
	if s.Kind == store.NoticeRequestCreated && r.Status != policy.Open {
		add("Now", "it is "+string(r.Status)+" meanwhile")
	}
	if s.Kind == store.NoticeReviewDue || s.Kind == store.NoticeReviewOverdue {
		add("Next", "curfew reviews --due")
		return m, nil
	}
	m.Link = n.links.Page(r.ID)
	if p.To == ToApprovers && s.Kind == store.NoticeRequestCreated && r.Status == policy.Open {
		var err error
		add("Decide until", clock(r.Lapses))
		if m.Link, err = n.links.Make(ctx, r, s.ID, p.Name+" "+to); err != nil {
			return m, err
		}
	}
	return m, nil
}

// title is the message in a line.
func title(s subject) string {
	r, what := s.Request, fmt.Sprintf("%s on %s", s.Request.Level, s.Request.Target)
	person := words(r.Identity.Label())
	switch s.Kind {
	case store.NoticeRequestCreated:
		if r.Extends != "" {
			return fmt.Sprintf("%s asks for %s more of %s", person, span(r.Duration), what)
		}
		return fmt.Sprintf("%s asks for %s for %s", person, what, span(r.Duration))
	case store.NoticeRequestDecided:
		return fmt.Sprintf("%s was approved by one; it needs more: %s", r.ID, what)
	case store.NoticeRequestEnded:
		return fmt.Sprintf("%s is %s: %s for %s", r.ID, r.Status, what, person)
	case store.NoticeBreakGlass:
		return fmt.Sprintf("BREAK-GLASS: %s has taken %s for %s without approval", person, what, span(r.Duration))
	case store.NoticeGrantExtended:
		return fmt.Sprintf("%s goes on until %s: %s for %s", s.Grant.ID, clock(s.Grant.End), what, person)
	case store.NoticeGrantEnded:
		return fmt.Sprintf("%s has ended (%s): %s of %s", s.Grant.ID, s.Grant.EndCode, what, person)
	case store.NoticeReviewDue:
		return fmt.Sprintf("To be reviewed: what %s did with %s", person, what)
	case store.NoticeReviewDone:
		return fmt.Sprintf("Reviewed: what %s did with %s", person, what)
	case store.NoticeReviewOverdue:
		return fmt.Sprintf("OVERDUE: nobody has reviewed what %s did with %s", person, what)
	}
	return s.Kind + ": " + what + " of " + person
}

// words makes one bounded line of what somebody wrote, in which no program finds an address to click.
func words(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || unicode.In(c, unicode.Cf, unicode.Zl, unicode.Zp)
	}), " ")
	s = strings.NewReplacer("://", "[:]//", "www.", "www[.]").Replace(s)
	if cut := []rune(s); len(cut) > longestWords {
		s = string(cut[:longestWords]) + " …"
	}
	return s
}

func clock(t time.Time) string { return t.UTC().Format("2 Jan 15:04 UTC") }

func span(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// addresses are those whom a mail goes to: the requester, or who may act on it: decide, or review where nobody
// decides any more. The latter are the addresses that the destination names; where it names none, those that the
// policy names for it, and of whoever has logged in here and may.
func (n *Notifier) addresses(p *post, s subject) []string {
	var all []string
	add := func(address string) {
		// One that is more than an address would be more than one recipient, or a header.
		if a, err := mail.ParseAddress(address); err == nil && a.Address == address && !strings.ContainsAny(address, ",;<>\" \r\n") &&
			!slices.Contains(all, address) && len(all) < 50 {
			all = append(all, address)
		}
	}
	if p.To == ToRequester {
		add(s.Request.Identity.Email)
		return all
	}
	if m := p.sender.(*mailer); len(m.to) > 0 {
		return m.to
	}
	named, may := n.concerned(s)
	for _, w := range named {
		for _, address := range w.Emails {
			if address != s.Request.Identity.Email {
				add(address)
			}
		}
	}
	for _, who := range s.people {
		if may(who) {
			add(who.Email)
		}
	}
	return all
}

// concerned says whom the policy names for what is to be done about a notice, and who may do it. Who broke the glass
// asked nobody: there it is those who have to look at it.
func (n *Notifier) concerned(s subject) (named []policy.Who, may func(auth.Identity) bool) {
	p, r := n.policy(), s.Request
	if s.Kind == store.NoticeRequestCreated {
		return append([]policy.Who{r.Approvals.From}, r.Approvals.Parties...), func(who auth.Identity) bool { return p.Decider(who, r) }
	}
	var by policy.Who
	if r.Review != nil {
		by = r.Review.By
	}
	return p.Reviewers(by, r.Target), func(who auth.Identity) bool { return p.MayReview(who, r.Identity, by, r.Target) }
}
