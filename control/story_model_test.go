package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// TestDeskModel plays many short stories of six people against the desk and against a model of it that knows
// neither the store nor the policy's code: every answer must be the model's, and at the end of each story the
// ledger alone, read from its first entry to its last, must come to the model's state, and the store to the
// ledger's. CURFEW_MODEL_RUNS plays more of them; CURFEW_MODEL_SEED one alone. Stories are told so that what
// is rare happens often enough, and how often that was is counted: see often.
func TestDeskModel(t *testing.T) {
	const shards = 4
	var told happened
	t.Cleanup(func() { told.oftenEnough(t) }) // when all shards are done
	runs, first := 50/unhurried, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("CURFEW_MODEL_RUNS")); err == nil {
		runs = max(1, n/shards)
	}
	for shard := range shards {
		from := first + uint64(shard*runs)
		to := from + uint64(runs)
		if n, err := strconv.ParseUint(os.Getenv("CURFEW_MODEL_SEED"), 10, 64); err == nil {
			if shard > 0 {
				return
			}
			from, to = n, n+1
			told.few = true
		}
		t.Run(fmt.Sprintf("seeds %d to %d", from, to-1), func(t *testing.T) {
			t.Parallel()
			dir := quickDir(t)
			synctest.Test(t, func(t *testing.T) {
				w := openQuiet(t, dir, modelPolicy(0))
				defer func() { w.stop() }()
				for seed := from; seed < to; seed++ {
					newTale(t, w, seed, &told).play(40)
				}
			})
		})
	}
}

// often is how often, at the least, each of these happens in a hundred stories: about half as often as it did when
// this was written. What happens less is not tested by stories.
var often = map[string]int{
	"asked": 240, "asked, not allowed": 200, "asked for later": 30, "granted at once": 120, "glass broken": 70, "glass refused for a debt": 25,
	"approved": 25, "approved, one of two": 30, "denied": 10, "decided twice": 3, "decided oneself": 25, "decided too late": 50,
	"lapsed": 14, "cancelled": 10, "commented": 40,
	"extension asked": 35, "extended": 20, "extended again": 6, "extended a third time": 3, "extended too far": 24, "extended when over": 20,
	"glass extended, refused": 6, "a second extension while one is open": 2, "an extension undecided when its grant ended": 2,
	"released": 12, "revoked": 27, "expired": 50, "ended by a reload": 8, "ended for who they are": 8, "held": 30, "held when over": 25, "restart": 22,
	"reviewed": 30, "review of a broken glass": 27, "reviewed oneself": 2, "reviewed by a stranger": 8, "reviewed twice": 11, "reviewed too early": 25,
}

// happened counts over all stories.
type happened struct {
	mu      sync.Mutex
	n       map[string]int
	stories int
	few     bool // too few stories to count
}

func (h *happened) add(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == nil {
		h.n = map[string]int{}
	}
	h.n[what]++
}

func (h *happened) oftenEnough(t *testing.T) {
	if h.few || t.Failed() || h.stories < 100 {
		return
	}
	for _, what := range slices.Sorted(maps.Keys(often)) {
		t.Logf("%5d %s", h.n[what], what)
		if h.n[what] < often[what]*h.stories/100 {
			t.Errorf("%q happened %d times in %d stories, it takes %d in a hundred", what, h.n[what], h.stories, often[what])
		}
	}
}

// quickDir is a directory in memory, where there is one: a story writes much and keeps nothing.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "curfew-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// modelPolicy is one of four: the first, one without writers, one that wants two approvals for them, and one
// that gives nobody anything.
func modelPolicy(n int) *policy.Policy {
	p := testPolicy()
	p.Hash, p.Text = fmt.Sprint("sha256:", n), fmt.Sprint(n)
	p.Rules[1].Review = &policy.Review{Within: 30 * time.Minute}
	p.Rules = append(p.Rules, policy.Rule{Name: "glass", Who: policy.Who{Groups: []string{"developers"}}, Targets: []string{"*"}, Levels: []string{"owner"},
		Longest: 15 * time.Minute, Reason: true, BreakGlass: true})
	switch n {
	case 1:
		p.Rules = slices.Delete(p.Rules, 1, 2)
	case 2:
		p.Rules[1].Approvals.Count = 2
	case 3:
		p.Rules, p.Lockdown = nil, true
	}
	return p
}

// openQuiet is a desk whose loop runs when the story says so.
func openQuiet(t *testing.T, dir string, p *policy.Policy) *world {
	w := open(t, dir, p)
	w.halt()
	return w
}

