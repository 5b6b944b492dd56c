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
// takes the memory of a frame; larger ones than 8 MiB are an error.
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
	if last, ok := table.EntryByID(table.NumFrames() - 1); ok {
		named = int64(last.CompressedOffset) + int64(last.CompressedSize)
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

	packed, frame []byte
	from          int64 // where in the text frame begins
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

func (t *sealedText) load(at int64) error {
	e, ok := t.table.EntryByDecompressedOffset(uint64(at))
	if !ok || e.DecompressedSize > maxFrame || e.CompressedSize > maxFrame {
		return fmt.Errorf("the frame at %d is not a recording's", at)
	}
	if int(e.CompressedSize) > cap(t.packed) {
		t.packed = make([]byte, e.CompressedSize)
	}
	t.packed = t.packed[:e.CompressedSize]
	frame := t.frame[:0]
	t.frame = nil
	if _, err := t.f.ReadAt(t.packed, int64(e.CompressedOffset)); err != nil {
		return err
	}
	frame, err := t.z.DecodeAll(t.packed, frame)
	if err != nil {
		return err
	}
	if len(frame) != int(e.DecompressedSize) {
		return fmt.Errorf("the frame at %d has %d bytes, the seek table says %d", at, len(frame), e.DecompressedSize)
	}
	t.frame, t.from = frame, int64(e.DecompressedOffset)
	return nil
}
