package mysql

import (
	"context"
	"errors"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// Kind is the engine, as the map of engines has it.
func Kind() protocol.Kind {
	return protocol.Kind{
		Aliases: []string{"mariadb"},
		Pinned:  true,
		NewFront: func(c protocol.ListenerConfig) (protocol.Front, error) {
			e, ok := c.Engine.(*Engine)
			if !ok {
				return nil, errors.New("it serves one target, whose version stands in the greeting, and is told of none")
			}
			return NewFront(FrontConfig{Engine: e, TLS: c.TLS, RequireTLS: c.RequireTLS, MaxMessage: c.MaxMessage, DecoyKey: c.DecoyKey, Log: c.Log}), nil
		},
		New: func(ctx context.Context, c protocol.TargetConfig) (protocol.Engine, error) {
			e, err := New(ctx, Config{Target: c.Name, URL: c.URL, Password: c.Password, Installation: c.Installation, Log: c.Log, Step: c.Step})
			if err != nil {
				return nil, err // a nil *Engine must not become an Engine that is not nil
			}
			return e, nil
		},
		Dialect: recorder.DialectBackslashes,
		Client:  stockClient(),
		Trial: protocol.Trial{
			Example: "mysql://root@localhost:3306/shop",
			Port:    7306,
			Admin:   Admin,
			Starter: Starter,
			Apply:   Apply, BrokerURL: BrokerURL,
		},
	}
}
