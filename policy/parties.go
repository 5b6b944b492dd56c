package policy

import (
	"slices"

	"github.com/curfewdb/curfew/auth"
)

// Needed is how many distinct people must agree: as many as the count says, and as there are parties.
func (a Approvals) Needed() int {
	if a.Count < 0 {
		return a.Count
	}
	return max(a.Count, len(a.Parties))
}

// selects reports whether somebody is one of those who may agree.
func (a Approvals) selects(who auth.Identity) bool {
	return a.From.Matches(who) || slices.ContainsFunc(a.Parties, func(w Who) bool { return w.Matches(who) })
}

// unheard gives the parties for which nobody stands when these people are shared out as well as can be: a
// person stands for one party, whatever number of them they are in. It is a matching in a bipartite graph,
// made larger by one augmenting path a party (Kuhn).
func (a Approvals) unheard(people []auth.Identity) []Who {
	stands := make([]int, len(people)) // the party that each person stands for, from 1
	var seat func(party int, asked []bool) bool
	seat = func(party int, asked []bool) bool {
		for i, who := range people {
			if asked[i] || !a.Parties[party].Matches(who) {
				continue
			}
			asked[i] = true
			if stands[i] == 0 || seat(stands[i]-1, asked) {
				stands[i] = party + 1
				return true
			}
		}
		return false
	}
	var missing []Who
	for party := range a.Parties {
		if !seat(party, make([]bool, len(people))) {
			missing = append(missing, a.Parties[party])
		}
	}
	return missing
}

// approvers gives the people who have approved, each once, as they were then. The requester is none.
func (r Request) approvers() (people []auth.Identity) {
	for _, d := range r.Decisions {
		known := func(id auth.Identity) bool { return id.SameHuman(d.Identity) }
		if d.Approve && d.Identity.Subject != "" && !d.Identity.SameHuman(r.Identity) && !slices.ContainsFunc(people, known) {
			people = append(people, d.Identity)
		}
	}
	return people
}

// Lacking says how many more people must agree, and the parties for which nobody stands yet.
func Lacking(r Request) (people int, parties []Who) {
	agreed := r.approvers()
	parties = r.Approvals.unheard(agreed)
	return max(r.Approvals.Needed()-len(agreed), len(parties), 0), parties
}
