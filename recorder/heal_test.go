package recorder

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// crashed gives a directory with one recording that a killed process left: three statements and two
// results, and the bytes of its open file.
func crashed(t *testing.T) (dir string, file string, text []byte) {
	t.Helper()
	dir = t.TempDir()
	l := openLibrary(t, dir, Options{})
	w := create(t, l, "s1")
	a := statement(1, "PREPARE TRANSACTION 'x'")
	a.Prepares = []byte("x")
	record(t, w, a, result(1))
	record(t, w, statement(2, "select 2"), result(2))
	record(t, w, statement(3, "select 3"))
	abandon(l)
	file = l.openPath("s1")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return dir, file, text
}

func healOne(t *testing.T, dir string, known ...string) (*Library, Healed) {
	t.Helper()
	l := openLibrary(t, dir, Options{})
	healed, err := l.Heal(context.Background(), known)
	if err != nil {
		t.Fatal(err)
	}
	if len(healed) != 1 || healed[0].Session != "s1" {
		t.Fatalf("healed: %+v", healed)
	}
	return l, healed[0]
}

// Wherever the last line was torn, what came before it is sealed and verifies.
func TestHealCutsTheTornTail(t *testing.T) {
	dir, file, text := crashed(t)
	last := strings.LastIndexByte(string(text[:len(text)-1]), '\n') + 1
	for cut := last; cut <= len(text); cut += 9 {
		if err := os.WriteFile(file, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l, h := healOne(t, dir, "s1")
		want, inFlight := uint64(5), uint64(0)
		if cut == len(text) {
			want, inFlight = 6, 3
		}
		s := h.Sealed
		if s.Count != want || !s.Interrupted || s.End.Code != EndInterrupted || s.End.InFlight != inFlight || h.Lost {
			t.Fatalf("cut at %d of %d: %+v", cut, len(text), s)
		}
		if h.Header.Grant != "g0123456789" || fmt.Sprint(h.Prepares) != "[x]" {
			t.Fatalf("healed: %+v", h)
		}
		if rep := verify(t, l, s); rep.HeaderHash != h.HeaderHash {
			t.Fatal("header hash differs")
		}
		nothingOpen(t, l)
		l.Close()
		os.RemoveAll(filepath.Join(dir, "sealed"))
	}
}

func TestHeal(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir, file string, text []byte)
		known   bool
		check   func(t *testing.T, l *Library, h []Healed)
	}{
		"unknown to the ledger": {func(*testing.T, string, string, []byte) {}, false, wantCount(6)},
		"with an end": {func(t *testing.T, dir, file string, text []byte) {
			end := `{"seq":6,"us":99999999,"type":"end","salt":"000102030405060708090a0b0c0d0e0f","end":{"reason":"client closed","code":"client"}}`
			os.WriteFile(file, append(text, end+"\n"...), 0o600)
		}, true, func(t *testing.T, l *Library, h []Healed) {
			wantCount(7)(t, l, h)
			if s := h[0].Sealed; s.Interrupted || s.End.Code != EndClient {
				t.Errorf("%+v", s)
			}
		}},
		"half sealed": {func(t *testing.T, dir, file string, text []byte) {
			os.WriteFile(filepath.Join(dir, "open", "s1.zst.tmp"), []byte("half"), 0o400)
			os.WriteFile(filepath.Join(dir, "open", "probe.tmp"), []byte("half"), 0o600)
		}, true, wantCount(6)},
		"sealed and not entered": {func(t *testing.T, dir, file string, text []byte) {
			sealAndAbandon(t, dir)
		}, true, wantCount(6)},
		"sealed, open file left": {func(t *testing.T, dir, file string, text []byte) {
			sealAndAbandon(t, dir)
			os.WriteFile(file, text, 0o600)
		}, true, wantCount(6)},
		"sealed and entered": {func(t *testing.T, dir, file string, text []byte) {
			sealAndAbandon(t, dir)
		}, false, wantNone},
		"missing": {func(t *testing.T, dir, file string, text []byte) { os.Remove(file) }, true, wantLost},
		"header torn, unknown": {func(t *testing.T, dir, file string, text []byte) {
			os.WriteFile(file, text[:30], 0o600)
		}, false, wantNone},
		"header torn, known": {func(t *testing.T, dir, file string, text []byte) {
			os.WriteFile(file, text[:30], 0o600)
		}, true, wantLost},
		"empty": {func(t *testing.T, dir, file string, text []byte) {
			os.WriteFile(file, nil, 0o600)
		}, false, wantNone},
		"header damaged": {func(t *testing.T, dir, file string, text []byte) {
			text[20] = 0
			os.WriteFile(file, text, 0o600)
		}, true, func(t *testing.T, l *Library, h []Healed) {
			wantLost(t, l, h)
			kept := filepath.Join(l.dir, "open", "s1.jsonl.damaged")
			if _, err := os.Stat(kept); err != nil {
				t.Error(err)
			}
			os.Remove(kept)
		}},
		"damaged in the middle": {func(t *testing.T, dir, file string, text []byte) {
			lines := strings.SplitAfter(string(text), "\n")
			lines[2] = strings.Repeat("\x00", len(lines[2])-1) + "\n"
			os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600)
		}, true, func(t *testing.T, l *Library, h []Healed) {
			wantCount(2)(t, l, h)
			kept := filepath.Join(l.dir, "open", "s1.jsonl.cut")
			if b, err := os.ReadFile(kept); err != nil || !strings.Contains(string(b), "select 3") {
				t.Errorf("the rest was not kept aside: %v", err)
			}
			os.Remove(kept)
		}},
		"of another session": {func(t *testing.T, dir, file string, text []byte) {
			os.WriteFile(file, []byte(strings.Replace(string(text), `"session":"s1"`, `"session":"s2"`, 1)), 0o600)
		}, true, func(t *testing.T, l *Library, h []Healed) {
			wantLost(t, l, h)
			os.Remove(filepath.Join(l.dir, "open", "s1.jsonl.damaged"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file, text := crashed(t)
			c.prepare(t, dir, file, text)
			l := openLibrary(t, dir, Options{})
			var known []string
			if c.known {
				known = []string{"s1"}
			}
			healed, err := l.Heal(context.Background(), known)
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, l, healed)
			nothingOpen(t, l)
			// A second start finds the same, and changes nothing.
			again, err := l.Heal(context.Background(), known)
			if err != nil {
				t.Fatal(err)
			}
			if c.known && fmt.Sprint(again) != fmt.Sprint(healed) {
				t.Errorf("second time:\n%+v\n%+v", again, healed)
			}
		})
	}
}