// The model. Times are the story's own; an end that the desk has not written yet is told apart, because until
// then nobody can review what was done.
type (
	taleRequest struct {
		by        string
		was       []string // groups when asking
		level     string
		rule      string
		duration  time.Duration
		start     time.Time
		made      time.Time
		lapses    time.Time
		glass     bool
		extends   string
		needs     int
		approvers []string
		status    policy.Status
		comments  int
	}
	taleGrant struct {
		request    string
		start, end time.Time
		code, by   string
		written    bool
		held       []context.Context
		longer     int
	}
	taleReview struct {
		grant, session string
		done           bool
		ok             bool
	}
	tale struct {
		t        *testing.T
		w        *world
		seed     uint64
		rand     *rand.Rand
		from     int64 // the ledger's size when it began
		log      []string
		policy   int
		people   []string
		groups   map[string][]string
		requests map[string]*taleRequest
		grants   map[string]*taleGrant
		reviews  map[string]*taleReview
		rids     []string
		gids     []string
		vids     []string
		sessions int
		told     *happened
	}
)

var roles = map[string][]string{
	"alice": {"developers"}, "dana": {"developers"}, "bob": {"leads"}, "carol": {"leads", "security"}, "sam": {"security"}, "eve": nil,
}

func newTale(t *testing.T, w *world, seed uint64, told *happened) *tale {
	told.mu.Lock()
	told.stories++
	told.mu.Unlock()
	m := &tale{t: t, w: w, told: told, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), from: w.disk.Size(), groups: map[string][]string{},
		requests: map[string]*taleRequest{}, grants: map[string]*taleGrant{}, reviews: map[string]*taleReview{}}
	for _, name := range []string{"alice", "dana", "bob", "carol", "sam", "eve"} {
		m.people = append(m.people, name)
		m.groups[name] = roles[name]
	}
	m.reload(0)
	return m
}

// id is somebody as they are now. Each story has people of its own, who have no past.
func (m *tale) id(name string) auth.Identity {
	return person(fmt.Sprintf("%s-%d", name, m.seed), m.groups[name]...)
}

func (m *tale) label(name string) string { return m.id(name).Label() }

func (m *tale) in(name string, groups ...string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(m.groups[name], g) })
}

func (m *tale) play(steps int) {
	for range steps {
		m.step()
		m.time()
		m.check()
	}
	m.loop()
	m.replay()
	for _, name := range m.people { // who comes next finds nobody here
		if err := m.w.EndAll(m.t.Context(), m.id(name), recorder.EndRevoked, "the story is over"); err != nil {
			m.fail("end: %v", err)
		}
	}
}

// note counts what has happened, if it has.
func (m *tale) note(what string, happened bool) {
	if happened {
		m.told.add(what)
	}
}

// mostly is true three times of four.
func (m *tale) mostly() bool { return m.rand.IntN(4) > 0 }

// somebody is mostly one of those who fit, if there are any, else anybody.
func (m *tale) somebody(fits func(name string) bool) string {
	all := m.people
	if m.mostly() {
		if some := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !fits(name) }); len(some) > 0 {
			all = some
		}
	}
	return all[m.rand.IntN(len(all))]
}

// one is mostly one of those that fit, and of them the newest as often as not; without any, any.
func one[T any](m *tale, ids []string, from map[string]*T, fits func(*T) bool) (id string, v *T) {
	if m.mostly() {
		if some := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !fits(from[id]) }); len(some) > 0 {
			ids = some
		}
	}
	switch n := len(ids); {
	case n == 0:
		return "", nil
	case m.rand.IntN(2) == 0:
		id = ids[n-1]
	default:
		id = ids[m.rand.IntN(n)]
	}
	return id, from[id]
}

func (m *tale) grantOf(g *taleGrant) string {
	for id, one := range m.grants {
		if one == g {
			return id
		}
	}
	return ""
}

