package store

import (
	"errors"
	"testing"
	"time"
)

// Notices come in the order in which they happened, wait for the slowest destination, and live through a restart.
func TestNotices(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.Notify(Notice{Kind: NoticeRequestCreated, Request: "r1"}), tx.Notify(Notice{Kind: NoticeGrantEnded, Grant: "g1", Text: "<b>"}))
	})
	failed := errors.New("something else went wrong")
	if err := s.Update(t.Context(), func(tx *Tx) error {
		return errors.Join(tx.Notify(Notice{Kind: NoticeRequestCreated, Request: "r2"}), failed)
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	due := time.Now().Add(time.Minute).UTC().Truncate(time.Microsecond)
	update(t, s, func(tx *Tx) error { return tx.PutDestination(Destination{Name: "chat", N: 1, Tries: 2, Due: due}) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	update(t, s, func(tx *Tx) error {
		all, err := tx.Notices(0, 10)
		if err != nil || len(all) != 2 || all[0].Request != "r1" || all[1].Grant != "g1" || all[1].Text != "<b>" || all[0].ID == all[1].ID ||
			all[0].ID == "" || all[0].Created.IsZero() || all[0].N >= all[1].N {
			t.Errorf("notices: %+v, %v", all, err)
		}
		if later, err := tx.Notices(all[0].N, 10); err != nil || len(later) != 1 || later[0].ID != all[1].ID {
			t.Errorf("behind the first: %+v, %v", later, err)
		}
		if d, err := tx.Destination("chat"); err != nil || d.N != 1 || d.Tries != 2 || !d.Due.Equal(due) {
			t.Errorf("destination: %+v, %v", d, err)
		}
		if _, err := tx.Destination("new"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a destination that never was: %v", err)
		}
		if err := tx.ForgetNotices(all[1].N, time.Time{}); err != nil {
			return err
		}
		if n, err := tx.LastNotice(); err != nil || n != all[1].N {
			t.Errorf("the last: %d, %v", n, err)
		}
		left, err := tx.Notices(0, 10)
		if len(left) != 0 {
			t.Errorf("left: %+v", left)
		}
		return err
	})
}

// What waits is bounded: the oldest gives way.
func TestNoticesAreBounded(t *testing.T) {
	s := open(t, t.TempDir())
	update(t, s, func(tx *Tx) error {
		for range mostNotices + 5 {
			if err := tx.Notify(Notice{Kind: NoticeRequestCreated}); err != nil {
				return err
			}
		}
		all, err := tx.Notices(0, 2*mostNotices)
		if len(all) != mostNotices || all[0].N != 6 {
			t.Errorf("%d, from %d", len(all), all[0].N)
		}
		return err
	})
}

// A link is good for one person, once, and until its request's time is over.
func TestLinks(t *testing.T) {
	s := open(t, t.TempDir())
	good, late := []byte("good"), []byte("late")
	update(t, s, func(tx *Tx) error {
		in := tx.Now().Add(time.Hour)
		return errors.Join(tx.PutLink(Link{Hash: good, Request: "r1", Expires: in}), tx.PutLink(Link{Hash: late, Request: "r1", Expires: tx.Now()}))
	})
	update(t, s, func(tx *Tx) error {
		if l, err := tx.UseLink(good, bob.Key()); err != nil || l.Request != "r1" || l.Person != bob.Key() || l.Used.IsZero() {
			t.Errorf("used: %+v, %v", l, err)
		}
		// Written again by a sender that tries once more, it does not come back to life.
		return tx.PutLink(Link{Hash: good, Request: "r1", Expires: tx.Now().Add(time.Hour)})
	})
	update(t, s, func(tx *Tx) error {
		for name, c := range map[string]struct {
			hash []byte
			want error
		}{"a second time": {good, ErrUsed}, "too late": {late, ErrNotFound}, "made up": {[]byte("other"), ErrNotFound}} {
			if _, err := tx.UseLink(c.hash, alice.Key()); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if l, err := tx.Link(good); err != nil || l.Person != bob.Key() {
			t.Errorf("%+v, %v", l, err)
		}
		return tx.ForgetLinks(tx.Now().Add(30 * time.Minute))
	})
	update(t, s, func(tx *Tx) error {
		if _, err := tx.Link(late); !errors.Is(err, ErrNotFound) {
			t.Errorf("forgotten: %v", err)
		}
		_, err := tx.Link(good)
		return err
	})
}
