package crew

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/protocol"
)

// fake is a session.
type fake struct {
	backend   uint32
	statement uint64
	ids       []string
}

func (f *fake) Backend() uint32    { return f.backend }
func (f *fake) InFlight() uint64   { return f.statement }
func (f *fake) Prepared() []string { return f.ids }

// join makes a session of c.
func join(t *testing.T, c *Crew, backend uint32, statement uint64) *fake {
	t.Helper()
	f := &fake{backend: backend, statement: statement}
	if _, err := c.Join(f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJoin(t *testing.T) {
	c := New()
	f, g := &fake{backend: 1}, &fake{backend: 2}
	for want, s := range []*fake{f, g} {
		if others, err := c.Join(s); others != want || err != nil {
			t.Errorf("%d others, %v, want %d", others, err, want)
		}
	}
	if len(c.Joined()) != 2 || c.Closing() {
		t.Errorf("%d sessions, closing %t", len(c.Joined()), c.Closing())
	}
	c.Leave(f)
	if list := c.Joined(); len(list) != 1 || list[0] != g {
		t.Errorf("%v", list)
	}
	c.Shut()
	if _, err := c.Join(&fake{}); !errors.Is(err, ErrClosing) || !c.Closing() {
		t.Errorf("a session joined an account that is being closed: %v", err)
	}
	if len(c.Joined()) != 1 {
		t.Error("closing takes a session away, or lets one in")
	}
}

func TestPrepared(t *testing.T) {
	c := New()
	c.Learn([]string{"d", "b"})
	f, g := join(t, c, 1, 0), join(t, c, 2, 0)
	f.ids, g.ids = []string{"c"}, []string{"a", "b"}
	c.Leave(f)
	if got := c.Prepared(); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("%q", got)
	}
}

// A backend may outlive its session for a while, unless it was killed or the server has let go of it.
func TestBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		known := func(when string, want ...uint32) {
			t.Helper()
			if got := slices.Sorted(maps.Keys(c.Backends())); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		stays, lingers, killed, opening := join(t, c, 1, 0), join(t, c, 2, 0), join(t, c, 3, 0), join(t, c, 0, 0)
		known("all are in", 0, 1, 2, 3)
		if n := c.Opening(); n != 1 {
			t.Errorf("%d are being opened", n)
		}
		c.Note([]End{{Backend: 3, Session: killed}}, false)
		c.Leave(lingers)
		c.Leave(killed)
		c.Leave(opening)
		c.Leave(&fake{backend: 9}) // never joined
		known("three have left", 1, 2)
		if n := c.Opening(); n != 0 {
			t.Errorf("%d are being opened", n)
		}
		none := func(uint32) bool { return false }
		time.Sleep(lingerMost - 1)
		c.Forget(none)
		known("it may linger", 1, 2)
		time.Sleep(1)
		known("it has lingered too long", 1)
		c.Leave(stays)
		c.Forget(func(backend uint32) bool { return backend == 2 })
		known("another is gone", 1)
		c.Forget(func(backend uint32) bool { return backend == 1 })
		known("it is gone")

		c.Leave(join(t, c, 4, 0))
		time.Sleep(lingerMost)
		c.Forget(none)
		if len(c.released) != 0 {
			t.Errorf("kept: %v", c.released)
		}
	})
}

func TestToken(t *testing.T) {
	token, why := NewToken(), errors.New("enough")
	if err := token.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := token.Take(ctx); !errors.Is(err, why) {
		t.Errorf("two have it, or why it was not waited for is lost: %v", err)
	}
	token.Give()
	if err := token.Take(t.Context()); err != nil {
		t.Error(err)
	}
}

