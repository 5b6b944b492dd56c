// Package layers holds the house's floor plan as data: every package of the module, its floor, and
// which of our packages it may import. Its test reads the imports of the real packages and fails on
// an arrow that points up or is not listed, and on a package that has no place in the plan.
//
// A new package starts here: the line that lists it says what part of the story it is.
package layers

// Module is the import path that the packages of the plan stand below.
const Module = "github.com/curfewdb/curfew"

// Package is one line of the plan.
type Package struct {
	Path  string   // below the module
	Floor int      // arrows point to the same floor or down; 0: beside the floors
	Owns  string   // which part of the story
	May   []string // the packages of ours that it may import; "*" is all
}

// Plan is docs/ARCHITECTURE.md's table. Test files may import what they need.
func Plan() []Package {
	return []Package{
		{"cmd/curfew", 5, "the one binary: a file per command, the wiring, the map of engines", []string{"*"}},
		{"control/api", 4, "HTTP API and its Go client: the same structs", []string{"control", "policy", "auth", "recorder", "recorder/ledger", "recorder/export", "recorder/replay"}},
		{"control", 4, "the desk: request, decision, grant, end; logins", []string{"policy", "auth", "store", "recorder", "recorder/ledger"}},
		{"proxy", 3, "the life of a session, and of a grant on this node", []string{"protocol", "recorder", "recorder/ledger", "policy", "auth"}},
		{"store", 3, "durable truth: requests, grants, intents, sessions, the ledger", []string{"policy", "auth", "recorder", "recorder/ledger"}},
		{"protocol/postgres", 2, "everything that knows PostgreSQL", []string{"protocol", "protocol/relay", "recorder"}},
		{"protocol/relay", 2, "the one hot loop, shared by the engines", []string{"recorder"}},
		{"protocol/enginetest", 2, "the conformance suite that every engine passes", []string{"protocol", "recorder"}},
		{"protocol", 2, "the contract between Curfew and an engine", []string{"recorder"}},
		{"policy", 2, "rules, requests, grants as pure functions", []string{"auth"}},
		{"recorder/export", 1, "bundles: writing them and verifying them offline", []string{"recorder", "recorder/ledger"}},
		{"recorder/replay", 1, "a recording, readable in a terminal", []string{"recorder"}},
		{"recorder/ledger", 1, "entries, leaves and signed checkpoints", []string{"recorder"}},
		{"recorder", 1, "events, files, seals", nil},
		{"auth", 1, "identities: OIDC verification, session tokens", nil},
		{"internal/config", 0, "the two strict YAML files", []string{"policy", "auth", "recorder"}},
		{"internal/layers", 0, "this plan", nil},
		{"internal/provider", 0, "the embedded OIDC provider of curfew dev and of tests", nil},
	}
}
