package recorder

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
)

const (
	sealedSuffix = ".jsonl.zst"
	tmpSuffix    = ".zst.tmp" // below open/: a sealed file that is being written
	frameSize    = 256 << 10  // uncompressed bytes of a zstd frame
)

// Seal ends the recording: writes e as its last event, compresses it, makes that durable and removes
// the open file. It is idempotent: once it has succeeded it gives the same answer, and after an error
// it may be called again. On a broken Writer it first cuts what a failed write may have left behind.
func (w *Writer) Seal(e End) (Sealed, error) {
	w.sealing.Lock()
	defer w.sealing.Unlock()
	if w.sealed != nil {
		return *w.sealed, nil
	}
	if w.left {
		return Sealed{}, fmt.Errorf("seal %s: %w", w.header.Session, fs.ErrClosed)
	}
	if w.finished == nil {
		if err := w.finish(e); err != nil {
			w.lib.failed(err)
			return Sealed{}, fmt.Errorf("seal %s: %w", w.header.Session, err)
		}
	}
	_, sealed, err := w.lib.seal(w.header.Session, w.text())
	if errors.Is(err, fs.ErrNotExist) {
		sealed, err = w.lib.sealedBefore(w.header.Session, *w.finished, err)
	}
	if err != nil {
		w.lib.failed(err)
		return Sealed{}, fmt.Errorf("seal %s: %w", w.header.Session, err)
	}
	w.lib.forget(w)
	w.sealed = &sealed
	return sealed, nil
}

// text is how the file is read when it is sealed. What the Writer knows of it is not read from it again:
// of a busy session that is most of what sealing costs. That it holds what was written to it a keyed hash tells,
// for a twentieth of what its leaves would cost; the tree is the one of what was written.
func (w *Writer) text() text {
	if w.finished.count == 0 {
		return decoded
	}
	return func(from io.Reader, to io.Writer) (*summary, error) {
		var read maphash.Hash
		read.SetSeed(w.written.Seed())
		if _, err := io.Copy(to, io.TeeReader(from, &read)); err != nil {
			return nil, err
		}
		if read.Sum64() != w.written.Sum64() {
			return nil, errors.New("the open recording is not what was written to it")
		}
		return &summary{header: &w.header, end: &w.end, known: w.finished}, nil
	}
}

// finish writes the end and closes the file.
func (w *Writer) finish(e End) error {
	w.mu.Lock()
	if e.Statements == 0 {
		e.Statements = w.statements
	}
	if !w.ended {
		w.ended = true
		w.kept = w.acked.Swap(sealing)
		if w.err == nil {
			if err := w.last(e); err != nil {
				w.mu.Unlock()
				return err
			}
		}
	}
	count := w.tree.Count()
	w.mu.Unlock()

	broken := w.sync(count)
	w.stop()
	w.closeFile() // everything in it is synced, or will be read again
	if broken == nil {
		m := w.durableMark()
		w.finished = &m
		return nil
	}
	if err := w.lib.repair(w.header.Session, e, time.Since(w.began), w.kept); err != nil {
		return err
	}
	w.finished = &mark{}
	return nil
}

// last encodes what a recording ends with. A Record that has not returned until now is refused when it
// does: what it brought is marked as blocked, for it did not run. The caller holds mu.
func (w *Writer) last(e End) (err error) {
	if w.pending == nil {
		w.pending = w.lib.buffer()
	}
	w.look()
	if w.asked > w.kept {
		if e.InFlight >= w.asking {
			e.InFlight = 0
		}
		for id := w.asking; id <= w.statements; id++ {
			w.pending.b, err = w.line(w.pending.b, &Event{Type: TypeBlocked, Of: id, Reason: notKept}, nil, false, false)
			if err != nil {
				return err
			}
		}
	}
	w.end = e
	w.pending.b, err = w.line(w.pending.b, endEvent(&e), nil, false, false)
	return err
}

func endEvent(e *End) *Event { return &Event{Type: TypeEnd, End: e} }

func (w *Writer) durableMark() mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.durable
}

// notKept is what a recording says of a statement whose Record failed.
const notKept = "the statement could not be kept on record, so it was not sent to the database"

