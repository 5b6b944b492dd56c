package auth

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// asymmetric are the signatures that are accepted: of those, a key fits one kind.
var asymmetric = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// longestSubject is what OpenID Connect Core section 2 bounds a subject by.
const longestSubject = 255

// IsJWT tells a token that says something from one that whoever made it has to be asked about.
func IsJWT(raw string) bool {
	return strings.Count(raw, ".") == 2 && strings.HasPrefix(raw, "eyJ")
}

// verified gives the claims of a JWT that the issuer signed, of one of the types.
func (b *Bearer) verified(ctx context.Context, raw string, types ...string) (map[string]json.RawMessage, error) {
	jws, err := jose.ParseSignedCompact(raw, asymmetric)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, badToken("it is no JWT with a signature that is taken here")
	}
	head := jws.Signatures[0].Protected
	typ, _ := head.ExtraHeaders[jose.HeaderType].(string)
	typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	if !slices.Contains(types, typ) {
		return nil, badToken("a JWT of the type %.40q is not taken here", typ)
	}
	// Before any key is looked for: what claims to be another's costs no question.
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &all); err != nil {
		return nil, badToken("its claims are no JSON object")
	}
	if iss := stringOf(all["iss"]); iss != b.cfg.URL {
		return nil, badToken("it was issued by %.100q, not by %s", iss, b.cfg.URL)
	}
	keys, err := b.source.keysFor(ctx, head.KeyID)
	if err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		for _, key := range keys {
			if payload, err := jws.Verify(&key); err == nil {
				clear(all)
				return all, json.Unmarshal(payload, &all)
			}
		}
		// Some issuers use a key's name again for another key.
		if tries == 1 {
			return nil, badToken("its signature is not by a key that %s publishes", b.cfg.URL)
		}
		if keys, err = b.source.keysAgain(ctx, head.KeyID); err != nil {
			return nil, err
		}
	}
}

// times are the claims that say when a JWT is good.
type times struct{ exp, nbf, iat time.Time }

// when reads and checks them, with one skew of forgiveness on each side.
func (b *Bearer) when(all map[string]json.RawMessage) (t times, err error) {
	for name, at := range map[string]*time.Time{"exp": &t.exp, "nbf": &t.nbf, "iat": &t.iat} {
		raw, ok := all[name]
		if !ok && name == "nbf" {
			continue
		}
		var sec float64
		if !ok || json.Unmarshal(raw, &sec) != nil || sec <= 0 || sec > math.MaxInt32*16 {
			return t, badToken("it does not say when it is good (%s)", name)
		}
		*at = time.Unix(int64(sec), 0).UTC()
	}
	now := time.Now()
	switch {
	case !now.Add(-skew).Before(t.exp):
		return t, badToken("it expired at %s%s", t.exp.Format("15:04:05 UTC"), because(b.of.clock.apartBy(0)))
	case t.iat.After(now.Add(skew)):
		return t, badToken("it is of the future%s", because(b.of.clock.apartBy(t.iat.Sub(now))))
	case t.nbf.After(now.Add(skew)):
		return t, badToken("it is not good before %s", t.nbf.Format("15:04:05 UTC"))
	}
	return t, nil
}

// because joins a sentence and what it comes from, if there is anything.
func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// signed verifies a JWT: an access token (RFC 9068) or an ID token.
func (b *Bearer) signed(ctx context.Context, raw string) (Token, error) {
	all, err := b.verified(ctx, raw, "at+jwt", "jwt", "")
	if err != nil {
		return Token{}, err
	}
	at, err := b.when(all)
	if err != nil {
		return Token{}, err
	}
	if err := b.meant(all); err != nil {
		return Token{}, err
	}
	subject := stringOf(all["sub"])
	if subject == "" || len(subject) > longestSubject {
		return Token{}, badToken("it names no subject")
	}
	if !b.take.Workloads {
		if err := b.complete(ctx, raw, subject, all); err != nil {
			return Token{}, err
		}
	}
	id, err := b.identify(subject, all)
	return Token{Identity: id, Client: clientOf(all), Issued: at.iat, Expires: at.exp, session: stringOf(all["sid"])}, err
}

// meant checks whom a token was made for, and what it was made for.
func (b *Bearer) meant(all map[string]json.RawMessage) error {
	audience := stringsOf(all["aud"])
	if !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(b.take.Audiences, a) }) {
		return badToken("it was made for %.100q, not for Curfew (aud)", audience)
	}
	if err := b.given(all); err != nil {
		return err
	}
	// A logout token and an access token are signed alike.
	if _, ok := all["events"]; ok {
		return badToken("it tells of an event and lets nobody in")
	}
	switch typ := stringOf(all["typ"]); typ { // Keycloak's own mark
	case "Refresh", "Offline", "Logout":
		return badToken("a %s token lets nobody in", strings.ToLower(typ))
	}
	return nil
}

// given checks whom a token was given to, and that whoever has it may use it.
func (b *Bearer) given(all map[string]json.RawMessage) error {
	// Bound to a key (RFC 8705, RFC 9449), it is good only together with that key's proof.
	if _, ok := all["cnf"]; ok {
		return badToken("it is bound to a key, and nothing here asks for that key's proof (cnf)")
	}
	if len(b.take.Clients) == 0 {
		return nil
	}
	named := false
	for _, claim := range []string{"azp", "client_id"} {
		raw, ok := all[claim]
		if !ok {
			continue
		}
		named = true
		if client := stringOf(raw); !slices.Contains(b.take.Clients, client) {
			return badToken("it was given to the client %.100q, which is not among those that are taken here (%s)", client, claim)
		}
	}
	if !named {
		return badToken("it does not say which client it was given to (azp, client_id)")
	}
	return nil
}

func clientOf(all map[string]json.RawMessage) string {
	if azp := stringOf(all["azp"]); azp != "" {
		return azp
	}
	return stringOf(all["client_id"])
}

// complete asks the issuer for what its access tokens leave out, the e-mail above all. A token that is not
// good there says all that it has to say.
func (b *Bearer) complete(ctx context.Context, raw, subject string, all map[string]json.RawMessage) error {
	_, hasGroups := lookup(all, b.cfg.GroupsClaim)
	_, hasEmail := all["email"]
	if hasGroups && hasEmail && !b.cfg.lacks(all) {
		return nil
	}
	d, err := b.source.described(ctx)
	if err != nil || d.Userinfo == "" {
		return err
	}
	more, status, err := b.ask(ctx, http.MethodGet, d.Userinfo, raw, nil)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return nil
	case stringOf(more["sub"]) != subject:
		return badToken("the issuer's userinfo is about another subject")
	}
	for name, value := range more {
		// An address and its verification are one statement: never join halves of two documents.
		if name == "email_verified" && hasEmail {
			continue
		}
		if _, ok := all[name]; !ok {
			all[name] = value
		}
	}
	return nil
}
