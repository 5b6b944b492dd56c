package control

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

var (
	seed  = flag.Uint64("seed", 0, "of the model test's only run; 0 runs several")
	steps = flag.Int("steps", 250, "of each run of the model test")
)

// TestModel plays random actions of several people against the desk and against a model that is simple
// enough to be read: every answer must be the model's, and in the end the ledger must tell its story.
func TestModel(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5}
	seeds = seeds[:len(seeds)/unhurried]
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		t.Run(fmt.Sprint("seed", s), func(t *testing.T) {
			story(t, func(t *testing.T, w *world) {
				m := &model{t: t, w: w, rand: rand.New(rand.NewPCG(s, 0)),
					requests: map[string]*modelRequest{}, grants: map[string]*modelGrant{}}
				for step := range *steps {
					m.step(step)
				}
				w.disk.full.Store(false)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				m.compare()
			})
		})
	}
}

type modelRequest struct {
	by        auth.Identity
	level     string
	duration  time.Duration
	start     time.Time
	lapses    time.Time
	status    policy.Status
	approvers []string
	grant     string
}

type modelGrant struct {
	request    *modelRequest
	start, end time.Time
	code, by   string // "" while it has not ended
	held       []context.Context
	password   string
}

type model struct {
	t        *testing.T
	w        *world
	rand     *rand.Rand
	log      []string
	requests map[string]*modelRequest
	grants   map[string]*modelGrant
	rids     []string
	gids     []string
	full     bool
}

var modelPeople = []auth.Identity{alice, dana, bob, carol, sam, eve}

func (m *model) step(n int) {
	m.pass()
	who := modelPeople[m.rand.IntN(len(modelPeople))]
	rid, r := pick(m.rand, m.rids, m.requests)
	gid, g := pick(m.rand, m.gids, m.grants)
	switch roll := m.rand.IntN(100); {
	case roll < 20:
		m.ask(who)
	case roll < 50 && r != nil:
		m.decide(who, rid, r, m.rand.IntN(6) > 0)
	case roll < 55 && r != nil:
		m.cancel(who, rid, r)
	case roll < 60 && g != nil:
		m.revoke(who, gid, g)
	case roll < 64 && g != nil:
		m.release(who, gid, g)
	case roll < 75 && g != nil:
		m.hold(gid, g)
	case roll < 79 && g != nil:
		m.passwd(who, gid, g)
	case roll < 80 && !m.full:
		m.say("restart")
		m.w.again(testPolicy(), 0)
		for _, g := range m.grants {
			g.held = nil // they belonged to the process that is gone
		}
	case roll < 83:
		m.full = !m.full
		m.say("disk full: %v", m.full)
		m.w.disk.full.Store(m.full)
	default:
		d := []time.Duration{time.Millisecond, 900 * time.Millisecond, time.Second, time.Minute, 4 * time.Minute}[m.rand.IntN(5)]
		m.say("sleep %v", d)
		time.Sleep(d)
		synctest.Wait()
	}
	m.pass()
	for id, g := range m.grants {
		for _, held := range g.held {
			if got := held.Err() != nil; got != (g.code != "") {
				m.fail("step %d: grant %s has ended: %q; its holder's context: %v", n, id, g.code, context.Cause(held))
			} else if got && causeOf(held) != g.code {
				m.fail("step %d: grant %s ended as %q, its holder was told %v", n, id, g.code, context.Cause(held))
			}
		}
	}
}

// pass lets the model's time come up to the desk's.
func (m *model) pass() {
	now := m.w.disk.Now()
	for _, r := range m.requests {
		if r.status == policy.Open && !now.Before(r.lapses) {
			r.status = policy.Lapsed
		}
	}
	for _, g := range m.grants {
		if g.code == "" && !now.Before(g.end) {
			g.code, g.by = "expired", "curfew"
		}
	}
}

