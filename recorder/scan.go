package recorder

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// summary is what one pass over a recording learns.
type summary struct {
	header     *Header // nil if it was erased
	leaf0      [32]byte
	tree       Tree
	known      *mark // in the place of tree, where nothing was scanned
	end        *End
	statements uint64 // highest statement number
	latest     int64  // Micros of the last statement
	prepares   []string
	erased     int
	good       int64  // bytes of whole, right lines
	micros     int64  // of the latest event
	backwards  uint64 // the first event that is earlier than one before it, 0 if there is none

	acked   uint64          // if not 0: leaves up to the last that was kept for a statement
	refused []uint64        // statements of which something stands behind those
	blocked map[uint64]bool // those that are said to be so

	running  uint64 // first statement, of those that run something, behind the last result
	answered uint64 // last statement that has a result
}

// scan reads to the end, and gives each line, its event, and the tree with it, to each. On an error the summary
// covers what came before.
func (s *summary) scan(r *Reader, each func(line []byte, e *Event, t *Tree) error) error {
	for {
		line, e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		leaf := Leaf(line, e)
		if e.Seq == 0 {
			s.leaf0 = leaf
		}
		s.tree.Append(leaf)
		s.event(&e)
		s.good += int64(len(line)) + 1
		if each != nil {
			if err := each(line, &e, &s.tree); err != nil {
				return err
			}
		}
	}
}

func (s *summary) event(e *Event) {
	if e.Erased != "" {
		s.erased++
		return
	}
	if len(e.Prepares) > 0 {
		s.prepares = append(s.prepares, string(e.Prepares))
	}
	if e.Micros < s.micros && s.backwards == 0 {
		s.backwards = e.Seq
	}
	s.micros = max(s.micros, e.Micros)
	if s.acked > 0 && e.Seq >= s.acked {
		s.refuse(e)
	}
	switch e.Type {
	case TypeHeader:
		s.header = e.Header
	case TypeEnd:
		s.end = e.End
	case TypeStatement:
		s.statements = max(s.statements, e.ID)
		s.latest = max(s.latest, e.Micros)
		if s.running == 0 && e.ID > s.answered && e.Kind != KindPrepare && e.Kind != KindBind {
			s.running = e.ID
		}
	case TypeResult, TypeBlocked:
		s.answered = max(s.answered, e.Of)
		if s.running <= s.answered {
			s.running = 0
		}
	}
}

// refuse takes note of a statement that Record did not keep.
func (s *summary) refuse(e *Event) {
	id := e.Of
	switch e.Type {
	case TypeStatement:
		id = e.ID
	case TypePart:
	case TypeBlocked:
		if s.blocked == nil {
			s.blocked = map[uint64]bool{}
		}
		s.blocked[id] = true
		return
	default:
		return
	}
	if !slices.Contains(s.refused, id) {
		s.refused = append(s.refused, id)
	}
}

func (s *summary) mark() mark {
	if s.known != nil {
		return *s.known
	}
	return mark{s.tree.Count(), s.tree.Root()}
}

// newDecoder reads zstd in bounded memory and without goroutines of its own.
func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
}

// tally hashes and counts what passes.
type tally struct {
	r      io.Reader
	length int64
	hash   interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func newTally(r io.Reader) *tally { return &tally{r: r, hash: sha256.New()} }

func (t *tally) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.hash.Write(p[:n])
	t.length += int64(n)
	return n, err
}

func (t *tally) sum() string { return hex.EncodeToString(t.hash.Sum(nil)) }

// scanSealed makes a pass over the bytes of a sealed file. length and sha cover all of r, whatever is
// wrong with its content.
func scanSealed(r io.Reader, each func(line []byte, e *Event, t *Tree) error) (s *summary, length int64, sha string, err error) {
	s = &summary{}
	t := newTally(r)
	z, err := newDecoder(t)
	if err == nil {
		err = s.scan(NewReader(z), each)
		z.Close()
	}
	if _, cerr := io.Copy(io.Discard, t); err == nil {
		err = cerr
	}
	return s, t.length, t.sum(), err
}
