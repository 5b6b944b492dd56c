package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/mysql"
	"github.com/curfewdb/curfew/protocol/postgres"
	"github.com/curfewdb/curfew/recorder"
)

// engines is the map of engines, by the scheme of their targets' URLs. Another one is one folder under
// protocol and one line here.
func engines() map[string]protocol.Kind {
	return map[string]protocol.Kind{
		"mysql":    mysql.Kind(),
		"postgres": postgres.Kind(),
	}
}

// engineNames gives them in order.
func engineNames() []string { return slices.Sorted(maps.Keys(engines())) }

// engineWords are what the configuration has to know of them.
func engineWords() config.Engines {
	words := config.Engines{}
	for name, kind := range engines() {
		words[name] = config.Engine{Aliases: kind.Aliases, Pinned: kind.Pinned, Cleartext: kind.Cleartext}
	}
	return words
}

// dialects are what the recorder has to know of them.
func dialects() map[string]recorder.Dialect {
	all := map[string]recorder.Dialect{}
	for name, kind := range engines() {
		all[name] = kind.Dialect
	}
	return all
}

// engineOfURL finds the engine that a target's URL means.
func engineOfURL(scheme string) (name string, kind protocol.Kind, ok bool) {
	for name, kind := range engines() {
		if name == scheme || slices.Contains(kind.Aliases, scheme) {
			return name, kind, true
		}
	}
	return "", protocol.Kind{}, false
}

// clientsHelp says which client is run for which engine: "psql for postgres".
func clientsHelp() string {
	var words []string
	for _, name := range engineNames() {
		words = append(words, either(engines()[name].Client.Programs)+" for "+name)
	}
	return strings.Join(words, ", ")
}

// either joins words as one says them: "a, b or c".
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
