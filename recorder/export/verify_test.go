package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/ledger"
)

func TestGoodBundle(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	path := w.bundle(Scope{})
	for name, path := range map[string]string{"archive": path, "directory": lay(t, unpack(t, path))} {
		r := verify(t, path, w.VerifierKey(), anchor(t, w))
		if !r.OK() || r.count(SeverityOpen) != 0 {
			t.Errorf("%s: %+v", name, r.Findings)
		}
		if r.Installation != "abc123" || r.Entries != int64(len(w.lines)) || r.Anchored != r.Entries || r.Withheld != 0 ||
			r.Requests != 2 || r.Grants != 2 || r.Sessions != 3 || r.Recordings != 3 || r.Statements != 10 || r.Events != 5+5+5 {
			t.Errorf("%s: counts %+v", name, r)
		}
		if !says(r, SeverityNote, "session s3: it was still open") {
			t.Errorf("%s: %+v", name, r.Findings)
		}
	}
	if r := verify(t, path, w.VerifierKey(), ""); !r.OK() || !says(r, SeverityNote, "anchor: none was given") {
		t.Errorf("without an anchor: %+v", r.Findings)
	}
}

func TestVerifyNeedsAKey(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	path := w.bundle(Scope{})
	for _, o := range []VerifyOptions{{}, {Key: "nonsense"}, {Key: w.VerifierKey(), Anchor: path + "-none"}} {
		if _, err := Verify(t.Context(), path, o); err == nil {
			t.Errorf("verified with %+v", o)
		}
	}
	if _, err := Verify(t.Context(), path+"-none", VerifyOptions{Key: w.VerifierKey()}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no bundle: %v", err)
	}
	// The bundle names its own key; that must count for nothing.
	if r := verify(t, path, newKey(t).VerifierKey(), ""); r.OK() {
		t.Error("verified with another installation's key")
	}
}

func join(lines [][]byte) []byte {
	if len(lines) == 0 {
		return []byte{}
	}
	return append(bytes.Join(lines, []byte("\n")), '\n')
}

// tamperLines gives every edit, deletion, swap, doubling and cut that can be done to whole lines.
func tamperLines(text []byte) map[string][]byte {
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	out := map[string][]byte{"emptied": {}}
	change := func(name string, i int, fn func([][]byte) [][]byte) {
		copied := make([][]byte, len(lines))
		for i, l := range lines {
			copied[i] = bytes.Clone(l)
		}
		out[fmt.Sprintf("%s line %d", name, i+1)] = join(fn(copied))
	}
	for i := range lines {
		change("edit", i, func(l [][]byte) [][]byte {
			at := bytes.Index(l[i], []byte(`"salt":"`)) + 8
			l[i][at] ^= 1 // '0' and '1', 'a' and '`', … are one bit apart; either way it is another salt
			return l
		})
		change("delete", i, func(l [][]byte) [][]byte { return append(l[:i], l[i+1:]...) })
		change("double", i, func(l [][]byte) [][]byte { return append(l[:i+1], l[i:]...) })
		change("cut after", i, func(l [][]byte) [][]byte { return l[:i] })
		change("cut in", i, func(l [][]byte) [][]byte { l[i] = l[i][:len(l[i])/2]; return l[:i+1] })
		if i > 0 {
			change("swap", i, func(l [][]byte) [][]byte { l[i-1], l[i] = l[i], l[i-1]; return l })
		}
	}
	return out
}

