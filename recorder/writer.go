package recorder

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSealed is what Record returns once the recording has its end.
var ErrSealed = errors.New("the recording is closed")

const (
	flushAfter = 100 * time.Millisecond // results wait this long for company
	syncAfter  = time.Second            // written bytes wait this long for the disk (Process)
	flushSize  = maxPart                // buffered bytes that are written without waiting
	keepBuffer = 256 << 10              // larger buffers are not kept for reuse
)

// sealing is in the place of Writer.acked when no Record can keep anything any more.
const sealing = math.MaxUint64

// buffer holds lines between being encoded and being written. An idle session has none.
type buffer struct{ b []byte }

// mark is a state of the tree.
type mark struct {
	count uint64
	root  [32]byte
}

// Writer writes one session's recording. Its methods are safe for concurrent use.
//
// Locks are taken in the order syncing, writing, mu. A recorder of results never waits for a disk: it
// takes only mu, and mu is not held across I/O.
type Writer struct {
	lib    *Library
	header Header
	leaf0  [32]byte
	began  time.Time // with its monotonic clock
	path   string
	file   *os.File

	sealing  sync.Mutex // guards what follows, and is held while sealing
	sealed   *Sealed
	finished *mark // the file has its end and is closed; what its tree is, or the zero mark if it was repaired
	end      End   // what the file ends with, if nothing failed
	left     bool  // the Library was closed before the recording had an end

	syncing sync.Mutex   // held across fdatasync; who waits for it finds his bytes synced with the next one's
	writing sync.Mutex   // held across write(2); guards written
	written maphash.Hash // of all that was written, by a key of its own

	// What the watch looks at: a write under way, a sync, a turn to sync that is waited for.
	writes, syncs, queued gauge
	acked                 atomic.Uint64 // leaves up to the last that Record kept for a statement: no later one was forwarded; or sealing
	lost                  chan struct{} // closed when err is set by a failure

	mu         sync.Mutex // guards what follows
	pending    *buffer
	tree       Tree  // of everything encoded
	now        int64 // microseconds since began, at the last look
	digest     hash.Hash
	leaf       [32]byte // the last leaf's hash; here, because what digest is given escapes
	salts      [32 * 16]byte
	salted     int // bytes of salts that are used up
	redact     redactor
	redacting  bool
	ahead      uint64  // the statement that sends a parameter's value ahead, while its parts may come
	params     []Param // of withhold
	statements uint64
	asking     uint64 // the first statement of the last Record that brought a whole one
	asked      uint64 // leaves with the last of that Record
	kept       uint64 // acked, when the recording got its end
	durable    mark   // what is known to be on disk
	reported   uint64 // count that Library.Moved has told
	flushArmed bool
	syncArmed  bool
	ended      bool
	err        error

	flushTimer *time.Timer
	syncTimer  *time.Timer
}

func newWriter(l *Library, h Header, path string, f *os.File) *Writer {
	w := &Writer{lib: l, header: h, began: time.Now(), path: path, file: f, digest: sha256.New(), lost: make(chan struct{})}
	w.salted = len(w.salts)
	w.redact.backslashes = l.dialects[h.Engine] == DialectBackslashes
	w.flushTimer = time.AfterFunc(time.Hour, w.flushTick)
	w.syncTimer = time.AfterFunc(time.Hour, w.syncTick)
	w.flushTimer.Stop()
	w.syncTimer.Stop()
	return w
}

// HeaderHash is the leaf hash of the header, in hex.
func (w *Writer) HeaderHash() string { return hex.EncodeToString(w.leaf0[:]) }

// State is the tree over the leaves that are known to be on disk.
func (w *Writer) State() TreeState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.durable.state(w.header.Session)
}

func (m mark) state(session string) TreeState {
	return TreeState{Session: session, Count: m.count, Root: hex.EncodeToString(m.root[:])}
}

