package mysql

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"filippo.io/edwards25519"
)

// Whose name nobody has is asked by a key that could be somebody's: what is none is refused twenty times as
// fast, which can be measured from outside.
func TestDecoysAreKeys(t *testing.T) {
	f := NewFront(FrontConfig{})
	for i := range 64 {
		v := f.decoyFor(fmt.Sprint("nobody", i))
		if _, err := new(edwards25519.Point).SetBytes(v.ed25519[:]); err != nil {
			t.Fatalf("decoy %d: %v", i, err)
		}
	}
}

// A name that nobody can have is cut, as servers do: it would stand whole in every log.
func TestLongName(t *testing.T) {
	c := &client{front: &Front{}, server: mysqlGreeting()}
	payload := append(binary.LittleEndian.AppendUint32(nil, uint32(capProtocol41|capSecureConnection)), make([]byte, sslRequestSize-4)...)
	payload = append(append(payload, strings.Repeat("x", 60000)...), 0, 0)
	if _, err := c.parseResponse(payload); err != nil || len(c.login.User) != maxUser {
		t.Errorf("%d bytes, %v", len(c.login.User), err)
	}
}
