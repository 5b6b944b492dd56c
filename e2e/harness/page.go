package harness

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/curfewdb/curfew/internal/provider"
)

// Browser is a person's: it has cookies, follows links and sends forms, and runs no script.
type Browser struct {
	Name   string // the demo identity that sits before it
	At     string // the issuer at which they log in, where there is a choice; empty: the first
	curfew *Curfew
	client *http.Client
}

// Browser gives somebody a browser without any login.
func (c *Curfew) Browser(name string) (*Browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &Browser{Name: name, curfew: c, client: &http.Client{Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Passcode is what everybody logs in with in a browser.
func (c *Curfew) Passcode() (string, error) {
	key, err := os.ReadFile(filepath.Join(c.Dir, "identities.key"))
	return strings.TrimSpace(string(key)), err
}

var (
	loginLink = regexp.MustCompile(`href="(/web/login\?[^"]*)"`)
	formField = regexp.MustCompile(`name="form" value="([^"]+)"`)
)

// Open goes to a page, logging in on the way wherever that is asked, and gives what is to be read there.
func (b *Browser) Open(ctx context.Context, address string) (string, error) {
	base, err := url.Parse("http://" + b.curfew.API)
	if err != nil {
		return "", err
	}
	passcode, err := b.curfew.Passcode()
	if err != nil {
		return "", err
	}
	for range 8 {
		at, err := base.Parse(address)
		if err != nil {
			return "", err
		}
		if at.Host != base.Host { // the identity provider
			q, err := provider.LoginAs(ctx, at.String(), []byte(passcode), b.Name)
			if err != nil {
				return "", err
			}
			address = "/web/callback?" + q.Encode()
			continue
		}
		res, page, err := b.ask(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return "", err
		}
		if to := res.Header.Get("Location"); to != "" {
			address = to
			continue
		}
		if to := b.door(page); to != "" {
			address = to
			continue
		}
		if res.StatusCode != http.StatusOK {
			return page, fmt.Errorf("%s answered %s:\n%s", at, res.Status, page)
		}
		return page, nil
	}
	return "", errors.New("the pages lead in a circle")
}

// door is the way to log in that a page offers.
func (b *Browser) door(page string) string {
	for _, m := range loginLink.FindAllStringSubmatch(page, -1) {
		if to := html.UnescapeString(m[1]); strings.Contains(to, url.QueryEscape(b.At)) {
			return to
		}
	}
	return ""
}

// Decide sends the form of a request's page, which Open gave.
func (b *Browser) Decide(ctx context.Context, page, request string, approve bool, comment string) (string, error) {
	token := Form(page)
	if token == "" {
		return page, errors.New("the page has no form")
	}
	word := "deny"
	if approve {
		word = "approve"
	}
	form := url.Values{"form": {token}, "decision": {word}, "comment": {comment}}
	res, page, err := b.ask(ctx, http.MethodPost, "http://"+b.curfew.API+"/web/requests/"+request, form)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the form was answered %s:\n%s", res.Status, page)
	}
	return page, err
}

// Try sends whatever somebody may make a browser send, with headers of their own, and gives what comes back.
func (b *Browser) Try(ctx context.Context, method, path string, form url.Values, headers ...string) (*http.Response, string, error) {
	return b.ask(ctx, method, "http://"+b.curfew.API+path, form, headers...)
}

// Form is the token of the form on a page.
func Form(page string) string {
	if m := formField.FindStringSubmatch(page); m != nil {
		return html.UnescapeString(m[1])
	}
	return ""
}

func (b *Browser) ask(ctx context.Context, method, address string, form url.Values, headers ...string) (*http.Response, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, "", err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := b.client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res, string(body), err
}
