package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// front is one database as the rows about ends see it: a client's connection, and the DBA's look at it.
type front struct {
	engine, target string
	login          func(context.Context, api.Credentials) (running, error)
	dba            func(context.Context) (dba, error)
}

// running is a connection that can be made busy for a minute.
type running interface {
	backend() string
	busy(context.Context) error // ends when the connection does, with the reason
	close() error
}

// dba looks at one connection of the server, past Curfew.
type dba interface {
	count(ctx context.Context, where string) (int, error)
	isBusy(backend string) string // conditions for count
	is(backend string) string
	of(account string) string
	close() error
}

// late is how long after its deadline an end was there, in milliseconds.
type late struct {
	told, gone float64 // what the client saw, what the DBA saw
	receipt    float64 // what the receipt says
}

func (l late) both() float64 { return max(l.told, l.gone) }

// endOne has a grant end while a query is in flight, and watches the client and the database.
func (st *stage) endOne(ctx context.Context, f front, d time.Duration, revoke bool) (l late, err error) {
	g, creds, err := st.grant(ctx, f.target, d)
	if err != nil {
		return l, err
	}
	c, err := f.login(ctx, creds)
	if err != nil {
		return l, err
	}
	defer c.close() // it is cut already
	eye, err := f.dba(ctx)
	if err != nil {
		return l, err
	}
	defer eye.close()
	told := make(chan time.Time, 1)
	go func() {
		err := c.busy(ctx)
		at := time.Now()
		if err == nil {
			at = time.Time{}
		}
		told <- at
	}()
	inFlight := func(ctx context.Context) error {
		n, err := eye.count(ctx, eye.isBusy(c.backend()))
		if err == nil && n == 0 {
			err = errors.New("the query does not run")
		}
		return err
	}
	if err := harness.Eventually(ctx, 5*time.Second, inFlight); err != nil {
		return l, err
	}
	decided := g.End
	if revoke {
		decided = time.Now() // the API's and the ledger's time counts, too
		if _, err := st.approver.Revoke(ctx, g.ID, "measured"); err != nil {
			return l, err
		}
	} else {
		time.Sleep(time.Until(g.End)) // until the moment that is measured from
	}
	gone, err := seenGone(ctx, eye, eye.is(c.backend()))
	if err != nil {
		return l, err
	}
	at := <-told
	if at.IsZero() {
		return l, errors.New("the client was not told")
	}
	r, err := rig.Receipt(ctx, st.asker, g.ID, time.Minute)
	ms := func(t time.Time) float64 { return float64(t.Sub(decided).Microseconds()) / 1e3 }
	return late{told: ms(at), gone: ms(gone), receipt: r.LateMS}, err
}

// seenGone asks the database without pause until nothing is left, and gives the time of that answer.
func seenGone(ctx context.Context, eye dba, where string) (time.Time, error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		n, err := eye.count(ctx, where)
		if err != nil {
			return time.Time{}, err
		}
		if n == 0 {
			return time.Now(), nil
		}
	}
	return time.Time{}, errors.New("a backend is there 30 s after its grant's end")
}