func (m *tale) step() {
	rid, r := one(m, m.rids, m.requests, func(r *taleRequest) bool { return r.status == policy.Open })
	gid, g := one(m, m.gids, m.grants, func(g *taleGrant) bool { return g.code == "" })
	vid, v := one(m, m.vids, m.reviews, func(v *taleReview) bool { return !v.done && m.grants[v.grant].written })
	open := map[string]bool{} // grants that somebody wants to be longer
	for _, r := range m.requests {
		open[r.extends] = open[r.extends] || r.status == policy.Open
	}
	live := func(g *taleGrant) bool { return g.code == "" && !m.requests[g.request].glass }
	if m.rand.IntN(3) == 0 {
		gid, g = one(m, m.gids, m.grants, func(g *taleGrant) bool { return live(g) && open[m.grantOf(g)] })
	}
	holder := func(name string) bool { return g != nil && name == m.requests[g.request].by }
	asker := func(name string) bool { return r != nil && name == r.by }
	switch roll := m.rand.IntN(100); {
	case roll < 18:
		m.ask(m.somebody(func(name string) bool { return m.in(name, "developers") && (!m.debt(name) || m.rand.IntN(3) == 0) }))
	case roll < 36 && r != nil:
		again := len(r.approvers) > 0 && m.rand.IntN(4) == 0
		m.decide(m.somebody(func(name string) bool { return m.eligible(name, r) && slices.Contains(r.approvers, name) == again }), rid, r, m.rand.IntN(6) > 0)
	case roll < 38 && r != nil:
		m.cancel(m.somebody(asker), rid, r)
	case roll < 41 && r != nil:
		m.comment(m.somebody(asker), rid, r)
	case roll < 56 && g != nil:
		if gid, g = one(m, m.gids, m.grants, live); !live(g) && m.mostly() {
			m.ask(m.somebody(func(name string) bool { return m.in(name, "developers") }))
			return
		}
		m.extend(m.somebody(holder), gid, g)
		if r := m.requests[m.rids[len(m.rids)-1]]; r.extends == gid && r.status == policy.Open { // what can happen to it before it is decided
			switch m.rand.IntN(6) {
			case 0:
				m.finish(m.requests[g.request].by, gid, g, "released")
			case 1:
				m.extend(m.requests[g.request].by, gid, g)
			case 2:
				m.pass()
			}
		}
	case roll < 58 && g != nil:
		m.finish(m.somebody(holder), gid, g, "released")
	case roll < 62 && g != nil:
		m.finish(m.somebody(func(name string) bool { return m.sees(name, m.requests[g.request]) }), gid, g, "revoked")
	case roll < 67 && g != nil:
		m.hold(gid, g)
	case roll < 70 && g != nil:
		m.session(gid, g)
	case roll < 79 && v != nil:
		m.review(m.somebody(func(name string) bool {
			return m.in(name, "security") && name != m.requests[m.grants[v.grant].request].by
		}), vid, v)
	case roll < 82:
		n := 0 // mostly back to the first one
		if m.policy == 0 || m.rand.IntN(3) == 0 {
			n = m.rand.IntN(4)
		}
		m.reload(n)
	case roll < 84:
		m.change(m.somebody(holder))
	case roll < 85:
		m.restart()
	default:
		m.pass()
	}
}

// pass lets time go by, and mostly the desk's loop too; sometimes it is late.
func (m *tale) pass() {
	d := []time.Duration{time.Millisecond, time.Second, time.Minute, 4 * time.Minute, 11 * time.Minute}[m.rand.IntN(5)]
	if len(m.gids) > 0 && m.rand.IntN(3) == 0 { // to the very end of a grant, or right before it
		if _, g := one(m, m.gids, m.grants, func(g *taleGrant) bool { return g.code == "" }); g.code == "" {
			if left := g.end.Sub(m.now()) - time.Duration(m.rand.IntN(2))*time.Millisecond; left > 0 {
				d = left
			}
		}
	}
	m.say("%v pass", d)
	time.Sleep(d)
	synctest.Wait()
	m.time()
	if m.rand.IntN(3) > 0 {
		m.loop()
	}
}

func (m *tale) now() time.Time { return m.w.disk.Now() }

// time lets the model's time come up to the desk's.
func (m *tale) time() {
	now := m.now()
	for _, g := range m.grants {
		if g.code == "" && !now.Before(g.end) {
			g.code, g.by = "expired", "curfew"
			m.note("expired", true)
		}
	}
	for _, r := range m.requests {
		if r.status == policy.Open && !now.Before(r.lapses) {
			r.status = policy.Lapsed
			m.note("lapsed", true)
			m.note("an extension lapsed with its grant", r.extends != "" && r.lapses.Equal(m.grants[r.extends].end))
		}
	}
}

func (m *tale) loop() {
	m.say("the loop turns")
	if err := errors.Join(m.w.writeEnds(m.t.Context()), m.w.regular(m.t.Context())); err != nil {
		m.fail("loop: %v", err)
	}
	for _, g := range m.grants {
		g.written = g.code != ""
	}
}

