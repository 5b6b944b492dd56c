package export

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

var (
	alice = ledger.Person{Issuer: "https://id.example.test", Subject: "1", Email: "alice@example.test"}
	bob   = ledger.Person{Issuer: "https://id.example.test", Subject: "2", Email: "bob@example.test"}
	carol = ledger.Person{Issuer: "https://id.example.test", Subject: "3", Email: "carol@example.test"}
)

const policyText = "rules: []\n"

var policyHash = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(policyText)))

// fact is one entry of a ledger that is still to be signed; tests forge it.
type fact struct {
	at   time.Time
	typ  string
	data any
}

// world is a small installation: a ledger with its key, and real recordings.
type world struct {
	t     testing.TB
	key   *ledger.Signer
	lib   *recorder.Library
	start time.Time
	facts []fact
	lines [][]byte
}

func (w *world) Installation() string { return "abc123" }
func (w *world) VerifierKey() string  { return w.key.VerifierKey() }

func (w *world) Checkpoint(context.Context) ([]byte, error) {
	var tree ledger.Tree
	for _, line := range w.lines {
		tree.Append(ledger.LeafHash(line))
	}
	return w.key.Sign(ledger.Checkpoint{Origin: ledger.Origin("abc123"), Size: tree.Size(), Root: tree.Root()})
}

func (w *world) Entries(_ context.Context, from int64, fn func([]byte) error) error {
	for _, line := range w.lines[from:] {
		if err := fn(line); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) source() Source { return Source{Ledger: w, Recordings: w.lib} }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ledger.Signer {
	t.Helper()
	skey, err := ledger.NewKey(ledger.KeyName("abc123"))
	check(t, err)
	key, err := ledger.NewSigner(skey)
	check(t, err)
	return key
}

// newWorld tells a whole story: alice's grant g1, approved by bob, with the sealed sessions s1 and s2,
// ended and cleaned; carol's grant g2, still running, with the open session s3.
func newWorld(t testing.TB, key *ledger.Signer) *world {
	t.Helper()
	dir := t.TempDir()
	lib, err := recorder.Open(dir, recorder.Options{Node: "n1", Durability: recorder.Disk})
	check(t, err)
	t.Cleanup(func() { lib.Close() })
	w := &world{t: t, key: key, lib: lib, start: time.Now().UTC().Truncate(time.Microsecond)}
	w.tell(ledger.TypeGenesis, ledger.Genesis{Format: 1, Installation: "abc123", Key: key.VerifierKey()})
	w.tell(ledger.TypePolicyLoaded, ledger.PolicyLoaded{Hash: policyHash, Text: policyText})
	w.grant("1", alice, 30*time.Minute)
	w.grant("2", carol, 2*time.Hour)
	s1 := w.session("s1", "1", alice, w.start)
	s2 := w.session("s2", "1", alice, w.start)
	s3 := w.session("s3", "2", carol, w.start)
	for i := range 3 {
		check(t, s1.Record(statement(uint64(i+1), fmt.Sprintf("update orders set note = 'one %d'", i))))
		check(t, s2.Record(statement(uint64(i+1), fmt.Sprintf("update orders set note = 'two %d'", i))))
		check(t, s3.Record(statement(uint64(i+1), fmt.Sprintf("select 'three %d'", i))))
		w.tell(ledger.TypeSessionsMoved, ledger.SessionsMoved{Node: "n1", Sessions: lib.Moved()})
	}
	check(t, s3.Record(statement(4, "select 'not on the ledger yet'")))
	w.seal(s1, "1")
	w.seal(s2, "1")
	w.tell(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: "g1", Code: recorder.EndReleased, By: alice.Email, At: w.start.Add(time.Second)})
	w.tell(ledger.TypeAccountCut, ledger.AccountCut{Grant: "g1", Target: "orders", Account: "curfew_abc123_g1", Cut: json.RawMessage(`{"left":0}`)})
	w.tell(ledger.TypeAccountCleaned, ledger.AccountCleaned{Grant: "g1", Target: "orders", Account: "curfew_abc123_g1", Clean: json.RawMessage(`{}`)})
	return w
}

func statement(id uint64, text string) recorder.Event {
	return recorder.Event{Type: recorder.TypeStatement, ID: id, Kind: recorder.KindSimple, Text: []byte(text)}
}

func (w *world) tell(typ string, data any) {
	w.facts = append(w.facts, fact{at: w.start.Add(time.Duration(len(w.facts)) * time.Millisecond), typ: typ, data: data})
}

func (w *world) grant(n string, who ledger.Person, d time.Duration) {
	w.tell(ledger.TypeRequestCreated, ledger.RequestCreated{
		Request: "r" + n, Person: who, Target: "orders", Level: "writer", Duration: d, Reason: "ticket " + n,
		Rule: "writers", Policy: policyHash, Approvals: 1, Lapses: w.start.Add(time.Hour),
	})
	w.tell(ledger.TypeRequestDecided, ledger.RequestDecided{Request: "r" + n, Person: bob, Approve: true})
	w.tell(ledger.TypeRequestEnded, ledger.RequestEnded{Request: "r" + n, Status: "approved", By: bob.Email})
	w.tell(ledger.TypeGrantCreated, ledger.GrantCreated{
		Grant: "g" + n, Request: "r" + n, Person: who, Target: "orders", Level: "writer", Start: w.start, End: w.start.Add(d),
	})
	w.tell(ledger.TypeAccountIntended, ledger.AccountIntended{Grant: "g" + n, Target: "orders", Account: "curfew_abc123_g" + n, End: w.start.Add(d)})
}

