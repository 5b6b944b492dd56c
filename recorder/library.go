package recorder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Durability says what a statement's Record waits for.
type Durability string

const (
	Process Durability = "process" // for write(2): it survives kill -9; the disk follows within a second
	Disk    Durability = "disk"    // for fdatasync(2): it survives a power cut
)

// Processors is how many Go should be given (runtime.GOMAXPROCS) where it would take n. Who waits in an fdatasync
// keeps one until Go's monitor takes it away, which can be 10 ms later: with none to spare, the disk's time is lost for
// everybody else.
func (d Durability) Processors(n int) int {
	if d == Disk {
		return max(n, min(4*n, 64))
	}
	return n
}

// Options of a Library.
type Options struct {
	Durability Durability // default Process
	Node       string     // name of this node, for headers that name none
	Log        *slog.Logger
	Dialects   map[string]Dialect // by Header.Engine; DialectDollars where it has none
	Stall      time.Duration      // how long a write or sync may take before its recording is given up; 0: DefaultStall
	FS         FS                 // nil but in tests
}

// Dialect is how an engine's SQL is written, as far as passwords in it must be found.
type Dialect int

// The dialects.
const (
	DialectDollars     Dialect = iota // dollar quotes, nested comments; a backslash is itself but in E'…'
	DialectBackslashes                // backslash escapes, # comments, code in /*! */, "…" is a literal
)

// Library is the directory that holds this node's recordings. One process at a time has it.
// Its methods are safe for concurrent use.
type Library struct {
	dir        string
	durability Durability
	node       string
	dialects   map[string]Dialect
	log        *slog.Logger
	fs         FS
	lockFile   *os.File
	encoder    *zstd.Encoder
	buffers    sync.Pool
	frames     sync.Pool     // of *[frameSize]byte
	syncs      chan struct{} // bounds the syncs that no Record waits for

	watch   *watch
	trouble atomic.Pointer[failure] // the last one, until the disk is known to be well again

	mu      sync.Mutex // guards what follows
	writers map[string]*Writer
	closed  bool
}

type failure struct{ err error }

// Open takes the directory, and makes it where it is missing.
func Open(dir string, o Options) (*Library, error) {
	switch o.Durability {
	case "":
		o.Durability = Process
	case Process, Disk:
	default:
		return nil, fmt.Errorf("durability %q is neither %q nor %q", o.Durability, Process, Disk)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	l := &Library{
		dir: dir, durability: o.Durability, node: o.Node, dialects: o.Dialects, log: o.Log, fs: o.FS,
		syncs: make(chan struct{}, 4), writers: map[string]*Writer{}, watch: newWatch(o.Stall),
	}
	l.buffers.New = func() any { return new(buffer) }
	l.frames.New = func() any { return new([frameSize]byte) }
	for _, sub := range []string{"open", "sealed"} {
		if err := l.mkdir(filepath.Dir(dir), filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("recordings in %s: %w", dir, err)
		}
	}
	l.lockFile, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("recordings in %s: %w", dir, err)
	}
	if err := lock(l.lockFile); err != nil {
		l.lockFile.Close()
		return nil, fmt.Errorf("recordings in %s: %w", dir, err)
	}
	l.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(frameSize))
	if err != nil {
		l.lockFile.Close()
		return nil, err
	}
	l.watch.running.Go(l.keepWatch)
	return l, nil
}

// Create begins a recording. When it returns, the header, leaf 0, is on disk. While the disk is known to hang
// it fails at once, so that those who try again and again don't pile up behind it.
func (l *Library) Create(h Header) (*Writer, error) {
	if !validSession(h.Session) {
		return nil, fmt.Errorf("%q can't name a recording", h.Session)
	}
	h.Format = Format
	if h.Node == "" {
		h.Node = l.node
	}
	if h.Began.IsZero() {
		h.Began = time.Now()
	}
	h.Began = h.Began.UTC()
	if err := l.watch.err(); err != nil {
		return nil, fmt.Errorf("begin the recording of %s: %w", h.Session, err)
	}
	w, err := l.create(h)
	if err != nil {
		err = fmt.Errorf("begin the recording of %s: %w", h.Session, err)
		l.failed(err)
		return nil, err
	}
	return w, nil
}

func (l *Library) create(h Header) (*Writer, error) {
	path := l.openPath(h.Session)
	var f *os.File
	err := l.do(OpCreate, path, func() (err error) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	})
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	w := newWriter(l, h, path, f)
	if err = w.begin(); err == nil {
		err = l.syncDir(filepath.Dir(path))
	}
	if err == nil {
		err = l.enter(w)
	}
	if err != nil {
		w.stop()
		f.Close()
		os.Remove(path) // if it stays, Heal finds a recording of nothing
		return nil, err
	}
	return w, nil
}

// begin writes the header.
func (w *Writer) begin() error {
	w.mu.Lock()
	w.pending = w.lib.buffer()
	w.look()
	b, err := w.line(w.pending.b, &Event{Type: TypeHeader, Header: &w.header}, nil, false, false)
	w.pending.b = b
	w.leaf0 = w.tree.Root()
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.sync(1)
}

func (l *Library) enter(w *Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fs.ErrClosed
	}
	w.acked.Store(1)
	w.reported = 1 // the ledger's session.opened has the header
	l.writers[w.header.Session] = w
	return nil
}

func (l *Library) forget(w *Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writers[w.header.Session] == w {
		delete(l.writers, w.header.Session)
	}
}

func (l *Library) all() []*Writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq(make([]*Writer, 0, len(l.writers)), maps.Values(l.writers))
}

// live is all, sorted by session.
func (l *Library) live() []*Writer {
	ws := l.all()
	slices.SortFunc(ws, func(a, b *Writer) int { return strings.Compare(a.header.Session, b.header.Session) })
	return ws
}

