package config

import (
	"slices"
	"strings"
	"testing"
)

func TestIssuersTokens(t *testing.T) {
	with := func(issuers string) string {
		return strings.Replace(good, "  - {url: https://idp.example.com, client_id: curfew, client_secret: file:secrets/idp}\n", issuers, 1)
	}
	const people = "  - {url: https://idp.example.com, client_id: curfew, client_secret: file:secrets/idp, audiences: [db]"
	c, err := readConfig(write(t, "curfew.yaml", with(people+", clients: [psql], opaque: introspection}\n  - {url: https://ci.example.com, workloads: true, audiences: [curfew]}\n")), kinds)
	if err != nil {
		t.Fatal(err)
	}
	if is := c.Issuers[0]; !slices.Equal(is.TokenScopes, []string{"openid", "email", "profile", "groups"}) || is.Workloads {
		t.Errorf("%+v", is)
	}
	if is := c.Issuers[1]; !is.Workloads || is.ClientID != "" || is.Audiences[0] != "curfew" {
		t.Errorf("%+v", is)
	}
	for issuers, want := range map[string]string{
		"  - {url: https://idp.example.com}\n":                                                                      "issuers[0].client_id: is missing",
		"  - {url: https://ci.example.com, workloads: true, audiences: [curfew]}\n":                                 "issuers: all are for workloads: nobody could log in",
		people + "}\n  - {url: https://ci.example.com, workloads: true}\n":                                          "issuers[1].audiences: is missing: with workloads",
		people + ", opaque: asking}\n":                                                                              `issuers[0].opaque: "asking" is unknown`,
		people + ", clients: ['']}\n":                                                                               "issuers[0].clients: holds an empty name",
		"  - {url: https://idp.example.com, client_id: curfew, clients: [psql]}\n":                                  "issuers[0].clients: is of no use without audiences",
		"  - {url: https://idp.example.com, client_id: curfew, opaque: userinfo}\n":                                 "issuers[0].opaque: is of no use without audiences",
		"  - {url: https://idp.example.com, client_id: curfew, audiences: [db], opaque: introspection}\n":           "issuers[0].opaque: introspection needs client_secret",
		people + ", opaque: userinfo}\n  - {url: https://b.test, client_id: x, audiences: [y], opaque: userinfo}\n": "issuers[1].opaque: is there for https://idp.example.com already",
		people + "}\n  - {url: https://ci.example.com, workloads: true, audiences: [x], opaque: userinfo}\n":        "issuers[1].opaque: the tokens of workloads are signed",
	} {
		_, err := readConfig(write(t, "curfew.yaml", with(issuers)), kinds)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nsays %v\nwant %s", issuers, err, want)
		}
	}
}
