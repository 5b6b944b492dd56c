package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	// keysGood is how long the issuer's keys are taken without asking again: one that it withdraws is taken
	// for as long at most.
	keysGood = 5 * time.Minute
	// keysMost is how many keys an issuer may publish: each may be tried on a stranger's token.
	keysMost = 64
)

// description is what of an issuer's discovery document tokens need. An issuer of workloads may have
// nothing but keys.
type description struct {
	Issuer            string   `json:"issuer"`
	JWKS              string   `json:"jwks_uri"`
	Userinfo          string   `json:"userinfo_endpoint"`
	Introspection     string   `json:"introspection_endpoint"`
	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
}

// source is what an issuer publishes of itself. It is asked by one for all; whoever comes within a respite
// of an answer, or of a failure, shares it: strangers with made-up tokens don't make it be asked more often.
type source struct {
	issuer string
	client *http.Client

	mu     sync.Mutex // guards what follows, and is held while the issuer is asked
	doc    description
	read   time.Time // when doc was
	keys   []jose.JSONWebKey
	asked  time.Time // when the keys were last, successfully
	failed time.Time // when anything was last, in vain
	err    error     // and why
}

// described gives the issuer's description, at most an hour old, or as it last was if it can't be read.
func (s *source) described(ctx context.Context) (description, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.describe(ctx)
}

func (s *source) describe(ctx context.Context) (description, error) {
	if !s.read.IsZero() && time.Since(s.read) < rediscover {
		return s.doc, nil
	}
	var d description
	err := s.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration", &d)
	if err == nil {
		err = d.check(s.issuer)
	}
	switch {
	case err == nil:
		s.doc, s.read = d, time.Now()
	case s.read.IsZero():
		return d, s.unreachable(err)
	}
	return s.doc, nil
}

func (d description) check(issuer string) error {
	if d.Issuer != issuer {
		return fmt.Errorf("it calls itself %q", d.Issuer)
	}
	if d.JWKS == "" {
		return errors.New("it publishes no keys (jwks_uri)")
	}
	for what, u := range map[string]string{"jwks_uri": d.JWKS, "userinfo_endpoint": d.Userinfo, "introspection_endpoint": d.Introspection} {
		if u == "" {
			continue
		}
		if err := secure(what, u); err != nil {
			return err
		}
	}
	return nil
}

// keysFor gives the keys that may have made a signature with a key of that name; any, where there is none.
func (s *source) keysFor(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < keysGood {
		if named := s.named(id); len(named) > 0 {
			return named, nil
		}
	}
	return s.fresh(ctx, id)
}

// keysAgain asks for the keys once more: those that there are fit no signature.
func (s *source) keysAgain(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh(ctx, id)
}

func (s *source) fresh(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	if time.Since(s.asked) < respite {
		return s.named(id), nil
	}
	d, err := s.describe(ctx)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := s.get(ctx, d.JWKS, &set); err != nil {
		return nil, s.unreachable(err)
	}
	s.keys = s.keys[:0:0]
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		// What can't be read is of a kind that nobody here knows.
		if json.Unmarshal(raw, &key) == nil && key.IsPublic() && key.Valid() && key.Use != "enc" && len(s.keys) < keysMost {
			s.keys = append(s.keys, key)
		}
	}
	s.asked = time.Now()
	return s.named(id), nil
}

func (s *source) named(id string) (keys []jose.JSONWebKey) {
	for _, key := range s.keys {
		if id == "" || key.KeyID == "" || key.KeyID == id {
			keys = append(keys, key)
		}
	}
	return keys
}

// get reads a JSON document, unless that has failed a moment ago.
func (s *source) get(ctx context.Context, from string, into any) error {
	if s.err != nil && time.Since(s.failed) < respite {
		return s.err
	}
	s.err = s.try(ctx, from, into)
	if s.err != nil {
		s.failed = time.Now()
	}
	return s.err
}

func (s *source) try(ctx context.Context, from string, into any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", from, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *source) unreachable(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnreachable, s.issuer, err)
}