func TestEveryLineCounts(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	members := unpack(t, w.bundle(Scope{}))
	for _, f := range members[2:] {
		text, sealed := f.data, strings.HasSuffix(f.name, sealedSuffix)
		if sealed {
			text = decompress(t, text)
		}
		for name, changed := range tamperLines(text) {
			if sealed {
				changed = compress(t, changed)
			}
			// The tail of an open recording that no ledger entry covers yet can be cut, as Verify notes.
			if strings.HasSuffix(f.name, "s3.jsonl") && strings.HasSuffix(name, "line 5") && name != "double line 5" && name != "swap line 5" {
				continue
			}
			dir := lay(t, withFile(members, f.name, func([]byte) []byte { return changed }))
			r := verify(t, dir, w.VerifierKey(), "")
			if r.OK() || !says(r, SeverityError, f.name) && !says(r, SeverityError, "entr") {
				t.Errorf("%s, %s: not found: %+v", f.name, name, r.Findings)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEveryFileCounts(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	members := unpack(t, w.bundle(Scope{}))
	if len(members) != 6 {
		t.Fatalf("members: %d", len(members))
	}
	for _, f := range members {
		for name, change := range map[string]func([]byte) []byte{
			"removed":   func([]byte) []byte { return nil },
			"emptied":   func([]byte) []byte { return []byte{} },
			"truncated": func(b []byte) []byte { return b[:len(b)/2] },
			"shortened": func(b []byte) []byte { return b[:len(b)-2] },
			"extended":  func(b []byte) []byte { return append(b, "x\n"...) },
			"flipped":   func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b },
		} {
			if f.name == manifestName && (name == "flipped" || name == "shortened") {
				continue // nothing in it is trusted; the cases below are about what is
			}
			changed := withFile(members, f.name, change)
			for _, path := range []string{lay(t, changed), pack(t, changed)} {
				if r := verify(t, path, w.VerifierKey(), ""); r.OK() {
					t.Errorf("%s %s: not found", f.name, name)
				}
			}
		}
	}
}

func TestTamperedBundle(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	members := unpack(t, w.bundle(Scope{}))
	s1, s2 := "recordings/s1.jsonl.zst", "recordings/s2.jsonl.zst"
	one, two := get(t, members, s1), get(t, members, s2)
	is := func(data []byte) func([]byte) []byte { return func([]byte) []byte { return data } }
	lineOf := func(typ string) int {
		for i, f := range w.facts {
			if f.typ == typ {
				return i
			}
		}
		t.Fatal(typ)
		return 0
	}
	hash := func(i int) []byte {
		h := ledger.LeafHash(w.lines[i])
		line, err := json.Marshal(withheld{Index: int64(i), Hash: fmt.Sprintf("%x", h[:])})
		check(t, err)
		return line
	}
	ledgerWith := func(i int, line []byte) []file {
		lines := append([][]byte{}, w.lines...)
		lines[i] = line
		return withFile(members, ledgerName, is(join(lines)))
	}
	opened := lineOf(ledger.TypeSessionOpened)
	forged := bytes.Replace(hash(opened), []byte(`}`), []byte(`,"type":"session.opened","data":{"session":"s9"}}`), 1)
	for name, c := range map[string]struct {
		members []file
		want    string
	}{
		"recordings swapped":           {withFile(withFile(members, s1, is(two)), s2, is(one)), s1 + ": its header"},
		"a recording for another":      {withFile(members, s1, is(two)), s1 + ": its header names the session s2"},
		"a recording twice":            {append(members[:len(members):len(members)], file{"recordings/s1.jsonl", decompress(t, one)}), "session s1"},
		"a recording renamed":          {append(withFile(members, s1, is(nil)), file{"recordings/s9.jsonl.zst", one}), "not on the ledger"},
		"a sealed one unpacked":        {append(withFile(members, s1, is(nil)), file{"recordings/s1.jsonl", decompress(t, one)}), "is sealed"},
		"compressed anew":              {withFile(members, s1, is(compress(t, decompress(t, one)))), "sha256"},
		"something hidden behind":      {withFile(members, s1, is(append(bytes.Clone(one), compress(t, []byte("x"))...))), "length"},
		"a file that does not belong":  {append(members[:len(members):len(members)], file{"notes.txt", []byte("hello")}), "notes.txt: it does not belong"},
		"session withheld":             {ledgerWith(opened, hash(opened)), "withheld from a bundle that claims to be complete"},
		"a hash dressed as an entry":   {ledgerWith(opened, forged), "neither an entry nor the hash of one"},
		"an open one with an erasure":  {withFile(members, "recordings/s3.jsonl", erase), "erased"},
		"a checkpoint by another key":  {withFile(members, checkpointName, is(otherCheckpoint(t, w))), "not signed by"},
		"manifest of a later format":   {withFile(members, manifestName, is([]byte(`{"format":2}`))), "its format is 2"},
		"recordings before the ledger": {append([]file{members[3]}, members...), "before the ledger"},
	} {
		paths := []string{pack(t, c.members)}
		if name != "recordings before the ledger" {
			paths = append(paths, lay(t, c.members))
		}
		for _, path := range paths {
			if r := verify(t, path, w.VerifierKey(), ""); !says(r, SeverityError, c.want) {
				t.Errorf("%s: want %q in %+v", name, c.want, r.Findings)
			}
		}
	}
}

// erase replaces an event by the hash that stands for it: right for the tree, and yet not what an open
// recording can hold.
func erase(data []byte) []byte {
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	leaf := recorder.LeafHash(lines[1])
	lines[1] = fmt.Appendf(nil, `{"seq":1,"erased":"%x"}`, leaf[:])
	return join(lines)
}

func otherCheckpoint(t *testing.T, w *world) []byte {
	other := *w
	other.key = newKey(t)
	msg, err := other.Checkpoint(t.Context())
	check(t, err)
	return msg
}

func TestHostileArchive(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	path := w.bundle(Scope{})
	whole, err := os.ReadFile(path)
	check(t, err)
	cut := filepath.Join(t.TempDir(), "cut.tar.zst")
	for n := 0; n < len(whole); n += max(1, len(whole)/40) {
		check(t, os.WriteFile(cut, whole[:n], 0o600))
		if r := verify(t, cut, w.VerifierKey(), ""); r.OK() {
			t.Errorf("cut at %d of %d: not found", n, len(whole))
		}
	}
	check(t, os.WriteFile(cut, append(bytes.Clone(whole), compress(t, []byte("hidden"))...), 0o600))
	if r := verify(t, cut, w.VerifierKey(), ""); !says(r, SeverityError, "something follows the end") {
		t.Errorf("hidden behind the archive: %+v", r.Findings)
	}
	dir := lay(t, unpack(t, path))
	outside := filepath.Join(t.TempDir(), "s1")
	check(t, os.Rename(filepath.Join(dir, "recordings/s1.jsonl.zst"), outside))
	check(t, os.Symlink(outside, filepath.Join(dir, "recordings/s1.jsonl.zst")))
	if r := verify(t, dir, w.VerifierKey(), ""); !says(r, SeverityError, "s1.jsonl.zst: it is not a regular file") {
		t.Errorf("a link: %+v", r.Findings)
	}
}

func TestAnchors(t *testing.T) {
	key := newKey(t)
	w := newWorld(t, key)
	w.sign()
	now := *w
	old := *w
	old.lines = old.lines[:len(old.lines)-2]
	older := *w
	older.lines = older.lines[:5]

	// Sound by itself, and older than what was anchored.
	path := old.bundle(Scope{})
	if r := verify(t, path, key.VerifierKey(), ""); !r.OK() {
		t.Fatalf("an older bundle is good without an anchor: %+v", r.Findings)
	}
	if r := verify(t, path, key.VerifierKey(), anchor(t, &now)); !says(r, SeverityError, "it is older than the anchor") {
		t.Errorf("an older checkpoint: %+v", r.Findings)
	}
	// An anchor that is older than the bundle is what an anchor usually is.
	if r := verify(t, path, key.VerifierKey(), anchor(t, &older, &old)); !r.OK() || r.Anchored != int64(len(old.lines)) {
		t.Errorf("older anchors: %+v", r)
	}

	// The holder of the key tells it anew: other salts already make another ledger.
	rewritten := *w
	rewritten.sign(func(f *fact) bool {
		if c, ok := f.data.(ledger.RequestCreated); ok && c.Request == "r1" {
			c.Reason = "a better reason"
			f.data = c
		}
		return true
	})
	path = rewritten.bundle(Scope{})
	if r := verify(t, path, key.VerifierKey(), ""); !r.OK() {
		t.Fatalf("a rewritten ledger is good without an anchor: %+v", r.Findings)
	}
	r := verify(t, path, key.VerifierKey(), anchor(t, &older, &now))
	if !says(r, SeverityError, "not the ledger that was anchored: they part between entry 0 and entry 4") {
		t.Errorf("rewritten by the key's holder: %+v", r.Findings)
	}
	// Rewritten from a point on: the anchors say from where.
	half := *w
	half.lines = append(append([][]byte{}, w.lines[:8]...), rewritten.lines[8:]...)
	r = verify(t, half.bundle(Scope{}), key.VerifierKey(), anchor(t, &older, &now))
	if !says(r, SeverityError, fmt.Sprintf("between entry 5 and entry %d", len(w.lines)-1)) {
		t.Errorf("rewritten in the middle: %+v", r.Findings)
	}
	if r := verify(t, path, key.VerifierKey(), anchor(t, &now, &rewritten)); !says(r, SeverityError, "two different ledgers") {
		t.Errorf("two roots for one size: %+v", r.Findings)
	}

	// A session that the key's holder drops from ledger and files.
	dropped := *w
	dropped.sign(func(f *fact) bool {
		line, err := json.Marshal(f.data)
		check(t, err)
		if m, ok := f.data.(ledger.SessionsMoved); ok {
			m.Sessions = append([]recorder.TreeState{}, m.Sessions[0], m.Sessions[2])
			f.data = m
		}
		return !bytes.Contains(line, []byte(`"s2"`)) || f.typ == ledger.TypeSessionsMoved
	})
	path = dropped.bundle(Scope{})
	if r := verify(t, path, key.VerifierKey(), ""); !r.OK() || r.Sessions != 2 {
		t.Fatalf("without the session: %+v", r.Findings)
	}
	if r := verify(t, path, key.VerifierKey(), anchor(t, &now)); r.OK() {
		t.Error("a dropped session: not found")
	}
	// Anchors of somebody else vouch for nothing.
	strange := *w
	strange.key = newKey(t)
	if r := verify(t, path, key.VerifierKey(), anchor(t, &strange)); !says(r, SeverityError, "no checkpoint by this key") {
		t.Errorf("an anchor by another key: %+v", r.Findings)
	}
}

// Forged stories are signed with the right key: what Curfew would write if it broke its own rules.
func TestForgedStory(t *testing.T) {
	w := newWorld(t, newKey(t))
	for name, c := range map[string]struct {
		want  string
		forge func(*fact) bool
	}{
		"self-approval": {"alice@example.test decided on their own request r1", on(func(d *ledger.RequestDecided) {
			if d.Request == "r1" {
				d.Person = alice
			}
		})},
		"self-approval, other e-mail": {"decided on their own request", on(func(d *ledger.RequestDecided) {
			d.Person = ledger.Person{Issuer: alice.Issuer, Subject: alice.Subject, Email: "other@example.test", Groups: []string{"leads"}}
		})},
		"nobody approved":       {"approved by 0 people", drop(ledger.TypeRequestDecided)},
		"approved by nobody":    {"by nobody", on(func(d *ledger.RequestDecided) { d.Person = ledger.Person{Email: bob.Email} })},
		"one vote too few":      {"it needs 2", on(func(r *ledger.RequestCreated) { r.Approvals = 2 })},
		"denied":                {"although somebody denied it", on(func(d *ledger.RequestDecided) { d.Approve = false })},
		"never approved":        {"its request r1 was never approved", drop(ledger.TypeRequestEnded)},
		"lapsed":                {"after it had lapsed", on(func(r *ledger.RequestCreated) { r.Lapses = w.start.Add(-time.Hour) })},
		"no request":            {"grant g1 has no request", drop(ledger.TypeRequestCreated)},
		"no grant":              {"grant g1 is not on the ledger", drop(ledger.TypeGrantCreated)},
		"for another":           {"not for whom, or what", on(func(g *ledger.GrantCreated) { g.Person = bob })},
		"other level":           {"not for whom, or what", on(func(g *ledger.GrantCreated) { g.Level = "owner" })},
		"longer than asked":     {"lasts 2h30m0s", on(func(g *ledger.GrantCreated) { g.End = g.Start.Add(150 * time.Minute) })},
		"before approval":       {"before it was approved", on(func(g *ledger.GrantCreated) { g.Start = g.Start.Add(-time.Hour); g.End = g.End.Add(-time.Hour) })},
		"two grants of one":     {"became grant g1 before", on(func(g *ledger.GrantCreated) { g.Request = "r1" })},
		"policy text":           {"hash is not that of its text", on(func(p *ledger.PolicyLoaded) { p.Text += "#" })},
		"policy not loaded":     {"a policy that is not on the ledger", drop(ledger.TypePolicyLoaded)},
		"other installation":    {"its header names the installation", on(func(g *ledger.Genesis) { g.Installation = "zzz999" })},
		"other key in genesis":  {"begun with another key", on(func(g *ledger.Genesis) { g.Key = "x" })},
		"no genesis":            {"is the genesis", drop(ledger.TypeGenesis)},
		"session after the end": {"outside the time of its grant", on(func(g *ledger.GrantEnded) { g.At = w.start.Add(-time.Minute) })},
		"session never opened":  {"sealed and was never opened", drop(ledger.TypeSessionOpened)},
		"session under another": {"its header names the grant g1, the ledger g2", on(func(o *ledger.SessionOpened) { o.Grant = "g2" })},
		"on another node":       {"its header names the node n1, the ledger n2", on(func(o *ledger.SessionOpened) { o.Node = "n2" })},
		"from elsewhere":        {"its header names the client 127.0.0.1:5000, the ledger 192.0.2.1:1", on(func(o *ledger.SessionOpened) { o.Client = "192.0.2.1:1" })},
		"under another policy":  {"its header names the policy", on(func(r *ledger.RequestCreated) { r.Policy = "sha256:00" })},
		"begun long before": {"it began at", func(f *fact) bool {
			if f.typ != ledger.TypeGenesis && f.typ != ledger.TypePolicyLoaded {
				f.at = f.at.Add(40 * time.Second)
			}
			return true
		}},
		"other header":      {"its header is not the one", on(func(o *ledger.SessionOpened) { o.Header = strings.Repeat("0", 64) })},
		"other account":     {"is called curfew_abc123_root", on(func(a *ledger.AccountIntended) { a.Account = "curfew_abc123_root" })},
		"account made late": {"made after its end", late(ledger.TypeAccountIntended)},
		"recording cut before seal": {"prefix 9", on(func(m *ledger.SessionsMoved) {
			for i := range m.Sessions {
				m.Sessions[i].Count += 5
			}
		})},
		"recording rewritten before seal": {"prefix", on(func(m *ledger.SessionsMoved) { m.Sessions[0].Root = m.Sessions[1].Root })},
		"recording lost":                  {"its recording was lost", on(func(d *ledger.SessionSealed) { d.Sealed.File = "" })},
		"time runs backwards": {"before that of the entry before it", func(f *fact) bool {
			if f.typ == ledger.TypeGrantEnded {
				f.at = f.at.Add(-time.Minute)
			}
			return true
		}},
	} {
		w.sign(c.forge)
		r := verify(t, w.bundle(Scope{}), w.VerifierKey(), "")
		if !says(r, SeverityError, c.want) {
			t.Errorf("%s: want %q in %+v", name, c.want, r.Findings)
		}
	}
}

// Entries that are signed and numbered wrongly: one was left out before the tree was made.
func TestGapInTheNumbers(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign()
	last := len(w.lines) - 1
	for _, scope := range []Scope{{}, {Session: "s3"}} {
		lines := w.lines
		w.lines = append(append([][]byte{}, lines[:last-1]...), lines[last])
		members := unpack(t, w.bundle(scope))
		if !scope.All() { // Write numbers hashes itself
			members = withFile(members, ledgerName, func(b []byte) []byte {
				return bytes.Replace(b, fmt.Appendf(nil, `{"n":%d,"hash"`, last-1), fmt.Appendf(nil, `{"n":%d,"hash"`, last), 1)
			})
		}
		want := fmt.Sprintf("it has index %d where %d is due", last, last-1)
		if r := verify(t, lay(t, members), w.VerifierKey(), ""); !says(r, SeverityError, want) {
			t.Errorf("want %q in %+v", want, r.Findings)
		}
		w.lines = lines
	}
}

// on forges the facts of one type.
func on[T any](change func(*T)) func(*fact) bool {
	return func(f *fact) bool {
		if d, ok := f.data.(T); ok {
			switch m := any(&d).(type) {
			case *ledger.SessionsMoved:
				m.Sessions = append([]recorder.TreeState{}, m.Sessions...)
			}
			change(&d)
			f.data = d
		}
		return true
	}
}

func drop(typ string) func(*fact) bool { return func(f *fact) bool { return f.typ != typ } }

func late(typ string) func(*fact) bool {
	return func(f *fact) bool {
		if f.typ == typ {
			f.at = f.at.Add(24 * time.Hour)
		}
		return true
	}
}

func TestOpenFindings(t *testing.T) {
	w := newWorld(t, newKey(t))
	for name, c := range map[string]struct {
		want  string
		forge func(*fact) bool
	}{
		"no cut":     {"grant g1: it ended, and no receipt says that its account was cut off", drop(ledger.TypeAccountCut)},
		"no clean":   {"grant g1: it ended, and no receipt says that its account is gone", drop(ledger.TypeAccountCleaned)},
		"left over":  {"says that 1 sessions were left", on(func(c *ledger.AccountCut) { c.Cut = json.RawMessage(`{"left":1}`) })},
		"not ended":  {"nothing says that it was ended", late(ledger.TypeAccountCleaned)},
		"not sealed": {"session s3: its grant ended", late(ledger.TypeAccountCleaned)},
	} {
		w.sign(c.forge)
		r := verify(t, w.bundle(Scope{}), w.VerifierKey(), "")
		if !r.OK() || !says(r, SeverityOpen, c.want) {
			t.Errorf("%s: want %q in %+v", name, c.want, r.Findings)
		}
	}
}

// A statement that ran after the grant's end is in an intact recording; only its time tells.
func TestStatementAfterTheEnd(t *testing.T) {
	key := newKey(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, key)
		s4 := w.session("s4", "2", carol, w.start)
		check(t, s4.Record(statement(1, "select 1")))
		time.Sleep(2*time.Hour + time.Minute)
		check(t, s4.Record(statement(2, "select 2")))
		w.seal(s4, "2")
		w.sign()
		r := verify(t, w.bundle(Scope{}), key.VerifierKey(), "")
		if !says(r, SeverityError, "recordings/s4.jsonl.zst: a statement was run at 2000-01-01T02:01:00Z, after the grant's end") {
			t.Errorf("%+v", r.Findings)
		}
		check(t, w.lib.Close())
	})
}

func TestSessionBeforeItsGrant(t *testing.T) {
	w := newWorld(t, newKey(t))
	s4 := w.session("s4", "2", carol, w.start.Add(-time.Hour))
	w.seal(s4, "2")
	w.sign()
	r := verify(t, w.bundle(Scope{}), w.VerifierKey(), "")
	if !says(r, SeverityError, "session s4: it began at") {
		t.Errorf("%+v", r.Findings)
	}
	// Recordings are timed by the node's clock, the ledger never goes back: a clock set back parts them.
	w.tell(ledger.TypeClockSetBack, ledger.ClockSetBack{Node: "n1", Wall: w.start.Add(-time.Hour), High: w.start})
	w.sign()
	r = verify(t, w.bundle(Scope{}), w.VerifierKey(), "")
	if !r.OK() || !says(r, SeverityNote, "the clock of node n1 was set back by 1h0m0s") {
		t.Errorf("with its clock set back: %+v", r.Findings)
	}
}
