package auth

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer encrypts small secrets that have to be read back: XChaCha20-Poly1305 under a key that lies in a
// file of its own, so that a copy of the store alone gives nothing away.
//
// A sealed value is a version byte (1), 24 random bytes of nonce, then the ciphertext.
type Sealer struct{ aead cipher.AEAD }

const sealVersion = 1

// OpenSealer reads the key file (64 hex digits), or makes it, readable by its owner alone. A key file
// that others can read is refused.
func OpenSealer(path string) (*Sealer, error) {
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKey(path); err == nil {
			key, err = readKey(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return NewSealer(key)
}

// NewSealer makes a Sealer of a 32 byte key.
func NewSealer(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("sealing key: %w", err)
	}
	return &Sealer{aead}, nil
}

// Seal encrypts secret. What is sealed for one context opens for that context only: use the owner's key,
// so that rows can't be swapped between people.
func (s *Sealer) Seal(secret []byte, context string) []byte {
	nonce := make([]byte, s.aead.NonceSize(), 1+s.aead.NonceSize()+len(secret)+s.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails, see crypto/rand
	return s.aead.Seal(append([]byte{sealVersion}, nonce...), nonce, secret, []byte(context))
}

// Open reverses Seal.
func (s *Sealer) Open(sealed []byte, context string) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealVersion {
		return nil, errors.New("sealed value: unknown form")
	}
	secret, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], []byte(context))
	if err != nil {
		return nil, errors.New("sealed value: sealed under another key, or changed since")
	}
	return secret, nil
}

func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %#o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text := make([]byte, 2*chacha20poly1305.KeySize+2)
	n, err := f.Read(text)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(string(bytes.TrimSpace(text[:n])))
	if err != nil || len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("%s: expected %d hex digits", path, 2*chacha20poly1305.KeySize)
	}
	return key, nil
}

// makeKey puts a whole key at path or nothing, and never overwrites one: of two processes that start
// together, both go on with the same key.
func makeKey(path string) (err error) {
	var key [chacha20poly1305.KeySize]byte
	_, _ = rand.Read(key[:])
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "%x\n", key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
