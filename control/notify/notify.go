package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

const (
	attemptTime = 30 * time.Second
	firstPause  = time.Second
	longestWait = 5 * time.Minute
	giveUp      = 24 * time.Hour
	lookEvery   = 500 * time.Millisecond
	sweepEvery  = time.Minute
	keepNotices = 7 * 24 * time.Hour
	batch       = 100
)

// To whom a destination's messages go.
const (
	ToApprovers = "approvers" // what waits for somebody's decision or review; with a link
	ToRequester = "requester" // what became of one's own request: by e-mail, to the person's own address
	ToChannel   = "channel"   // everything; without a link that is good for one person only
)

// Events are those that there are, in the order of a grant's life.
func Events() []string {
	return []string{store.NoticeRequestCreated, store.NoticeRequestDecided, store.NoticeRequestEnded, store.NoticeBreakGlass,
		store.NoticeGrantExtended, store.NoticeGrantEnded, store.NoticeReviewDue, store.NoticeReviewDone, store.NoticeReviewOverdue}
}

// eventsTo are those that a kind of destination is told of, unless it says otherwise.
func eventsTo(to string) []string {
	switch to {
	case ToApprovers:
		return []string{store.NoticeRequestCreated, store.NoticeBreakGlass, store.NoticeReviewDue, store.NoticeReviewOverdue}
	case ToRequester:
		return []string{store.NoticeRequestDecided, store.NoticeRequestEnded, store.NoticeGrantExtended, store.NoticeGrantEnded}
	}
	return Events()
}

// Destination is one place that is told.
type Destination struct {
	Name    string
	URL     string // slack://, teams://, smtp://, pagerduty://: a secret
	Webhook string // or an address that is told in JSON
	Secret  string // of the webhook's signature
	To      string
	Events  []string // none: those that go with To
}

// Store is what is used of *store.Store.
type Store interface {
	Update(ctx context.Context, fn func(*store.Tx) error) error
	View(ctx context.Context, fn func(*store.Tx) error) error
	Now() time.Time
}

// Links makes the addresses of pages.
type Links interface {
	Make(ctx context.Context, r policy.Request, notice, recipient string) (string, error)
	Page(request string) string
}

// Options are what a Notifier needs.
type Options struct {
	Store        Store
	Links        Links
	Policy       func() *policy.Policy // in force
	Destinations []Destination
	Log          *slog.Logger
}

// Notifier sends what is to be told. It is safe for concurrent use.
type Notifier struct {
	store  Store
	links  Links
	policy func() *policy.Policy
	log    *slog.Logger
	posts  []*post
	pause  time.Duration // after a first failure
	patience
}

// patience is how long an attempt may take, and how long a notice is tried.
type patience struct{ attempt, notice time.Duration }

// post is a destination at work.
type post struct {
	Destination
	sender sender
	wake   chan struct{}
	busy   chan struct{} // holds a token while no attempt is under way: one that hangs past its time holds up the next

	mu    sync.Mutex // guards the rest
	stats Stats
}

// Stats is how a destination does.
type Stats struct {
	Name    string
	Sent    uint64
	Failed  uint64    // attempts
	Lost    uint64    // notices that were given up
	Waiting int       // notices that it has not had, at most
	Oldest  time.Time // since when the next of them waits; zero: none
}

// sender brings one message to one destination. An error holds no secret.
type sender interface {
	send(ctx context.Context, m message) error
}

// New makes a Notifier; an address that can't be used is an error, which doesn't show it.
func New(o Options) (*Notifier, error) {
	n := &Notifier{store: o.Store, links: o.Links, policy: o.Policy, log: o.Log, pause: firstPause, patience: patience{attemptTime, giveUp}}
	for _, d := range o.Destinations {
		if len(d.Events) == 0 {
			d.Events = eventsTo(d.To)
		}
		s, err := newSender(d)
		if err != nil {
			return nil, fmt.Errorf("notify %s: %w", d.Name, err)
		}
		p := &post{Destination: d, sender: s, wake: make(chan struct{}, 1), busy: make(chan struct{}, 1), stats: Stats{Name: d.Name}}
		p.busy <- struct{}{}
		n.posts = append(n.posts, p)
	}
	return n, nil
}