// allowed names the rule that gives somebody of these groups a level, and how many must agree.
func (m *tale) allowed(groups []string, level string, d time.Duration, glass, debt bool) (rule string, needs int) {
	in := func(any ...string) bool {
		return slices.ContainsFunc(any, func(g string) bool { return slices.Contains(groups, g) })
	}
	switch {
	case m.policy == 3:
	case glass:
		if level == "owner" && in("developers") && d <= 15*time.Minute && !debt {
			return "glass", 0
		}
	case d > time.Hour:
	case level == "reader" && in("developers"):
		return "read", 0
	case level == "writer" && in("developers") && m.policy != 1:
		return "write", map[int]int{0: 1, 2: 2}[m.policy]
	case level == "owner" && in("developers", "leads"):
		return "own", 2
	}
	return "", 0
}

func (m *tale) debt(name string) bool {
	for _, v := range m.reviews {
		if v.session == "" && !v.done && m.requests[m.grants[v.grant].request].by == name {
			return true
		}
	}
	return false
}

func (m *tale) ask(who string) {
	level := []string{"reader", "writer", "writer", "owner"}[m.rand.IntN(4)]
	d := []time.Duration{time.Minute, 10 * time.Minute, 10 * time.Minute, 30 * time.Minute, 30 * time.Minute, time.Hour, time.Hour, 2 * time.Hour}[m.rand.IntN(8)]
	a := policy.Ask{Target: "orders", Level: level, Duration: d, Reason: "x", BreakGlass: m.rand.IntN(3) == 0}
	if a.BreakGlass && m.mostly() {
		a.Level, a.Duration = "owner", 10*time.Minute
		level, d = a.Level, a.Duration
	}
	now := m.now()
	if !a.BreakGlass && m.rand.IntN(5) == 0 {
		a.Start = now.Add(time.Duration(m.rand.IntN(600)-60) * time.Second)
	}
	rule, needs := m.allowed(m.groups[who], level, d, a.BreakGlass, m.debt(who))
	want := ""
	if rule == "" {
		want = CodePolicy
	}
	if e, err := m.w.Explain(m.t.Context(), m.id(who), "", a); err != nil || (e.Outcome == policy.OutcomeAllowed) != (want == "") || e.Rule != rule {
		m.fail("it is explained that %s would be %s by %q: %v; in the model by %q", who, e.Outcome, e.Rule, err, rule)
	}
	r, err := m.w.Ask(m.t.Context(), m.id(who), a)
	m.expect(err, want, "%s asks for %s for %v from %v, glass %v: %s", who, level, d, a.Start, a.BreakGlass, r.ID)
	m.note("asked, not allowed", err != nil)
	owes := a.BreakGlass && m.debt(who)
	m.note("glass refused for a debt", err != nil && owes)
	if err != nil {
		return
	}
	m.note("asked", true)
	m.note("asked for later", a.Start.After(now))
	m.note("granted at once", needs == 0)
	m.note("glass broken", a.BreakGlass)
	own := &taleRequest{by: who, was: m.groups[who], level: level, rule: rule, duration: d, start: a.Start, made: now, lapses: now.Add(lapseOf(rule)),
		glass: a.BreakGlass, needs: needs, status: policy.Open}
	m.requests[r.ID], m.rids = own, append(m.rids, r.ID)
	m.count(r.ID, own, r.Grant)
}

func lapseOf(rule string) time.Duration {
	if rule == "write" {
		return 10 * time.Minute
	}
	return 24 * time.Hour
}

// count makes a grant, or a longer one, of a request that has its approvals.
func (m *tale) count(id string, r *taleRequest, grant string) {
	if len(r.approvers) < r.needs {
		if grant != "" {
			m.fail("%s is granted with %d of %d approvals", id, len(r.approvers), r.needs)
		}
		return
	}
	if grant == "" {
		m.fail("%s has all its approvals, and no grant", id)
	}
	r.status = policy.Approved
	if r.extends != "" {
		g := m.grants[r.extends]
		if grant != r.extends || g.code != "" {
			m.fail("%s extends %s, which ended as %q; the answer names %s", id, r.extends, g.code, grant)
		}
		g.end = g.end.Add(r.duration)
		g.longer++
		m.note([]string{"extended", "extended again", "extended a third time"}[min(g.longer, 3)-1], true)
		return
	}
	start := m.now()
	if r.start.After(start) {
		start = r.start
	}
	m.gids = append(m.gids, grant)
	m.grants[grant] = &taleGrant{request: id, start: start, end: start.Add(r.duration)}
	if r.glass {
		m.reviews[grant], m.vids = &taleReview{grant: grant}, append(m.vids, grant)
	}
}