// Sessions that end together are ended by one of them, and each has its outcome. Who is not meant stays, unless the
// account is being closed.
func TestKillTogether(t *testing.T) {
	for _, closing := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := New()
			stays := join(t, c, 100, 0)
			known := join(t, c, 101, 0)
			c.Note([]End{{Backend: 101, Session: known, Fate: protocol.FateAborted}}, false)
			crowd := map[*fake]protocol.Outcome{
				join(t, c, 1, 7): {Backend: "1", InFlight: 8, TxID: "t", Fate: protocol.FateCommitted},
				join(t, c, 2, 7): {Backend: "2", InFlight: 7, Fate: protocol.FateUnknown}, // gone by itself
				join(t, c, 3, 0): {Backend: "3", Fate: protocol.FateNone},                 // likewise
			}
			if err := c.Killing.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			var asked [][]uint32
			end := func(_ context.Context, backends ...uint32) error {
				slices.Sort(backends)
				asked = append(asked, backends)
				for f := range crowd {
					if f.backend == 1 {
						c.Note([]End{{Backend: 1, Session: f, InFlight: 8, TxID: "t", Fate: protocol.FateCommitted}}, false)
					}
				}
				return nil
			}
			var all sync.WaitGroup
			for f, want := range crowd {
				all.Go(func() {
					if o, err := c.Kill(t.Context(), f, end); err != nil || o != want {
						t.Errorf("%+v %v, want %+v", o, err, want)
					}
				})
			}
			synctest.Wait()
			if closing {
				c.Shut()
			}
			c.doom(known) // it waits no less, but what became of it is known
			c.Killing.Give()
			all.Wait()
			c.spare(known)
			want := []uint32{1, 2, 3}
			if closing {
				want = nil // all there are
			}
			if len(asked) != 1 || !slices.Equal(asked[0], want) {
				t.Errorf("closing %t: asked for %v, want %v once", closing, asked, want)
			}
			if len(c.doomed) != 0 {
				t.Errorf("%d are still to be killed", len(c.doomed))
			}
			if o, ok := c.outcome(stays); ok {
				t.Errorf("the one that was not meant has an outcome: %+v", o)
			}
		})
	}
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, broken, asked := New(), errors.New("broken"), 0
		end := func(context.Context, ...uint32) error { asked++; return broken }
		o, err := c.Kill(t.Context(), join(t, c, 0, 3), end)
		if o != (protocol.Outcome{Fate: protocol.FateNone}) || err != nil || asked != 0 {
			t.Errorf("it never got in: %+v %v, asked %d times", o, err, asked)
		}
		f := join(t, c, 5, 0)
		const tries = 6 // in killPatience
		began := time.Now()
		unknown := protocol.Outcome{Backend: "5", Fate: protocol.FateUnknown}
		if o, err := c.Kill(t.Context(), f, end); o != unknown || !errors.Is(err, broken) || asked != tries {
			t.Errorf("the server can't be asked: %+v %v, asked %d times", o, err, asked)
		}
		if took := time.Since(began); took > killPatience {
			t.Errorf("it was tried for %s", took)
		}
		if err := c.Killing.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if o, err := c.Kill(ctx, f, end); o != unknown || !errors.Is(err, context.Canceled) || asked != tries {
			t.Errorf("somebody has the token: %+v %v, asked %d times", o, err, asked)
		}
		if len(c.doomed) != 0 {
			t.Errorf("%d are to be killed that nobody waits for", len(c.doomed))
		}
		c.Killing.Give()
		broken = nil
		want := protocol.Outcome{Backend: "5", Fate: protocol.FateNone}
		for range 2 { // the second time it is known
			if o, err := c.Kill(t.Context(), f, end); o != want || err != nil || asked != tries+1 {
				t.Errorf("it was gone: %+v %v, asked %d times", o, err, asked)
			}
		}
	})
}

// What breaks a session's connection may break the one that its backend is killed on, too: it is tried again, by
// whoever has the token then, and a cut that comes between is not held up.
func TestKillIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, asked := New(), 0
		f := join(t, c, 5, 7)
		cut := make(chan error, 1)
		o, err := c.Kill(t.Context(), f, func(_ context.Context, backends ...uint32) error {
			if asked++; asked < 3 {
				return errors.New("broken")
			}
			c.Note([]End{{Backend: 5, Session: f, InFlight: 7, Fate: protocol.FateAborted}}, false)
			return nil
		})
		want := protocol.Outcome{Backend: "5", InFlight: 7, Fate: protocol.FateAborted}
		if o != want || err != nil || asked != 3 {
			t.Errorf("%+v %v, asked %d times", o, err, asked)
		}

		g := join(t, c, 6, 8)
		o, err = c.Kill(t.Context(), g, func(context.Context, ...uint32) error {
			go func() {
				_, err := c.Cut(t.Context(), func(context.Context) error {
					c.Note([]End{{Backend: 6, Session: g, InFlight: 8, Fate: protocol.FateAborted}}, false)
					return nil
				})
				cut <- err
			}()
			return errors.New("broken")
		})
		if want := (protocol.Outcome{Backend: "6", InFlight: 8, Fate: protocol.FateAborted}); o != want || err != nil || <-cut != nil {
			t.Errorf("the cut's: %+v %v", o, err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		d, asked := New(), 0
		if _, err := d.Kill(ctx, join(t, d, 7, 0), func(context.Context, ...uint32) error { asked++; cancel(); return errors.New("broken") }); err == nil || asked != 1 {
			t.Errorf("nobody waits any more: %v, asked %d times", err, asked)
		}
	})
}

// Who is emptied can be asked nothing: what was not killed had ended before.
func TestKillAfterTheCut(t *testing.T) {
	c := New()
	killed, gone, idle := join(t, c, 1, 4), join(t, c, 2, 5), join(t, c, 3, 0)
	none := func(context.Context, ...uint32) error { t.Error("asked for what is known"); return nil }
	if c.Emptied() {
		t.Error("emptied before it was cut")
	}
	if _, err := c.Cut(t.Context(), func(context.Context) error {
		c.Locked()
		c.Note([]End{{Backend: 1, Session: killed, InFlight: 4, Fate: protocol.FateAborted}}, false)
		c.Vacant(true)
		return nil
	}); err != nil || !c.Emptied() {
		t.Fatal(err, c.Emptied())
	}
	for f, want := range map[*fake]protocol.Outcome{
		killed: {Backend: "1", InFlight: 4, Fate: protocol.FateAborted},
		gone:   {Backend: "2", InFlight: 5, Fate: protocol.FateUnknown},
		idle:   {Backend: "3", Fate: protocol.FateNone},
	} {
		if o, err := c.Kill(t.Context(), f, none); o != want || err != nil {
			t.Errorf("%+v %v, want %+v", o, err, want)
		}
	}
}

