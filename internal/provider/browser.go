package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// LoginAs goes the way of a browser from authURL to the redirect, proving name with the key instead of
// typing the passcode, and returns the query the redirect carries (code, state). Nothing needs to listen
// at the redirect URI. The second factor is used if authURL asks for it. This is `curfew login --as`.
func LoginAs(ctx context.Context, authURL string, key []byte, name string) (url.Values, error) {
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	// The proof is good for whoever relays it to the provider in time: it goes to this machine only.
	if u, err := url.Parse(authURL); err != nil || !loopback(u.Hostname()) {
		return nil, errors.New("demo identities log in to a provider on this machine only")
	}
	page, err := step(ctx, c, authURL, nil)
	if err != nil {
		return nil, err
	}
	if !loopback(page.Hostname()) {
		return nil, errors.New("demo identities log in to a provider on this machine only")
	}
	id := page.Query().Get("id")
	if id == "" {
		return nil, fmt.Errorf("the provider refused to begin a login: %s", page.Query().Get("error"))
	}
	form := url.Values{"id": {id}, "name": {name}, "proof": {Prove(key, id, name)}}
	if u, err := url.Parse(authURL); err == nil && slices.Contains(strings.Fields(u.Query().Get("acr_values")), ACR) {
		form.Set("second", "yes")
	}
	back, err := step(ctx, c, page.ResolveReference(&url.URL{Path: "/login"}).String(), form)
	if err != nil {
		return nil, fmt.Errorf("log in as %s: %w", name, err)
	}
	redirect, err := step(ctx, c, back.String(), nil)
	if err != nil {
		return nil, err
	}
	return redirect.Query(), nil
}

// ConfirmDevice says yes to a device login as name, as the page at verificationURI would, with the second
// factor or without.
func ConfirmDevice(ctx context.Context, verificationURI, userCode string, key []byte, name string, second bool) error {
	code := normal(userCode)
	form := url.Values{"user_code": {code}, "name": {name}, "proof": {Prove(key, code, name)}, "action": {"allow"}}
	if second {
		form.Set("second", "yes")
	}
	resp, err := ask(ctx, http.DefaultClient, verificationURI, form)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("confirm the device as %s: the provider answered %s", name, resp.Status)
	}
	return nil
}

// step makes one request and returns where it redirects to.
func step(ctx context.Context, c *http.Client, to string, form url.Values) (*url.URL, error) {
	resp, err := ask(ctx, c, to, form)
	if err != nil {
		return nil, err
	}
	next, err := resp.Location()
	if errors.Is(err, http.ErrNoLocation) {
		return nil, fmt.Errorf("the provider answered %s", resp.Status)
	}
	return next, err
}

func ask(ctx context.Context, c *http.Client, to string, form url.Values) (*http.Response, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp, resp.Body.Close()
}
