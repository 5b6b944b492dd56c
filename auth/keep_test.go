package auth_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/curfewdb/curfew/auth"
)

func TestSessionToken(t *testing.T) {
	a, ah := auth.NewSessionToken()
	b, bh := auth.NewSessionToken()
	if a == b || bytes.Equal(ah, bh) || len(a) < 43 {
		t.Errorf("tokens %q, %q", a, b)
	}
	if !bytes.Equal(auth.HashToken(a), ah) || bytes.Equal(auth.HashToken(a+" "), ah) {
		t.Error("the hash is not the token's")
	}
}

func TestSealer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal.key")
	// Processes that start together make one key between them.
	sealers := make([]*auth.Sealer, 8)
	var wg sync.WaitGroup
	for i := range sealers {
		wg.Go(func() {
			var err error
			if sealers[i], err = auth.OpenSealer(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	sealed := sealers[0].Seal([]byte("refresh token"), "alice")
	if bytes.Contains(sealed, []byte("refresh")) {
		t.Error("not encrypted")
	}
	if bytes.Equal(sealed, sealers[0].Seal([]byte("refresh token"), "alice")) {
		t.Error("sealed twice, the same bytes")
	}
	for _, s := range sealers {
		if plain, err := s.Open(sealed, "alice"); err != nil || string(plain) != "refresh token" {
			t.Errorf("%q, %v", plain, err)
		}
	}
	if _, err := sealers[0].Open(sealed, "bob"); err == nil {
		t.Error("alice's opened as bob's")
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := sealers[0].Open(changed, "alice"); err == nil {
			t.Errorf("byte %d changed, and it opened", i)
		}
		if _, err := sealers[0].Open(sealed[:i], "alice"); err == nil {
			t.Errorf("cut at %d, and it opened", i)
		}
	}
}

func TestSealingKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "seal.key")
	if _, err := auth.OpenSealer(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.OpenSealer(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others can read it: %v", err)
	}
	for _, text := range []string{"", "\n", "abcd", strings.Repeat("0", 65), strings.Repeat("g", 64)} {
		bad := filepath.Join(dir, "bad.key")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := auth.OpenSealer(bad); err == nil {
			t.Errorf("%q is no key", text)
		} else if text != "" && strings.Contains(err.Error(), strings.TrimSpace(text)) && len(text) > 8 {
			t.Errorf("the key is in the error: %v", err)
		}
	}
}
