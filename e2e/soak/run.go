package soak

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// Run soaks Curfew. An error means that it could not be carried out; what was found wrong is in the report.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	o.defaults()
	o.Log("starting the servers; seed %d", o.Seed)
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	before, err := w.atRest(ctx)
	if err != nil {
		return nil, err
	}
	samples := w.load(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	o.Log("everybody has gone; counting")
	for _, c := range []*api.Client{w.asker, w.approver, w.reader} {
		c.HTTP.CloseIdleConnections() // they would count as Curfew's
	}
	r = &Report{}
	w.ends(r)
	w.growth(r, samples)
	if err := w.left(ctx, r, before); err != nil {
		return nil, err
	}
	if err := w.counted(ctx, r); err != nil {
		return nil, err
	}
	return r, w.verified(ctx, r)
}

// atRest is what an idle Curfew has that has served both targets once: what it keeps from then on is not a leak.
func (w *world) atRest(ctx context.Context) (sample, error) {
	for _, target := range []string{harness.Orders, harness.Shop} {
		h := &holder{w: w, target: target, sessions: 2, busy: true, shortest: time.Second, longest: time.Second, rand: rand.New(rand.NewPCG(w.o.Seed, 0))}
		if err := h.oneGrant(ctx); err != nil {
			return sample{}, err
		}
	}
	return w.look(ctx, time.Now())
}

// load is the soak itself.
func (w *world) load(ctx context.Context) []sample {
	ctx, stop := context.WithTimeout(ctx, w.o.Duration)
	defer stop()
	var side sync.WaitGroup
	for i, h := range w.holders() {
		side.Go(func() {
			pause(ctx, time.Duration(i)*w.o.Duration/1000) // not all ask at the same time
			h.work(ctx)
		})
	}
	r := rand.New(rand.NewPCG(w.o.Seed, 1))
	side.Go(func() { w.accidents(ctx, min(time.Second, w.o.Duration/40), r) })
	side.Go(func() {
		for i := range w.o.Crashes {
			pause(ctx, w.o.Duration/time.Duration(w.o.Crashes+1))
			if ctx.Err() != nil {
				return
			}
			if err := w.crash(context.WithoutCancel(ctx)); err != nil {
				w.problem("crash %d: %v", i+1, err)
				return
			}
		}
	})
	var samples []sample
	side.Go(func() { samples = w.watch(ctx, max(w.o.Duration/120, 500*time.Millisecond)) })
	side.Wait()
	return samples
}

// holders share out the sessions: idle ones by the dozen under one grant, busy ones in twos.
func (w *world) holders() (all []*holder) {
	targets := []string{harness.Orders, harness.Shop}
	add := func(total, each int, busy bool, shortest, longest time.Duration) {
		for total > 0 {
			n := min(each, total)
			i := len(all)
			all = append(all, &holder{w: w, number: i, target: targets[i%2], sessions: n, busy: busy, shortest: shortest, longest: longest,
				rand: rand.New(rand.NewPCG(w.o.Seed, uint64(100+i)))})
			total -= n
		}
	}
	span := func(d, least, most time.Duration) time.Duration { return min(max(d, least), most) }
	d := w.o.Duration
	add(w.o.Idle, min(50, max(w.o.Idle/4, 1)), false, span(d/10, 5*time.Second, 30*time.Second), span(d/3, 8*time.Second, 3*time.Minute))
	add(w.o.Busy, 2, true, span(d/60, 3*time.Second, 5*time.Second), span(d/10, 6*time.Second, 40*time.Second))
	return all
}