func sealAndAbandon(t *testing.T, dir string) {
	t.Helper()
	l, _ := healOne(t, dir, "s1")
	l.Close()
}

func wantCount(n uint64) func(*testing.T, *Library, []Healed) {
	return func(t *testing.T, l *Library, h []Healed) {
		t.Helper()
		if len(h) != 1 || h[0].Lost || h[0].Sealed.Count != n {
			t.Fatalf("healed: %+v", h)
		}
		verify(t, l, h[0].Sealed)
	}
}

func wantLost(t *testing.T, _ *Library, h []Healed) {
	t.Helper()
	if len(h) != 1 || !h[0].Lost || h[0].Session != "s1" {
		t.Fatalf("healed: %+v", h)
	}
}

func wantNone(t *testing.T, _ *Library, h []Healed) {
	t.Helper()
	if len(h) != 0 {
		t.Fatalf("healed: %+v", h)
	}
}

// A sealed recording that is not what the open file says is evidence: it is not overwritten.
func TestHealOverwritesNothing(t *testing.T) {
	dir, file, text := crashed(t)
	sealAndAbandon(t, dir)
	lines := strings.SplitAfter(string(text), "\n")
	os.WriteFile(file, []byte(strings.Join(lines[:3], "")), 0o600)
	l := openLibrary(t, dir, Options{})
	if _, err := l.Heal(context.Background(), []string{"s1"}); err == nil || !strings.Contains(err.Error(), "another recording") {
		t.Errorf("%v", err)
	}
}

func TestHealLeavesLiveRecordingsAlone(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	healed, err := l.Heal(context.Background(), []string{"s1"})
	if err != nil || len(healed) != 0 {
		t.Fatalf("%+v, %v", healed, err)
	}
	record(t, w, statement(1, "select 1"))
	verify(t, l, seal(t, w))
}