func (m *tale) eligible(who string, r *taleRequest) bool {
	switch {
	case who == r.by || r.rule == "read" || r.rule == "glass":
		return false
	case r.rule == "write":
		return m.in(who, "leads")
	}
	return m.in(who, "leads", "security")
}

func (m *tale) sees(who string, r *taleRequest) bool {
	return who == r.by || m.eligible(who, r) || m.in(who, "security")
}

func (m *tale) decide(who, id string, r *taleRequest, approve bool) {
	want := ""
	switch {
	case !m.sees(who, r):
		want = CodeNotFound
	case !m.eligible(who, r):
		want = CodeForbidden
	case r.status != policy.Open, approve && slices.Contains(r.approvers, who), r.extends != "" && m.grants[r.extends].code != "":
		want = CodeConflict
	}
	got, err := m.w.Decide(m.t.Context(), m.id(who), id, approve, "")
	m.expect(err, want, "%s decides on %s (%s): %v", who, id, r.rule, approve)
	m.note("decided oneself", want == CodeForbidden && who == r.by)
	m.note("decided too late", want == CodeConflict && r.status != policy.Open)
	m.note("decided twice", want == CodeConflict && r.status == policy.Open && slices.Contains(r.approvers, who))
	switch {
	case err != nil:
	case approve:
		r.approvers = append(r.approvers, who)
		m.count(id, r, got.Grant)
		m.note("approved", r.status == policy.Approved)
		m.note("approved, one of two", r.status == policy.Open)
	default:
		r.status = policy.Denied
		m.note("denied", true)
	}
}

func (m *tale) cancel(who, id string, r *taleRequest) {
	want := ""
	switch {
	case !m.sees(who, r):
		want = CodeNotFound
	case who != r.by:
		want = CodeForbidden
	case r.status != policy.Open:
		want = CodeConflict
	}
	_, err := m.w.CancelRequest(m.t.Context(), m.id(who), id)
	m.expect(err, want, "%s cancels %s", who, id)
	if err == nil {
		m.note("cancelled", true)
		r.status = policy.Cancelled
	}
}

func (m *tale) comment(who, id string, r *taleRequest) {
	want := ""
	if !m.sees(who, r) {
		want = CodeNotFound
	}
	_, err := m.w.Comment(m.t.Context(), m.id(who), id, "why?")
	m.expect(err, want, "%s comments on %s", who, id)
	if err == nil {
		m.note("commented", true)
		r.comments++
	}
}

func (m *tale) extend(who, id string, g *taleGrant) {
	of := m.requests[g.request]
	d := []time.Duration{time.Minute, time.Minute, 10 * time.Minute, 30 * time.Minute, 50 * time.Minute}[m.rand.IntN(5)]
	now := m.now()
	from := now
	if g.start.After(from) {
		from = g.start
	}
	open := slices.ContainsFunc(m.rids, func(rid string) bool { r := m.requests[rid]; return r.extends == id && r.status == policy.Open })
	rule, needs := m.allowed(m.groups[who], of.level, g.end.Add(d).Sub(from), false, false)
	want := ""
	switch {
	case !m.sees(who, of):
		want = CodeNotFound
	case who != of.by:
		want = CodeForbidden
	case g.code != "":
		want = CodeConflict
	case of.glass:
		want = CodePolicy
	case open:
		want = CodeConflict
	case rule == "":
		want = CodePolicy
	}
	r, err := m.w.Extend(m.t.Context(), m.id(who), id, More{For: d, Reason: "x"})
	m.expect(err, want, "%s extends %s by %v: %s", who, id, d, r.ID)
	theirs := who == of.by && err != nil
	m.note("extended when over", theirs && g.code != "")
	m.note("glass extended, refused", theirs && g.code == "" && of.glass)
	m.note("a second extension while one is open", theirs && g.code == "" && !of.glass && open)
	m.note("extended too far", theirs && g.code == "" && !of.glass && !open && m.now().Add(time.Hour).Before(g.end.Add(d)))
	if err != nil {
		return
	}
	m.note("extension asked", true)
	lapses := now.Add(lapseOf(rule))
	if lapses.After(g.end) {
		lapses = g.end
	}
	own := &taleRequest{by: who, was: m.groups[who], level: of.level, rule: rule, duration: d, made: now, lapses: lapses, extends: id, needs: needs, status: policy.Open}
	m.requests[r.ID], m.rids = own, append(m.rids, r.ID)
	m.count(r.ID, own, r.Grant)
}

