package store

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/curfewdb/curfew/policy"
)

func TestBegun(t *testing.T) {
	s := open(t, t.TempDir())
	now := s.Now().Truncate(time.Microsecond)
	at := func(h int) time.Time { return now.Add(time.Duration(h) * time.Hour) }
	grant := func(id string, from, ended int) policy.Grant {
		g := policy.Grant{ID: id, Identity: alice, Target: "orders", Level: id, Start: at(from).UTC(), End: at(from + 9).UTC(), BreakGlass: id == "g2"}
		if ended != 0 {
			g.Ended = at(ended)
		}
		return g
	}
	other := grant("bobs", -3, 0)
	other.Identity = bob
	update(t, s, func(tx *Tx) (err error) {
		for _, g := range []policy.Grant{grant("too-old", -20, -19), grant("g1", -9, -8), grant("g2", -5, 0), grant("never-began", -4, -6), other, grant("ahead", 1, 0)} {
			err = errors.Join(err, tx.PutGrant(g))
		}
		return err
	})
	err := s.View(t.Context(), func(tx *Tx) error {
		got, err := tx.Begun(alice.Key(), at(-10), now)
		want := []policy.Past{{Target: "orders", Level: "g2", Start: at(-5).UTC(), BreakGlass: true}, {Target: "orders", Level: "g1", Start: at(-9).UTC()}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v", got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
