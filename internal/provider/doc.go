// Package provider is a small OIDC provider for `curfew dev` and for tests: real tokens, real flows, four
// made-up people. It is built on zitadel/oidc and knows nothing of Curfew.
//
// What may be relied on:
//
//   - It answers on loopback only: Listen and New refuse any other address, and a request that comes from
//     elsewhere, or under another host name (DNS rebinding), gets 403.
//   - Nobody logs in without the passcode, the text of the key file that its owner alone can read: typed
//     into the page, or as a proof (Prove) made from it for one login and one name.
//   - Flows: authorization code with PKCE (S256) for public clients on http://127.0.0.1 with any port,
//     authorization code with a client secret, device, refresh with rotation. A refresh token that is
//     shown a second time voids its whole family.
//   - ID tokens of all flows carry acr, amr, auth_time, e-mail, name and groups. A login is weak unless the
//     page's box for a second factor was ticked: it is when acr_values ask for it, and can be cleared, so that
//     a provider that does less than it is asked for can be played as well. Nobody stays logged in: every
//     login is a new proof.
//   - Refresh tokens outlive a restart, because the key signs them; all else is in memory.
//
// People can be disabled, moved between groups, signed out at a client's back channel, and the signing key
// rotated while it runs, by method or
// by POST /admin/… with the key as bearer token.
package provider
