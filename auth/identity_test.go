package auth_test

import (
	"testing"

	"github.com/curfewdb/curfew/auth"
)

// What stands for somebody in messages moves no terminal, whatever their provider lets them be called.
func TestLabel(t *testing.T) {
	for want, id := range map[string]auth.Identity{
		"alice@example.test":             {Issuer: "i", Subject: "1", Email: "alice@example.test"},
		"Zoë Müller@例え.test":             {Issuer: "i", Subject: "1", Email: "Zoë Müller@例え.test"},
		"i#1":                            {Issuer: "i", Subject: "1"},
		"a\uFFFD[2J\uFFFD\uFFFD\uFFFD@x": {Issuer: "i", Subject: "1", Email: "a\x1b[2J\r\n\u202e@x"},
		"i#\uFFFD1\uFFFD":                {Issuer: "i", Subject: "\x1b1\u2028"},
	} {
		if got := id.Label(); got != want {
			t.Errorf("%+v is called %q, want %q", id, got, want)
		}
	}
}

// Two identities with one e-mail may be one human's; those without any, and nobody, are not.
func TestSameHuman(t *testing.T) {
	one := auth.Identity{Issuer: "i", Subject: "1", Email: "alice@example.test"}
	for name, c := range map[string]struct {
		other auth.Identity
		same  bool
	}{
		"the same":                   {one, true},
		"another e-mail, one key":    {auth.Identity{Issuer: "i", Subject: "1", Email: "a@example.test"}, true},
		"another issuer, one e-mail": {auth.Identity{Issuer: "j", Subject: "9", Email: "Alice@Example.test"}, true},
		"another issuer":             {auth.Identity{Issuer: "j", Subject: "1", Email: "alice@other.test"}, false},
		"nobody":                     {auth.Identity{Email: "alice@example.test"}, false},
	} {
		if one.SameHuman(c.other) != c.same || c.other.SameHuman(one) != c.same {
			t.Errorf("%s: %v", name, !c.same)
		}
	}
	if none := (auth.Identity{Issuer: "i", Subject: "1"}); none.SameHuman(auth.Identity{Issuer: "j", Subject: "1"}) {
		t.Error("no e-mail is not one e-mail")
	}
}
