package auth_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/auth"
)

// Conditions see the claims that the configuration lists, and no others; one that neither the token nor
// userinfo has is not there at all.
func TestClaimsForConditions(t *testing.T) {
	is := newIssuer(t)
	is.userinfo = map[string]any{"sub": "u1", "dept": "shop", "rank": 3, "secret": "x"}
	p := is.relyingParty(t, func(c *auth.IssuerConfig) {
		c.Claims = []string{"dept", "rank", "org.unit", "staff", "novel", "nothing", "absent"}
	})
	id, err := is.login(t, p, func(nonce string) string {
		c := is.claims(nonce)
		c["org"], c["staff"], c["nothing"] = map[string]any{"unit": []string{"a"}}, true, nil
		c["novel"] = strings.Repeat("x", 5000)
		return is.sign(t, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"dept": "shop", "rank": 3.0, "org.unit": []any{"a"}, "staff": true}
	if !reflect.DeepEqual(id.Claims, want) {
		t.Errorf("got %v", id.Claims)
	}
}