// Moved gives the open recordings that have more leaves on disk than when it was last called, sorted
// by session. It tells of each state once: who fails to keep it has the next one.
func (l *Library) Moved() []TreeState {
	var moved []TreeState
	for _, w := range l.live() {
		w.mu.Lock()
		if w.durable.count > w.reported {
			w.reported = w.durable.count
			moved = append(moved, w.durable.state(w.header.Session))
		}
		w.mu.Unlock()
	}
	return moved
}

// Err is nil while recordings can be kept, as far as is known. A failure, or something that hangs, stays
// until the disk, asked every second, takes writes again. Err itself never waits for the disk.
func (l *Library) Err() error {
	if err := l.watch.err(); err != nil {
		return err
	}
	if t := l.trouble.Load(); t != nil {
		return t.err
	}
	return nil
}

func (l *Library) failed(err error) { l.trouble.Store(&failure{err}) }

// Close syncs and leaves the recordings that are still open, for [Library.Heal] to seal as interrupted,
// and gives the directory back. For a disk that hangs it waits as long as a write may take, and
// leaves things then as a crash would.
func (l *Library) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	close(l.watch.stop)
	left := make(chan error, 1)
	go func() {
		var errs []error
		for _, w := range l.live() {
			errs = append(errs, w.leave())
			l.forget(w)
		}
		l.watch.running.Wait()
		left <- errors.Join(errs...)
	}()
	var err error
	late := time.NewTimer(l.watch.stall)
	defer late.Stop()
	select {
	case err = <-left:
	case <-late.C:
		err = errors.New("the disk hangs: open recordings are left as they are")
	}
	return errors.Join(err, l.encoder.Close(), l.lockFile.Close())
}

// leave closes the file without an end.
func (w *Writer) leave() error {
	w.sealing.Lock()
	defer w.sealing.Unlock()
	w.left = true
	if w.finished != nil {
		return nil
	}
	w.mu.Lock()
	w.ended = true
	count := w.tree.Count()
	w.mu.Unlock()
	err := w.sync(count)
	w.stop()
	return errors.Join(err, w.closeFile())
}

// stop ends the timers; a callback that has begun finds nothing to do.
func (w *Writer) stop() {
	w.flushTimer.Stop()
	w.syncTimer.Stop()
}

// closeFile closes the file behind whoever uses it.
func (w *Writer) closeFile() error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	if w.err == nil {
		w.err = ErrSealed
	}
	w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Open gives a recording as JSON lines: a sealed one whole, an open one up to its last whole line.
func (l *Library) Open(session string) (io.ReadCloser, error) {
	if !validSession(session) {
		return nil, fmt.Errorf("%q can't name a recording: %w", session, fs.ErrNotExist)
	}
	l.mu.Lock()
	w := l.writers[session]
	l.mu.Unlock()
	if w != nil && w.Err() == nil {
		w.flush() // what the database answered just now; if it fails, what is there is shown
	}
	r, err := l.openLines(session)
	if errors.Is(err, fs.ErrNotExist) {
		// Sealed, or being sealed: the sealed file is there before the open one goes.
		return l.openSealed(session)
	}
	return r, err
}

func (l *Library) openLines(session string) (io.ReadCloser, error) {
	f, err := l.read(l.openPath(session))
	if err != nil {
		return nil, err
	}
	end, err := lastLine(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, 0, end), f}, nil
}

// lastLine is the offset behind the last newline.
func lastLine(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := strings.LastIndexByte(string(buf[:n]), '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

func (l *Library) openSealed(session string) (io.ReadCloser, error) {
	path, err := l.findSealed(session)
	if err != nil {
		return nil, err
	}
	f, err := l.read(path)
	if err != nil {
		return nil, err
	}
	z, err := newDecoder(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &sealedLines{z, f}, nil
}

type sealedLines struct {
	*zstd.Decoder
	f *os.File
}

func (s *sealedLines) Close() error {
	s.Decoder.Close()
	return s.f.Close()
}

// File opens the bytes of a sealed recording.
func (l *Library) File(s Sealed) (*os.File, error) {
	path := filepath.FromSlash(s.File)
	if !filepath.IsLocal(path) || !strings.HasPrefix(s.File, "sealed/") {
		return nil, fmt.Errorf("%q is not the file of a recording: %w", s.File, fs.ErrNotExist)
	}
	return l.read(filepath.Join(l.dir, path))
}

// Prepares gives the global ids of the transactions that a recording shows as prepared for two-phase
// commit, in order.
func (l *Library) Prepares(session string) ([]string, error) {
	r, err := l.Open(session)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := &summary{}
	err = sum.scan(NewReader(r), nil)
	return sum.prepares, err
}

func (l *Library) read(path string) (f *os.File, err error) {
	err = l.do(OpRead, path, func() (err error) {
		f, err = os.Open(path)
		return err
	})
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

func (l *Library) openPath(session string) string {
	return filepath.Join(l.dir, "open", session+".jsonl")
}

// findSealed gives the path of a sealed recording, or fs.ErrNotExist.
func (l *Library) findSealed(session string) (string, error) {
	found, err := filepath.Glob(filepath.Join(globQuote(l.dir), "sealed", "*", "*", "*", session+sealedSuffix))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("recording of %s: %w", session, fs.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// validSession keeps a name within its directory.
func validSession(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

func (l *Library) buffer() *buffer { return l.buffers.Get().(*buffer) }

func (l *Library) release(b *buffer) {
	if cap(b.b) > keepBuffer {
		b.b = nil
	}
	b.b = b.b[:0]
	l.buffers.Put(b)
}
