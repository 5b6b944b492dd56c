package provider

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// shortestKey is the least a key may be: Curfew's own is 26 characters, 130 bits.
const shortestKey = 16

// OpenKey reads the identities' key, or makes one that is readable by its owner alone. Its text is the
// passcode of all identities.
func OpenKey(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.WriteString(rand.Text() + "\n")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			_ = os.Remove(path)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("identities key: %w", err)
	}
	return ReadKey(path)
}

// ReadKey reads a key that is there already. One that others can read proves nothing, and is refused.
func ReadKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("identities key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("identities key: %s can be read by others: chmod 600 %s", path, filepath.Clean(path))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identities key: %w", err)
	}
	key := bytes.TrimSpace(text)
	if len(key) < shortestKey {
		return nil, fmt.Errorf("identities key: %s is too short", path)
	}
	return key, nil
}

// Prove shows knowledge of the key for one login (the auth request's id, or the device flow's user code)
// and one name, in place of the passcode. It is no use for any other.
func Prove(key []byte, id, name string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(id + "|" + name))
	return hex.EncodeToString(m.Sum(nil))
}

// proven checks a form's passcode or proof.
func (p *Provider) proven(id, name, passcode, proof string) bool {
	if passcode != "" {
		return same([]byte(passcode), p.key)
	}
	return hmac.Equal([]byte(proof), []byte(Prove(p.key, id, name)))
}

// same compares without telling by its time how much was right, length included.
func same(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// derive makes the keys of single purposes out of the one.
func derive(key []byte, purpose string) ([32]byte, error) {
	var out [32]byte
	b, err := hkdf.Key(sha256.New, key, nil, "curfew provider "+purpose, len(out))
	if err != nil {
		return out, err
	}
	copy(out[:], b)
	return out, nil
}