// Stats gives how each destination does.
func (n *Notifier) Stats() []Stats {
	var all []Stats
	for _, p := range n.posts {
		p.mu.Lock()
		all = append(all, p.stats)
		p.mu.Unlock()
	}
	return all
}

// Run sends until ctx ends. A new destination is told of what happens from then on.
func (n *Notifier) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for _, p := range n.posts {
		group.Go(func() { n.serve(ctx, p) })
	}
	look, sweep := time.NewTicker(lookEvery), time.NewTicker(sweepEvery)
	defer look.Stop()
	defer sweep.Stop()
	var last int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			if err := n.forget(ctx); err != nil && ctx.Err() == nil {
				n.log.ErrorContext(ctx, "forget notices that everybody has", "error", err)
			}
		case <-look.C:
			if len(n.posts) == 0 {
				continue
			}
			var newest int64
			err := n.store.View(ctx, func(tx *store.Tx) (err error) { newest, err = tx.LastNotice(); return err })
			if err == nil && newest != last {
				last = newest
				for _, p := range n.posts {
					p.rouse()
				}
			}
		}
	}
}

func (p *post) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// serve tells one destination what there is, one after another.
func (n *Notifier) serve(ctx context.Context, p *post) {
	for ctx.Err() == nil {
		wait, err := n.next(ctx, p)
		if err != nil && ctx.Err() == nil {
			n.log.ErrorContext(ctx, "notices can't be read or noted as sent", "destination", p.Name, "error", err)
			wait = longestWait / 10
		}
		if wait == 0 {
			continue
		}
		wake := p.wake
		if wait != idle { // news does not end a pause after a failure
			wake = nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wake:
		}
		timer.Stop()
	}
}

// idle is how long one waits who has nothing to do but to be woken.
const idle = 24 * time.Hour

// next tells a destination the next that it wants to hear, and says how long to wait before the one after it.
func (n *Notifier) next(ctx context.Context, p *post) (wait time.Duration, err error) {
	at, notice, err := n.look(ctx, p)
	if err != nil || notice == nil {
		return idle, err
	}
	if pause := time.Until(at.Due); pause > 0 && at.Tries > 0 {
		return min(pause, longestWait), nil
	}
	failed := n.tell(ctx, p, *notice)
	if ctx.Err() != nil {
		return 0, nil // whether it came there is not known: it is sent again
	}
	switch {
	case failed == nil:
		p.count(func(s *Stats) { s.Sent++; s.Oldest = time.Time{} })
		at.N, at.Tries, at.Due = notice.N, 0, time.Time{}
	case n.store.Now().Sub(notice.Created) > n.patience.notice || errors.Is(failed, errNever):
		n.log.ErrorContext(ctx, "ALERT a notification is given up", "destination", p.Name, "notice", notice.ID, "kind", notice.Kind, "error", failed)
		p.count(func(s *Stats) { s.Failed++; s.Lost++; s.Oldest = time.Time{} })
		at.N, at.Tries, at.Due = notice.N, 0, time.Time{}
	default:
		at.Tries++
		pause := min(n.pause<<min(at.Tries-1, 20), longestWait)
		at.Due = time.Now().Add(pause)
		n.log.WarnContext(ctx, "a notification was not taken", "destination", p.Name, "notice", notice.ID, "kind", notice.Kind,
			"tries", at.Tries, "again", pause, "error", failed)
		p.count(func(s *Stats) { s.Failed++ })
	}
	return 0, n.store.Update(ctx, func(tx *store.Tx) error { return tx.PutDestination(at) })
}

func (p *post) count(f func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.stats)
}

