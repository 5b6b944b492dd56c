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
	Test  bool     // test files import it, and packages that only they import
}

// Plan is docs/ARCHITECTURE.md's table. Test files may import what they need.
func Plan() []Package {
	return []Package{
		{Path: "cmd/curfew", Floor: 5, Owns: "the one binary: a file per command, the wiring, the map of engines", May: []string{"*"}},
		{Path: "control/api", Floor: 4, Owns: "HTTP API and its Go client: the same structs", May: []string{"control", "policy", "auth", "recorder", "recorder/ledger", "recorder/export", "recorder/intended", "recorder/replay"}},
		{Path: "control/web", Floor: 4, Owns: "pages: the decision page that an approver's link opens", May: []string{"control", "policy", "auth", "recorder"}},
		{Path: "control/notify", Floor: 4, Owns: "tells people what happens at the desk", May: []string{"policy", "auth", "store"}},
		{Path: "control", Floor: 4, Owns: "the desk: request, decision, grant, end; logins", May: []string{"policy", "auth", "store", "recorder", "recorder/ledger"}},
		{Path: "proxy", Floor: 3, Owns: "the life of a session, and of a grant on this node", May: []string{"protocol", "recorder", "recorder/ledger", "policy", "auth"}},
		{Path: "store", Floor: 3, Owns: "durable truth: requests, grants, intents, sessions, the ledger", May: []string{"policy", "auth", "recorder", "recorder/ledger"}},
		{Path: "protocol/postgres", Floor: 2, Owns: "everything that knows PostgreSQL", May: []string{"protocol", "protocol/crew", "protocol/relay", "recorder"}},
		{Path: "protocol/postgres/pgtest", Floor: 2, Owns: "a real server for tests", May: []string{"internal/testport"}, Test: true},
		{Path: "protocol/mysql", Floor: 2, Owns: "everything that knows MySQL and MariaDB", May: []string{"protocol", "protocol/crew", "protocol/relay", "recorder"}},
		{Path: "protocol/mysql/mysqltest", Floor: 2, Owns: "a real server for tests", May: []string{"internal/testport"}, Test: true},
		{Path: "protocol/crew", Floor: 2, Owns: "the sessions of one account and what became of their backends", May: []string{"protocol"}},
		{Path: "protocol/relay", Floor: 2, Owns: "the one hot loop, shared by the engines", May: []string{"recorder"}},
		{Path: "protocol/enginetest", Floor: 2, Owns: "the conformance suite that every engine passes", May: []string{"protocol", "recorder"}},
		{Path: "protocol", Floor: 2, Owns: "the contract between Curfew and an engine", May: []string{"recorder"}},
		{Path: "policy", Floor: 2, Owns: "rules, requests, grants as pure functions", May: []string{"auth"}},
		{Path: "recorder/export", Floor: 1, Owns: "bundles: writing them and verifying them offline", May: []string{"recorder", "recorder/intended", "recorder/ledger"}},
		{Path: "recorder/intended", Floor: 1, Owns: "what was run, held against what was to be run", May: []string{"recorder"}},
		{Path: "recorder/replay", Floor: 1, Owns: "a recording, readable in a terminal", May: []string{"recorder"}},
		{Path: "recorder/ledger", Floor: 1, Owns: "entries, leaves and signed checkpoints", May: []string{"recorder"}},
		{Path: "recorder", Floor: 1, Owns: "events, files, seals"},
		{Path: "auth", Floor: 1, Owns: "identities: OIDC verification, session tokens"},
		{Path: "internal/config", Floor: 0, Owns: "the two strict YAML files", May: []string{"policy", "auth", "recorder"}},
		{Path: "internal/layers", Floor: 0, Owns: "this plan"},
		{Path: "internal/provider", Floor: 0, Owns: "the embedded OIDC provider of curfew dev and of tests"},
		{Path: "internal/testport", Floor: 0, Owns: "ports for the servers of tests", Test: true},
	}
}
