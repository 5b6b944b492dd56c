package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// tokenPrefix lets a secret scanner know a Curfew session token when it finds one in a repository.
const tokenPrefix = "curfew_st_"

// NewSessionToken makes the bearer token of one login: 256 random bits. The store keeps the hash alone.
func NewSessionToken() (token string, hash []byte) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails, see crypto/rand
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return token, HashToken(token)
}

// IsSessionToken tells a session token from whatever else is shown as a bearer, by its form alone.
func IsSessionToken(token string) bool { return strings.HasPrefix(token, tokenPrefix) }

// HashToken is what a session token is stored and found by. It is a plain SHA-256: there is nothing to
// guess in 256 random bits, so there is nothing to slow down.
func HashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
