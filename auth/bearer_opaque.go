package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// opaque asks the issuer about a token that says nothing itself.
func (b *Bearer) opaque(ctx context.Context, raw string) (Token, error) {
	if !plausible(raw) {
		return Token{}, badToken("it is no token")
	}
	d, err := b.source.described(ctx)
	if err != nil {
		return Token{}, err
	}
	switch b.take.Opaque {
	case OpaqueIntrospection:
		return b.introspect(ctx, d, raw)
	case OpaqueUserinfo:
		return b.whose(ctx, d, raw)
	}
	return Token{}, badToken("it is not a signed one (JWT), and no others are taken here")
}

// plausible: RFC 6750's b64token, in which nothing can stand that means something elsewhere.
func plausible(raw string) bool {
	body := strings.TrimRight(raw, "=")
	return body != "" && strings.IndexFunc(body, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~+/", r)
	}) < 0
}

// introspect is RFC 7662.
func (b *Bearer) introspect(ctx context.Context, d description, raw string) (Token, error) {
	if d.Introspection == "" {
		return Token{}, fmt.Errorf("the issuer %s has no introspection endpoint", b.cfg.URL)
	}
	all, status, err := b.ask(ctx, http.MethodPost, d.Introspection, "", func(form url.Values) (basic bool) {
		form.Set("token", raw)
		form.Set("token_type_hint", "access_token")
		if len(d.IntrospectionAuth) == 0 || slices.Contains(d.IntrospectionAuth, "client_secret_basic") {
			return true
		}
		form.Set("client_id", b.cfg.ClientID)
		form.Set("client_secret", b.cfg.ClientSecret)
		return false
	})
	switch {
	case err != nil:
		return Token{}, err
	case status != http.StatusOK:
		// That Curfew may not ask is nothing that the person can help.
		return Token{}, fmt.Errorf("%w: %s: its introspection endpoint answered %d", ErrUnreachable, b.cfg.URL, status)
	case string(all["active"]) != "true":
		return Token{}, badToken("the identity provider does not call it active")
	}
	return b.introspected(all)
}

func (b *Bearer) introspected(all map[string]json.RawMessage) (Token, error) {
	if iss, ok := all["iss"]; ok && stringOf(iss) != b.cfg.URL {
		return Token{}, badToken("it was issued by %.100q", stringOf(iss))
	}
	if typ := strings.ToLower(stringOf(all["token_type"])); strings.Contains(typ, "refresh") || typ == "dpop" {
		return Token{}, badToken("a token of the type %.40q lets nobody in", typ)
	}
	if _, ok := all["aud"]; ok {
		if err := b.meant(all); err != nil {
			return Token{}, err
		}
	} else if err := b.given(all); err != nil {
		return Token{}, err
	} else if len(b.take.Clients) == 0 && !slices.Contains(b.take.Audiences, clientOf(all)) {
		return Token{}, badToken("the identity provider does not say whom it was made for (aud)")
	}
	subject := stringOf(all["sub"])
	if subject == "" || len(subject) > longestSubject {
		return Token{}, badToken("the identity provider does not say whose it is")
	}
	t := Token{Client: clientOf(all), Expires: time.Now().Add(tokenKept), session: stringOf(all["sid"])}
	for name, at := range map[string]*time.Time{"exp": &t.Expires, "iat": &t.Issued} {
		var sec int64
		if raw, ok := all[name]; ok && json.Unmarshal(raw, &sec) == nil && sec > 0 {
			*at = time.Unix(sec, 0).UTC()
		}
	}
	if !time.Now().Add(-skew).Before(t.Expires) {
		return Token{}, badToken("it has expired%s", because(b.of.clock.apartBy(0)))
	}
	var err error
	t.Identity, err = b.identify(subject, all)
	return t, err
}

// whose asks the userinfo endpoint, which answers whoever has a token.
func (b *Bearer) whose(ctx context.Context, d description, raw string) (Token, error) {
	if d.Userinfo == "" {
		return Token{}, fmt.Errorf("the issuer %s has no userinfo endpoint", b.cfg.URL)
	}
	all, status, err := b.ask(ctx, http.MethodGet, d.Userinfo, raw, nil)
	if err != nil {
		return Token{}, err
	}
	subject := stringOf(all["sub"])
	if status != http.StatusOK || subject == "" || len(subject) > longestSubject {
		return Token{}, badToken("the identity provider does not know it")
	}
	id, err := b.identify(subject, all)
	return Token{Identity: id, Expires: time.Now().Add(tokenKept)}, err
}

// ask asks the issuer one thing, and gives the JSON object that it answers with 200. An issuer that is busy
// or broken can't be reached.
func (b *Bearer) ask(ctx context.Context, method, to, bearer string, fill func(url.Values) (basic bool)) (map[string]json.RawMessage, int, error) {
	select {
	case b.asks <- struct{}{}:
		defer func() { <-b.asks }()
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("%w: too many questions wait for it", ErrUnreachable)
	}
	form, basic := url.Values{}, false
	if fill != nil {
		basic = fill(form)
	}
	r, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, 0, err
	}
	r.Header.Set("Accept", "application/json")
	switch {
	case bearer != "":
		r.Header.Set("Authorization", "Bearer "+bearer)
	case basic:
		r.SetBasicAuth(url.QueryEscape(b.cfg.ClientID), url.QueryEscape(b.cfg.ClientSecret))
	}
	if fill != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return answerOf(b.client, r)
}

// answerOf does a request whose answer is a JSON object.
func answerOf(client *http.Client, r *http.Request) (map[string]json.RawMessage, int, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, 0, transportError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
		return nil, 0, fmt.Errorf("%w: %s answered %s", ErrUnreachable, r.URL.Redacted(), resp.Status)
	}
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, resp.Body) // it says nothing that we need
		return nil, resp.StatusCode, nil
	}
	all := map[string]json.RawMessage{}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, 0, fmt.Errorf("%w: %s answered no JSON object: %w", ErrUnreachable, r.URL.Redacted(), err)
	}
	return all, resp.StatusCode, nil
}