// Lost is closed when the recording is broken: a write or sync failed or hangs. Err says why. What calls
// Record then may wait in it for as long as the disk hangs, and is refused when it comes back.
func (w *Writer) Lost() <-chan struct{} { return w.lost }

// Err is nil until the recording is broken or has its end.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Record keeps events, in order, all in one write(2). Seq, Micros and salt are set here; passwords are
// taken out of statements; nothing of an event is referred to after Record returns. An error means:
// not kept, or not known to be, so don't let it happen.
func (w *Writer) Record(events ...Event) error {
	w.mu.Lock()
	now, wait, count, err := w.encode(events)
	w.mu.Unlock()
	switch {
	case err != nil:
		return err
	case wait && w.lib.durability == Disk:
		err = w.sync(count)
	case now:
		err = w.flush()
	}
	if err == nil && wait && !w.acknowledge(count) {
		err = ErrSealed // too late: the recording says already that this did not happen
	}
	return err
}

// acknowledge notes that the first count leaves are kept, or a later Record has noted more. It is false
// when the recording has its end.
func (w *Writer) acknowledge(count uint64) bool {
	for {
		acked := w.acked.Load()
		switch {
		case acked == sealing:
			return false
		case acked >= count || w.acked.CompareAndSwap(acked, count):
			return true
		}
	}
}

// Waits says that Record waits for the disk: with Disk durability.
func (w *Writer) Waits() bool { return w.lib.durability == Disk }

// encode puts events behind what is pending. now: they are to be written before Record returns; wait:
// a statement is complete, and with Disk durability must be on disk. The caller holds mu.
func (w *Writer) encode(events []Event) (now, wait bool, count uint64, err error) {
	switch {
	case w.err != nil:
		return false, false, 0, w.err
	case w.ended:
		return false, false, 0, ErrSealed
	}
	if w.pending == nil {
		w.pending = w.lib.buffer()
	}
	defer func() {
		if !now && !w.flushArmed && len(w.pending.b) > 0 {
			w.flushArmed = true
			w.flushTimer.Reset(flushAfter)
		}
	}()
	w.look()
	asking := uint64(0)
	for i := range events {
		e := &events[i]
		switch e.Type {
		case TypeResult, TypeNotice, TypeAttached:
		case TypeStatement, TypePart, TypeBlocked:
			now, wait = true, wait || !e.More
			switch {
			case asking != 0:
			case e.Type == TypeStatement || e.Of == 0:
				asking = e.ID
			default:
				asking = e.Of
			}
		case TypeHeader, TypeEnd, "":
			return false, false, 0, fmt.Errorf("an event of type %q is not for Record", e.Type)
		default:
			now = true
		}
		if w.pending.b, err = w.add(w.pending.b, e); err != nil {
			return false, false, 0, err
		}
	}
	if wait {
		w.asking, w.asked = asking, w.tree.Count()
	}
	now = now || len(w.pending.b) >= flushSize
	return now, wait, w.tree.Count(), nil
}

// look notes the time, which is that of all lines until it is called again. The caller holds mu.
func (w *Writer) look() { w.now = time.Since(w.began).Microseconds() }

// line encodes one line and makes it a leaf. The caller holds mu, and has called look.
func (w *Writer) line(dst []byte, e *Event, text []byte, redacts, more bool) ([]byte, error) {
	b := body{text: text, more: more, inline: maxPart}
	if redacts {
		scratch := w.lib.buffer()
		defer w.lib.release(scratch)
		scratch.b = w.redact.append(scratch.b, text)
		b.text, b.redacted = scratch.b, w.redact.take()
	}
	st := stamp{seq: w.tree.Count(), micros: w.now}
	w.salt(&st.salt)
	start := len(dst)
	dst, err := appendEvent(dst, &st, e, b)
	if err == nil && len(dst)-start > MaxLine {
		err = fmt.Errorf("an event of %d bytes is longer than a line may be", len(dst)-start)
	}
	if err != nil {
		return dst[:start], err
	}
	w.digest.Reset()
	w.leaf[0] = 0
	w.digest.Write(w.leaf[:1])
	w.digest.Write(dst[start:])
	w.digest.Sum(w.leaf[:0])
	w.tree.Append(w.leaf)
	return append(dst, '\n'), nil
}

