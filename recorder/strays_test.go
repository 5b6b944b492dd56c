package recorder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// strays gives what Strays finds if the ledger knows these sessions.
func strays(t *testing.T, l *Library, known ...string) (found []Healed) {
	t.Helper()
	err := l.Strays(t.Context(), func(sessions []string) ([]string, error) {
		return slices.DeleteFunc(sessions, func(s string) bool { return slices.Contains(known, s) }), nil
	}, func(h Healed) error {
		found = append(found, h)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A crash between the sealing of a recording that the ledger never opened and its entry leaves a file that Heal does not see.
func TestStrayAfterHeal(t *testing.T) {
	dir := t.TempDir()
	l := openLibrary(t, dir, Options{})
	seal(t, create(t, l, "s1"))
	w := create(t, l, "s2")
	record(t, w, statement(1, "select 1"))
	abandon(l)

	l = openLibrary(t, dir, Options{})
	healed, err := l.Heal(t.Context(), nil)
	if err != nil || len(healed) != 1 {
		t.Fatalf("%+v, %v", healed, err)
	}
	abandon(l) // and the crash

	l = openLibrary(t, dir, Options{})
	if again, err := l.Heal(t.Context(), nil); err != nil || len(again) != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	found := strays(t, l, "s1")
	if len(found) != 1 || found[0].Session != "s2" || found[0].Lost || found[0].Sealed != healed[0].Sealed || found[0].HeaderHash != healed[0].HeaderHash {
		t.Fatalf("%+v, healed %+v", found, healed)
	}
	verify(t, l, found[0].Sealed)
	if found := strays(t, l, "s1", "s2"); len(found) != 0 {
		t.Errorf("known, and found: %+v", found)
	}
}

func TestStraysThatAreNone(t *testing.T) {
	l := openLibrary(t, t.TempDir(), Options{})
	s := seal(t, create(t, l, "s1"))
	day := filepath.Join(l.dir, filepath.Dir(filepath.FromSlash(s.File)))
	whole, err := os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(s.File)))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"s2" + sealedSuffix: whole, "s3" + sealedSuffix: whole[:len(whole)/2], "s4" + tmpSuffix: whole, "a b" + sealedSuffix: whole, ".probe": nil,
	} {
		if err := os.WriteFile(filepath.Join(day, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := strays(t, l, "s1")
	if len(found) != 2 || found[0].Session != "s2" || found[1].Session != "s3" || !found[0].Lost || !found[1].Lost {
		t.Errorf("another session's file, and half a file: %+v", found)
	}
	stop := errors.New("stop")
	told := 0
	err = l.Strays(t.Context(), func(s []string) ([]string, error) { return s, nil }, func(Healed) error { told++; return stop })
	if !errors.Is(err, stop) || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
	if err = l.Strays(t.Context(), func([]string) ([]string, error) { return nil, stop }, nil); !errors.Is(err, stop) {
		t.Error(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err = l.Strays(ended, nil, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
