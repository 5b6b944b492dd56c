package main

import (
	"context"
	"crypto/tls"
	"log/slog"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/protocol/postgres"
)

// engine is one kind of database. Another one is one folder under protocol and one entry in engines.
type engine struct {
	front func(frontConfig) protocol.Front
	guard func(context.Context, targetConfig) (protocol.Engine, error)
	port  string // where its servers listen by default
}

// frontConfig is one listener, whatever its engine.
type frontConfig struct {
	tls        *tls.Config
	requireTLS bool
	decoy      []byte
	log        *slog.Logger
}

// targetConfig is one target, whatever its engine.
type targetConfig struct {
	name, url, password, installation string
	log                               *slog.Logger
	step                              protocol.Step
}

// engines is the map of engines, by the scheme of their targets' URLs.
func engines() map[string]engine {
	return map[string]engine{
		"postgres": {
			port: "5432",
			front: func(c frontConfig) protocol.Front {
				return postgres.NewFront(postgres.FrontConfig{TLS: c.tls, RequireTLS: c.requireTLS, DecoyKey: c.decoy, Log: c.log})
			},
			guard: func(ctx context.Context, c targetConfig) (protocol.Engine, error) {
				return postgres.New(ctx, postgres.Config{Target: c.name, URL: c.url, Password: c.password,
					Installation: c.installation, Log: c.log, Step: c.step})
			},
		},
	}
}
