package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

// VerifyOptions say what a bundle is held against: nothing in the bundle itself can vouch for it.
type VerifyOptions struct {
	Key      string            // the installation's verifier key
	Anchor   string            // file of checkpoints that somebody else keeps; may be empty
	Progress func(name string) // told before each member is read; may be nil

	Dialects map[string]recorder.Dialect // by engine: what was run is held against what was intended; nil: it is not
}

// Verify reads the bundle at path, a directory or a .tar.zst, and judges it. An error means that it
// could not be judged at all: no such file, no usable key, ctx ended. Whatever is wrong with the bundle
// itself is a finding.
func Verify(ctx context.Context, path string, o VerifyOptions) (Report, error) {
	if _, err := note.NewVerifier(o.Key); err != nil {
		return Report{}, fmt.Errorf("verify: the key is no verifier key (name+hash+base64): %w", err)
	}
	v := &verifier{ctx: ctx, o: o, seen: map[string]bool{}, anchors: map[int64]tlog.Hash{}}
	v.story = newStory(&v.report, o.Key)
	v.story.dialects = o.Dialects
	if err := v.readAnchors(); err != nil {
		return Report{}, fmt.Errorf("verify: %w", err)
	}
	err := read(ctx, path, v.member)
	var broken *damaged
	if errors.As(err, &broken) {
		v.report.bad("bundle", "it is cut short or damaged: %v", broken.err)
	} else if err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", path, err)
	}
	v.finish()
	return v.report, nil
}

type verifier struct {
	ctx        context.Context
	o          VerifyOptions
	report     Report
	story      *story
	seen       map[string]bool // members
	checkpoint *ledger.Checkpoint
	anchors    map[int64]tlog.Hash // roots by size, as anchored
	anchorHas  bool
	tree       ledger.Tree
	agreed     int64 // the largest anchored size at which the ledger had the anchored root
	strayed    bool  // and it has not at a later one
}

func (v *verifier) member(name string, r io.Reader) error {
	if v.o.Progress != nil {
		v.o.Progress(name)
	}
	if v.seen[name] {
		v.report.bad(name, "it is in the bundle twice")
		return nil
	}
	v.seen[name] = true
	if r == nil {
		v.report.bad(name, "it is not a regular file")
		return nil
	}
	switch name {
	case manifestName:
		return v.manifest(r)
	case checkpointName:
		return v.signed(r)
	case ledgerName:
		if v.checkpoint == nil && !v.seen[checkpointName] {
			v.report.bad(name, "it comes before the checkpoint")
		}
		return v.ledger(r)
	}
	session, sealed, ok := recordingOf(name)
	switch {
	case !ok:
		v.report.bad(name, "it does not belong in a bundle")
	case !v.seen[ledgerName]:
		v.report.bad(name, "it comes before the ledger")
	case sealed:
		v.story.sealedRecording(name, session, r)
	default:
		v.story.openRecording(name, session, r)
	}
	return v.ctx.Err()
}

func (v *verifier) manifest(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return &damaged{err}
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		v.report.bad(manifestName, "it can't be read: %v", err)
		return nil
	}
	if m.Format != Format {
		v.report.bad(manifestName, "its format is %d, this program knows %d", m.Format, Format)
	}
	if m.Key != v.o.Key {
		v.report.note(manifestName, "it names another key than the one given; the one given counts")
	}
	v.report.Scope = m.Scope
	return nil
}

func (v *verifier) signed(r io.Reader) error {
	msg, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil {
		return &damaged{err}
	}
	c, err := ledger.ParseCheckpoint(msg, v.o.Key)
	if err != nil {
		v.report.bad(checkpointName, "%v", err)
		return nil
	}
	v.checkpoint = &c
	v.report.Entries = c.Size
	if longest := slices.Max(append(slices.Collect(maps.Keys(v.anchors)), 0)); longest > c.Size {
		v.report.bad(checkpointName, "it is older than the anchor: %d entries were anchored, it signs %d", longest, c.Size)
	}
	return nil
}

// readAnchors takes the checkpoints of the anchor file that the key has signed. Which ledger they are
// of needs no asking: an installation's key signs one ledger.
func (v *verifier) readAnchors() error {
	if v.o.Anchor == "" {
		return nil
	}
	f, err := os.Open(v.o.Anchor)
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	defer f.Close()
	anchors, err := ledger.ReadAnchors(f)
	if err != nil {
		return err
	}
	for _, a := range anchors {
		where := fmt.Sprintf("anchor line %d", a.Line)
		c, err := ledger.ParseCheckpoint(a.Note, v.o.Key)
		var foreign *note.UnverifiedNoteError
		switch {
		case errors.As(err, &foreign):
			continue // of another installation that shares the file
		case err != nil:
			v.report.note(where, "this block can't be used: %v", err)
			continue
		}
		if root, twice := v.anchors[c.Size]; twice && root != c.Root {
			v.report.bad(where, "the key has signed two different ledgers of %d entries", c.Size)
			continue
		}
		v.anchors[c.Size] = c.Root
	}
	v.anchorHas = len(v.anchors) > 0
	if !v.anchorHas {
		v.report.bad("anchor", "it holds no checkpoint by this key")
	}
	return nil
}