// over ends a grant in the model, and with it what would extend it.
func (m *tale) over(id string, g *taleGrant, code, by string) {
	g.code, g.by, g.written = code, by, true
	for _, rid := range m.rids {
		if r := m.requests[rid]; r.extends == id && r.status == policy.Open {
			m.note("an extension undecided when its grant ended", true)
			r.status = policy.Denied
		}
	}
}

func (m *tale) finish(who, id string, g *taleGrant, code string) {
	of := m.requests[g.request]
	want := ""
	switch {
	case !m.sees(who, of):
		want = CodeNotFound
	case code == "released" && who != of.by:
		want = CodeForbidden
	case g.code != "":
		want = CodeConflict
	}
	var err error
	if code == "released" {
		_, err = m.w.Release(m.t.Context(), m.id(who), id)
	} else {
		_, err = m.w.Revoke(m.t.Context(), m.id(who), id, "x")
	}
	m.expect(err, want, "%s: %s is %s", who, id, code)
	if err == nil {
		m.note(code, true)
		m.over(id, g, code, m.label(who))
	}
}

func (m *tale) hold(id string, g *taleGrant) {
	want := ""
	if g.code != "" || m.now().Before(g.start) {
		want = CodeConflict
	}
	held, release, err := m.w.Hold(m.t.Context(), id)
	m.expect(err, want, "hold %s", id)
	m.note("held", err == nil)
	m.note("held when over", g.code != "")
	if err == nil {
		m.t.Cleanup(release)
		g.held = append(g.held, held)
	}
}

// session is one under a grant, from its begin to its seal: it may come late, as a healed one does.
func (m *tale) session(id string, g *taleGrant) {
	m.sessions++
	sid := fmt.Sprintf("s-%d-%d", m.seed, m.sessions)
	m.say("session %s under %s", sid, id)
	err := errors.Join(
		m.w.disk.Opened(m.t.Context(), ledger.SessionOpened{Session: sid, Grant: id, Target: "orders"}),
		m.w.disk.Sealed(m.t.Context(), ledger.SessionSealed{Grant: id, Target: "orders", Sealed: recorder.Sealed{TreeState: recorder.TreeState{Session: sid}}}))
	if err != nil {
		m.fail("session: %v", err)
	}
	if m.requests[g.request].rule == "write" {
		m.reviews[sid], m.vids = &taleReview{grant: id, session: sid}, append(m.vids, sid)
	}
}

func (m *tale) review(who, id string, v *taleReview) {
	g := m.grants[v.grant]
	want := ""
	switch {
	case who == m.requests[g.request].by:
		want = CodeForbidden
	case !m.in(who, "security"):
		want = CodeNotFound
	case v.done, v.session == "" && !g.written:
		want = CodeConflict
	}
	ok := m.rand.IntN(2) == 0
	_, err := m.w.Review(m.t.Context(), m.id(who), id, ok, map[bool]string{false: "something"}[ok])
	m.expect(err, want, "%s reviews %s", who, id)
	m.note("reviewed oneself", want == CodeForbidden)
	m.note("reviewed by a stranger", want == CodeNotFound)
	m.note("reviewed twice", want == CodeConflict && v.done)
	m.note("reviewed too early", want == CodeConflict && !v.done)
	m.note("reviewed", err == nil)
	m.note("review of a broken glass", err == nil && v.session == "")
	if err == nil {
		v.done, v.ok = true, ok
	}
}

// reload puts another policy in force: what it does not give any more ends.
func (m *tale) reload(n int) {
	m.say("policy %d", n)
	if err := m.w.Reload(m.t.Context(), modelPolicy(n)); err != nil {
		m.fail("reload: %v", err)
	}
	m.policy = n
	m.judge("ended by a reload", func(r *taleRequest) ([]string, bool) { return r.was, true })
}

// change has somebody other groups at the provider from now on, or be gone there.
func (m *tale) change(who string) {
	var err error
	switch m.rand.IntN(3) {
	case 0:
		m.groups[who] = nil
	case 1:
		m.groups[who] = roles[who]
	default:
		m.say("%s is disabled", who)
		err = m.w.EndAll(m.t.Context(), m.id(who), recorder.EndRevoked, "gone")
		m.judge("ended for who they are", func(r *taleRequest) ([]string, bool) { return nil, r.by == who })
		if err != nil {
			m.fail("end all: %v", err)
		}
		return
	}
	m.say("%s is in %v", who, m.groups[who])
	if err = m.w.Refreshed(m.t.Context(), m.id(who)); err != nil {
		m.fail("refreshed: %v", err)
	}
	m.judge("ended for who they are", func(r *taleRequest) ([]string, bool) { return m.groups[who], r.by == who })
}

