package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
)

// Client is the API with the login that a person made at their terminal: for what is done by the hundred,
// where a process each would be what is measured.
func Client(p *harness.Person) (*api.Client, error) {
	text, err := os.ReadFile(filepath.Join(p.Home, "session.json"))
	if err != nil {
		return nil, err
	}
	var login struct{ Server, Token string }
	if err := json.Unmarshal(text, &login); err != nil {
		return nil, fmt.Errorf("%s's login: %w", p.Name, err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &api.Client{Server: login.Server, Token: login.Token, HTTP: &http.Client{Transport: transport}}, nil
}

// Grant asks for access and has it approved, and gives what a stock client needs to use it.
func Grant(ctx context.Context, asker, approver *api.Client, target, level string, d time.Duration) (api.Grant, api.Credentials, error) {
	r, err := asker.Ask(ctx, api.Ask{Target: target, Level: level, Duration: api.Duration(d), Reason: "load"})
	if err != nil {
		return api.Grant{}, api.Credentials{}, err
	}
	if r, err = approver.Approve(ctx, r.ID, ""); err != nil {
		return api.Grant{}, api.Credentials{}, err
	}
	if r.Grant == "" {
		return api.Grant{}, api.Credentials{}, fmt.Errorf("request %s is %s after an approval", r.ID, r.Status)
	}
	g, err := asker.Grant(ctx, r.Grant)
	if err != nil {
		return g, api.Credentials{}, err
	}
	c, err := asker.Password(ctx, g.ID)
	return g, c, err
}

// Receipt waits until a grant's receipt is whole.
func Receipt(ctx context.Context, c *api.Client, grant string, patience time.Duration) (api.Receipt, error) {
	var r api.Receipt
	err := harness.Eventually(ctx, patience, func(ctx context.Context) error {
		g, err := c.Grant(ctx, grant)
		switch {
		case err != nil:
			return err
		case g.Receipt == nil || len(g.Receipt.Clean) == 0:
			return fmt.Errorf("the receipt of %s is not whole", grant)
		}
		r = *g.Receipt
		return nil
	})
	return r, err
}