// repair gives an open recording, of which a write or sync has failed, a whole last line and an end. What
// stands behind the first acked leaves was refused: each statement there is marked as blocked, for it
// did not run.
func (l *Library) repair(session string, e End, at time.Duration, acked uint64) error {
	sum := &summary{acked: acked}
	if err := l.cut(session, sum); err != nil {
		return err
	}
	if sum.header == nil {
		return errors.New("its header is gone")
	}
	if sum.end != nil {
		return nil
	}
	if e.InFlight > sum.statements || slices.Contains(sum.refused, e.InFlight) {
		e.InFlight = 0
	}
	e.Statements = sum.statements
	var lines []byte
	seq := sum.tree.Count()
	add := func(e *Event) (err error) {
		st := stamp{seq: seq, micros: max(at.Microseconds(), sum.micros)}
		rand.Read(st.salt[:])
		if lines, err = appendEvent(lines, &st, e, body{}); err == nil {
			lines = append(lines, '\n')
			seq++
		}
		return err
	}
	for _, id := range sum.refused {
		if sum.blocked[id] {
			continue
		}
		if err := add(&Event{Type: TypeBlocked, Of: id, Reason: notKept}); err != nil {
			return err
		}
	}
	if err := add(endEvent(&e)); err != nil {
		return err
	}
	return l.extend(l.openPath(session), lines)
}

// extend puts lines behind an open recording, durably.
func (l *Library) extend(name string, lines []byte) error {
	var f *os.File
	err := l.do(OpReopen, name, func() (err error) {
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		return err
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return err
	}
	if err := l.do(OpWrite, name, func() error { _, err := f.Write(lines); return err }); err != nil {
		return err
	}
	return l.do(OpSync, name, f.Sync)
}

// cut makes an open recording end with its last right line. What is cut is a line that was torn while
// it was written; if it is more than that, something else has been at the file, and it is kept aside. sum
// gets what stays.
func (l *Library) cut(session string, sum *summary) error {
	name := l.openPath(session)
	f, err := l.read(name)
	if err != nil {
		return err
	}
	defer f.Close()
	err = sum.scan(NewReader(f), nil)
	if err == nil {
		return nil
	}
	var bad *FormatError
	if !errors.As(err, &bad) {
		return err
	}
	if sum.tree.Count() == 0 {
		return nil // nothing in it is right; the caller decides
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		l.log.Error("open recording damaged before its last line; the rest is kept aside",
			"session", session, "error", err)
		if err := l.keepAside(f, sum.good, name+".cut"); err != nil {
			return err
		}
	}
	return l.do(OpTruncate, name, func() error {
		w, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.Truncate(sum.good); err != nil {
			return err
		}
		return w.Sync()
	})
}

func (l *Library) keepAside(f *os.File, from int64, name string) error {
	aside, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer aside.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := io.Copy(aside, io.NewSectionReader(f, from, st.Size()-from)); err != nil {
		return err
	}
	return aside.Sync()
}

// text copies the text of an open recording, and says what it holds.
type text func(from io.Reader, to io.Writer) (*summary, error)

// decoded is a text of which nothing is known before.
func decoded(from io.Reader, to io.Writer) (*summary, error) {
	sum := &summary{}
	err := sum.scan(NewReader(from), func(line []byte, _ *Event, _ *Tree) error {
		if _, err := to.Write(line); err != nil {
			return err
		}
		_, err := io.WriteString(to, "\n")
		return err
	})
	return sum, err
}

// seal compresses an open recording of whole lines into its place.
func (l *Library) seal(session string, t text) (*summary, Sealed, error) {
	from, tmp := l.openPath(session), filepath.Join(l.dir, "open", session+tmpSuffix)
	sum, sealed, err := l.compress(from, tmp, t)
	if err == nil && (sum.header == nil || sum.header.Session != session) {
		err = errors.New("the open recording is of another session")
	}
	if err != nil {
		os.Remove(tmp)
		return nil, Sealed{}, err
	}
	sealed.Session = session
	sealed.File = path.Join("sealed", sum.header.Began.UTC().Format("2006/01/02"), session+sealedSuffix)
	to := filepath.Join(l.dir, filepath.FromSlash(sealed.File))
	if err := l.place(tmp, to, sum.mark()); err != nil {
		return nil, Sealed{}, err
	}
	if err := l.do(OpRemove, from, func() error { return os.Remove(from) }); err != nil {
		return nil, Sealed{}, err
	}
	return sum, sealed, l.syncDir(filepath.Dir(from))
}

// sealedBefore answers for an attempt that had removed the open file before it failed.
func (l *Library) sealedBefore(session string, expect mark, missing error) (Sealed, error) {
	name, err := l.findSealed(session)
	if err != nil {
		return Sealed{}, missing
	}
	sum, sealed, err := l.describe(name)
	if err == nil && expect.count > 0 && sum.mark() != expect {
		err = fmt.Errorf("%s holds another recording", name)
	}
	if err != nil {
		return Sealed{}, err
	}
	return sealed, l.syncDir(filepath.Join(l.dir, "open"))
}

// place moves a finished sealed file where it belongs, durably. A file that is there already must hold
// the same recording: an earlier attempt left it.
func (l *Library) place(tmp, to string, m mark) error {
	if err := l.mkdir(l.dir, filepath.Dir(to)); err != nil {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		there, _, err := l.describe(to)
		if err != nil || there.mark() != m {
			return fmt.Errorf("%s holds another recording", to)
		}
	}
	if err := l.do(OpRename, to, func() error { return os.Rename(tmp, to) }); err != nil {
		return err
	}
	return l.syncDir(filepath.Dir(to))
}

// compress writes the sealed form of an open recording, synced, to tmp.
func (l *Library) compress(from, tmp string, t text) (sum *summary, s Sealed, err error) {
	src, err := l.read(from)
	if err != nil {
		return nil, s, err
	}
	defer src.Close()
	var dst *os.File
	os.Remove(tmp) // of an attempt that failed
	err = l.do(OpCreateSealed, tmp, func() (err error) {
		dst, err = os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o400)
		return err
	})
	if dst != nil {
		defer dst.Close()
	}
	if err != nil {
		return nil, s, err
	}
	out := &sealedFile{lib: l, f: dst, digest: sha256.New()}
	frames, err := seekable.NewWriter(out, l.encoder)
	if err != nil {
		return nil, s, err
	}
	room := l.frames.Get().(*[frameSize]byte)
	defer l.frames.Put(room)
	text := &framer{to: frames, b: room[:0]}
	if sum, err = t(src, text); err == nil {
		err = text.flush()
	}
	if err == nil {
		err = frames.Close() // writes the seek table
	}
	if err == nil {
		err = l.do(OpSyncSealed, tmp, dst.Sync)
	}
	if err != nil {
		return nil, s, err
	}
	s = sum.sealed("", out.length, hex.EncodeToString(out.digest.Sum(nil)))
	return sum, s, nil
}

