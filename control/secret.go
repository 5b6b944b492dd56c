package control

import "github.com/curfewdb/curfew/policy"

// passwordLength gives a grant password 160 bits.
const passwordLength = 32

// random gives n characters of the alphabet of ids, five random bits each. None of them needs quoting in a
// shell, a URL or a connection string.
func random(n int) string { return policy.NewID("", n) }
