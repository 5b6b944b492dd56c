package protocol

import "testing"

func TestParseName(t *testing.T) {
	for user, want := range map[string]Name{
		"g4k2m9x0aaab":                {},
		"":                            {},
		"g1/orders":                   {},
		"alice@example.test":          {Email: "alice@example.test"},
		"alice@example.test/orders":   {Email: "alice@example.test", Choice: "orders"},
		"a/b@example.test/g1":         {Email: "a/b@example.test", Choice: "g1"},
		"alice@example.test/a/b":      {Email: "alice@example.test", Choice: "a/b"},
		"token:alice@example.test":    {Email: "alice@example.test", Token: true},
		"token:alice@example.test/g1": {Email: "alice@example.test", Choice: "g1", Token: true},
		"token:":                      {Token: true},
		"token:g4k2m9x0aaab":          {Email: "g4k2m9x0aaab", Token: true},
		"Token:alice@example.test":    {Email: "Token:alice@example.test"},
	} {
		got := ParseName(user)
		if got != want || got.ByToken() != (want.Token || want.Email != "") {
			t.Errorf("%q: %+v", user, got)
		}
	}
}
