package recorder

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Healed is one recording that a crash had left open, as it is now.
type Healed struct {
	Session    string
	Header     Header
	HeaderHash string // leaf hash of the header, hex
	Sealed     Sealed
	Prepares   []string // transactions it shows as prepared for two-phase commit
	Lost       bool     // its file is gone or can't be read; nothing but Session is known
}

// Heal is called at start, before sessions are accepted. open names the sessions that the ledger
// believes to be open. Each of them, and each recording found open that the ledger does not know, is
// brought to an end: a torn tail is cut, the file is sealed, as interrupted if it has no end of its
// own; one that was sealed but not entered in the ledger is described from its file; one whose file is
// missing is Lost. What a half-done sealing left is removed. Recordings that this Library has begun
// itself are left alone. Sorted by session; on an error what was healed so far is given too, and Heal
// may be called again.
func (l *Library) Heal(ctx context.Context, open []string) ([]Healed, error) {
	found, err := l.leftovers()
	if err != nil {
		return nil, fmt.Errorf("heal recordings: %w", err)
	}
	known := make(map[string]bool, len(open))
	for _, s := range open {
		known[s] = true
	}
	all := append(slices.Clone(open), found...)
	slices.Sort(all)
	all = slices.Compact(all)

	var healed []Healed
	var errs []error
	for _, session := range all {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		l.mu.Lock()
		_, ours := l.writers[session]
		l.mu.Unlock()
		if ours {
			continue
		}
		h, err := l.heal(session)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("heal the recording of %s: %w", session, err))
		case h == nil && known[session]:
			l.log.Error("recording lost", "session", session)
			healed = append(healed, Healed{Session: session, Lost: true})
		case h != nil:
			l.log.Warn("recording healed", "session", session, "events", h.Sealed.Count, "interrupted", h.Sealed.Interrupted)
			healed = append(healed, *h)
		}
	}
	return healed, errors.Join(errs...)
}

// leftovers removes temporary files and gives the sessions that have an open recording.
func (l *Library) leftovers() ([]string, error) {
	dir := filepath.Join(l.dir, "open")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var sessions []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".tmp") {
			session := strings.TrimSuffix(name, tmpSuffix)
			l.mu.Lock()
			_, ours := l.writers[session]
			l.mu.Unlock()
			if ours {
				continue
			}
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		}
		if session, ok := strings.CutSuffix(name, ".jsonl"); ok && validSession(session) {
			sessions = append(sessions, session)
		}
	}
	return sessions, nil
}

// heal brings one recording to its end; nil if there is none that can be read.
func (l *Library) heal(session string) (*Healed, error) {
	if !validSession(session) {
		return nil, nil
	}
	name := l.openPath(session)
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return l.healSealed(session)
	}
	sum := &summary{}
	if err := l.cut(session, sum); err != nil {
		return nil, err
	}
	if sum.tree.Count() == 0 || sum.header == nil || sum.header.Session != session {
		return l.healNothing(session)
	}
	sum, sealed, err := l.seal(session, decoded)
	if err != nil {
		return nil, err
	}
	return newHealed(session, sum, sealed), nil
}

func (l *Library) healSealed(session string) (*Healed, error) {
	name, err := l.findSealed(session)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sum, sealed, err := l.describe(name)
	if err != nil || sum.header == nil || sum.header.Session != session {
		l.log.Error("sealed recording can't be read", "session", session, "file", name, "error", err)
		return nil, nil
	}
	return newHealed(session, sum, sealed), nil
}

// healNothing deals with an open file in which not even the header is whole. A crash while it was
// created leaves a part of one line, before which nothing can have happened; that is removed. Anything
// else is kept under another name, for a person to look at.
func (l *Library) healNothing(session string) (*Healed, error) {
	name := l.openPath(session)
	f, err := l.read(name)
	if err != nil {
		return nil, err
	}
	end, err := lastLine(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	if end == 0 {
		err = l.do(OpRemove, name, func() error { return os.Remove(name) })
	} else {
		l.log.Error("open recording can't be read; it is kept aside", "session", session, "file", name+".damaged")
		err = l.do(OpRename, name, func() error { return os.Rename(name, name+".damaged") })
	}
	if err != nil {
		return nil, err
	}
	if err := l.syncDir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	return l.healSealed(session)
}

func newHealed(session string, sum *summary, s Sealed) *Healed {
	return &Healed{
		Session: session, Header: *sum.header, HeaderHash: hex.EncodeToString(sum.leaf0[:]),
		Sealed: s, Prepares: sum.prepares,
	}
}