// judge ends what somebody of these groups would not be given under the policy of now. Requests go first.
func (m *tale) judge(why string, about func(*taleRequest) (groups []string, concerned bool)) {
	for _, rid := range m.rids {
		r := m.requests[rid]
		groups, concerned := about(r)
		if !concerned || r.status != policy.Open {
			continue
		}
		if rule, needs := m.allowed(groups, r.level, r.duration, r.glass, false); rule != r.rule || needs != r.needs {
			r.status = policy.Denied
		}
	}
	for _, gid := range m.gids {
		g := m.grants[gid]
		of := m.requests[g.request]
		groups, concerned := about(of)
		if !concerned || g.code != "" {
			continue
		}
		// Whether the glass was broken does not matter: some rule gives it.
		plain, _ := m.allowed(groups, of.level, time.Minute, false, false)
		glass, _ := m.allowed(groups, of.level, time.Minute, true, false)
		if plain == "" && glass == "" {
			m.note(why, true)
			m.over(gid, g, "revoked", "curfew")
		}
	}
}

func (m *tale) restart() {
	m.say("restart")
	m.note("restart", true)
	m.w.stop()
	m.w.stop = func() {}
	*m.w = *openQuiet(m.t, m.w.dir, modelPolicy(m.policy))
	synctest.Wait()
	for _, g := range m.grants {
		g.held = nil // they belonged to the process that is gone
	}
}

// check looks at what can be seen at any moment.
func (m *tale) check() {
	census := Census{}
	for id, g := range m.grants {
		for _, held := range g.held {
			if got := held.Err() != nil; got != (g.code != "") || (got && causeOf(held) != g.code) {
				m.fail("grant %s ended as %q; its holder's context: %v", id, g.code, context.Cause(held))
			}
		}
		switch {
		case g.code != "":
		case m.now().Before(g.start):
			census.Scheduled++
		default:
			census.Active++
			if m.requests[g.request].glass {
				census.Broken++
			}
		}
		if now := m.w.grant(id); !now.End.Equal(g.end) && g.code == "" {
			m.fail("grant %s ends at %v, in the model at %v", id, now.End, g.end)
		}
	}
	if got := m.w.Census(); got.Active != census.Active || got.Scheduled != census.Scheduled || got.Broken != census.Broken {
		m.fail("%+v, in the model %+v", got, census)
	}
}