func endRows(ctx context.Context, st *stage) ([]row, error) {
	n := 100
	if st.set.quick {
		n = 10
	}
	r := row{Name: "ends", Work: "revocation or expiry: decision → client told and backend gone, query in flight", Must: "p99 ≤ 50 ms", Goal: "p99 ≤ 10 ms"}
	said := ""
	for _, f := range st.fronts() {
		for _, revoke := range []bool{true, false} {
			all := make([]late, n)
			workers, word, d := 1, "revoked", time.Hour
			if !revoke { // several at once, or it takes the time of all
				workers, word, d = 5, "expired", 2*time.Second
			}
			err := atOnce(workers, n, func(i int) (err error) {
				all[i], err = st.endOne(ctx, f, d, revoke)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", f.engine, word, err)
			}
			p99 := r.tell(f.engine+", "+word, all)
			r.Value = max(r.Value, p99)
			said += fmt.Sprintf(" %s %s %.1f;", f.engine, word, p99)
		}
	}
	r.Measured = fmt.Sprintf("p99 %.1f ms (%s)", r.Value, said[1:len(said)-1])
	r.Verdict = bar{50, 10, true}.verdict(r.Value)
	r.Note = "revoked: from before the call of the API, one after the other; expired: from the grant's end, five at once. Gone is what a DBA sees who asks without pause"
	return []row{r}, nil
}

// tell adds the cells of one kind of end and gives the p99.
func (r *row) tell(work string, all []late) float64 {
	add := func(what string, of func(late) float64) float64 {
		var v []float64
		for _, l := range all {
			v = append(v, of(l))
		}
		p99 := percentile(v, 99)
		r.Cells = append(r.Cells, cell{Work: work, Contender: what, Value: median(v),
			Unit: fmt.Sprintf("ms (p99 %.1f, most %.1f)", p99, slices.Max(v))})
		return p99
	}
	add("told", func(l late) float64 { return l.told })
	add("gone", func(l late) float64 { return l.gone })
	add("receipt", func(l late) float64 { return l.receipt })
	return add("both", late.both)
}

// crowdRows: the same with a thousand sessions under one grant, all with a query in flight.
func crowdRows(ctx context.Context, st *stage) ([]row, error) {
	n := 1000
	if st.set.quick {
		n = 200
	}
	r := row{Name: "crowd", Work: fmt.Sprintf("the same, %d live sessions", n), Must: "≤ 500 ms", Goal: "≤ 100 ms"}
	for _, f := range st.fronts() {
		l, err := st.endCrowd(ctx, f, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.engine, err)
		}
		for what, v := range map[string]float64{"last told": l.told, "last gone": l.gone, "receipt": l.receipt} {
			r.Cells = append(r.Cells, cell{Work: f.engine, Contender: what, Value: v, Unit: "ms"})
		}
		slices.SortFunc(r.Cells, func(a, b cell) int {
			return slices.Compare([]string{a.Work, a.Contender}, []string{b.Work, b.Contender})
		})
		r.Value = max(r.Value, l.both())
		r.Measured += fmt.Sprintf(", %s %.0f ms", f.engine, l.both())
	}
	r.Measured = r.Measured[2:]
	r.Verdict = bar{500, 100, true}.verdict(r.Value)
	if n < 1000 {
		r.Note = "quick: fewer sessions than the bar is for"
	}
	return []row{r}, nil
}

func (st *stage) endCrowd(ctx context.Context, f front, n int) (l late, err error) {
	g, creds, err := st.grant(ctx, f.target, time.Hour)
	if err != nil {
		return l, err
	}
	all := make([]running, n)
	defer func() {
		for _, c := range all {
			if c != nil {
				c.close() // it is cut already
			}
		}
	}()
	if err := atOnce(8, n, func(i int) (err error) {
		all[i], err = f.login(ctx, creds)
		return err
	}); err != nil {
		return l, err
	}
	progress("%s: %d sessions are open", f.engine, n)
	told := make(chan time.Time, n)
	for _, c := range all {
		go func() {
			if c.busy(ctx) == nil {
				told <- time.Time{}
				return
			}
			told <- time.Now()
		}()
	}
	eye, err := f.dba(ctx)
	if err != nil {
		return l, err
	}
	defer eye.close()
	account := "curfew%" + g.ID
	if err := harness.Eventually(ctx, 30*time.Second, func(ctx context.Context) error {
		running, err := eye.count(ctx, eye.of(account)+" AND "+eye.isBusy(""))
		if err == nil && running < n {
			err = fmt.Errorf("%d of %d queries run", running, n)
		}
		return err
	}); err != nil {
		return l, err
	}
	decided := time.Now()
	if _, err := st.approver.Revoke(ctx, g.ID, "measured"); err != nil {
		return l, err
	}
	gone, err := seenGone(ctx, eye, eye.of(account))
	if err != nil {
		return l, err
	}
	var last time.Time
	for range n {
		at := <-told
		if at.IsZero() {
			return l, errors.New("a client was not told")
		}
		if at.After(last) {
			last = at
		}
	}
	r, err := rig.Receipt(ctx, st.asker, g.ID, time.Minute)
	ms := func(t time.Time) float64 { return float64(t.Sub(decided).Microseconds()) / 1e3 }
	return late{told: ms(last), gone: ms(gone), receipt: r.LateMS}, err
}