func (m *model) ask(who auth.Identity) {
	level := []string{"reader", "writer", "owner"}[m.rand.IntN(3)]
	duration := []time.Duration{time.Second, time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour}[m.rand.IntN(5)]
	a := policy.Ask{Target: "orders", Level: level, Duration: duration, Reason: "x"}
	now := m.w.disk.Now()
	if m.rand.IntN(4) == 0 {
		a.Start = now.Add(time.Duration(m.rand.IntN(600)-60) * time.Second)
	}
	allowed := (who.InGroup("developers") || (who.InGroup("leads") && level == "owner")) && duration <= time.Hour
	want := m.unless(CodeUnavailable, "")
	if want == "" && !allowed {
		want = CodePolicy
	}
	r, err := m.w.Ask(m.t.Context(), who, a)
	m.expect(err, want, "%s asks for %s for %v from %v: %s", who.Subject, level, duration, a.Start, r.ID)
	if err != nil {
		return
	}
	lapse := 24 * time.Hour
	if level == "writer" {
		lapse = 10 * time.Minute
	}
	own := &modelRequest{by: who, level: level, duration: duration, start: a.Start, lapses: now.Add(lapse), status: policy.Open}
	m.requests[r.ID], m.rids = own, append(m.rids, r.ID)
	m.count(own, r.Grant)
}

// count makes a grant of a request that has its approvals.
func (m *model) count(r *modelRequest, grant string) {
	needed := map[string]int{"reader": 0, "writer": 1, "owner": 2}[r.level]
	if len(r.approvers) < needed {
		if grant != "" {
			m.fail("a grant with %d of %d approvals", len(r.approvers), needed)
		}
		return
	}
	r.status, r.grant = policy.Approved, grant
	start := m.w.disk.Now()
	if r.start.After(start) {
		start = r.start
	}
	m.gids = append(m.gids, grant)
	m.grants[grant] = &modelGrant{request: r, start: start, end: start.Add(r.duration)}
}

func eligible(who auth.Identity, r *modelRequest) bool {
	if who.Same(r.by) {
		return false
	}
	return (r.level == "writer" && who.InGroup("leads")) || (r.level == "owner" && (who.InGroup("leads") || who.InGroup("security")))
}

func sees(who auth.Identity, r *modelRequest) bool {
	return who.Same(r.by) || eligible(who, r) || who.InGroup("security")
}

func (m *model) decide(who auth.Identity, id string, r *modelRequest, approve bool) {
	want := m.unless(CodeUnavailable, "")
	switch {
	case want != "":
	case !sees(who, r):
		want = CodeNotFound
	case !eligible(who, r):
		want = CodeForbidden
	case r.status != policy.Open, approve && slices.Contains(r.approvers, who.Subject):
		want = CodeConflict
	}
	got, err := m.w.Decide(m.t.Context(), who, id, approve, "")
	m.expect(err, want, "%s decides on %s (%s): %v", who.Subject, id, r.level, approve)
	switch {
	case err != nil:
	case approve:
		r.approvers = append(r.approvers, who.Subject)
		m.count(r, got.Grant)
	default:
		r.status = policy.Denied
	}
}

func (m *model) cancel(who auth.Identity, id string, r *modelRequest) {
	want := m.unless(CodeUnavailable, "")
	switch {
	case want != "":
	case !sees(who, r):
		want = CodeNotFound
	case !who.Same(r.by):
		want = CodeForbidden
	case r.status != policy.Open:
		want = CodeConflict
	}
	_, err := m.w.CancelRequest(m.t.Context(), who, id)
	m.expect(err, want, "%s cancels %s", who.Subject, id)
	if err == nil {
		r.status = policy.Cancelled
	}
}

func (m *model) revoke(who auth.Identity, id string, g *modelGrant) {
	want := ""
	switch {
	case !sees(who, g.request):
		want = CodeNotFound
	case g.code != "":
		want = CodeConflict
	default:
		want = m.unless(CodeUnavailable, "")
		g.code, g.by = "revoked", who.Email
	}
	_, err := m.w.Revoke(m.t.Context(), who, id, "x")
	m.expect(err, want, "%s revokes %s", who.Subject, id)
}

func (m *model) release(who auth.Identity, id string, g *modelGrant) {
	want := ""
	switch {
	case !sees(who, g.request):
		want = CodeNotFound
	case !who.Same(g.request.by):
		want = CodeForbidden
	case g.code != "":
		want = CodeConflict
	default:
		want = m.unless(CodeUnavailable, "")
		g.code, g.by = "released", who.Email
	}
	_, err := m.w.Release(m.t.Context(), who, id)
	m.expect(err, want, "%s releases %s", who.Subject, id)
}

