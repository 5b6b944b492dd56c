package control

import (
	"crypto/rand"
	"encoding/base32"
)

// crockford is the alphabet of ids and passwords: no letter that looks like a digit, nothing that a
// shell, a URL or a connection string would need to quote.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

// passwordLength gives a grant password 160 bits.
const passwordLength = 32

// random gives n characters of the alphabet, five bits each, from the system's generator, which can't fail.
func random(n int) string {
	b := make([]byte, (n*5+7)/8)
	_, _ = rand.Read(b)
	return base32.NewEncoding(crockford).WithPadding(base32.NoPadding).EncodeToString(b)[:n]
}
