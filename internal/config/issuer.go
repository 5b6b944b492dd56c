package config

import (
	"fmt"
	"slices"
)

// How an issuer is asked about a token that is not signed.
const (
	opaqueIntrospection = "introspection"
	opaqueUserinfo      = "userinfo"
)

func (is *Issuer) check(d *decoder, key string) {
	checkURL(d, key+".url", is.URL)
	if is.MFA != "" && is.MFA != "declared" {
		d.at(key+".mfa", "%q is unknown: declared, where nobody logs in without MFA and the issuer says nothing of it; or leave it out", is.MFA)
	}
	if is.ClientID == "" && !is.Workloads && !d.complained(key+".client_id") {
		d.at(key+".client_id", "is missing")
	}
	for _, list := range []struct {
		name   string
		values []string
	}{{"audiences", is.Audiences}, {"clients", is.Clients}, {"token_scopes", is.TokenScopes}} {
		if slices.Contains(list.values, "") {
			d.at(key+"."+list.name, "holds an empty name")
		}
		if list.name != "audiences" && len(list.values) > 0 && len(is.Audiences) == 0 {
			d.at(key+"."+list.name, "is of no use without audiences: no tokens are taken")
		}
	}
	is.checkOpaque(d, key)
	if is.Workloads && len(is.Audiences) == 0 && !d.complained(key+".audiences") {
		d.at(key+".audiences", "is missing: with workloads it says which of the programs' tokens were made for Curfew")
	}
}

func (is *Issuer) checkOpaque(d *decoder, key string) {
	switch {
	case is.Opaque == "":
	case is.Opaque != opaqueIntrospection && is.Opaque != opaqueUserinfo:
		d.at(key+".opaque", "%q is unknown%s: introspection, or userinfo", is.Opaque, hint(is.Opaque, []string{opaqueIntrospection, opaqueUserinfo}))
	case len(is.Audiences) == 0:
		d.at(key+".opaque", "is of no use without audiences: no tokens are taken")
	case is.Workloads:
		d.at(key+".opaque", "the tokens of workloads are signed: leave it out")
	case is.Opaque == opaqueIntrospection && is.ClientSecret == "":
		d.at(key+".opaque", "introspection needs client_secret: without one the issuer answers nobody")
	}
}

// checkIssuers looks at what several of them share.
func (c *Config) checkIssuers(d *decoder) {
	seen := map[string]bool{}
	people, opaque := false, ""
	for i := range c.Issuers {
		is, key := &c.Issuers[i], fmt.Sprintf("issuers[%d]", i)
		is.check(d, key)
		if is.URL != "" && seen[is.URL] {
			d.at(key+".url", "an issuer with this URL is there already")
		}
		seen[is.URL] = true
		people = people || !is.Workloads
		switch {
		case is.Opaque == "":
		case opaque != "":
			d.at(key+".opaque", "is there for %s already: each token would be shown to both", opaque)
		default:
			opaque = is.URL
		}
	}
	if len(c.Issuers) > 0 && !people {
		d.at("issuers", "all are for workloads: nobody could log in")
	}
}
