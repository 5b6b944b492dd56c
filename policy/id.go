package policy

import (
	"crypto/rand"
	"encoding/base32"
)

// Alphabet is Crockford's base32 in lower case: no i, l, o, u, so that an id survives being read aloud.
const Alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var crockford = base32.NewEncoding(Alphabet).WithPadding(base32.NoPadding)

// NewID makes a random id: the prefix and n characters of 5 random bits each.
func NewID(prefix string, n int) string {
	raw := make([]byte, (n*5+7)/8)
	rand.Read(raw) //nolint:errcheck // never fails: the process is ended instead
	return prefix + crockford.EncodeToString(raw)[:n]
}
