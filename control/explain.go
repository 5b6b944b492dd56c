package control

import (
	"context"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// Explain says what would come of an ask now: by the policy in force, with the login and the past of whoever
// asks. about names somebody else, by e-mail or "issuer#subject", as they last logged in: that is for who may read every
// target's recordings, who also reads about every rule. Anybody else reads about the rules that are for them. Nothing
// is asked by it: no ticket is confirmed, and nothing is written.
func (d *Desk) Explain(ctx context.Context, who auth.Identity, about string, ask policy.Ask) (policy.Explanation, error) {
	if err := nobody(who); err != nil {
		return policy.Explanation{}, err
	}
	if err := plain(ask); err != nil {
		return policy.Explanation{}, err
	}
	p := d.Policy()
	reads := p.MayRead(who, "*")
	of := who
	var past policy.Facts
	err := d.store.View(ctx, func(tx *store.Tx) (err error) {
		if about != "" && !called(who, about) {
			if !reads {
				return &Error{Code: CodeForbidden, Public: "only readers of every target may ask about somebody else", Next: "leave out who it is about: it is you then"}
			}
			if of, err = lastSeen(tx, about); err != nil {
				return err
			}
		}
		now := moment(tx)
		if past, err = facts(tx, of, now); err != nil || !ask.BreakGlass || past.Debt {
			return err
		}
		past.Debt, err = debtElsewhere(tx, of)
		return err
	})
	if err != nil {
		return policy.Explanation{}, failed(err, "target", ask.Target)
	}
	e := p.Explain(of, ask, past, d.store.Now())
	if !reads {
		p.Withhold(&e, who)
	}
	return e, nil
}

// called reports whether a name is somebody's.
func called(id auth.Identity, name string) bool {
	return name == id.Key() || id.Email != "" && strings.EqualFold(name, id.Email)
}

// lastSeen is somebody as they last logged in.
func lastSeen(tx *store.Tx, name string) (id auth.Identity, err error) {
	logins, err := tx.Logins("") // the newest first
	if err != nil {
		return id, err
	}
	logins = slices.DeleteFunc(logins, func(l store.Login) bool { return !called(l.Identity, name) })
	if len(logins) == 0 {
		return id, &Error{Code: CodeNotFound, Public: "nobody of this name is logged in",
			Next: "name them by their e-mail, or say what is known of them: curfew policy explain --policy FILE --as NAME --group GROUP"}
	}
	id = logins[0].Identity
	for _, l := range logins {
		if l.Identity.Key() != id.Key() {
			return id, &Error{Code: CodeConflict, Public: "several people have this e-mail", Next: "say which: " + id.Key() + " or " + l.Identity.Key()}
		}
	}
	return id, nil
}
