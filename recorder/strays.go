package recorder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Strays looks through the names of the sealed recordings, a directory at a time, for sessions that nobody knows: what
// a crash between a recording's sealing and its first entry in the ledger has left, what a store that was
// restored from a backup no longer knows, or what somebody put there. unknown gives those of some sessions that
// the ledger does not know; found is told each of them, as it is described by its file, Lost if that can't be read or
// is another session's. An error of either ends it. A session must be on the ledger before it is sealed.
func (l *Library) Strays(ctx context.Context, unknown func(sessions []string) ([]string, error), found func(Healed) error) error {
	root := filepath.Join(l.dir, "sealed")
	err := filepath.WalkDir(root, func(dir string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case !e.IsDir():
			return nil
		}
		sessions, err := sealedIn(dir)
		if err != nil || len(sessions) == 0 {
			return err
		}
		strange, err := unknown(sessions)
		for _, session := range strange {
			if err != nil || ctx.Err() != nil {
				break
			}
			err = found(l.stray(session, filepath.Join(dir, session+sealedSuffix)))
		}
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return fmt.Errorf("look for recordings that the ledger does not know: %w", err)
	}
	return nil
}

// sealedIn gives the sessions whose sealed recordings are in a directory.
func sealedIn(dir string) (sessions []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if session, ok := strings.CutSuffix(e.Name(), sealedSuffix); ok && validSession(session) {
			sessions = append(sessions, session)
		}
	}
	return sessions, err
}

func (l *Library) stray(session, path string) Healed {
	sum, sealed, err := l.describe(path)
	if err != nil || sum.header == nil || sum.header.Session != session {
		l.log.Error("sealed recording can't be read", "session", session, "file", path, "error", err)
		return Healed{Session: session, Lost: true}
	}
	return *newHealed(session, sum, sealed)
}
