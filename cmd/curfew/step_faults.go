//go:build crash

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/store"
)

// faults is the file that CURFEW_FAULTS names: what is broken at this moment. It is read at each
// operation, so that whoever writes it breaks and mends things while Curfew runs. One fault a line:
//
//	recorder OP PATH HOW    OP: a recorder.Op with _ for its spaces, or *; PATH: a pattern for the file's name
//	store OP HOW            OP: a store.Op, or *
//	wall DURATION           the wall clock is off by this
//
// HOW is enospc, erofs, eio (nothing happens), stored (it happens, and is reported as failed), torn (a half of
// a write happens) or hang (until the line is gone). Whatever of the recorder's is broken for every file
// is broken for its probe, too.
type faults struct{ path string }

// crashSeams gives what CURFEW_FAULTS breaks; CURFEW_STALL and CURFEW_DURABILITY set what they name.
func crashSeams(env func(string) string) seams {
	f := faults{env("CURFEW_FAULTS")}
	return seams{
		recorder: func(o *recorder.Options) {
			if stall, err := time.ParseDuration(env("CURFEW_STALL")); err == nil {
				o.Stall = stall
			}
			if d := env("CURFEW_DURABILITY"); d != "" {
				o.Durability = recorder.Durability(d)
			}
			if f.path != "" {
				o.FS = f.recorder
			}
		},
		store: func(o *store.Options) {
			if f.path != "" {
				o.Seam, o.Wall = f.store, f.wall
			}
		},
	}
}

// lines gives the faults of one kind.
func (f faults) lines(kind string) [][]string {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == kind {
			all = append(all, fields[1:])
		}
	}
	return all
}

func (f faults) recorder(op recorder.Op, path string, do func() error) error {
	name := strings.ReplaceAll(string(op), " ", "_")
	return carryOut(path, do, func() string {
		for _, l := range f.lines("recorder") {
			if len(l) != 3 {
				continue
			}
			hits, _ := filepath.Match(l[1], filepath.Base(path))
			if op == recorder.OpProbe && l[1] == "*" || hits && (l[0] == name || l[0] == "*") {
				return l[2]
			}
		}
		return ""
	})
}

func (f faults) store(op store.Op, do func() error) error {
	return carryOut("", do, func() string {
		for _, l := range f.lines("store") {
			if len(l) == 2 && (l[0] == string(op) || l[0] == "*") {
				return l[1]
			}
		}
		return ""
	})
}

func (f faults) wall() time.Time {
	now := time.Now()
	for _, l := range f.lines("wall") {
		if off, err := time.ParseDuration(l[0]); err == nil {
			now = now.Add(off)
		}
	}
	return now
}

func carryOut(path string, do func() error, how func() string) error {
	for how() == "hang" {
		time.Sleep(5 * time.Millisecond)
	}
	switch h := how(); h {
	case "":
		return do()
	case "enospc":
		return syscall.ENOSPC
	case "erofs":
		return syscall.EROFS
	case "eio":
		return syscall.EIO
	case "stored":
		if err := do(); err != nil {
			return err
		}
		return syscall.EIO
	case "torn":
		return tear(path, do)
	default:
		return fmt.Errorf("there is no fault %q", h)
	}
}

// tear does a half of a write.
func tear(path string, do func() error) error {
	before, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Truncate(path, (before.Size()+after.Size())/2); err != nil {
		return err
	}
	return syscall.ENOSPC
}
