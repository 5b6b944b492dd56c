package recorder

import (
	"errors"
	"fmt"
	"io"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
)

// Text is a recording's text that can be read from any place: a [Reader] of one can [Reader.Jump].
type Text interface {
	io.Reader
	io.ReaderAt
	Size() int64
}

// SealedText reads a sealed file by its seek table. It is the text that reading it from front to back
// gives, or an error: there must be no byte in f that the table does not name. It is one goroutine's, and
// takes the memory of two frames; larger ones than 8 MiB are an error. Who reads one frame after the other finds the
// next one decoded: f may still be read from for a moment when nobody reads any more.
func SealedText(f io.ReaderAt, size int64) (Text, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderMaxWindow(maxFrame))
	if err != nil {
		return nil, err
	}
	r, err := seekable.NewReader(io.NewSectionReader(f, 0, size), z)
	if err != nil {
		return nil, err
	}
	table, err := r.SeekTable()
	if err != nil {
		return nil, err
	}
	t := &sealedText{f: f, z: z, table: table}
	var named int64
	for i := range table.NumFrames() {
		e, ok := table.EntryByID(i)
		if !ok || e.DecompressedSize == 0 { // nobody would ever look into it
			return nil, fmt.Errorf("the seek table has nothing to say of frame %d", i)
		}
		named = int64(e.CompressedOffset) + int64(e.CompressedSize)
	}
	entry := int64(8)
	if table.HasChecksums() {
		entry += 4
	}
	if named+8+table.NumFrames()*entry+9 != size {
		return nil, errors.New("the seek table is not of this file")
	}
	t.Reader = io.NewSectionReader(t, 0, int64(table.Size()))
	return t, nil
}

const maxFrame = 8 << 20

type sealedText struct {
	io.Reader
	f     io.ReaderAt
	z     *zstd.Decoder
	table seekable.SeekTable

	frame  []byte
	from   int64      // where in the text frame begins
	packed []byte     // room for a frame as it is in f: load's, or ahead's while there is one
	spare  []byte     // room for another frame
	ahead  chan ahead // has or gets the frame behind, if that is being decoded
}

// ahead is a frame that was decoded before it was asked for.
type ahead struct {
	frame, packed []byte
	err           error
}

func (t *sealedText) Size() int64 { return int64(t.table.Size()) }

func (t *sealedText) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at < t.from || at >= t.from+int64(len(t.frame)) {
			if at >= t.Size() {
				return n, io.EOF
			}
			if err := t.load(at); err != nil {
				return n, err
			}
		}
		n += copy(p[n:], t.frame[at-t.from:])
	}
	return n, nil
}

// load makes frame the one that holds a place.
func (t *sealedText) load(at int64) error {
	e, err := t.entry(at)
	if err != nil {
		return err
	}
	next := at == t.from+int64(len(t.frame)) && len(t.frame) > 0
	spare := t.frame
	t.frame = nil
	if t.ahead != nil {
		a := <-t.ahead
		t.ahead, t.packed = nil, a.packed
		if next {
			t.frame, err, t.spare = a.frame, a.err, spare
		} else {
			t.spare = a.frame
		}
	}
	if !next || t.frame == nil && err == nil {
		t.frame, t.packed, err = t.decode(e, spare, t.packed)
	}
	if err != nil {
		t.frame = nil
		return err
	}
	t.from = int64(e.DecompressedOffset)
	if next {
		t.lookAhead()
	}
	return nil
}

// lookAhead has the frame behind decoded.
func (t *sealedText) lookAhead() {
	e, err := t.entry(t.from + int64(len(t.frame)))
	if err != nil {
		return // whoever gets there is told
	}
	room, packed := t.spare, t.packed
	t.spare, t.packed = nil, nil
	done := make(chan ahead, 1)
	t.ahead = done
	go func() {
		var a ahead
		a.frame, a.packed, a.err = t.decode(e, room, packed)
		done <- a
	}()
}

// entry is what the table says of the frame that holds a place.
func (t *sealedText) entry(at int64) (*seekable.FrameOffsetEntry, error) {
	e, ok := t.table.EntryByDecompressedOffset(uint64(at))
	if !ok || e.DecompressedSize > maxFrame || e.CompressedSize > maxFrame {
		return nil, fmt.Errorf("the frame at %d is not a recording's", at)
	}
	return &e, nil
}

// decode gives a frame, in the room there is for it and for what it is decoded from.
func (t *sealedText) decode(e *seekable.FrameOffsetEntry, room, packed []byte) (frame, from []byte, err error) {
	if int(e.CompressedSize) > cap(packed) {
		packed = make([]byte, e.CompressedSize)
	}
	packed = packed[:e.CompressedSize]
	if _, err := t.f.ReadAt(packed, int64(e.CompressedOffset)); err != nil {
		return nil, packed, err
	}
	frame, err = t.z.DecodeAll(packed, room[:0])
	if err == nil && len(frame) != int(e.DecompressedSize) {
		err = fmt.Errorf("the frame at %d has %d bytes, the seek table says %d", e.DecompressedOffset, len(frame), e.DecompressedSize)
	}
	return frame, packed, err
}
