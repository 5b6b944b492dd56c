package policy

import "github.com/curfewdb/curfew/auth"

// Recalls reports whether Judge may look at the grants that somebody had before (Facts.Grants) when it judges
// this ask. If not, they need not be known.
func (p *Policy) Recalls(who auth.Identity, ask Ask) bool {
	a := &asking{policy: p, who: who, ask: ask, target: p.Targets[ask.Target]}
	for i := range p.Rules {
		if r := &p.Rules[i]; r.When != nil && r.When.recalls && r.fits(a) == missNone {
			return true
		}
	}
	return false
}

// Ask is what the request was made of.
func (r Request) Ask() Ask {
	return Ask{
		Target: r.Target, Level: r.Level, Duration: r.Duration, Start: r.Start, Reason: r.Reason,
		Ticket: r.Ticket, SQL: r.SQL, BreakGlass: r.BreakGlass,
	}
}
