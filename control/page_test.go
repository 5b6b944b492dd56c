package control

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/recorder/ledger"
	"github.com/curfewdb/curfew/store"
)

// Whoever turns the pages of a list sees what the whole list shows, each thing once and in its order,
// though most of it is for others' eyes, and many things bear one time.
func TestPages(t *testing.T) {
	story(t, func(t *testing.T, w *world) {
		var theirs string
		for i := range 3*batch + 5 {
			who := []auth.Identity{alice, dana, sam}[i%3]
			at := time.Unix(1_700_000_000+int64(i/100), 0).UTC()
			r := policy.Request{ID: fmt.Sprintf("r%04d", i*7919%10000), Identity: who, Target: "orders", Level: "reader", Status: policy.Cancelled, Created: at}
			g := policy.Grant{ID: "g" + r.ID[1:], Request: r.ID, Identity: who, Target: "orders", Level: "reader", Start: at, End: at.Add(1), Ended: at.Add(1)}
			if who.Same(dana) {
				theirs = r.ID
			}
			err := w.disk.Update(t.Context(), func(tx *store.Tx) error {
				if err := tx.PutRequest(r); err != nil {
					return err
				}
				return tx.PutGrant(g)
			})
			if err == nil && i < 10 {
				err = w.disk.Opened(t.Context(), ledger.SessionOpened{Session: "s" + r.ID[1:], Grant: g.ID, Target: "orders"})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for name, read := range map[string]func(after string, limit int) ([]string, error){
			"requests": func(after string, limit int) ([]string, error) {
				all, err := w.Requests(t.Context(), alice, RequestFilter{After: after, Limit: limit})
				return ids(all, func(r policy.Request) string { return r.ID }), err
			},
			"grants": func(after string, limit int) ([]string, error) {
				all, err := w.Grants(t.Context(), alice, GrantFilter{After: after, Limit: limit})
				return ids(all, func(g policy.Grant) string { return g.ID }), err
			},
			"sessions": func(after string, limit int) ([]string, error) {
				all, err := w.Sessions(t.Context(), alice, SessionFilter{After: after, Limit: limit})
				return ids(all, func(s Session) string { return s.ID }), err
			},
		} {
			whole, err := read("", 0)
			if err != nil || len(whole) < 4 {
				t.Fatalf("%s: %d, %v", name, len(whole), err)
			}
			size := max(3, len(whole)/7)
			var turned []string
			for after := ""; ; {
				page, err := read(after, size)
				if err != nil || len(page) > size {
					t.Fatalf("%s: a page of %d: %v", name, len(page), err)
				}
				if turned = append(turned, page...); len(page) < size {
					break
				}
				after = page[size-1]
			}
			if !slices.Equal(turned, whole) {
				t.Errorf("%s by pages: %d, at once: %d", name, len(turned), len(whole))
			}
			if name == "sessions" {
				continue
			}
			for _, after := range []string{whole[0][:1] + theirs[1:], "nothing"} {
				_, err := read(after, 1)
				w.refused(err, CodeNotFound, "")
			}
		}
	})
}

func ids[T any](all []T, id func(T) string) (out []string) {
	for _, x := range all {
		out = append(out, id(x))
	}
	return out
}
