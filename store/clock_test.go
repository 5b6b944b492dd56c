package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Each bubble's clock begins at the same moment, so a second bubble is a machine whose clock was set back.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	var latest time.Time
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		time.Sleep(10 * time.Hour)
		latest = s.Now()
		if err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, s, ledger.TypeClockSetBack); n != 0 {
			t.Errorf("%d entries on a good clock", n)
		}
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		if s.Now().Before(latest) {
			t.Fatalf("time went back to %v, %v was known", s.Now(), latest)
		}
		time.Sleep(time.Minute)
		if got := s.Now(); got.Before(latest.Add(time.Minute)) {
			t.Errorf("time stands still: %v a minute after %v", got, latest)
		}
		for range 3 {
			if err := s.Tick(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := count(t, s, ledger.TypeClockSetBack); n != 1 {
			t.Fatalf("%d entries for one clock set back", n)
		}
		all := entries(t, s)
		var e ledger.ClockSetBack
		if err := all[len(all)-1].Into(&e); err != nil {
			t.Fatal(err)
		}
		if behind := e.High.Sub(e.Wall); behind < 9*time.Hour || e.Node != "n1" {
			t.Errorf("entry %+v", e)
		}
		s.Close()
	})
}

func TestTickKeepsTime(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	var ticked time.Time
	synctest.Test(t, func(t *testing.T) {
		s := open(t, dir)
		time.Sleep(time.Hour)
		if err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		ticked = s.Now()
		crashTo(t, dir, copied) // no Close, so nothing but the Tick has kept it
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		s := open(t, copied)
		if s.Now().Before(ticked) {
			t.Errorf("after a crash it is %v, Tick had kept %v", s.Now(), ticked)
		}
		s.Close()
	})
}

func TestFailedLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		tick := func() {
			t.Helper()
			if err := s.Tick(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			s.FailedLogin("192.0.2.1:4000", "wire")
		}
		s.FailedLogin("192.0.2.1", "api")
		s.FailedLogin("[2001:db8::1]:80", "wire")
		s.FailedLogin("[2001:db8::2]:80", "wire")
		tick()
		if n := count(t, s, ledger.TypeLoginsFailed); n != 0 {
			t.Fatalf("%d entries before the minute is over", n)
		}
		time.Sleep(time.Minute)
		tick()
		tick()
		got := map[string]int{}
		for _, e := range entries(t, s) {
			if e.Type != ledger.TypeLoginsFailed {
				continue
			}
			var f ledger.LoginsFailed
			if err := e.Into(&f); err != nil {
				t.Fatal(err)
			}
			got[f.From+" "+f.Where] += f.Count
		}
		if fmt.Sprint(got) != "map[192.0.2.1 api:1 192.0.2.1 wire:5 2001:db8::/64 wire:2]" {
			t.Errorf("counted %v", got)
		}
		s.Close()
	})
}

func TestFailedLoginsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		const strangers = 5000
		for i := range strangers {
			s.FailedLogin(fmt.Sprintf("10.0.%d.%d:1", i/256, i%256), []string{"wire", "api", strings.Repeat("x", i%9)}[i%3])
		}
		if len(s.strangers.counts) > maxStrangers {
			t.Errorf("%d counters in memory", len(s.strangers.counts))
		}
		time.Sleep(time.Minute)
		if err := s.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, total := 0, 0
		for _, e := range entries(t, s) {
			if e.Type == ledger.TypeLoginsFailed {
				var f ledger.LoginsFailed
				if err := e.Into(&f); err != nil {
					t.Fatal(err)
				}
				n++
				total += f.Count
			}
		}
		if n > maxStrangers || total != strangers {
			t.Errorf("%d entries counting %d, want at most %d counting %d", n, total, maxStrangers, strangers)
		}
		if len(s.strangers.counts) != 0 {
			t.Errorf("%d counters left", len(s.strangers.counts))
		}
		s.Close()
	})
}

func TestCloseKeepsCounts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.FailedLogin("192.0.2.1:4000", "wire")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, open(t, dir), ledger.TypeLoginsFailed); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestAnchor(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(t.TempDir(), "anchors")
	s := open(t, dir)
	anchor := func() error { return s.Anchor(t.Context(), path) }
	blocks := func() []ledger.Anchor {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		all, err := ledger.ReadAnchors(f)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(anchor())
	must(anchor()) // it has not moved
	grant(t, s, "g1")
	old := crash(t, dir)
	must(anchor())
	if all := blocks(); len(all) != 2 {
		t.Fatalf("%d blocks", len(all))
	}
	for i, a := range blocks() {
		c, err := ledger.ParseCheckpoint(a.Note, s.VerifierKey())
		if err != nil || c.Size != int64(i+1) || a.Torn {
			t.Fatalf("block %d: %+v %v", i, c, err)
		}
	}
	// A crash cuts a block short; the next ones can still be read, also by another process.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = f.WriteString("\n" + string(blocks()[1].Note[:30]))
	must(err)
	must(f.Close())
	grant(t, s, "g2")
	must(s.Close())
	s = open(t, dir)
	must(anchor())
	all := blocks()
	if len(all) != 4 || !all[2].Torn {
		t.Fatalf("blocks after a torn one: %+v", all)
	}
	if c, err := ledger.ParseCheckpoint(all[3].Note, s.VerifierKey()); err != nil || c.Size != 3 {
		t.Fatalf("the last block: %+v %v", c, err)
	}
	// An older copy of the store is put back, and goes on in another way.
	s = open(t, old)
	if err := anchor(); err == nil || !strings.Contains(err.Error(), "3 entries were anchored, the ledger holds 2") {
		t.Fatalf("an older copy: %v", err)
	}
	grant(t, s, "g3")
	grant(t, s, "g4")
	if err := anchor(); err == nil || !strings.Contains(err.Error(), "not the one that was anchored") {
		t.Fatalf("another future: %v", err)
	}
}
