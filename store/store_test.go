package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
)

var alice = auth.Identity{Issuer: "https://id.example.test", Subject: "1", Email: "alice@example.test", Groups: []string{"developers"}}

func options(dir string) Options {
	return Options{Path: filepath.Join(dir, "store.db"), KeyPath: filepath.Join(dir, "ledger.key"), Version: "test", Node: "n1"}
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), options(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func entries(t testing.TB, s *Store) (all []ledger.Entry) {
	t.Helper()
	err := s.Entries(t.Context(), 0, func(line []byte) error {
		e, err := ledger.Decode(line)
		all = append(all, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func count(t testing.TB, s *Store, typ string) (n int) {
	t.Helper()
	for _, e := range entries(t, s) {
		if e.Type == typ {
			n++
		}
	}
	return n
}

func update(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// grant writes a grant as the desk does: the row and its entry together.
func grant(t testing.TB, s *Store, id string) (g policy.Grant) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		g = policy.Grant{
			ID: id, Request: "r" + id[1:], Identity: alice, Target: "orders", Level: "writer",
			Start: tx.Now(), End: tx.Now().Add(time.Hour),
		}
		created := ledger.GrantCreated{
			Grant: id, Request: g.Request, Person: ledger.Person{Issuer: alice.Issuer, Subject: alice.Subject},
			Target: g.Target, Level: g.Level, Start: g.Start, End: g.End,
		}
		return errors.Join(tx.Append(ledger.TypeGrantCreated, created), tx.PutGrant(g))
	})
	return g
}

func TestFirstStart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := entries(t, s)
	if len(all) != 1 || all[0].Type != ledger.TypeGenesis || all[0].Index != 0 {
		t.Fatalf("a new ledger holds %+v", all)
	}
	var g ledger.Genesis
	if err := all[0].Into(&g); err != nil {
		t.Fatal(err)
	}
	if g.Installation != s.Installation() || len(g.Installation) != 6 || g.Key != s.VerifierKey() || g.Format != 1 || g.Version != "test" {
		t.Fatalf("genesis %+v", g)
	}
	for _, name := range []string{"store.db", "store.db-wal", "ledger.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode().Perm())
		}
	}
	installation, key := s.Installation(), s.VerifierKey()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if s.Installation() != installation || s.VerifierKey() != key || len(entries(t, s)) != 1 {
		t.Fatal("a second start is not the same installation")
	}
}

func TestKeyGivenByReference(t *testing.T) {
	o := options(t.TempDir())
	skey, err := ledger.NewKey(ledger.KeyName("abc123"))
	if err != nil {
		t.Fatal(err)
	}
	o.SigningKey, o.KeyPath = skey, ""
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Installation() != "abc123" {
		t.Fatalf("installation %s, the key is of abc123", s.Installation())
	}
	o.SigningKey = "PRIVATE+KEY+curfew-abc123+secretsecret"
	o.Path += "2"
	if _, err := Open(t.Context(), o); err == nil || strings.Contains(err.Error(), "secretsecret") {
		t.Fatalf("a broken key: %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := Open(t.Context(), options(dir)); err == nil || !strings.Contains(err.Error(), "another Curfew") {
		t.Fatalf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	behind(t, dir, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
	if _, err := Open(t.Context(), options(dir)); err == nil || !strings.Contains(err.Error(), "newer Curfew") {
		t.Fatalf("open: %v", err)
	}
}

// behind changes the file as somebody with access to the disk would.
func behind(t testing.TB, dir string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, "store.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, q := range statements {
		r, err := db.Exec(q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 && !strings.HasPrefix(q, "CREATE") {
			t.Fatalf("%s changed nothing (%v)", q, err)
		}
	}
}

func TestTamperedStoreIsRefused(t *testing.T) {
	for name, statements := range map[string][]string{
		"edited":             {`UPDATE entries SET line = CAST(replace(CAST(line AS TEXT), 'writer', 'reader') AS BLOB) WHERE n = 1`},
		"deleted":            {`DELETE FROM entries WHERE n = 2`},
		"deleted and closed": {`DELETE FROM entries WHERE n = 2`, `UPDATE entries SET n = n - 1 WHERE n = 3`},
		"truncated":          {`DELETE FROM entries WHERE n = (SELECT max(n) FROM entries)`},
		"emptied":            {`DELETE FROM entries`},
		"reordered":          {`UPDATE entries SET n = 99 WHERE n = 1`, `UPDATE entries SET n = 1 WHERE n = 2`, `UPDATE entries SET n = 2 WHERE n = 99`},
		"appended":           {`INSERT INTO entries SELECT max(n) + 1, line FROM entries`},
		"truncated with its size": {
			`DELETE FROM entries WHERE n = (SELECT max(n) FROM entries)`, `UPDATE head SET size = size - 1`,
		},
		"checkpoint deleted":      {`DELETE FROM head`},
		"checkpoint edited":       {`UPDATE head SET checkpoint = CAST(replace(CAST(checkpoint AS TEXT), 'curfew/', 'curfew-') AS BLOB)`},
		"size beside it edited":   {`UPDATE head SET size = size + 1`},
		"installation edited":     {`UPDATE meta SET value = 'zzzzzz' WHERE name = 'installation'`},
		"installation deleted":    {`DELETE FROM meta WHERE name = 'installation'`},
		"time set back":           {`UPDATE meta SET value = '1000' WHERE name = 'high'`, `UPDATE entries SET line = line WHERE n = 0`},
		"grant's end moved":       {`UPDATE grants SET doc = CAST(replace(CAST(doc AS TEXT), '"end":"2', '"end":"3') AS BLOB)`},
		"grant's level raised":    {`UPDATE grants SET doc = CAST(replace(CAST(doc AS TEXT), '"writer"', '"owner"') AS BLOB)`},
		"grant's holder replaced": {`UPDATE grants SET doc = CAST(replace(CAST(doc AS TEXT), '"subject":"1"', '"subject":"2"') AS BLOB)`},
		"ended grant revived":     {`UPDATE grants SET ended = 0 WHERE id = 'gended'`},
		"live grant deleted":      {`DELETE FROM grants WHERE id = 'glive'`},
		"grant invented":          {`INSERT INTO grants SELECT 'gnew', person, target, starts, ends, ended, verifier, CAST(replace(CAST(doc AS TEXT), 'glive', 'gnew') AS BLOB) FROM grants WHERE id = 'glive'`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			grant(t, s, "glive")
			ended := grant(t, s, "gended")
			update(t, s, func(tx *Tx) error {
				ended.Ended = tx.Now()
				return errors.Join(tx.Append(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: ended.ID, At: ended.Ended}), tx.PutGrant(ended))
			})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			open(t, dir).Close() // it is good before
			behind(t, dir, statements...)
			s, err := Open(t.Context(), options(dir))
			if !errors.Is(err, ErrTampered) {
				t.Fatalf("opened: %v", err)
			}
		})
	}
}

// Who edits an entry and makes everything else fit still can't sign.
func TestTamperedStoreThatAddsUp(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	grant(t, s, "g1")
	if err := s.Degraded(t.Context(), ledger.RecorderDegraded{Node: "honest"}); err != nil {
		t.Fatal(err)
	}
	var tree ledger.Tree
	err := s.Entries(t.Context(), 0, func(line []byte) error {
		tree.Append(ledger.LeafHash(bytes.Replace(line, []byte("honest"), []byte("forged"), 1)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	behind(t, dir, `UPDATE entries SET line = CAST(replace(CAST(line AS TEXT), 'honest', 'forged') AS BLOB) WHERE n = 2`,
		`UPDATE head SET root = '`+tree.Root().String()+`'`)
	if _, err := Open(t.Context(), options(dir)); !errors.Is(err, ErrTampered) {
		t.Fatalf("opened: %v", err)
	}
}

func TestForeignOrLostKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	skey, err := ledger.NewKey("curfew-other1")
	if err != nil {
		t.Fatal(err)
	}
	o := options(dir)
	o.SigningKey = skey
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrTampered) {
		t.Fatalf("with another key: %v", err)
	}
	if err := os.Remove(o.KeyPath); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), options(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without its key: %v", err)
	}
	if _, err := os.Stat(o.KeyPath); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("a lost key was replaced")
	}
}

func TestChangedWhileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	grant(t, s, "g1")
	behind(t, dir, `DELETE FROM entries WHERE n = 1`, `UPDATE head SET size = 1`)
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Append(ledger.TypeLogin, ledger.Login{}) })
	if !errors.Is(err, ErrTampered) {
		t.Fatalf("append onto a changed ledger: %v", err)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := open(t, t.TempDir())
	grant(t, s, "g1")
	before, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	change := func(tx *Tx) error {
		return errors.Join(
			tx.Append(ledger.TypeRequestCreated, ledger.RequestCreated{Request: "r2"}),
			tx.PutRequest(policy.Request{ID: "r2", Status: policy.Open}),
			tx.PutVerifier("g1", []byte("secret")))
	}
	broken := errors.New("broken")
	stopped, stop := context.WithCancel(t.Context())
	for name, run := range map[string]func() error{
		"error": func() error {
			return s.Update(t.Context(), func(tx *Tx) error { return errors.Join(change(tx), broken) })
		},
		"panic": func() (err error) {
			defer func() { err = recover().(error) }()
			return s.Update(t.Context(), func(tx *Tx) error { panic(errors.Join(change(tx), broken)) })
		},
		"context ends inside": func() error {
			return s.Update(stopped, func(tx *Tx) error { stop(); return change(tx) })
		},
		"entry can't be written": func() error {
			return s.Update(t.Context(), func(tx *Tx) error { return errors.Join(change(tx), tx.Append("x", func() {})) })
		},
	} {
		if err := run(); err == nil {
			t.Fatalf("%s: no error", name)
		}
		after, err := s.Checkpoint(t.Context())
		if err != nil || string(after) != string(before) || len(entries(t, s)) != 2 {
			t.Fatalf("%s: the ledger moved (%v)", name, err)
		}
		err = s.View(t.Context(), func(tx *Tx) error {
			if _, err := tx.Request("r2"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: the request is there: %v", name, err)
			}
			if v, err := tx.Verifier("g1"); v != nil || err != nil {
				t.Errorf("%s: the verifier is there", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	update(t, s, change) // and the store goes on
	if len(entries(t, s)) != 3 {
		t.Fatal("no entry after the failures")
	}
}

// A crash is a copy of the files, as the disk had them, without a Close.
func crash(t *testing.T, dir string) (copied string) {
	t.Helper()
	copied = t.TempDir()
	crashTo(t, dir, copied)
	return copied
}

func crashTo(t *testing.T, dir, copied string) {
	t.Helper()
	for _, name := range []string{"store.db", "store.db-wal", "ledger.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCrash(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	grant(t, s, "g1")
	done := crash(t, dir)

	var within string
	update(t, s, func(tx *Tx) error {
		err := errors.Join(tx.Append(ledger.TypeGrantEnded, ledger.GrantEnded{Grant: "g1"}),
			tx.PutGrant(policy.Grant{ID: "g1", Ended: tx.Now()}))
		within = crash(t, dir) // written, not committed
		return err
	})
	after := crash(t, dir)

	torn := crash(t, dir)
	wal := filepath.Join(torn, "store.db-wal")
	info, err := os.Stat(wal)
	if err == nil {
		err = os.Truncate(wal, info.Size()-100) // the last commit did not reach the disk whole
	}
	if err != nil {
		t.Fatal(err)
	}
	for dir, ended := range map[string]bool{done: false, within: false, torn: false, after: true} {
		s := open(t, dir)
		onLedger := count(t, s, ledger.TypeGrantEnded) == 1
		err := s.View(t.Context(), func(tx *Tx) error {
			g, err := tx.Grant("g1")
			if inRows := !g.Ended.IsZero(); inRows != ended || onLedger != ended {
				t.Errorf("ended: row %v, ledger %v, want %v", inRows, onLedger, ended)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Degraded(t.Context(), ledger.RecorderDegraded{}); err != nil {
			t.Errorf("append after the crash: %v", err)
		}
	}
}

// A commit that is stored and reported as failed must neither be lost nor taken for tampering.
func TestStoredButReportedFailed(t *testing.T) {
	for _, stored := range []bool{true, false} {
		s := open(t, t.TempDir())
		before := s.tree.Clone()
		grant(t, s, "g1")
		made := s.tree.Clone()
		if stored {
			s.tree = before // as after the error that Update got from Commit
			s.pending = &made
		} else {
			other := made.Clone()
			other.Append(ledger.LeafHash([]byte("lost")))
			s.pending = &other
		}
		grant(t, s, "g2")
		if n := len(entries(t, s)); n != 3 {
			t.Errorf("stored=%v: %d entries", stored, n)
		}
	}
}

func TestViewChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	err := s.View(t.Context(), func(tx *Tx) error {
		for name, err := range map[string]error{
			"Append":      tx.Append("x", struct{}{}),
			"PutRequest":  tx.PutRequest(policy.Request{ID: "r"}),
			"PutGrant":    tx.PutGrant(policy.Grant{ID: "g"}),
			"PutVerifier": tx.PutVerifier("g", nil),
			"PutLogin":    tx.PutLogin(Login{}),
			"DeleteLogin": tx.DeleteLogin(nil),
		} {
			if !errors.Is(err, errReadOnly) {
				t.Errorf("%s in a View: %v", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestViewSeesOneMoment(t *testing.T) {
	s := open(t, t.TempDir())
	err := s.View(t.Context(), func(tx *Tx) error {
		before, err := tx.Grants(GrantFilter{})
		if err != nil {
			return err
		}
		grant(t, s, "g1")
		after, err := tx.Grants(GrantFilter{})
		if len(before) != 0 || len(after) != 0 {
			t.Errorf("a view saw %d grants, then %d", len(before), len(after))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
