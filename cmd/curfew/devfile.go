package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/provider"
)

// devFile is dev.json: where a running `curfew dev` can be found. curfew dev writes it into its directory.
type devFile struct {
	API       string            `json:"api"`          // the API's address
	Issuer    string            `json:"issuer"`       // the embedded provider's
	Key       string            `json:"key"`          // path of the identities' key
	CA        string            `json:"ca,omitempty"` // path of the CA that vouches for the listeners
	Listeners map[string]string `json:"listeners"`    // host:port of each target's
}

const devFileName = "dev.json"

// devDir is where curfew dev keeps everything: CURFEW_DEV, or .curfew-dev in the home directory.
func (a *app) devDir() (string, error) {
	if dir := a.env("CURFEW_DEV"); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", problem(exitFailed, "failed", "no place for curfew dev's files: "+err.Error(), "set CURFEW_DEV to a directory of your own")
	}
	return filepath.Join(home, ".curfew-dev"), nil
}

func (a *app) loadDev() (devFile, error) {
	var d devFile
	dir, err := a.devDir()
	if err != nil {
		return d, err
	}
	path := filepath.Join(dir, devFileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, problem(exitUnreachable, api.CodeUnreachable, "--as is for curfew dev, and none runs with its files in "+dir,
			"start it: curfew dev (or say where its files are: CURFEW_DEV)")
	}
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, problem(exitFailed, "failed", path+" can't be read: "+err.Error(), "start curfew dev again")
	}
	return d, nil
}

// loginAs plays the browser at the embedded provider, and proves itself with the identities' key.
func (a *app) loginAs(ctx context.Context, c *api.Client, dev devFile, name string, start api.LoginStart) (api.LoggedIn, error) {
	key, err := provider.ReadKey(dev.Key)
	if err != nil {
		return api.LoggedIn{}, err
	}
	// Nobody needs to listen there: the redirect is read, not followed.
	start.Issuer, start.Flow, start.RedirectURI = first(start.Issuer, dev.Issuer), "code", "http://127.0.0.1:1/callback"
	started, err := c.StartLogin(ctx, start)
	if err != nil {
		return api.LoggedIn{}, err
	}
	q, err := provider.LoginAs(ctx, started.AuthURL, key, name)
	if err != nil {
		return api.LoggedIn{}, problem(exitLogin, api.CodeUnauthenticated, err.Error(), "curfew dev's identities are alice, dana, bob and sam")
	}
	return finishCode(ctx, c, started, q)
}