// ledger reads the lines, grows the tree by each, and tells the story's part of it.
func (v *verifier) ledger(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		where := fmt.Sprintf("%s line %d", ledgerName, n)
		if err != nil {
			v.report.bad(where, "the file is cut short, damaged or has too long a line: %v", err)
			return nil
		}
		if n%1024 == 0 && v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		v.line(where, line)
	}
}

func (v *verifier) line(where string, line []byte) {
	leaf := ledger.LeafHash(line)
	var w withheld
	if err := json.Unmarshal(line, &w); err == nil && w.Hash != "" {
		// Nothing but the hash is signed, so nothing else may stand there to be read by people.
		plain, _ := json.Marshal(w)
		raw, err := hex.DecodeString(w.Hash)
		if err != nil || len(raw) != len(leaf) || !bytes.Equal(plain, line) {
			v.report.bad(where, "it is neither an entry nor the hash of one")
		}
		copy(leaf[:], raw)
		v.report.Withheld++
		if w.Index != v.tree.Size() {
			v.report.bad(where, "it has index %d where %d is due", w.Index, v.tree.Size())
		}
	} else if e, err := ledger.Decode(line); err != nil {
		v.report.bad(where, "%v", err)
	} else {
		if e.Index != v.tree.Size() {
			v.report.bad(where, "it has index %d where %d is due", e.Index, v.tree.Size())
		}
		v.story.entry(where, e)
	}
	v.tree.Append(leaf)
	v.compare()
}

// compare holds the tree against the anchors as it grows past them.
func (v *verifier) compare() {
	root, anchored := v.anchors[v.tree.Size()]
	switch {
	case !anchored || v.strayed:
	case root == v.tree.Root():
		v.agreed = v.tree.Size()
	default:
		v.strayed = true
		v.report.bad(ledgerName, "it is not the ledger that was anchored: they part between entry %d and entry %d",
			v.agreed, v.tree.Size()-1)
	}
}

func (v *verifier) finish() {
	for _, name := range []string{manifestName, checkpointName, ledgerName} {
		if !v.seen[name] {
			v.report.bad(name, "it is missing")
		}
	}
	root := v.tree.Root()
	v.report.Root, v.report.Anchored = root.String(), v.agreed
	if c := v.checkpoint; c != nil {
		switch {
		case c.Size > v.tree.Size():
			v.report.bad(ledgerName, "it is cut off: it holds %d entries, its checkpoint signs %d", v.tree.Size(), c.Size)
		case c.Size < v.tree.Size():
			v.report.bad(ledgerName, "it goes on behind its checkpoint: it holds %d entries, %d are signed", v.tree.Size(), c.Size)
		case c.Root != root:
			v.report.bad(ledgerName, "entries were changed: they do not add up to the signed checkpoint")
		}
		if c.Origin != ledger.Origin(v.story.installation) {
			v.report.bad(checkpointName, "it is of %s, the ledger is of %s", c.Origin, ledger.Origin(v.story.installation))
		}
	}
	if v.report.Withheld > 0 && v.report.Scope.All() {
		v.report.bad(ledgerName, "%d entries are withheld from a bundle that claims to be complete", v.report.Withheld)
	} else if v.report.Withheld > 0 {
		v.report.note(ledgerName, "%d entries are out of scope and here by their hashes only", v.report.Withheld)
	}
	if !v.anchorHas && v.o.Anchor == "" {
		v.report.note("anchor", "none was given: whether the ledger was cut off or rewritten by the key's holder can't be told")
	}
	v.story.finish()
	v.story.finishIntended()
	// What is wrong comes first, in the order in which it was found.
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int { return rank(a.Severity) - rank(b.Severity) })
}

func rank(s Severity) int {
	return slices.Index([]Severity{SeverityError, SeverityOpen, SeverityNote}, s)
}

// readLine gives a line without its newline. A last line without one is an error: Write ends them all.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > ledger.MaxLine:
			return nil, fmt.Errorf("line is longer than %d bytes", ledger.MaxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, io.ErrUnexpectedEOF
		case err != nil:
			return line, err
		}
		return bytes.TrimSuffix(line, []byte("\n")), nil
	}
}