func (m *tale) expect(err error, code, format string, args ...any) {
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

func (m *tale) say(format string, args ...any) {
	m.log = append(m.log, m.now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *tale) fail(format string, args ...any) {
	m.t.Helper()
	for _, line := range m.log {
		m.t.Log(line)
	}
	m.t.Logf("to play this one alone: CURFEW_MODEL_SEED=%d go test ./control -run TestDeskModel", m.seed)
	m.t.Fatalf(format, args...)
}

// told is what the ledger comes to.
type told struct {
	requests map[string]string // ended as
	comments map[string]int
	grants   map[string]ledger.GrantCreated
	longer   map[string]int
	ends     map[string]ledger.GrantEnded
	reviews  map[string]string // "due", "ok", "finding"
}

// replay reads the ledger of this story, as somebody who has nothing else, and holds that against the model and
// against the rows of the store.
func (m *tale) replay() {
	state := told{map[string]string{}, map[string]int{}, map[string]ledger.GrantCreated{}, map[string]int{}, map[string]ledger.GrantEnded{}, map[string]string{}}
	err := m.w.disk.Entries(m.t.Context(), m.from, func(line []byte) error {
		e, err := ledger.Decode(line)
		if err == nil {
			m.tell(&state, e)
		}
		return err
	})
	if err != nil {
		m.fail("ledger: %v", err)
	}
	for id, r := range m.requests {
		want := string(r.status)
		if r.status == policy.Open {
			want = ""
		}
		if state.requests[id] != want || state.comments[id] != r.comments {
			m.fail("request %s is %q with %d comments on the ledger, %q with %d in the model", id, state.requests[id], state.comments[id], want, r.comments)
		}
	}
	if len(state.grants) != len(m.grants) || len(state.reviews) != len(m.reviews) {
		m.fail("%d grants and %d reviews on the ledger, %d and %d in the model", len(state.grants), len(state.reviews), len(m.grants), len(m.reviews))
	}
	for id, g := range m.grants {
		c, e := state.grants[id], state.ends[id]
		if !c.Start.Equal(g.start) || !c.End.Equal(g.end) || state.longer[id] != g.longer || e.Code != g.code || e.By != g.by || e.At.After(c.End) {
			m.fail("grant %s on the ledger: %v to %v, extended %d times, ended as %q by %q at %v; in the model %+v", id, c.Start, c.End, state.longer[id], e.Code, e.By, e.At, *g)
		}
	}
	for id, v := range m.reviews {
		want := map[bool]string{true: "ok", false: "finding"}[v.ok]
		if !v.done {
			want = "due"
		}
		if state.reviews[id] != want {
			m.fail("review %s is %q on the ledger, %q in the model", id, state.reviews[id], want)
		}
	}
	m.rows(state)
}

// tell is one entry. What cannot follow on what was told before fails.
func (m *tale) tell(s *told, e ledger.Entry) {
	switch e.Type {
	case ledger.TypeRequestEnded:
		d := into[ledger.RequestEnded](m.t, e)
		if s.requests[d.Request] != "" {
			m.fail("request %s ends twice", d.Request)
		}
		s.requests[d.Request] = d.Status
	case ledger.TypeRequestDecided:
		if d := into[ledger.RequestDecided](m.t, e); s.requests[d.Request] != "" {
			m.fail("a decision on %s, which is %s", d.Request, s.requests[d.Request])
		}
	case ledger.TypeRequestCommented:
		s.comments[into[ledger.RequestCommented](m.t, e).Request]++
	case ledger.TypeGrantCreated:
		d := into[ledger.GrantCreated](m.t, e)
		if _, twice := s.grants[d.Grant]; twice || s.requests[d.Request] != "approved" {
			m.fail("grant %s is made twice, or of a request that is not approved", d.Grant)
		}
		s.grants[d.Grant] = d
	case ledger.TypeGrantExtended:
		d := into[ledger.GrantExtended](m.t, e)
		g := s.grants[d.Grant]
		if _, over := s.ends[d.Grant]; over || !g.End.Equal(d.From) || s.requests[d.Request] != "approved" || e.Time.After(d.From) {
			m.fail("grant %s is extended after its end, from another one, or without approval: %+v", d.Grant, d)
		}
		g.End = d.To
		s.grants[d.Grant], s.longer[d.Grant] = g, s.longer[d.Grant]+1
	case ledger.TypeGrantEnded:
		d := into[ledger.GrantEnded](m.t, e)
		if _, twice := s.ends[d.Grant]; twice {
			m.fail("grant %s ends twice", d.Grant)
		}
		s.ends[d.Grant] = d
	case ledger.TypeReviewDue:
		d := into[ledger.ReviewDue](m.t, e)
		if s.reviews[d.Review] != "" {
			m.fail("review %s is due twice", d.Review)
		}
		s.reviews[d.Review] = "due"
	case ledger.TypeReviewDone:
		d := into[ledger.ReviewDone](m.t, e)
		if s.reviews[d.Review] != "due" {
			m.fail("review %s is done, and was %q", d.Review, s.reviews[d.Review])
		}
		s.reviews[d.Review] = map[bool]string{true: "ok", false: "finding"}[d.OK]
	}
}

// rows holds the store against the ledger.
func (m *tale) rows(s told) {
	err := m.w.disk.View(m.t.Context(), func(tx *store.Tx) error {
		for id := range m.requests {
			r, err := tx.Request(id)
			if err != nil {
				return err
			}
			if status := s.requests[id]; string(r.Status) != status && (status != "" || r.Status != policy.Open) {
				m.fail("request %s is %s in the store, %q on the ledger", id, r.Status, status)
			}
		}
		for id, c := range s.grants {
			g, err := tx.Grant(id)
			if err != nil {
				return err
			}
			if e := s.ends[id]; !g.End.Equal(c.End) || g.EndCode != e.Code || !g.Ended.Equal(e.At) || len(g.Extensions) != s.longer[id] {
				m.fail("grant %s in the store: %+v; on the ledger to %v, %+v", id, g, c.End, e)
			}
		}
		return nil
	})
	if err != nil {
		m.fail("store: %v", err)
	}
}
