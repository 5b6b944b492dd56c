package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Anchor appends the latest checkpoint to the file at path, if the ledger has grown since the last
// one in it. The file is best kept where Curfew's host can append and not rewrite. Before it is
// appended to for the first time by this process, its last checkpoint is held against the ledger: if
// that is not a part of it, the store is an older copy or was rewritten, and Anchor returns ErrTampered.
func (s *Store) Anchor(ctx context.Context, path string) error {
	s.anchorMu.Lock()
	defer s.anchorMu.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	err = s.anchor(ctx, f, path)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("anchor %s: %w", path, err)
	}
	return nil
}

func (s *Store) anchor(ctx context.Context, f *os.File, path string) error {
	size, known := s.anchored[path]
	if !known {
		var err error
		if size, err = s.lastAnchor(ctx, f); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	msg, err := s.Checkpoint(ctx)
	if err != nil {
		return err
	}
	c, err := ledger.ParseCheckpoint(msg, s.VerifierKey())
	if err != nil {
		return err
	}
	if c.Size > size {
		lead, err := separator(f)
		if err != nil {
			return err
		}
		if _, err := f.Write(append([]byte(lead), msg...)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	s.anchored[path] = c.Size
	return nil
}

// separator parts the next block from what is there, be it a line that a crash cut short.
func separator(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return "", err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return "", err
	}
	if last[0] != '\n' {
		return "\n\n", nil
	}
	return "\n", nil
}

// lastAnchor gives the size of the longest of this ledger's checkpoints in the file, once all of them
// are known to be parts of the ledger.
func (s *Store) lastAnchor(ctx context.Context, f *os.File) (int64, error) {
	anchors, err := ledger.ReadAnchors(f)
	if err != nil {
		return 0, err
	}
	roots := map[int64]ledger.Checkpoint{}
	var longest int64
	for _, a := range anchors {
		// Another installation may share the file, and a crash may have cut a block short.
		c, err := ledger.ParseCheckpoint(a.Note, s.VerifierKey())
		if err != nil || c.Origin != ledger.Origin(s.installation) {
			continue
		}
		if other, twice := roots[c.Size]; twice && other.Root != c.Root {
			return 0, fmt.Errorf("%w: the anchor holds two different checkpoints of %d entries", ErrTampered, c.Size)
		}
		roots[c.Size] = c
		longest = max(longest, c.Size)
	}
	return longest, s.contains(ctx, roots, longest)
}

var errEnough = errors.New("enough")

// contains checks that the ledger had those roots at those sizes.
func (s *Store) contains(ctx context.Context, roots map[int64]ledger.Checkpoint, longest int64) error {
	var tree ledger.Tree
	err := s.Entries(ctx, 0, func(line []byte) error {
		if tree.Size() >= longest {
			return errEnough
		}
		tree.Append(ledger.LeafHash(line))
		if c, ok := roots[tree.Size()]; ok && c.Root != tree.Root() {
			return fmt.Errorf("%w: at %d entries the ledger is not the one that was anchored", ErrTampered, c.Size)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if tree.Size() < longest {
		return fmt.Errorf("%w: %d entries were anchored, the ledger holds %d", ErrTampered, longest, tree.Size())
	}
	return nil
}
