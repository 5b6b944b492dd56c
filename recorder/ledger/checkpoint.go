package ledger

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a signed statement: the ledger of this origin had this root at this size.
type Checkpoint struct {
	Origin string // "curfew/<installation>"
	Size   int64
	Root   tlog.Hash
}

// Origin names the ledger of an installation in its checkpoints.
func Origin(installation string) string { return "curfew/" + installation }

// KeyName is the name of an installation's signing key.
func KeyName(installation string) string { return "curfew-" + installation }

// NewKey makes a signing key in note format ("PRIVATE+KEY+name+…", Ed25519). It is a secret.
func NewKey(name string) (skey string, err error) {
	skey, _, err = note.GenerateKey(rand.Reader, name)
	return skey, err
}

// Signer signs checkpoints with one key.
type Signer struct {
	signer   note.Signer
	verifier string
}

// NewSigner reads a signing key as NewKey makes it. Errors never show the key.
func NewSigner(skey string) (*Signer, error) {
	bad := errors.New("signing key is not an Ed25519 key in note format")
	signer, err := note.NewSigner(strings.TrimSpace(skey))
	if err != nil {
		return nil, bad
	}
	parts := strings.SplitN(strings.TrimSpace(skey), "+", 5)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, bad
	}
	public := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	verifier, err := note.NewEd25519VerifierKey(signer.Name(), public)
	if err != nil {
		return nil, bad
	}
	return &Signer{signer: signer, verifier: verifier}, nil
}

// Name is the key's name.
func (s *Signer) Name() string { return s.signer.Name() }

// VerifierKey is the public half, "name+hash+key": what an auditor needs.
func (s *Signer) VerifierKey() string { return s.verifier }

// Sign gives the signed note of a checkpoint.
func (s *Signer) Sign(c Checkpoint) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
	return note.Sign(&note.Note{Text: text}, s.signer)
}

// ParseCheckpoint checks the note's signature against the verifier key and reads the checkpoint.
func ParseCheckpoint(msg []byte, verifierKey string) (Checkpoint, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(verifierKey))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("verifier key: %w", err)
	}
	n, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint is not signed by %s: %w", verifier.Name(), err)
	}
	return parseText(n.Text)
}

func parseText(text string) (Checkpoint, error) {
	bad := errors.New("checkpoint is not three lines: origin, size, root")
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 || lines[0] == "" {
		return Checkpoint{}, bad
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, bad
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, bad
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: root}, nil
}

// Anchor is one block of an anchor file: a checkpoint as it was handed to the keeper.
type Anchor struct {
	Line int    // where it starts, from 1
	Note []byte // the signed note; its signature is not checked yet
	Torn bool   // it is not a whole note: a crash cut it, or somebody did
}

// ReadAnchors splits an anchor file into its checkpoints, oldest first. Blocks are parted by blank
// lines; a note has one blank line of its own, between its text and its signatures. A block begins
// with an origin and ends with its last signature; whatever else is there is returned as Torn.
func ReadAnchors(r io.Reader) ([]Anchor, error) {
	var (
		all   []Anchor
		block []string
		start int
		n     int
	)
	flush := func() {
		if len(block) > 0 {
			all = append(all, makeAnchor(start, block))
			block = nil
		}
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 64<<10)
	for sc.Scan() {
		n++
		line := sc.Text()
		signature := strings.HasPrefix(line, "— ")
		ended := len(block) > 0 && strings.HasPrefix(block[len(block)-1], "— ")
		switch {
		case line == "" && (len(block) == 0 || ended):
			flush()
			continue
		case strings.HasPrefix(line, "curfew/"), ended && !signature:
			flush()
		}
		if len(block) == 0 {
			start = n
		}
		block = append(block, line)
	}
	flush()
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("anchors: %w", err)
	}
	return all, nil
}

func makeAnchor(start int, block []string) Anchor {
	text := []byte(strings.Join(block, "\n") + "\n")
	head, signatures, found := bytes.Cut(text, []byte("\n\n"))
	whole := found && strings.HasPrefix(block[0], "curfew/") && bytes.Count(head, []byte("\n")) == 2 &&
		bytes.HasPrefix(signatures, []byte("— "))
	return Anchor{Line: start, Note: text, Torn: !whole}
}
