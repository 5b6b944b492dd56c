package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
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
// ledger's. CURFEW_MODEL_RUNS plays more of them; CURFEW_MODEL_SEED one alone.
func TestDeskModel(t *testing.T) {
	const shards = 4
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
		}
		t.Run(fmt.Sprintf("seeds %d to %d", from, to-1), func(t *testing.T) {
			t.Parallel()
			dir := quickDir(t)
			synctest.Test(t, func(t *testing.T) {
				w := openQuiet(t, dir, modelPolicy(0))
				defer func() { w.stop() }()
				for seed := from; seed < to; seed++ {
					newTale(t, w, seed).play(25)
				}
			})
		})
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
	}
)

var roles = map[string][]string{
	"alice": {"developers"}, "dana": {"developers"}, "bob": {"leads"}, "carol": {"leads", "security"}, "sam": {"security"}, "eve": nil,
}

func newTale(t *testing.T, w *world, seed uint64) *tale {
	m := &tale{t: t, w: w, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), from: w.disk.Size(), groups: map[string][]string{},
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

func (m *tale) step() {
	who := m.people[m.rand.IntN(len(m.people))]
	rid, r := pick(m.rand, m.rids, m.requests)
	gid, g := pick(m.rand, m.gids, m.grants)
	vid, v := pick(m.rand, m.vids, m.reviews)
	if n := len(m.gids); n > 0 && m.rand.IntN(2) == 0 { // and mostly the newest
		gid, g = m.gids[n-1], m.grants[m.gids[n-1]]
	}
	if g != nil && m.rand.IntN(2) == 0 { // mostly it is its holder who does something with it
		who = m.requests[g.request].by
	}
	switch roll := m.rand.IntN(100); {
	case roll < 20:
		m.ask(who)
	case roll < 42 && r != nil:
		m.decide(m.people[m.rand.IntN(len(m.people))], rid, r, m.rand.IntN(6) > 0)
	case roll < 45 && r != nil:
		m.cancel(who, rid, r)
	case roll < 48 && r != nil:
		m.comment(who, rid, r)
	case roll < 60 && g != nil:
		m.extend(who, gid, g)
	case roll < 64 && g != nil:
		m.finish(who, gid, g, "released")
	case roll < 68 && g != nil:
		m.finish(who, gid, g, "revoked")
	case roll < 73 && g != nil:
		m.hold(gid, g)
	case roll < 76 && g != nil:
		m.session(gid, g)
	case roll < 82 && v != nil:
		m.review(m.people[m.rand.IntN(len(m.people))], vid, v)
	case roll < 84:
		m.reload(m.rand.IntN(4))
	case roll < 87:
		m.change(who)
	case roll < 88:
		m.restart()
	default:
		m.pass()
	}
}

// pass lets time go by, and mostly the desk's loop too; sometimes it is late.
func (m *tale) pass() {
	d := []time.Duration{time.Millisecond, time.Second, time.Minute, 4 * time.Minute, 11 * time.Minute}[m.rand.IntN(5)]
	if len(m.gids) > 0 && m.rand.IntN(3) == 0 { // to the very end of a grant, or right before it
		if g := m.grants[m.gids[m.rand.IntN(len(m.gids))]]; g.code == "" {
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
		}
	}
	for _, r := range m.requests {
		if r.status == policy.Open && !now.Before(r.lapses) {
			r.status = policy.Lapsed
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
	level := []string{"reader", "writer", "owner"}[m.rand.IntN(3)]
	d := []time.Duration{time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour}[m.rand.IntN(5)]
	a := policy.Ask{Target: "orders", Level: level, Duration: d, Reason: "x", BreakGlass: m.rand.IntN(4) == 0}
	now := m.now()
	if !a.BreakGlass && m.rand.IntN(5) == 0 {
		a.Start = now.Add(time.Duration(m.rand.IntN(600)-60) * time.Second)
	}
	rule, needs := m.allowed(m.groups[who], level, d, a.BreakGlass, m.debt(who))
	want := ""
	if rule == "" {
		want = CodePolicy
	}
	r, err := m.w.Ask(m.t.Context(), m.id(who), a)
	m.expect(err, want, "%s asks for %s for %v from %v, glass %v: %s", who, level, d, a.Start, a.BreakGlass, r.ID)
	if err != nil {
		return
	}
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
	switch {
	case err != nil:
	case approve:
		r.approvers = append(r.approvers, who)
		m.count(id, r, got.Grant)
	default:
		r.status = policy.Denied
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
		r.comments++
	}
}

func (m *tale) extend(who, id string, g *taleGrant) {
	of := m.requests[g.request]
	d := []time.Duration{time.Minute, 10 * time.Minute, 30 * time.Minute, 50 * time.Minute}[m.rand.IntN(4)]
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
	if err != nil {
		return
	}
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
	m.judge(func(r *taleRequest) ([]string, bool) { return r.was, true })
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
		m.judge(func(r *taleRequest) ([]string, bool) { return nil, r.by == who })
		if err != nil {
			m.fail("end all: %v", err)
		}
		return
	}
	m.say("%s is in %v", who, m.groups[who])
	if err = m.w.Refreshed(m.t.Context(), m.id(who)); err != nil {
		m.fail("refreshed: %v", err)
	}
	m.judge(func(r *taleRequest) ([]string, bool) { return m.groups[who], r.by == who })
}

// judge ends what somebody of these groups would not be given under the policy of now. Requests go first.
func (m *tale) judge(about func(*taleRequest) (groups []string, concerned bool)) {
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
			m.over(gid, g, "revoked", "curfew")
		}
	}
}

func (m *tale) restart() {
	m.say("restart")
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