// ends judges how late they were, and what had no reason.
func (w *world) ends(r *Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var words []string
	for what, n := range w.counts {
		words = append(words, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(words)
	r.check(true, "what happened", strings.Join(words, ", "), "")
	r.check(len(w.problems) == 0, "what went wrong on the way", fmt.Sprintf("%d%s", len(w.problems), firstOf(w.problems)), "0")
	for _, target := range []string{harness.Orders, harness.Shop} {
		w.lateness(r, classOf(target, false))
		w.lateness(r, classOf(target, true))
	}
}

// lateness judges the receipts of one class of grants. The caller holds mu.
func (w *world) lateness(r *Report, class string) {
	all := w.late[class]
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b late) int { return cmp.Compare(a.ms, b.ms) })
	p99, last := all[(len(all)-1)*99/100], all[len(all)-1]
	// An end that a crash fell into is late by as long as Curfew was away.
	ok := w.o.Crashes > 0 || last.ms <= float64(w.o.Late)/float64(time.Millisecond)
	r.check(ok, "late: "+class, fmt.Sprintf("p50 %.1f, p99 %.1f, most %.1f ms (%s), of %d", all[len(all)/2].ms, p99.ms, last.ms, last.grant, len(all)),
		fmt.Sprintf("all ≤ %v", w.o.Late))
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list[:min(len(list), 20)], "\n")
}

// left looks for what should be gone, which it may be a moment later.
func (w *world) left(ctx context.Context, r *Report, before sample) error {
	look := func(what, must string, patience time.Duration, see func(context.Context) (saw string, ok bool, err error)) error {
		var saw string
		err := harness.Eventually(ctx, patience, func(ctx context.Context) error {
			s, ok, err := see(ctx)
			if err == nil {
				saw = s
			}
			if err == nil && !ok {
				err = errors.New(s)
			}
			return err
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && saw == "" {
			saw = err.Error()
		}
		r.check(err == nil, what, saw, must)
		return nil
	}
	none := func(ask func(context.Context) ([]string, error)) func(context.Context) (string, bool, error) {
		return func(ctx context.Context) (string, bool, error) {
			list, err := ask(ctx)
			return fmt.Sprintf("%d%s", len(list), firstOf(list)), len(list) == 0, err
		}
	}
	account := `curfew\_%`
	return errors.Join(
		look("accounts and backends left in PostgreSQL", "0", 20*time.Second, none(func(ctx context.Context) ([]string, error) { return w.pg.Leftovers(ctx, account) })),
		look("accounts and connections left in MariaDB", "0", 20*time.Second, none(func(ctx context.Context) ([]string, error) { return w.my.Leftovers(ctx, account) })),
		look("sessions still open", "0", 20*time.Second, none(w.openSessions)),
		look("grants still live", "0", 20*time.Second, none(w.liveGrants)),
		look("recordings still open", "0", 20*time.Second, none(w.openRecordings)),
		look("goroutines and descriptors when all is over", fmt.Sprintf("as before: %v", before), 30*time.Second, func(ctx context.Context) (string, bool, error) {
			s, err := w.look(ctx, time.Now())
			return s.String(), s.goroutines <= before.goroutines+20 && s.descriptors <= before.descriptors+20, err
		}),
	)
}

func (w *world) openSessions(ctx context.Context) (list []string, err error) {
	all, err := w.reader.Sessions(ctx, api.SessionFilter{Open: true, Limit: 1000})
	for _, s := range all {
		list = append(list, s.ID+" of "+s.Grant)
	}
	return list, err
}

func (w *world) liveGrants(ctx context.Context) (list []string, err error) {
	all, err := w.reader.Grants(ctx, api.GrantFilter{Active: true, Limit: 1000})
	for _, g := range all {
		list = append(list, g.ID)
	}
	return list, err
}

func (w *world) openRecordings(context.Context) (list []string, err error) {
	open, err := os.ReadDir(filepath.Join(w.cur.Dir, "data", "recordings", "open"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, f := range open {
		list = append(list, f.Name())
	}
	return list, err
}

// verified has an auditor check all the evidence without a network.
func (w *world) verified(ctx context.Context, r *Report) error {
	key, err := w.sam.VerifierKey(ctx)
	if err != nil {
		return err
	}
	bundle, err := w.exported(ctx, "bundle", "everything.tar.zst")
	if err != nil {
		return err
	}
	out, err := w.sam.Run(ctx, "verify", bundle, "--key", key)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	saw := lines[len(lines)-1]
	if err != nil {
		saw = err.Error()
	}
	r.check(err == nil, "curfew verify of everything", saw, "nothing was changed, removed or cut off")
	return nil
}