func (w *world) session(id, n string, who ledger.Person, began time.Time) *recorder.Writer {
	w.t.Helper()
	wr, err := w.lib.Create(recorder.Header{
		Session: id, Grant: "g" + n, Request: "r" + n, Installation: "abc123", Began: began, Target: "orders", Level: "writer",
		Identity: recorder.Person{Issuer: who.Issuer, Subject: who.Subject, Email: who.Email},
		Policy:   policyHash, Engine: "postgres", Account: "curfew_abc123_g" + n, Client: "127.0.0.1:5000",
	})
	check(w.t, err)
	w.tell(ledger.TypeSessionOpened, ledger.SessionOpened{
		Session: id, Grant: "g" + n, Target: "orders", Account: "curfew_abc123_g" + n, Node: "n1", Client: "127.0.0.1:5000", Header: wr.HeaderHash(),
	})
	return wr
}

func (w *world) seal(wr *recorder.Writer, n string) {
	w.t.Helper()
	sealed, err := wr.Seal(recorder.End{Code: recorder.EndClient, Reason: "client closed"})
	check(w.t, err)
	w.tell(ledger.TypeSessionSealed, ledger.SessionSealed{Grant: "g" + n, Target: "orders", Sealed: sealed})
}

// sign makes the ledger of the facts, after forge (if any) has had its way with each of them.
func (w *world) sign(forge ...func(*fact) (keep bool)) {
	w.t.Helper()
	w.lines = nil
	for _, f := range w.facts {
		keep := true
		for _, forge := range forge {
			keep = forge(&f) && keep
		}
		if !keep {
			continue
		}
		e, err := ledger.NewEntry(int64(len(w.lines)), f.at, f.typ, f.data)
		check(w.t, err)
		line, err := ledger.Encode(e)
		check(w.t, err)
		w.lines = append(w.lines, line)
	}
}

// bundle writes the world's bundle as an archive and gives its path.
func (w *world) bundle(scope Scope) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "bundle.tar.zst")
	f, err := os.Create(path)
	check(w.t, err)
	check(w.t, Write(w.t.Context(), f, w.source(), scope, func(p Progress) {
		if p.Err != nil {
			w.t.Logf("export left out %s: %v", p.Session, p.Err)
		}
	}))
	check(w.t, f.Close())
	return path
}

// anchor writes an anchor file of the checkpoints of these worlds.
func anchor(t testing.TB, worlds ...*world) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "anchors")
	var blocks [][]byte
	for _, w := range worlds {
		msg, err := w.Checkpoint(t.Context())
		check(t, err)
		blocks = append(blocks, msg)
	}
	check(t, os.WriteFile(path, bytes.Join(blocks, []byte("\n")), 0o600))
	return path
}

// file is a member of a bundle.
type file struct {
	name string
	data []byte
}

func unpack(t testing.TB, path string) (all []file) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	z, err := zstd.NewReader(f)
	check(t, err)
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		check(t, err)
		data, err := io.ReadAll(r)
		check(t, err)
		all = append(all, file{h.Name, data})
	}
}

// lay writes members into a directory: a bundle that is not packed.
func lay(t testing.TB, members []file) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range members {
		path := filepath.Join(dir, f.name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o700))
		check(t, os.WriteFile(path, f.data, 0o600))
	}
	return dir
}

// pack writes members as an archive, in the order given.
func pack(t testing.TB, members []file) string {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	check(t, err)
	w := tar.NewWriter(z)
	for _, f := range members {
		check(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o600}))
		_, err := w.Write(f.data)
		check(t, err)
	}
	check(t, errors.Join(w.Close(), z.Close()))
	path := filepath.Join(t.TempDir(), "packed.tar.zst")
	check(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// with gives the members with one of them changed; nil data removes it.
func withFile(members []file, name string, change func([]byte) []byte) []file {
	var out []file
	for _, f := range members {
		if f.name == name {
			if f.data = change(slices.Clone(f.data)); f.data == nil {
				continue
			}
		}
		out = append(out, f)
	}
	return out
}

func get(t testing.TB, members []file, name string) []byte {
	t.Helper()
	for _, f := range members {
		if f.name == name {
			return f.data
		}
	}
	t.Fatalf("no member %s", name)
	return nil
}

func verify(t testing.TB, path, key, anchor string) Report {
	t.Helper()
	r, err := Verify(t.Context(), path, VerifyOptions{Key: key, Anchor: anchor})
	check(t, err)
	return r
}

// says reports whether a finding of that severity contains the words.
func says(r Report, s Severity, words string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Severity == s && strings.Contains(f.Where+": "+f.What, words)
	})
}

func decompress(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(data))
	check(t, err)
	defer z.Close()
	out, err := io.ReadAll(z)
	check(t, err)
	return out
}

func compress(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	check(t, err)
	defer z.Close()
	return z.EncodeAll(data, nil)
}