// sealed describes a recording that is closed; without an end of its own it was interrupted.
func (s *summary) sealed(file string, length int64, sha string) Sealed {
	m := s.mark()
	out := Sealed{File: file, Length: length, SHA256: sha, TreeState: m.state("")}
	if s.header != nil {
		out.Session = s.header.Session
	}
	if s.end != nil {
		out.End = *s.end
		return out
	}
	out.Interrupted = true
	out.End = End{
		Code: EndInterrupted, Reason: "Curfew stopped before the session had an end",
		InFlight: s.running, Statements: s.statements,
	}
	if s.running > 0 {
		out.End.Fate = "unknown"
	}
	return out
}

// framer makes frames of frameSize of what is written to it.
type framer struct {
	to io.Writer
	b  []byte // of what a frame has room for
}

func (f *framer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), frameSize-len(f.b))
		f.b = append(f.b, rest[:n]...)
		rest = rest[n:]
		if len(f.b) == frameSize {
			if err := f.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom: what is read is copied nowhere before it is compressed.
func (f *framer) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		n, err := r.Read(f.b[len(f.b):frameSize])
		f.b = f.b[:len(f.b)+n]
		total += int64(n)
		if len(f.b) == frameSize {
			if err := f.flush(); err != nil {
				return total, err
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

func (f *framer) flush() error {
	if len(f.b) == 0 {
		return nil
	}
	_, err := f.to.Write(f.b)
	f.b = f.b[:0]
	return err
}

// sealedFile counts and hashes what is written to a sealed file.
type sealedFile struct {
	lib    *Library
	f      *os.File
	length int64
	digest interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (s *sealedFile) Write(p []byte) (n int, err error) {
	err = s.lib.do(OpWriteSealed, s.f.Name(), func() (err error) {
		n, err = s.f.Write(p)
		return err
	})
	s.digest.Write(p[:n])
	s.length += int64(n)
	return n, err
}

// describe reads a sealed file as the ledger would have it.
func (l *Library) describe(name string) (*summary, Sealed, error) {
	f, err := l.read(name)
	if err != nil {
		return nil, Sealed{}, err
	}
	defer f.Close()
	sum, length, sha, err := scanSealed(f, nil)
	if err != nil {
		return nil, Sealed{}, err
	}
	rel, err := filepath.Rel(l.dir, name)
	if err != nil {
		return nil, Sealed{}, err
	}
	return sum, sum.sealed(filepath.ToSlash(rel), length, sha), nil
}
