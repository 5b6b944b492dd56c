package mysql

import (
	"bytes"
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what mysql_native_password is made of
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"

	"filippo.io/edwards25519"
)

const (
	saltBytes  = 20   // of caching_sha2_password
	sha2Rounds = 5000 // what "005" stands for; servers refuse fewer

	parsecSaltBytes = 18
	parsecRounds    = 1024 // what "P0" stands for

	// crypt64 is the alphabet of crypt(3).
	crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// newSecret makes an account's password: 256 random bits as text.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// verifier is what is kept of a password for the logins that clients may choose between. It has no salt,
// because the protocol has none: grant passwords are random, with at least 160 bits.
type verifier struct {
	sha1    [sha1.Size]byte             // SHA1(SHA1(password)): mysql_native_password
	sha256  [sha256.Size]byte           // SHA256(SHA256(password)): caching_sha2_password
	ed25519 [ed25519.PublicKeySize]byte // the public key made of it: client_ed25519
}

// verifierScheme marks how an enrolled verifier is laid out.
const verifierScheme = "MYSQL"

// enrol makes the verifiers of a password: "MYSQL$<sha1>:<sha256>:<ed25519>", each in base64.
func enrol(password string) []byte {
	v := verifierOf(password)
	enc := base64.StdEncoding.EncodeToString
	return []byte(verifierScheme + "$" + enc(v.sha1[:]) + ":" + enc(v.sha256[:]) + ":" + enc(v.ed25519[:]))
}

func verifierOf(password string) (v verifier) {
	v.sha1 = twice(sha1.Sum, password)
	v.sha256 = twice(sha256.Sum256, password)
	scalar, _ := expand(password)
	copy(v.ed25519[:], new(edwards25519.Point).ScalarBaseMult(scalar).Bytes())
	return v
}

// twice is hash(hash(text)).
func twice[H [sha1.Size]byte | [sha256.Size]byte](hash func([]byte) H, text string) H {
	once := hash([]byte(text))
	return hash([]byte(sliceOf(once)))
}

func sliceOf[H [sha1.Size]byte | [sha256.Size]byte](h H) []byte {
	b := make([]byte, len(h))
	for i := range b {
		b[i] = h[i]
	}
	return b
}

// parseVerifier reads what enrol made.
func parseVerifier(text []byte) (v verifier, err error) {
	malformed := errors.New("malformed verifier") // never shows the verifier itself
	scheme, rest, ok := bytes.Cut(text, []byte("$"))
	parts := bytes.Split(rest, []byte(":"))
	if !ok || string(scheme) != verifierScheme || len(parts) != 3 {
		return v, malformed
	}
	for i, into := range [][]byte{v.sha1[:], v.sha256[:], v.ed25519[:]} {
		raw, err := base64.StdEncoding.DecodeString(string(parts[i]))
		if err != nil || len(raw) != len(into) {
			return verifier{}, malformed
		}
		copy(into, raw)
	}
	return v, nil
}

// native says whether a mysql_native_password answer proves the password: it is
// SHA1(password) XOR SHA1(scramble ‖ SHA1(SHA1(password))).
func (v *verifier) native(scramble, answer []byte) bool {
	if len(answer) != sha1.Size {
		return false
	}
	mask := sha1.Sum(append(append([]byte(nil), scramble...), v.sha1[:]...)) //nolint:gosec
	once := make([]byte, sha1.Size)
	subtle.XORBytes(once, answer, mask[:])
	stored := sha1.Sum(once) //nolint:gosec
	return subtle.ConstantTimeCompare(stored[:], v.sha1[:]) == 1
}

// cachingSHA2 says whether a caching_sha2_password answer proves the password: it is
// SHA256(password) XOR SHA256(SHA256(SHA256(password)) ‖ scramble).
func (v *verifier) cachingSHA2(scramble, answer []byte) bool {
	if len(answer) != sha256.Size {
		return false
	}
	mask := sha256.Sum256(append(append([]byte(nil), v.sha256[:]...), scramble...))
	once := make([]byte, sha256.Size)
	subtle.XORBytes(once, answer, mask[:])
	stored := sha256.Sum256(once)
	return subtle.ConstantTimeCompare(stored[:], v.sha256[:]) == 1
}

// signed says whether a client_ed25519 answer proves the password: it is a signature of the scramble.
func (v *verifier) signed(scramble, answer []byte) bool {
	return len(answer) == ed25519.SignatureSize && ed25519.Verify(v.ed25519[:], scramble, answer)
}

// clear says whether this is the password.
func (v *verifier) clear(password string) bool {
	stored := twice(sha256.Sum256, password)
	return subtle.ConstantTimeCompare(stored[:], v.sha256[:]) == 1
}

// nativeAnswer proves a password to a server that asks by mysql_native_password.
func nativeAnswer(password string, scramble []byte) []byte {
	once := sha1.Sum([]byte(password)) //nolint:gosec
	stored := sha1.Sum(once[:])        //nolint:gosec
	mask := sha1.Sum(append(append([]byte(nil), scramble...), stored[:]...))
	subtle.XORBytes(once[:], once[:], mask[:])
	return once[:]
}

// cachingSHA2Answer proves a password to a server that asks by caching_sha2_password.
func cachingSHA2Answer(password string, scramble []byte) []byte {
	once := sha256.Sum256([]byte(password))
	stored := sha256.Sum256(once[:])
	mask := sha256.Sum256(append(stored[:], scramble...))
	subtle.XORBytes(once[:], once[:], mask[:])
	return once[:]
}

// expand makes the two halves of an Ed25519 private key from a password as MariaDB does: the password
// itself stands where RFC 8032 has 32 random bytes.
func expand(password string) (scalar *edwards25519.Scalar, prefix []byte) {
	sum := sha512.Sum512([]byte(password))
	scalar, err := edwards25519.NewScalar().SetBytesWithClamping(sum[:32])
	if err != nil {
		panic(err) // 32 bytes are never refused
	}
	return scalar, sum[32:]
}

// ed25519Answer proves a password to a server that asks by client_ed25519: RFC 8032's signature with
// MariaDB's private key.
func ed25519Answer(password string, scramble []byte) []byte {
	scalar, prefix := expand(password)
	reduce := func(parts ...[]byte) *edwards25519.Scalar {
		h := sha512.New()
		for _, p := range parts {
			h.Write(p)
		}
		s, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
		if err != nil {
			panic(err) // 64 bytes are never refused
		}
		return s
	}
	public := new(edwards25519.Point).ScalarBaseMult(scalar).Bytes()
	nonce := reduce(prefix, scramble)
	commitment := new(edwards25519.Point).ScalarBaseMult(nonce).Bytes()
	challenge := reduce(commitment, public, scramble)
	response := edwards25519.NewScalar().MultiplyAdd(challenge, scalar, nonce)
	return append(commitment, response.Bytes()...)
}

// parsecKey makes the key pair of a password as MariaDB's parsec does.
func parsecKey(password string, salt []byte, rounds int) (ed25519.PrivateKey, error) {
	seed, err := pbkdf2.Key(sha512.New, password, salt, rounds, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// nativeHash is what a server keeps for mysql_native_password: "*" and SHA1(SHA1(secret)) in hex.
func nativeHash(secret string) string {
	sum := twice(sha1.Sum, secret)
	return "*" + strings.ToUpper(hex.EncodeToString(sum[:]))
}

// ed25519Hash is what MariaDB keeps for ed25519: the public key in base64 without its "=".
func ed25519Hash(secret string) string {
	v := verifierOf(secret)
	return base64.RawStdEncoding.EncodeToString(v.ed25519[:])
}

// parsecHash is what MariaDB 11.6 and later keep for parsec: "P0:<salt>:<public key>" in base64 without "=".
func parsecHash(secret string) string {
	salt := make([]byte, parsecSaltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	key, err := parsecKey(secret, salt, parsecRounds)
	if err != nil {
		panic(err) // only FIPS 140 mode refuses, and only shorter salts
	}
	enc := base64.RawStdEncoding.EncodeToString
	return "P0:" + enc(salt) + ":" + enc(key.Public().(ed25519.PublicKey))
}

// cachingSHA2Hash is what MySQL keeps for caching_sha2_password: "$A$005$", a salt of 20 bytes, and
// SHA-crypt's digest in 43 characters. Sent instead of a password, so that nothing secret can reach the
// server's log.
func cachingSHA2Hash(secret string) []byte {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	for i, b := range salt {
		salt[i] = crypt64[b&63] // neither NUL nor "$", and nothing that a log would garble
	}
	return append(append([]byte("$A$005$"), salt...), sha256Crypt(secret, salt)...)
}

// sha256Crypt is the digest of https://www.akkadia.org/drepper/SHA-crypt.txt with SHA-256, whose step
// numbers it follows; MySQL differs only in a salt of 20 bytes.
func sha256Crypt(password string, salt []byte) []byte {
	key := []byte(password)
	sum := func(parts ...[]byte) []byte {
		h := sha256.New()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	stretch := func(digest []byte, n int) []byte { return bytes.Repeat(digest, n/len(digest)+1)[:n] }
	b := sum(key, salt, key)                           // 4–8
	parts := [][]byte{key, salt, stretch(b, len(key))} // 1–3, 9, 10
	for n := len(key); n > 0; n >>= 1 {                // 11
		if n&1 != 0 {
			parts = append(parts, b)
		} else {
			parts = append(parts, key)
		}
	}
	a := sum(parts...)                                             // 12
	p := stretch(sum(bytes.Repeat(key, len(key))), len(key))       // 13–16
	s := stretch(sum(bytes.Repeat(salt, 16+int(a[0]))), len(salt)) // 17–20
	for i := range sha2Rounds {                                    // 21
		parts = parts[:0]
		if i&1 != 0 {
			parts = append(parts, p)
		} else {
			parts = append(parts, a)
		}
		if i%3 != 0 {
			parts = append(parts, s)
		}
		if i%7 != 0 {
			parts = append(parts, p)
		}
		if i&1 != 0 {
			parts = append(parts, a)
		} else {
			parts = append(parts, p)
		}
		a = sum(parts...)
	}
	return cryptText(a)
}

// cryptText writes a SHA-256 digest as SHA-crypt does (22e): three bytes, from three places that move on by 21,
// in four characters.
func cryptText(digest []byte) []byte {
	var text []byte
	put := func(v uint32, n int) {
		for range n {
			text = append(text, crypt64[v&63])
			v >>= 6
		}
	}
	for i, x, y, z := 0, 0, 10, 20; i < 10; i++ {
		put(uint32(digest[x])<<16|uint32(digest[y])<<8|uint32(digest[z]), 4)
		x, y, z = (x+21)%30, (y+21)%30, (z+21)%30
	}
	put(uint32(digest[31])<<8|uint32(digest[30]), 3)
	return text
}