// One that waits while the account is cut has its outcome from that.
func TestKillDuringTheCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		f := join(t, c, 1, 0)
		_, err := c.Cut(t.Context(), func(context.Context) error {
			go func() {
				if o, err := c.Kill(t.Context(), f, func(context.Context, ...uint32) error { t.Error("killed twice"); return nil }); o.Fate != protocol.FateAborted || err != nil {
					t.Errorf("%+v %v", o, err)
				}
			}()
			synctest.Wait()
			c.Note([]End{{Backend: 1, Session: f, Fate: protocol.FateAborted}}, false)
			c.Vacant(true)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Foreign is whose session nobody is or was, as far as this process can know.
func TestForeign(t *testing.T) {
	for _, recalled := range []bool{false, true} {
		c := New()
		mine, past := join(t, c, 1, 0), join(t, c, 2, 0)
		c.Leave(past)
		c.Note([]End{{Backend: 1, Session: mine}, {Backend: 2}, {Backend: 3}}, recalled)
		cut, err := c.Cut(t.Context(), func(context.Context) error { return nil })
		if err != nil || len(cut.Outcomes) != 3 {
			t.Fatalf("%+v %v", cut, err)
		}
		for i, want := range []bool{false, false, !recalled} {
			if o := cut.Outcomes[i]; o.Backend != name(uint32(i+1)) || o.Foreign != want {
				t.Errorf("recalled %t: %+v", recalled, o)
			}
		}
	}
}

// A receipt holds over attempts, and tells of what was killed for the same end, but not of what was long before.
func TestReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, broken := New(), errors.New("broken")
		kill := func(backend uint32) { c.Note([]End{{Backend: backend}}, true) }
		kill(1)
		time.Sleep(receiptWindow - 1)
		kill(2)
		time.Sleep(2)
		c.Vacant(false) // it is not locked: somebody may come
		began := time.Now()
		cut, err := c.Cut(t.Context(), func(context.Context) error {
			c.Left(3)
			return broken
		})
		if !errors.Is(err, broken) || !cut.LockedAt.IsZero() || !cut.GoneAt.IsZero() || cut.Left != 3 || !c.Closing() || c.Emptied() {
			t.Errorf("not locked: %+v %v", cut, err)
		}
		cut, err = c.Cut(t.Context(), func(context.Context) error {
			c.Locked()
			time.Sleep(time.Second)
			c.Vacant(false)
			time.Sleep(time.Second)
			kill(3)
			c.Vacant(true) // it was somebody who had been let in before
			time.Sleep(time.Second)
			c.Vacant(false)
			return broken
		})
		if !errors.Is(err, broken) || !cut.LockedAt.Equal(began) || !cut.GoneAt.IsZero() || c.Emptied() {
			t.Errorf("locked: %+v %v", cut, err)
		}
		time.Sleep(time.Hour)
		for again := range 2 {
			cut, err = c.Cut(t.Context(), func(context.Context) error {
				c.Locked()
				c.Vacant(again > 0) // somebody has come back since
				return nil
			})
			if err != nil || !cut.LockedAt.Equal(began) || !cut.GoneAt.Equal(began.Add(2*time.Second)) || cut.Left != 0 || !c.Emptied() {
				t.Errorf("done: %+v %v", cut, err)
			}
			if len(cut.Outcomes) != 2 || cut.Outcomes[0].Backend != "2" || cut.Outcomes[1].Backend != "3" {
				t.Errorf("%+v", cut.Outcomes)
			}
			time.Sleep(time.Hour)
		}
		kill(4)
		c.Opened()
		if c.Emptied() {
			t.Error("emptied, and opened again")
		}
		c.Vacant(false) // as before
		time.Sleep(time.Second)
		began = time.Now()
		cut, err = c.Cut(t.Context(), func(context.Context) error {
			c.Locked()
			c.Vacant(false)
			return nil
		})
		if err != nil || !cut.LockedAt.Equal(began) || !cut.GoneAt.Equal(began) || len(cut.Outcomes) != 0 {
			t.Errorf("opened again: %+v %v", cut, err)
		}
		cut, err = New().Cut(t.Context(), func(context.Context) error { return nil })
		if err != nil || !cut.GoneAt.Equal(began) {
			t.Errorf("there was nothing on the server to look at: %+v %v", cut, err)
		}
	})
}

// A cut that does not get the token closes the account all the same, and says what is known.
func TestCutWaitsItsTurn(t *testing.T) {
	c := New()
	if err := c.Killing.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Note([]End{{Backend: 1}}, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cut, err := c.Cut(ctx, func(context.Context) error { t.Error("two have the token"); return nil })
	if !errors.Is(err, context.Canceled) || len(cut.Outcomes) != 1 || !c.Closing() {
		t.Errorf("%+v %v", cut, err)
	}
	c.Killing.Give()
	if _, err := c.Cut(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
