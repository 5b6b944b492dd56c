package postgres

import (
	"context"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// Kind is the engine, as the map of engines has it.
func Kind() protocol.Kind {
	return protocol.Kind{
		Aliases:   []string{"postgresql"},
		Cleartext: true,
		NewFront: func(c protocol.ListenerConfig) (protocol.Front, error) {
			return NewFront(FrontConfig{TLS: c.TLS, RequireTLS: c.RequireTLS, Cleartext: c.Cleartext, MaxMessage: c.MaxMessage, DecoyKey: c.DecoyKey, Log: c.Log}), nil
		},
		New: func(ctx context.Context, c protocol.TargetConfig) (protocol.Engine, error) {
			e, err := New(ctx, Config{Target: c.Name, URL: c.URL, Password: c.Password, Installation: c.Installation, Log: c.Log, Step: c.Step})
			if err != nil {
				return nil, err // a nil *Engine must not become an Engine that is not nil
			}
			return e, nil
		},
		Dialect: recorder.DialectDollars,
		Client:  stockClient(),
		Trial: protocol.Trial{
			Example: "postgres://postgres@localhost:5432/orders",
			Port:    6432,
			Admin:   Admin,
			Starter: func(_, reader, writer string) (string, error) { return Starter(reader, writer) },
			Apply:   Apply, BrokerURL: BrokerURL,
		},
	}
}
