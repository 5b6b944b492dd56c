package recorder

import (
	"fmt"
	"os"
	"path/filepath"
)

// Op names what the recorder does to the file system, one name for each purpose, so that a test can
// break exactly one step.
type Op string

// The operations that an [FS] sees.
const (
	OpMkdir        Op = "mkdir"
	OpCreate       Op = "create"        // a new open recording
	OpWrite        Op = "write"         // events to an open recording
	OpSync         Op = "sync"          // an open recording to the disk
	OpSyncDir      Op = "sync dir"      // a directory's entries to the disk
	OpRead         Op = "read"          // opening a recording to read it
	OpTruncate     Op = "truncate"      // cutting a torn tail
	OpReopen       Op = "reopen"        // an open recording, to write its end after a failure
	OpCreateSealed Op = "create sealed" // the temporary file of a sealed recording
	OpWriteSealed  Op = "write sealed"
	OpSyncSealed   Op = "sync sealed"
	OpRename       Op = "rename" // the temporary file to its place
	OpRemove       Op = "remove" // an open recording that is sealed
	OpProbe        Op = "probe"  // asking whether the disk takes writes again
)

const probeName = "probe.tmp"

// FS stands between the recorder and the operating system in tests. It is called with each operation
// and calls do to carry it out. Returning an error without calling do is an operation that failed;
// calling do and then returning an error is one that happened and was reported as failed. nil in
// production, where operations are carried out directly.
type FS func(op Op, path string, do func() error) error

func (l *Library) do(op Op, path string, f func() error) error {
	defer l.watch.note(op, path)()
	if l.fs == nil {
		return f()
	}
	return l.fs(op, path, f)
}

// syncDir makes the entries of a directory survive a power cut.
func (l *Library) syncDir(path string) error {
	return l.do(OpSyncDir, path, func() error {
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Sync()
	})
}

// mkdir makes path below root, and every directory between, durable.
func (l *Library) mkdir(root, path string) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := l.do(OpMkdir, path, func() error { return os.MkdirAll(path, 0o700) }); err != nil {
		return err
	}
	for p := path; ; p = filepath.Dir(p) {
		if err := l.syncDir(p); err != nil {
			return err
		}
		if p == root || p == filepath.Dir(p) {
			return nil
		}
	}
}

// probe asks whether the disk takes a write and a finished file: a full one takes none, and says so only
// when asked.
func (l *Library) probe() error {
	path, place := filepath.Join(l.dir, "open", probeName), filepath.Join(l.dir, "sealed", probeName)
	err := l.do(OpProbe, path, func() error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(make([]byte, 64<<10))
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(path, place)
		}
		if err == nil {
			return os.Remove(place)
		}
		os.Remove(path)
		return err
	})
	if err != nil {
		return fmt.Errorf("the recordings' directory takes no writes: %w", err)
	}
	return nil
}