func (m *model) active(g *modelGrant) bool {
	return g.code == "" && !m.w.disk.Now().Before(g.start)
}

func (m *model) hold(id string, g *modelGrant) {
	want := CodeConflict
	if m.active(g) {
		want = ""
	}
	held, release, err := m.w.Hold(m.t.Context(), id)
	m.expect(err, want, "hold %s", id)
	if err == nil {
		m.t.Cleanup(release)
		g.held = append(g.held, held)
	}
	v, err := m.w.Verifier(m.t.Context(), id)
	if err != nil || (v != nil) != (g.password != "") || (v != nil && string(v) != "orders:"+g.password) {
		m.fail("verifier of %s: %q, %v; the password is %q", id, v, err, g.password)
	}
}

func (m *model) passwd(who auth.Identity, id string, g *modelGrant) {
	want := ""
	switch {
	case !sees(who, g.request):
		want = CodeNotFound
	case !who.Same(g.request.by):
		want = CodeForbidden
	case m.full:
		want = CodeUnavailable
	case g.code != "":
		want = CodeConflict
	}
	c, err := m.w.Password(m.t.Context(), who, id)
	m.expect(err, want, "%s makes a password for %s", who.Subject, id)
	if err == nil {
		g.password = c.Password
	}
}

// unless gives code while the disk is full, or else otherwise.
func (m *model) unless(code, otherwise string) string {
	if m.full {
		return code
	}
	return otherwise
}

func (m *model) expect(err error, code, format string, args ...any) {
	m.t.Helper()
	got := ""
	var e *Error
	if errors.As(err, &e) {
		got = e.Code
	} else if err != nil {
		got = err.Error()
	}
	m.say(format+": %s", append(args, got)...)
	if got != code {
		m.fail("got %q (%v), want %q", got, err, code)
	}
}

func (m *model) say(format string, args ...any) {
	m.log = append(m.log, m.w.disk.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log[max(0, len(m.log)-40):] {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

// compare holds the ledger against the model: what it says of each request and grant, once.
func (m *model) compare() {
	m.pass()
	ended, created, over := map[string]string{}, map[string]ledger.GrantCreated{}, map[string]ledger.GrantEnded{}
	for _, e := range m.w.entries(ledger.TypeRequestEnded) {
		end := into[ledger.RequestEnded](m.t, e)
		ended[end.Request] += end.Status // a second one would show
	}
	for _, e := range m.w.entries(ledger.TypeGrantCreated) {
		g := into[ledger.GrantCreated](m.t, e)
		if _, twice := created[g.Grant]; twice {
			m.fail("grant %s was created twice", g.Grant)
		}
		created[g.Grant] = g
	}
	for _, e := range m.w.entries(ledger.TypeGrantEnded) {
		g := into[ledger.GrantEnded](m.t, e)
		if _, twice := over[g.Grant]; twice {
			m.fail("grant %s ended twice", g.Grant)
		}
		over[g.Grant] = g
	}
	if len(created) != len(m.grants) {
		m.fail("%d grants on the ledger, %d in the model", len(created), len(m.grants))
	}
	for id, r := range m.requests {
		want := string(r.status)
		if r.status == policy.Open {
			want = ""
		}
		if ended[id] != want {
			m.fail("request %s is %q on the ledger, %q in the model", id, ended[id], want)
		}
	}
	for id, g := range m.grants {
		if c := created[id]; !c.Start.Equal(g.start) || !c.End.Equal(g.end) {
			m.fail("grant %s runs from %v to %v on the ledger, %v to %v in the model", id, c.Start, c.End, g.start, g.end)
		}
		if e := over[id]; e.Code != g.code || e.By != g.by {
			m.fail("grant %s ended as %q by %q on the ledger, %q by %q in the model", id, e.Code, e.By, g.code, g.by)
		}
	}
}

// pick gives one of a map's values; in the order they were made, because ids differ from run to run.
func pick[V any](r *rand.Rand, ids []string, m map[string]V) (id string, v V) {
	if len(ids) == 0 {
		return "", v
	}
	id = ids[r.IntN(len(ids))]
	return id, m[id]
}
