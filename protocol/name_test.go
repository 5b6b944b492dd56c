package protocol

import "testing"

func TestParseName(t *testing.T) {
	for user, want := range map[string]Name{
		"g4k2m9x0aaab":                {},
		"":                            {},
		"g1/orders":                   {},
		"oauth":                       {},
		"alice@example.test":          {Email: "alice@example.test", OAuth: true},
		"alice@example.test/orders":   {Email: "alice@example.test", Choice: "orders", OAuth: true},
		"a/b@example.test/g1":         {Email: "a/b@example.test", Choice: "g1", OAuth: true},
		"alice@example.test/a/b":      {Email: "alice@example.test", Choice: "a/b", OAuth: true},
		"oauth:alice@example.test/g1": {Email: "alice@example.test", Choice: "g1", OAuth: true},
		"oauth:g4k2m9x0aaab":          {Choice: "g4k2m9x0aaab", OAuth: true},
		"oauth:":                      {OAuth: true},
		"token:alice@example.test":    {Email: "alice@example.test", Token: true},
		"token:alice@example.test/g1": {Email: "alice@example.test", Choice: "g1", Token: true},
		"token:":                      {Token: true},
		"token:g4k2m9x0aaab":          {Choice: "g4k2m9x0aaab", Token: true},
		"token:oauth:g1":              {Choice: "oauth:g1", Token: true},
		"Token:alice@example.test":    {Email: "Token:alice@example.test", OAuth: true},
	} {
		got := ParseName(user)
		if got != want || got.ByToken() != (want.Token || want.OAuth) {
			t.Errorf("%q: %+v", user, got)
		}
	}
}
