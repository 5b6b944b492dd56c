package export

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/curfewdb/curfew/recorder/ledger"
)

// fixedKey is the same in each process, or a corpus would be of another's.
func fixedKey(t testing.TB) *ledger.Signer {
	t.Helper()
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	name := ledger.KeyName("abc123")
	sum := sha256.Sum256(append(append([]byte(name), '\n', 1), private.Public().(ed25519.PublicKey)...))
	key, err := ledger.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, binary.BigEndian.Uint32(sum[:]),
		base64.StdEncoding.EncodeToString(append([]byte{1}, private.Seed()...))))
	check(t, err)
	return key
}

// lined is a ledger of these lines, signed.
type lined struct {
	*world
	lines [][]byte
}

func (l *lined) Entries(_ context.Context, from int64, fn func([]byte) error) error {
	for _, line := range l.lines[from:] {
		if err := fn(line); err != nil {
			return err
		}
	}
	return nil
}

// FuzzStory: whatever the ledger's key has signed, whatever is shown for it, and whatever stands for a recording,
// judging neither panics nor calls a ledger right that is not the signed one to the byte; and choosing from it
// for a scope does not panic.
func FuzzStory(f *testing.F) {
	key := fixedKey(f)
	w := newWorld(f, key)
	w.sign()
	signed := append(bytes.Join(w.lines, []byte("\n")), '\n')
	members := unpack(f, w.bundle(Scope{}))
	sealed, open := get(f, members, "recordings/s1.jsonl.zst"), get(f, members, "recordings/s3.jsonl")
	f.Add(signed, signed, "recordings/s1.jsonl.zst", sealed, []byte{0})
	f.Add(signed, signed, "recordings/s3.jsonl", open, []byte{1, 'g', '1'})
	f.Add(signed, bytes.Replace(signed, []byte("ticket 1"), []byte("ticket 9"), 1), "recordings/s3.jsonl", open, []byte{1, 'g', '1'})
	f.Add(signed, signed[:len(signed)/2], "recordings/s3.jsonl", open[:len(open)/2], []byte{2, 'o'})
	f.Add(signed, bytes.Join(w.lines[1:], []byte("\n")), "recordings/../s1.jsonl", open, []byte{4})
	f.Add(signed, []byte(`{"n":0,"hash":"`+tlog.RecordHash(w.lines[0]).String()+`"}`), "x", []byte{}, []byte{8, 'a'})
	f.Add([]byte("{}\n"), []byte("\n\n"), manifestName, []byte(`{"format":1,"scope":{"grant":"g1"}}`), []byte{})
	for i, line := range w.lines { // each kind of entry by itself
		f.Add(append(slices.Clone(line), '\n'), append(slices.Clone(w.lines[(i+1)%len(w.lines)]), '\n'), "recordings/s1.jsonl", open, []byte{byte(i)})
	}
	f.Fuzz(func(t *testing.T, signed, shown []byte, name string, content, choose []byte) {
		lines := bytes.Split(bytes.TrimSuffix(signed, []byte("\n")), []byte("\n"))
		var tree ledger.Tree
		for _, line := range lines {
			tree.Append(ledger.LeafHash(line))
		}
		msg, err := key.Sign(ledger.Checkpoint{Origin: ledger.Origin("abc123"), Size: tree.Size(), Root: tree.Root()})
		check(t, err)
		judge := func(text []byte) Report {
			v := &verifier{ctx: t.Context(), o: VerifyOptions{Key: key.VerifierKey()}, seen: map[string]bool{}, anchors: map[int64]tlog.Hash{}}
			v.story = newStory(&v.report, v.o.Key)
			plain := fmt.Sprintf(`{"format":1,"installation":"abc123","key":%q,"scope":{}}`, key.VerifierKey())
			for _, m := range []file{{manifestName, []byte(plain)}, {checkpointName, msg}, {ledgerName, text}, {name, content}} {
				var broken *damaged
				if err := v.member(m.name, bytes.NewReader(m.data)); err != nil && !errors.As(err, &broken) {
					t.Fatalf("%s: %v", m.name, err)
				}
			}
			v.finish()
			if len(v.report.Findings) > maxFindings+1 {
				t.Fatalf("%d findings", len(v.report.Findings))
			}
			return v.report
		}
		if r := judge(shown); r.OK() && !bytes.Equal(shown, signed) {
			t.Fatalf("the ledger\n%s\nis right, and the signed one is\n%s", shown, signed)
		}
		judge(signed)
		scope := Scope{}
		if len(choose) > 0 {
			what := string(choose[1:])
			for i, field := range []*string{&scope.Session, &scope.Grant, &scope.Target, &scope.Person} {
				if choose[0]&(1<<i) != 0 {
					*field = what
				}
			}
			if choose[0]&16 != 0 {
				scope.From = time.Unix(int64(len(what)), 0)
			}
		}
		about, err := survey(t.Context(), &lined{world: &world{key: key}, lines: lines}, tree.Size(), scope)
		if err != nil {
			return
		}
		for _, line := range lines {
			if e, err := ledger.Decode(line); err == nil {
				_, _ = about.whole(e) // an entry of another form is an error
			}
		}
	})
}

// FuzzArchive: whatever the bytes of an archive, reading it is an error of one kind, or gives its members once, within
// bounds.
func FuzzArchive(f *testing.F) {
	for _, members := range [][]file{nil, {{manifestName, []byte("{}")}, {ledgerName, bytes.Repeat([]byte("x\n"), 2000)}}, {{"../x", nil}, {"../x", nil}}} {
		data, err := os.ReadFile(pack(f, members))
		check(f, err)
		f.Add(data)
		f.Add(data[:len(data)/2])
		f.Add(append(data, compress(f, []byte("more"))...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		members, total := 0, int64(0)
		err := readArchive(t.Context(), bytes.NewReader(data), func(_ string, r io.Reader) error {
			members++
			if r == nil {
				return nil
			}
			n, err := io.Copy(io.Discard, io.LimitReader(r, 64<<20))
			if total += n; total >= 64<<20 {
				return io.ErrShortBuffer // enough of a bomb
			}
			if err != nil {
				return &damaged{err}
			}
			return nil
		})
		var broken *damaged
		if err != nil && !errors.As(err, &broken) && !errors.Is(err, io.ErrShortBuffer) {
			t.Fatalf("behind %d members: %v", members, err)
		}
	})
}
