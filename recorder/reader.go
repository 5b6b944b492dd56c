package recorder

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
)

// Format is the version of docs/FORMAT.md that this package writes and reads.
const Format = 1

// MaxLine is the longest line, in bytes, that a Writer writes and that a Reader takes by default.
const MaxLine = 16 << 20

// FormatError says where a recording is not what docs/FORMAT.md asks for.
type FormatError struct {
	Line int64  // counted from 1
	What string // "has no seq"
	Err  error  // cause, if there is one
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("recording: line %d: %s", e.Line, e.What)
}

func (e *FormatError) Unwrap() error { return e.Err }

// Reader reads the lines of a recording in order and holds them against the format: each is an event,
// the first is a header of a version known here, the numbers have no gap, nothing follows the end.
// It checks no hash against anything outside: see [VerifyFile].
type Reader struct {
	r     io.Reader
	limit int
	buf   []byte
	start int // buf[start:end] is read and not yet handed out
	end   int
	eof   bool

	line  int64
	seq   uint64
	ended bool
	err   error
	known lineDecoder

	text  Text    // if set: what all of it can be read from
	find  *finder // if set: what is looked for
	chunk int     // the first buffer; 0 is 64 KiB

	looked int  // buf up to here has been looked through
	free   bool // and nothing was found
}

// NewReader reads JSON lines; a sealed file has to be decompressed first, as [Library.Open] does.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, limit: MaxLine} }

// Limit sets the longest line taken, in bytes; it is also what the Reader allocates at most.
func (r *Reader) Limit(n int) { r.limit = n }

// Next gives the next line, without its newline, and the event in it. line is valid until the next
// call; the event owns its memory. The error is io.EOF after the last line, a *FormatError where the
// recording is wrong, or that of the underlying reader; it stays.
func (r *Reader) Next() (line []byte, e Event, err error) {
	if r.err != nil {
		return nil, Event{}, r.err
	}
	for {
		if line, err = r.next(); err != nil {
			break
		}
		if r.find != nil && r.passed(line) {
			continue
		}
		if e, err = r.check(line); err != nil {
			break
		}
		if r.find == nil || r.find.in(&e) {
			return line, e, nil
		}
	}
	r.err = err
	return nil, Event{}, err
}

// passed tells that a line is passed over, and counts it.
func (r *Reader) passed(line []byte) bool {
	if r.start > r.looked {
		// Mostly all that is there is free; else it is looked at line by line.
		r.looked, r.free = r.end, r.find.free(r.buf[r.start-len(line)-1:r.end])
	}
	if !r.free && !r.find.free(line) {
		return false
	}
	seq, ok := plain(line)
	if !ok || seq != r.seq || seq == 0 || r.ended {
		return false
	}
	r.seq++
	return true
}

func (r *Reader) next() ([]byte, error) {
	searched := r.start
	for {
		if i := bytes.IndexByte(r.buf[searched:r.end], '\n'); i >= 0 {
			line := r.buf[r.start : searched+i]
			r.start = searched + i + 1
			r.line++
			return line, nil
		}
		if r.eof {
			if r.start == r.end {
				return nil, io.EOF
			}
			r.line++
			return nil, r.bad("ends in the middle", io.ErrUnexpectedEOF)
		}
		if r.start > 0 {
			copy(r.buf, r.buf[r.start:r.end])
			r.end -= r.start
			r.start = 0
		}
		searched, r.looked = r.end, 0
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is there, and grows the buffer up to the limit.
func (r *Reader) fill() error {
	if r.end == len(r.buf) {
		if r.end > r.limit {
			r.line++
			return r.bad(fmt.Sprintf("is longer than %d bytes", r.limit), nil)
		}
		size := min(max(2*len(r.buf), cmp.Or(r.chunk, 64<<10)), r.limit+1) // one for the newline
		buf := make([]byte, size)
		copy(buf, r.buf[:r.end])
		r.buf = buf
	}
	for range 100 {
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		if err == io.EOF {
			r.eof = true
			return nil
		}
		if err != nil || n > 0 {
			return err
		}
	}
	return io.ErrNoProgress
}

func (r *Reader) event(line []byte) (e Event, err error) {
	if !r.known.event(line, &e) {
		return decodeEvent(line)
	}
	return e, nil
}

func (r *Reader) check(line []byte) (Event, error) {
	e, err := r.event(line)
	if err != nil {
		return e, r.bad(err.Error(), err)
	}
	switch {
	case e.Seq != r.seq:
		return e, r.bad(fmt.Sprintf("has number %d where %d is due", e.Seq, r.seq), nil)
	case r.ended:
		return e, r.bad("follows the end", nil)
	case e.Erased != "":
	case r.seq == 0 && (e.Type != TypeHeader || e.Header == nil):
		return e, r.bad("is not a header", nil)
	case r.seq == 0 && e.Header.Format != Format:
		return e, r.bad(fmt.Sprintf("has format %d; this reader knows format %d", e.Header.Format, Format), nil)
	case r.seq > 0 && e.Type == TypeHeader:
		return e, r.bad("is a second header", nil)
	case e.Type == TypeEnd && e.End == nil:
		return e, r.bad("is an end that says nothing", nil)
	}
	r.ended = e.Type == TypeEnd
	r.seq++
	return e, nil
}

func (r *Reader) bad(what string, err error) error {
	return &FormatError{Line: r.line, What: what, Err: err}
}

// Leaf is the leaf hash of a line that [Reader.Next] gave: that of its bytes, or, where an event was
// erased, the one that stands in for it.
func Leaf(line []byte, e Event) [32]byte {
	if e.Erased == "" {
		return LeafHash(line)
	}
	var h [32]byte
	hex.Decode(h[:], []byte(e.Erased)) // checked by the Reader
	return h
}