func (w *Writer) salt(out *[16]byte) {
	if w.salted == len(w.salts) {
		rand.Read(w.salts[:]) // never fails: it ends the process instead
		w.salted = 0
	}
	copy(out[:], w.salts[w.salted:])
	clear(w.salts[w.salted : w.salted+16])
	w.salted += 16
}

// flush returns when everything that was pending is written, by this call or another.
func (w *Writer) flush() error {
	w.writing.Lock()
	defer w.writing.Unlock()
	_, err := w.flushMark(false)
	return err
}

// flushMark writes what is pending, and gives the tree that covers it. The caller holds writing.
func (w *Writer) flushMark(root bool) (m mark, err error) {
	w.mu.Lock()
	if err = w.err; err != nil {
		w.mu.Unlock()
		return m, err
	}
	buf := w.pending
	w.pending = nil
	m.count = w.tree.Count()
	if root {
		m.root = w.tree.Root()
	}
	w.mu.Unlock()
	if buf == nil {
		return m, nil
	}
	defer w.lib.release(buf)
	if len(buf.b) == 0 {
		return m, nil
	}
	w.written.Write(buf.b)
	w.writes.begin()
	err = w.write(buf.b)
	w.writes.end()
	if err != nil {
		return m, w.fail(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.syncArmed {
		w.syncArmed = true
		w.syncTimer.Reset(syncAfter)
	}
	return m, w.err // it may have been given up meanwhile: then what is kept now must not happen
}

func (w *Writer) write(b []byte) error {
	if w.lib.fs == nil { // no closure in the hot path
		_, err := w.file.Write(b)
		return err
	}
	return w.lib.fs(OpWrite, w.path, func() error {
		_, err := w.file.Write(b)
		return err
	})
}

// sync returns when the first count leaves are on disk. Those who come while another syncs are served
// together by one more fdatasync.
func (w *Writer) sync(count uint64) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	err, done := w.err, w.durable.count >= count
	w.mu.Unlock()
	if err != nil || done {
		return err
	}
	w.writing.Lock()
	m, err := w.flushMark(true)
	w.writing.Unlock()
	if err != nil {
		return err
	}
	w.syncs.begin()
	err = w.datasync()
	w.syncs.end()
	if err != nil {
		return w.fail(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.durable = m
	return w.err
}

func (w *Writer) datasync() error {
	if w.lib.fs == nil {
		return datasync(w.file)
	}
	return w.lib.fs(OpSync, w.path, func() error { return datasync(w.file) })
}

// fail breaks the Writer for good and gives the error that stays.
func (w *Writer) fail(err error) error {
	w.mu.Lock()
	first := w.err == nil
	if first {
		w.err = fmt.Errorf("the recording of %s can't be kept: %w", w.header.Session, err)
		close(w.lost)
	}
	err = w.err
	w.mu.Unlock()
	if first {
		w.lib.failed(err)
		w.lib.log.Error("recording broken", slog.String("session", w.header.Session), slog.Any("error", err))
	}
	return err
}

func (w *Writer) flushTick() {
	w.mu.Lock()
	w.flushArmed = false
	w.mu.Unlock()
	w.flush() // the error stays, and the next Record returns it
}

func (w *Writer) syncTick() {
	w.mu.Lock()
	w.syncArmed = false
	count := w.tree.Count()
	w.mu.Unlock()
	w.queued.begin()
	w.lib.syncs <- struct{}{} // a slow disk is not asked by everybody at once
	w.queued.end()
	defer func() { <-w.lib.syncs }()
	w.sync(count)
}
