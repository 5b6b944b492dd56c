package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

// What became of a statement that the server may have answered, or committed, just before is not known to
// who only sees an idle backend, or none.
func TestKillOfWhatMayHaveBeenDone(t *testing.T) {
	e := newEngine(t, nil)
	a := provision(t, e, newSpec(0))
	fate := func(name, want string, inFlight uint64, f *fakeSession) {
		t.Helper()
		f.statement = inFlight
		o, err := a.kill(t.Context(), f)
		if err != nil || o.Fate != want || o.InFlight != inFlight {
			t.Errorf("%s: %+v, %v, want %s", name, o, err, want)
		}
		a.Leave(f)
	}
	fate("idle, with a statement on its way", protocol.FateUnknown, 7, join(t, a, login(t, a, "orders")))
	fate("idle", protocol.FateNone, 0, join(t, a, login(t, a, "orders")))
	c := login(t, a, "orders")
	f := join(t, a, c)
	busy := make(chan error, 1)
	go func() { _, err := c.Exec(t.Context(), "SELECT pg_sleep(30)"); busy <- err }()
	for super(t, "orders", "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'", int64(f.Backend())) == "0" {
		time.Sleep(time.Millisecond)
	}
	fate("at work, and nothing written", protocol.FateNone, 8, f)
	<-busy
	for _, n := range []uint64{0, 9} {
		c := login(t, a, "orders")
		f := join(t, a, c)
		hangUp(t.Context(), c)
		for super(t, "orders", "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", int64(f.Backend())) != "0" {
			time.Sleep(time.Millisecond)
		}
		want := protocol.FateNone
		if n != 0 {
			want = protocol.FateUnknown
		}
		fate("gone by itself", want, n, f)
	}
	finish(t, a)
}

// A client that hangs up because the server said that it does has not vanished.
func TestWhoHangsUpFirst(t *testing.T) {
	for severity, want := range map[string]string{"FATAL": recorder.EndServer, "ERROR": recorder.EndVanished} {
		o := newObserver(0, false)
		o.sink = sinkFunc(func(...recorder.Event) error { return nil })
		msg := appendReport(nil, msgErrorResponse, severity, "57P01", "terminating connection")
		if _, _, err := o.Inbound(msg); err != nil {
			t.Fatal(err)
		}
		var end *protocol.EndError
		if err := (&link{obs: o}).outcome(relay.End{Side: relay.Client, Err: io.EOF}); !errors.As(err, &end) || end.Code != want {
			t.Errorf("%s: %v, want %s", severity, err, want)
		}
	}
}

// The broker's connections that a restart has broken, or that hear nothing any more, are not found out about
// by somebody's account that can't be made.
func TestPooledConnectionsThatBroke(t *testing.T) {
	e := newEngine(t, nil)
	provision(t, e, newSpec(0))
	super(t, "orders", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'curfew %' AND usename = 'curfew_broker'")
	a := provision(t, e, newSpec(0))
	finish(t, a)
}

// Who wants in reads why the account can't be made.
func TestRefusal(t *testing.T) {
	e := &Engine{cfg: Config{Target: "orders"}}
	said := func(code string) error { return &pgconn.PgError{Code: code} }
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"standby":    {errStandby, "the database orders is read-only at the moment, as a standby is, so your account can't be made there; try again later or tell your Curfew administrator"},
		"read-only":  {said("25006"), "the database orders is read-only at the moment, as a standby is, so your account can't be made there; try again later or tell your Curfew administrator"},
		"full":       {said("53300"), "the database orders has no connection left for making your account; try again later or tell your Curfew administrator"},
		"rights":     {said("42501"), "Curfew lacks a right that it needs to make your account on orders; tell your Curfew administrator: `curfew check` says which"},
		"password":   {said("28P01"), "Curfew lacks a right that it needs to make your account on orders; tell your Curfew administrator: `curfew check` says which"},
		"starting":   {said("57P03"), "the database orders can't be reached at the moment; try again later or tell your Curfew administrator"},
		"no network": {&net.OpError{Op: "dial", Err: errors.New("refused")}, "the database orders can't be reached at the moment; try again later or tell your Curfew administrator"},
		"too late":   {context.DeadlineExceeded, "the database orders can't be reached at the moment; try again later or tell your Curfew administrator"},
		"other":      {said("42710"), ""},
		"our own":    {pgx.ErrNoRows, ""},
	} {
		err := e.refusal(c.err)
		var refusal *protocol.Refusal
		switch {
		case c.want == "" && errors.As(err, &refusal):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.As(err, &refusal) || refusal.Public != c.want || refusal.Code != protocol.RefuseUnavailable):
			t.Errorf("%s: %v", name, err)
		}
	}
}
