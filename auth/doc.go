// Package auth turns an OIDC provider's word into an [Identity], and keeps what proves it between calls.
//
// What may be relied on:
//
//   - An [Identity] that comes from a [Provider] was in an ID token of the configured issuer, for the
//     configured client (aud, and azp where there is one), signed with an asymmetric key that the issuer
//     publishes now, not expired, and, in the code flow, answers the nonce of that very login. At most
//     one minute of clock difference is forgiven.
//   - Identity.Email is set only if the provider calls it verified. Groups are those of the issuer's
//     groups claim and nothing else; no claim means no groups.
//   - ACR, AMR and AuthTime are what the provider asserted, never what Curfew guesses.
//   - Nothing here waits for an issuer for longer than ten seconds or reads more than a megabyte from it,
//     and nothing follows a redirect with a secret in hand.
//   - An issuer that is down is an error of that one call: the next call tries again.
//   - [ErrGone] means that the provider itself has withdrawn the login (OAuth's invalid_grant), never that
//     it could not be asked.
//   - A session token is 256 random bits and only its hash is ever stored; a [Sealer] keeps what has to be
//     read back (refresh tokens) encrypted under a key that lies in a file of its own.
//
// Specifications: OpenID Connect Core 1.0 sections 2, 3.1 and 12, Discovery 1.0; RFC 6749, RFC 7636
// (PKCE, S256 only), RFC 8628 (device flow), RFC 9207 (the issuer in the answer).
package auth
