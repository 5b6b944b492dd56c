package control

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

func TestExplain(t *testing.T) {
	dir := quickDir(t)
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.Readers[0].Targets = []string{"*"}
		w := openQuiet(t, dir, p)
		defer w.stop()
		alice, eve, sam := person("alice", "developers"), person("eve", "security-of-stock"), person("sam", "security")
		other := alice
		other.Issuer, other.Groups = "https://ci.example.test", nil
		login := func(hash string, l store.Login) {
			l.Hash, l.Created, l.Expires = []byte(hash), w.disk.Now(), w.disk.Now().Add(time.Hour)
			if err := w.disk.Update(t.Context(), func(tx *store.Tx) error { return tx.PutLogin(l) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		ask := policy.Ask{Target: "orders", Level: "reader", Duration: time.Minute}

		old := alice
		old.Groups = nil
		login("1", store.Login{Identity: old})
		login("2", store.Login{Identity: alice})
		size := w.disk.Size()
		for _, name := range []string{alice.Email, "ALICE@example.test", alice.Key()} { // as they last logged in
			if e, err := w.Explain(t.Context(), sam, name, ask); err != nil || e.Outcome != policy.OutcomeAllowed || e.Rule != "read" || e.Policy != p.Hash || len(e.Rules) != 3 {
				t.Errorf("%s: %+v, %v", name, e, err)
			}
		}
		if w.disk.Size() != size {
			t.Error("an explanation is on the ledger")
		}
		login("3", store.Login{Identity: other})
		_, err := w.Explain(t.Context(), sam, alice.Email, ask)
		w.refused(err, CodeConflict, alice.Key())
		if e, err := w.Explain(t.Context(), sam, other.Key(), ask); err != nil || e.Outcome != policy.OutcomeRefused {
			t.Errorf("%+v, %v", e, err)
		}
		_, err = w.Explain(t.Context(), sam, "mallory@example.test", ask)
		w.refused(err, CodeNotFound, "logged in")

		// Oneself, whoever one is; others, only for who reads all.
		if e, err := w.Explain(t.Context(), eve, eve.Email, ask); err != nil || e.Outcome != policy.OutcomeRefused || len(e.Rules) != 0 {
			t.Errorf("%+v, %v", e, err)
		}
		if e, err := w.Explain(t.Context(), eve, "", policy.Ask{Target: "nothing", Level: "reader", Duration: time.Minute}); err != nil || e.Next != nil {
			t.Errorf("names of targets are told to anybody: %+v, %v", e, err)
		}
		_, err = w.Explain(t.Context(), eve, alice.Email, ask)
		w.refused(err, CodeForbidden, "readers of every target")
		p.Readers[0].Targets = []string{"orders"}
		_, err = w.Explain(t.Context(), sam, alice.Email, ask)
		w.refused(err, CodeForbidden, "readers of every target")
		_, err = w.Explain(t.Context(), sam, "", policy.Ask{Target: "orders", Level: "reader", Duration: time.Minute, Reason: "\x1b"})
		w.refused(err, CodeInvalid, "")
	})
}
