package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/policy"
)

// mostNamed bounds how many grants one sentence lists.
const mostNamed = 5

// GrantFor gives the one grant that somebody may use now who has shown who they are, and nothing else: of
// theirs, on the targets that serves admits, the one that choice names by its id or by its target. Memory
// alone is asked. Of several none is taken by guess: the error lists them.
func (d *Desk) GrantFor(who auth.Identity, choice string, serves func(target string) bool) (policy.Grant, error) {
	var active, later, others []policy.Grant
	for _, l := range d.living() {
		g := l.grant
		if !g.Identity.Same(who) || !serves(g.Target) {
			continue
		}
		switch now, err := d.usable(g.ID); {
		case err != nil && d.store.Now().Before(g.Start):
			later = append(later, g)
		case err != nil: // it has ended this instant
		case choice == "" || choice == g.ID || choice == g.Target:
			active = append(active, now)
		default:
			others = append(others, now)
		}
	}
	if len(active) == 1 {
		return active[0], nil
	}
	return policy.Grant{}, notOne(who, choice, active, later, others)
}

// usable gives a grant as of now if it may be used.
func (d *Desk) usable(id string) (policy.Grant, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, err := d.active(id)
	if err != nil {
		return policy.Grant{}, err
	}
	return l.grant, nil
}

// notOne says why there is not one grant to use, and what to do about it.
func notOne(who auth.Identity, choice string, active, later, others []policy.Grant) *Error {
	e := &Error{Code: CodeConflict, Next: "ask: curfew request TARGET --level LEVEL; curfew targets lists what there is"}
	switch {
	case len(active) > 1:
		e.Public = fmt.Sprintf("you have %d active grants here: %s", len(active), listed(active))
		e.Next = "say which: " + named(who, active[0].ID)
	case len(others) > 0:
		e.Public = fmt.Sprintf("you have no active grant %.40q here, but %s", choice, listed(others))
		e.Next = fmt.Sprintf("name one, %s, or ask: curfew request TARGET --level LEVEL", named(who, others[0].ID))
	case len(later) > 0:
		first := slices.MinFunc(later, func(a, b policy.Grant) int { return a.Start.Compare(b.Start) })
		e.Public = fmt.Sprintf("your grant %s on %s begins at %s", first.ID, first.Target, first.Start.UTC().Format("2006-01-02 15:04 UTC"))
		e.Next = "connect again then"
	default:
		e.Public = who.Label() + " has no active grant here"
	}
	return e
}

// named is the user name by which somebody chooses a grant. It is the same whichever way the token comes.
func named(who auth.Identity, grant string) string {
	if who.Email == "" {
		return fmt.Sprintf("oauth:%s or token:%s", grant, grant)
	}
	return fmt.Sprintf("%s/%s", who.Email, grant)
}

// listed names grants in a sentence, in the same order each time.
func listed(grants []policy.Grant) string {
	slices.SortFunc(grants, func(a, b policy.Grant) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.ID, b.ID))
	})
	var words []string
	for _, g := range grants[:min(len(grants), mostNamed)] {
		words = append(words, fmt.Sprintf("%s (%s, %s, until %s)", g.ID, g.Target, g.Level, clockTime(g.End)))
	}
	if more := len(grants) - mostNamed; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return strings.Join(words, ", ")
}
