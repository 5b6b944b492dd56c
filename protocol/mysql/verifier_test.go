package mysql

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// TestHashes: what servers make of the same passwords themselves.
func TestHashes(t *testing.T) {
	if got := nativeHash("password"); got != "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19" {
		t.Errorf("native: %s", got)
	}
	if got := ed25519Hash("secret"); got != "ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY" {
		t.Errorf("ed25519: %s", got)
	}
	for password, stored := range map[string]string{ // SELECT HEX(authentication_string) of MySQL
		"foobar":          "24412430303524031A69251C34295C4B35167C7F1E5A7B63091349503974624D34504B5A424679354856336868686F52485A736E4A733368786E427575516C73446469496537",
		"testpassword123": "24412430303524393D02673221785B414A4E5F02073711301659116B446B76753345617A4D7530635548526D3678746F6B75564835553334346932572E332F704C4856477131",
	} {
		raw, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		salt, digest := raw[7:27], raw[27:]
		if got := sha256Crypt(password, salt); !bytes.Equal(got, digest) {
			t.Errorf("caching_sha2 of %q: %s, MySQL has %s", password, got, digest)
		}
	}
}

// TestHashShape: a salt of its own each time, and nothing that a server would refuse to keep.
func TestHashShape(t *testing.T) {
	secret := newSecret()
	if other := newSecret(); other == secret || len(secret) != 43 {
		t.Errorf("secrets %q, %q", secret, other)
	}
	a, b := cachingSHA2Hash(secret), cachingSHA2Hash(secret)
	if len(a) != 70 || !bytes.HasPrefix(a, []byte("$A$005$")) || bytes.Equal(a, b) {
		t.Errorf("%q, %q", a, b)
	}
	if bytes.ContainsAny(a[7:], "$\x00") || !bytes.Equal(sha256Crypt(secret, a[7:27]), a[27:]) {
		t.Errorf("%q", a)
	}
	parts := strings.Split(parsecHash(secret), ":")
	if len(parts) != 3 || parts[0] != "P0" || len(parts[1]) != 24 || len(parts[2]) != 43 {
		t.Fatalf("parsec %q", parts)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	key, err := parsecKey(secret, salt, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.RawStdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)); got != parts[2] {
		t.Errorf("parsec key %s, the hash has %s", got, parts[2])
	}
}

// TestVerifier: the right password passes by every plugin, a wrong one by none, and the hash that is kept does
// not pass for the password.
func TestVerifier(t *testing.T) {
	v, err := parseVerifier(enrol("right"))
	if err != nil {
		t.Fatal(err)
	}
	scramble := []byte("abcdefghijklmnopqrst")
	for password, want := range map[string]bool{"right": true, "wrong": false, "": false, string(v.sha256[:]): false, string(v.sha1[:]): false} {
		for plugin, got := range map[string]bool{
			"native":       v.native(scramble, nativeAnswer(password, scramble)),
			"caching_sha2": v.cachingSHA2(scramble, cachingSHA2Answer(password, scramble)),
			"ed25519":      v.signed(scramble, ed25519Answer(password, scramble)),
			"clear":        v.clear(password),
		} {
			if got != want {
				t.Errorf("%s with %q: %v", plugin, password, got)
			}
		}
	}
	if v.native(scramble, append(nativeAnswer("right", scramble), 0)) || v.cachingSHA2(scramble, append(cachingSHA2Answer("right", scramble), 0)) || v.signed(scramble, append(ed25519Answer("right", scramble), 0)) {
		t.Error("more than an answer passes")
	}
	other := []byte("ABCDEFGHIJKLMNOPQRST")
	if v.native(other, nativeAnswer("right", scramble)) || v.cachingSHA2(other, cachingSHA2Answer("right", scramble)) || v.signed(other, ed25519Answer("right", scramble)) {
		t.Error("an answer to another scramble passes")
	}
	for _, answer := range [][]byte{nil, {0}, make([]byte, 19), make([]byte, 20), make([]byte, 32), make([]byte, 64), make([]byte, 65)} {
		if v.native(scramble, answer) || v.cachingSHA2(scramble, answer) || v.signed(scramble, answer) {
			t.Errorf("%d bytes pass", len(answer))
		}
	}
}

func TestMalformedVerifier(t *testing.T) {
	good := string(enrol("right"))
	for _, text := range []string{"", "MYSQL", "MYSQL$", "SCRAM" + good[5:], good[:len(good)-4], good + ":", good[:10] + "!" + good[11:], strings.Replace(good, "$", "$AAAA", 1)} {
		if v, err := parseVerifier([]byte(text)); err == nil || v != (verifier{}) || strings.Contains(err.Error(), good[6:12]) {
			t.Errorf("%q: %v %v", text, v, err)
		}
	}
}