func TestCloseLeavesOpenRecordingsToHeal(t *testing.T) {
	dir := t.TempDir()
	l := openLibrary(t, dir, Options{})
	w := create(t, l, "s1")
	record(t, w, statement(1, "select 1"), result(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Record(result(1)); err == nil {
		t.Error("recorded after Close")
	}
	if _, err := w.Seal(End{Code: EndClient}); err == nil {
		t.Error("sealed in a directory that is given back")
	}
	_, h := healOne(t, dir, "s1")
	if h.Sealed.Count != 3 || !h.Sealed.Interrupted {
		t.Errorf("%+v", h)
	}
}

// A process is killed, by SIGKILL, at any moment: every statement that Record had answered for is in
// the healed recording.
func TestKill(t *testing.T) {
	if dir := os.Getenv("CURFEW_TEST_KILL"); dir != "" {
		recordUntilKilled(t, dir)
		return
	}
	for round := range 10 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), "CURFEW_TEST_KILL="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := 20 + rand.IntN(400)
		last := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "kept %d", &last); err == nil && last >= stop {
				break
			}
		}
		cmd.Process.Kill()
		for lines.Scan() { // what it had said before it died
			fmt.Sscanf(lines.Text(), "kept %d", &last)
		}
		cmd.Wait()
		if last < stop {
			t.Fatalf("round %d: the process ended by itself after %d", round, last)
		}
		l, h := healOne(t, dir, "s1")
		verify(t, l, h.Sealed)
		_, events := content(t, l, "s1")
		got := texts(events)
		for id := 1; id <= last; id++ {
			if got[uint64(id)] != fmt.Sprint("select ", id) {
				t.Fatalf("round %d: statement %d of %d is %q", round, id, last, got[uint64(id)])
			}
		}
		nothingOpen(t, l)
		l.Close()
	}
}

func recordUntilKilled(t *testing.T, dir string) {
	l, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := l.Create(testHeader("s1"))
	if err != nil {
		t.Fatal(err)
	}
	for id := uint64(1); id < 1<<20; id++ {
		if err := w.Record(statement(id, fmt.Sprint("select ", id))); err != nil {
			t.Fatal(err)
		}
		fmt.Println("kept", id)
		if err := w.Record(result(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// Each step of healing fails once: the next attempt finds everything still there.
func TestHealFailsOnce(t *testing.T) {
	for _, op := range []Op{OpRead, OpTruncate, OpCreateSealed, OpWriteSealed, OpSyncSealed, OpMkdir, OpSyncDir, OpRename, OpRemove} {
		for _, stored := range []bool{false, true} {
			for n, hit := 1, true; hit; n++ {
				dir, file, text := crashed(t)
				if err := os.WriteFile(file, text[:len(text)-5], 0o600); err != nil {
					t.Fatal(err)
				}
				l := openLibrary(t, dir, Options{})
				b := &breaker{op: op, n: n, stored: stored}
				l.fs = b.fs
				healed, err := l.Heal(context.Background(), []string{"s1"})
				hit = b.hits >= n
				if hit && err == nil {
					t.Errorf("%s %d: the fault went unnoticed", op, n)
				}
				l.fs = nil
				if err != nil {
					healed, err = l.Heal(context.Background(), []string{"s1"})
				}
				if err != nil || len(healed) != 1 || healed[0].Lost || healed[0].Sealed.Count != 5 {
					t.Fatalf("%s %d, stored %v: %+v, %v", op, n, stored, healed, err)
				}
				verify(t, l, healed[0].Sealed)
				nothingOpen(t, l)
				l.Close()
			}
		}
	}
}

// A write is torn, and then each step of mending it fails once: Seal says so, and the next one works.
func TestMendingFailsOnce(t *testing.T) {
	for _, op := range []Op{OpRead, OpTruncate, OpReopen, OpWrite, OpSync} {
		for _, stored := range []bool{false, true} {
			b := &breaker{op: OpWrite, n: 2, torn: true}
			l := openLibrary(t, t.TempDir(), Options{FS: b.fs})
			w := create(t, l, "s1")
			if err := w.Record(statement(1, "select 1")); err == nil {
				t.Fatal("the torn write went unnoticed")
			}
			b.op, b.n, b.hits, b.torn, b.stored = op, 1, 0, false, stored
			end := End{Code: EndRecord, Reason: "the disk is full"}
			if _, err := w.Seal(end); err == nil {
				t.Errorf("%s: the fault went unnoticed", op)
			}
			b.n = 0
			s, err := w.Seal(end)
			if err != nil || s.Interrupted || s.End.Code != EndRecord {
				t.Fatalf("%s: %+v, %v", op, s, err)
			}
			verify(t, l, s)
			nothingOpen(t, l)
		}
	}
}
