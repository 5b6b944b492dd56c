package export

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// Write writes a bundle of what is in scope, as a .tar.zst, as of the moment it is called. A recording
// that can't be read is told to progress (which may be nil) and left out: the rest is evidence too,
// and Verify will miss it.
func Write(ctx context.Context, w io.Writer, src Source, scope Scope, progress func(Progress)) error {
	msg, err := src.Ledger.Checkpoint(ctx)
	if err != nil {
		return fmt.Errorf("export: checkpoint: %w", err)
	}
	c, err := ledger.ParseCheckpoint(msg, src.Ledger.VerifierKey())
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	about, err := survey(ctx, src.Ledger, c.Size, scope)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	compressed, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	b := &bundleWriter{ctx: ctx, src: src, tar: tar.NewWriter(compressed), at: time.Now(), progress: progress}
	err = b.write(msg, c, about)
	if err == nil {
		err = b.tar.Close()
	}
	// The compressor is closed in any case, for it holds goroutines; after an error what it adds is
	// not a bundle: the archive in it has no end.
	if closed := compressed.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

type bundleWriter struct {
	ctx      context.Context
	src      Source
	tar      *tar.Writer
	at       time.Time
	progress func(Progress)
}

func (b *bundleWriter) write(checkpoint []byte, c ledger.Checkpoint, about *catalog) error {
	m, err := json.MarshalIndent(manifest{
		Format: Format, Installation: b.src.Ledger.Installation(), Key: b.src.Ledger.VerifierKey(), Scope: about.scope,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := b.bytes(manifestName, append(m, '\n')); err != nil {
		return err
	}
	if err := b.bytes(checkpointName, checkpoint); err != nil {
		return err
	}
	err = b.spooled(ledgerName, func(w io.Writer) error { return b.ledger(w, c.Size, about) })
	if err != nil {
		return err
	}
	total, done := 0, 0
	for _, id := range about.order {
		if about.in[id] {
			total++
		}
	}
	for _, id := range about.order {
		if !about.in[id] {
			continue
		}
		done++
		var left *unreadable
		err := b.recording(about.sessions[id])
		if err != nil && !errors.As(err, &left) {
			return err
		}
		if b.progress != nil {
			p := Progress{Session: id, Done: done, Total: total}
			if left != nil {
				p.Err = left.err
			}
			b.progress(p)
		}
	}
	return nil
}

// unreadable says that a recording is not to be had, as opposed to the bundle not to be written.
type unreadable struct{ err error }

func (e *unreadable) Error() string { return e.err.Error() }

func (b *bundleWriter) recording(s *sessionInfo) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	name := recordingName(s.Session, s.sealed != nil)
	if name == "" {
		return &unreadable{fmt.Errorf("session %q can't name a file", s.Session)}
	}
	if s.sealed == nil {
		r, err := b.src.Recordings.Open(s.Session)
		if err != nil {
			return &unreadable{err}
		}
		defer r.Close()
		return b.spooled(name, func(w io.Writer) error {
			_, err := io.Copy(w, r)
			return err
		})
	}
	f, err := b.src.Recordings.File(*s.sealed)
	if err != nil {
		return &unreadable{err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return &unreadable{err}
	}
	return b.member(name, info.Size(), f)
}

// ledger writes a line for each entry, so that every leaf of the tree is there.
func (b *bundleWriter) ledger(w io.Writer, size int64, about *catalog) error {
	n := int64(0)
	return entries(b.ctx, b.src.Ledger, size, func(line []byte) error {
		out := line
		if !about.scope.All() {
			e, err := ledger.Decode(line)
			if err != nil {
				return err
			}
			whole, err := about.whole(e)
			if err != nil {
				return err
			}
			if !whole {
				h := ledger.LeafHash(line)
				if out, err = json.Marshal(withheld{Index: n, Hash: fmt.Sprintf("%x", h[:])}); err != nil {
					return err
				}
			}
		}
		n++
		if _, err := w.Write(out); err != nil {
			return err
		}
		_, err := w.Write([]byte{'\n'})
		return err
	})
}

func (b *bundleWriter) bytes(name string, data []byte) error {
	if err := b.header(name, int64(len(data))); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

func (b *bundleWriter) member(name string, size int64, r io.Reader) error {
	if err := b.header(name, size); err != nil {
		return err
	}
	_, err := io.CopyN(b.tar, r, size)
	return err
}

func (b *bundleWriter) header(name string, size int64) error {
	return b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: b.at.Truncate(time.Second)})
}

// spooled writes a member whose size is known only at its end: tar wants it first.
func (b *bundleWriter) spooled(name string, fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp("", "curfew-export-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Without a name nobody else finds it, and nothing is left behind however this ends.
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(f, 64<<10)
	if err := fill(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return b.member(name, size, f)
}

var errEnough = errors.New("enough")

// entries gives the first size entries: those that a checkpoint of that size signs.
func entries(ctx context.Context, l Ledger, size int64, fn func(line []byte) error) error {
	n := int64(0)
	err := l.Entries(ctx, 0, func(line []byte) error {
		if n == size {
			return errEnough
		}
		n++
		return fn(line)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if n < size {
		return fmt.Errorf("the ledger holds %d entries, its checkpoint signs %d", n, size)
	}
	return nil
}