// look finds what a destination has to hear next; nil: nothing.
func (n *Notifier) look(ctx context.Context, p *post) (at store.Destination, next *store.Notice, err error) {
	var newest int64
	began, missed := false, int64(0)
	err = n.store.View(ctx, func(tx *store.Tx) error {
		if newest, err = tx.LastNotice(); err != nil {
			return err
		}
		at, err = tx.Destination(p.Name)
		if errors.Is(err, store.ErrNotFound) {
			at, began = store.Destination{Name: p.Name, N: newest}, true
			return nil
		}
		for after := at.N; err == nil && next == nil; {
			var some []store.Notice
			if some, err = tx.Notices(after, batch); len(some) == 0 {
				break
			}
			if after == at.N {
				missed = some[0].N - at.N - 1
			}
			for i := range some {
				if after = some[i].N; slices.Contains(p.Events, some[i].Kind) {
					next = &some[i]
					break
				}
			}
		}
		return err
	})
	if err != nil {
		return at, nil, err
	}
	p.count(func(s *Stats) {
		s.Waiting = int(newest - at.N)
		if s.Oldest = (time.Time{}); next != nil {
			s.Oldest = next.Created
		} else {
			s.Waiting = 0
		}
		s.Lost += uint64(max(missed, 0))
	})
	if missed > 0 {
		n.log.ErrorContext(ctx, "ALERT notifications were given up: too many waited", "destination", p.Name, "notices", missed)
	}
	if began || missed > 0 || (next == nil && newest > at.N) {
		switch {
		case next != nil:
			at.N = next.N - 1
		default:
			at.N = newest
		}
		err = n.store.Update(ctx, func(tx *store.Tx) error { return tx.PutDestination(at) })
	}
	return at, next, err
}

// tell makes one attempt. It waits no longer than its time, and one that goes on behind it holds up the next.
func (n *Notifier) tell(ctx context.Context, p *post, notice store.Notice) error {
	ctx, cancel := context.WithTimeout(ctx, n.patience.attempt)
	defer cancel()
	select {
	case <-p.busy:
	case <-ctx.Done():
		return errors.New("the attempt before is still under way")
	}
	told := make(chan error, 1)
	go func() {
		defer func() { p.busy <- struct{}{} }()
		told <- n.send(ctx, p, notice)
	}()
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return errors.New("no answer within " + n.patience.attempt.String())
	}
}

// send tells everybody whom a notice concerns at a destination.
func (n *Notifier) send(ctx context.Context, p *post, notice store.Notice) error {
	s, err := n.subject(ctx, notice)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: what it is about is gone", errNever)
	}
	if err != nil {
		return err
	}
	recipients := []string{""}
	if _, mail := p.sender.(*mailer); mail {
		if recipients = n.addresses(p, s); len(recipients) == 0 {
			return fmt.Errorf("%w: nobody's address is known", errNever)
		}
	}
	for _, to := range recipients {
		m, err := n.write(ctx, p, s, to)
		if err == nil {
			err = p.sender.send(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errNever marks what no further attempt would change.
var errNever = errors.New("it can't be told")

// subject is what a notice is about.
type subject struct {
	store.Notice
	Request policy.Request
	Grant   policy.Grant // if there is one
	people  []auth.Identity
}

func (n *Notifier) subject(ctx context.Context, notice store.Notice) (s subject, err error) {
	s.Notice = notice
	err = n.store.View(ctx, func(tx *store.Tx) (err error) {
		if notice.Grant != "" {
			if s.Grant, err = tx.Grant(notice.Grant); err != nil {
				return err
			}
			if s.Notice.Request == "" {
				s.Notice.Request = s.Grant.Request
			}
		}
		if s.Request, err = tx.Request(s.Notice.Request); err != nil {
			return err
		}
		logins, err := tx.Logins("")
		for _, l := range logins {
			s.people = append(s.people, l.Identity)
		}
		return err
	})
	return s, err
}

// forget drops what every destination has, what is too old, and links whose time is long over.
func (n *Notifier) forget(ctx context.Context) error {
	return n.store.Update(ctx, func(tx *store.Tx) error {
		upTo, err := tx.LastNotice()
		if err != nil {
			return err
		}
		for _, p := range n.posts {
			at, err := tx.Destination(p.Name)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			upTo = min(upTo, at.N)
		}
		oldest := tx.Now().Add(-keepNotices)
		return errors.Join(tx.ForgetNotices(upTo, oldest), tx.ForgetLinks(oldest))
	})
}
