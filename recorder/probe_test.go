package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A disk is well when it takes a write, a sync and a finished file, and nothing of the question stays on it. A
// full one lets files be made, and one that loses what it is given says so when it is asked to sync.
func TestTheProbeAsksForAll(t *testing.T) {
	device := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.Symlink(name, filepath.Join(dir, "open", probeName)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		sick func(t *testing.T, dir string)
		want error
	}{
		"well":                   {func(*testing.T, string) {}, nil},
		"full":                   {device("/dev/full"), syscall.ENOSPC},
		"takes and can't sync":   {device("/dev/null"), syscall.EINVAL},
		"nothing can be made":    {func(t *testing.T, dir string) { occupy(t, filepath.Join(dir, "open", probeName)) }, syscall.EISDIR},
		"nothing can be renamed": {func(t *testing.T, dir string) { occupy(t, filepath.Join(dir, "sealed", probeName)) }, syscall.EEXIST},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLibrary(t, dir, Options{})
			c.sick(t, dir)
			err := l.probe()
			if (c.want == nil) != (err == nil) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("the disk is said to be: %v, want %v", err, c.want)
			}
			for _, place := range []string{"open", "sealed"} {
				if st, err := os.Lstat(filepath.Join(dir, place, probeName)); err == nil && !st.IsDir() {
					t.Errorf("the question is left in %s", place)
				}
			}
		})
	}
}

// occupy makes a directory that no file can take the place of.
func occupy(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(path, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// However many recordings there are, no more than a few sync at once beside those that somebody waits for.
func TestSyncsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newWall()
		l := openLibrary(t, t.TempDir(), Options{Stall: time.Hour, FS: d.fs})
		var ws []*Writer
		for i := range 4 * cap(l.syncs) {
			ws = append(ws, create(t, l, fmt.Sprint("s", i)))
		}
		d.hang("", OpSync)
		for _, w := range ws {
			record(t, w, statement(1, "select 1"))
		}
		time.Sleep(2 * syncAfter)
		synctest.Wait()
		if n := len(d.entered); n != cap(l.syncs) {
			t.Errorf("%d syncs at once", n)
		}
		d.free()
		synctest.Wait()
		for _, w := range ws {
			if w.State().Count < 2 {
				t.Error("what was written is not synced when its turn comes")
			}
			seal(t, w)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// One recording that can't be kept is the whole library's trouble, until the disk is asked and well.
func TestAFailureIsTheLibrarys(t *testing.T) {
	for _, op := range []Op{OpWrite, OpSync} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			var sick atomic.Bool
			l := openLibrary(t, dir, Options{Durability: Disk, FS: func(at Op, _ string, do func() error) error {
				if sick.Load() && (at == op || at == OpProbe) {
					return errInjected
				}
				return do()
			}})
			w := create(t, l, "s1")
			sick.Store(true)
			if err := w.Record(statement(1, "select 1")); !errors.Is(err, errInjected) {
				t.Fatalf("%s: Record returned %v", op, err)
			}
			for range 3 {
				if err := l.Err(); !errors.Is(err, errInjected) {
					t.Errorf("%s: the library says %v", op, err)
				}
				time.Sleep(2 * time.Second)
			}
			sick.Store(false)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if err := l.Err(); err != nil {
				t.Errorf("%s: the disk is well: %v", op, err)
			}
			seal(t, w)
			l.Close()
		})
	}
}

// A directory that was made survives a power cut, and so does what is made in it: its own entry is synced, and that
// of each above it.
func TestDirectoriesAreDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var made []string
	synced := map[string]bool{}
	l := openLibrary(t, dir, Options{FS: func(op Op, path string, do func() error) error {
		err := do()
		mu.Lock()
		defer mu.Unlock()
		switch op {
		case OpMkdir:
			made = append(made, path)
		case OpSyncDir:
			synced[path] = true
		}
		return err
	}})
	seal(t, create(t, l, "s1"))
	mu.Lock()
	defer mu.Unlock()
	if len(made) == 0 {
		t.Fatal("nothing was made")
	}
	for _, path := range made {
		for ; len(path) >= len(dir); path = filepath.Dir(path) {
			if !synced[path] {
				t.Errorf("%s is not synced", path)
			}
		}
	}
}
