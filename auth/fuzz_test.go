package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// FuzzIDToken: whatever an issuer signs, an identity comes of it only where the token is for this client, this login
// and now, and no membership or address that it does not state plainly. What it did not sign is nobody's.
func FuzzIDToken(f *testing.F) {
	const issuer, client, nonce = "https://id.example.test", "curfew", "n0nce"
	for _, claims := range []string{
		`{"iss":"https://id.example.test","aud":"curfew","sub":"1","nonce":"n0nce","exp":9999999999,"iat":1,"email":"a@example.test","email_verified":true,"groups":["b","a","a",""],"auth_time":5}`,
		`{"iss":"https://id.example.test","aud":["curfew","x"],"azp":"curfew","sub":"1","nonce":"n0nce","exp":9999999999,"groups":"one","email":"a@x","email_verified":"true","amr":["mfa"]}`,
		`{"iss":"https://id.example.test","aud":"curfew","sub":"1","nonce":"n0nce","exp":1e300,"groups":{"a":1},"email":7,"auth_time":"1e400","name":[]}`,
		`{"iss":"x","aud":"curfew","sub":"1"}`, `{"exp":99999999999999999999}`, `null`,
	} {
		f.Add([]byte(claims), "")
	}
	f.Add([]byte(`{}`), "eyJhbGciOiJub25lIn0.e30.")
	f.Add([]byte(`{}`), "a.b.c.d.e")
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	keys := &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Public()}}
	d := &discovered{
		op:       (&oidc.ProviderConfig{IssuerURL: issuer}).NewProvider(context.Background()),
		verifier: oidc.NewVerifier(issuer, keys, &oidc.Config{ClientID: client, SupportedSigningAlgs: []string{oidc.EdDSA}}),
	}
	p := &Provider{cfg: IssuerConfig{URL: issuer, ClientID: client, GroupsClaim: "realm.groups"}, log: slog.New(slog.DiscardHandler)}
	enc := base64.RawURLEncoding.EncodeToString
	f.Fuzz(func(t *testing.T, claims []byte, unsigned string) {
		token := func(raw string) *oauth2.Token {
			return (&oauth2.Token{AccessToken: "at"}).WithExtra(map[string]any{"id_token": raw})
		}
		text := enc([]byte(`{"alg":"EdDSA"}`)) + "." + enc(claims)
		signed := text + "." + enc(ed25519.Sign(key, []byte(text)))
		if id, err := p.identify(t.Context(), d, token(unsigned), nonce); err == nil && unsigned != signed {
			t.Fatalf("%q was never signed and is %+v", unsigned, id)
		}
		id, err := p.identify(t.Context(), d, token(signed), nonce)
		if err != nil {
			return
		}
		var said struct {
			Iss, Sub, Nonce, Azp string
			Aud                  json.RawMessage
			Exp                  float64
			Groups               json.RawMessage
			Verified             json.RawMessage `json:"email_verified"`
		}
		if err := json.Unmarshal(claims, &said); err != nil {
			return // encoding/json takes names in any case, go-oidc reads what it needs
		}
		if said.Iss != issuer || said.Sub == "" || id.Subject != said.Sub || said.Nonce != nonce || !bytes.Contains(said.Aud, []byte(client)) || said.Azp != "" && said.Azp != client {
			t.Fatalf("%s is %+v", claims, id)
		}
		if said.Exp < float64(time.Now().Add(-2*skew).Unix()) {
			t.Fatalf("%s is over and is %+v", claims, id)
		}
		if id.AuthTime.After(time.Now().Add(2 * skew)) {
			t.Fatalf("it will be: %s", id.AuthTime)
		}
		if v := strings.Trim(string(said.Verified), `"`); id.Email != "" && v != "true" {
			t.Fatalf("%s: the address %q", claims, id.Email)
		}
		if slices.Contains(id.Groups, "") || !slices.IsSorted(id.Groups) {
			t.Fatalf("groups %q", id.Groups)
		}
		for _, g := range id.Groups {
			if plain, _ := json.Marshal(g); !bytes.Contains(claims, plain) && !bytes.ContainsAny(claims, `\`) && !strings.ContainsAny(g, "<>&\u2028\u2029\ufffd\b\f") {
				t.Fatalf("%s: the group %q", claims, g)
			}
		}
	})
}

// FuzzSealed: what opens is what was sealed, under this key and for this context.
func FuzzSealed(f *testing.F) {
	s, err := NewSealer(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	other, err := NewSealer(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("secret"), "alice", s.Seal([]byte("secret"), "alice"))
	f.Add([]byte{}, "", other.Seal([]byte("secret"), "alice"))
	f.Add([]byte("x"), "\x00", []byte{sealVersion})
	f.Fuzz(func(t *testing.T, secret []byte, context string, sealed []byte) {
		box := s.Seal(secret, context)
		if got, err := s.Open(box, context); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := s.Open(box, context+"x"); err == nil {
			t.Fatal("opens for another context")
		}
		if _, err := other.Open(box, context); err == nil {
			t.Fatal("opens under another key")
		}
		if got, err := s.Open(sealed, "bob"); err == nil {
			t.Fatalf("nobody sealed %q for bob", got)
		}
	})
}
