package harness

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// devClient is the one client of the provider.
const devClient = "curfew-cli"

// Identities is the identity provider of a `curfew dev`, as its clients and its administrator see it.
type Identities struct {
	Issuer string // URL
	Key    []byte
}

// Identities finds the identity provider that this process runs.
func (c *Curfew) Identities() (*Identities, error) {
	text, err := os.ReadFile(filepath.Join(c.Dir, "dev.json"))
	if err != nil {
		return nil, err
	}
	var dev struct{ Issuer, Key string }
	if err := json.Unmarshal(text, &dev); err != nil {
		return nil, err
	}
	key, err := os.ReadFile(dev.Key)
	return &Identities{Issuer: dev.Issuer, Key: bytes.TrimSpace(key)}, err
}

// Tokens are what a device flow ends with.
type Tokens struct {
	Access string `json:"access_token"`
	ID     string `json:"id_token"`
}

// Device runs a device flow as a client does that knows nothing but the issuer: psql 18, say. The identity
// confirms it.
func (i *Identities) Device(ctx context.Context, name, scope string) (Tokens, error) {
	var begun struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		URI        string `json:"verification_uri"`
	}
	err := i.post(ctx, "/device_authorization", url.Values{"client_id": {devClient}, "scope": {scope}}, &begun)
	if err != nil {
		return Tokens{}, err
	}
	if err := i.Confirm(ctx, begun.URI, begun.UserCode, name); err != nil {
		return Tokens{}, err
	}
	var t Tokens
	err = i.post(ctx, "/oauth/token", url.Values{"client_id": {devClient}, "device_code": {begun.DeviceCode},
		"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}}, &t)
	if err == nil && (t.Access == "" || t.ID == "") {
		err = errors.New("the provider gave no tokens")
	}
	return t, err
}

// Confirm is what an identity does at the page that a device flow shows.
func (i *Identities) Confirm(ctx context.Context, page, code, name string) error {
	proof := hmac.New(sha256.New, i.Key)
	proof.Write([]byte(code + "|" + name))
	return i.post(ctx, strings.TrimPrefix(page, i.Issuer), url.Values{"user_code": {code}, "name": {name},
		"action": {"allow"}, "second": {"yes"}, "proof": {hex.EncodeToString(proof.Sum(nil))}}, nil)
}

func (i *Identities) post(ctx context.Context, path string, form url.Values, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.Issuer+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(r, into)
}

// SignOut has the provider tell Curfew's back channel that an identity has signed out.
func (i *Identities) SignOut(ctx context.Context, name string, c *Curfew) error {
	return i.Admin(ctx, "/admin/users/"+name+"/signout", map[string]string{"tell": "http://" + c.API + "/v1/logout/backchannel"})
}

// Rotate gives the provider another signing key.
func (i *Identities) Rotate(ctx context.Context) error { return i.Admin(ctx, "/admin/rotate", nil) }

// Admin calls the provider's administration.
func (i *Identities) Admin(ctx context.Context, path string, body any) error {
	return i.Ask(ctx, path, body, nil)
}

// Ask calls it for an answer.
func (i *Identities) Ask(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.Issuer+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+string(i.Key))
	return do(r, answer)
}

func do(r *http.Request, into any) error {
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", r.Method, r.URL, resp.Status, text)
	}
	if into == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	return json.Unmarshal(text, into)
}
