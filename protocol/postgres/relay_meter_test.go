package postgres

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// TestMeter: the digest is that of all the data, in order, however long its pieces are.
func TestMeter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var m meter
	for range 3 {
		var all, stream []byte

		for range 2000 {
			piece := bytes.Repeat([]byte{byte(random.Uint32())}, random.IntN(1<<random.IntN(11)))
			all = append(all, piece...)
			if random.IntN(4) == 0 {
				m.chunks++
				m.add(piece)
				continue
			}
			stream = appendMessage(stream[:0], msgCopyData, piece)
			if n := m.run(append(stream, msgCopyData, 0, 0, 0, 9, 'h'), defaultWhole); n != len(stream) {
				t.Fatalf("%d bytes of %d were measured", n, len(stream))
			}
		}
		const chunks = 2000
		d := m.digest()
		if d.sum != sha256.Sum256(all) || d.bytes != uint64(len(all)) || d.chunks != uint64(chunks) {
			t.Errorf("it says %d bytes in %d chunks, of %d in %d", d.bytes, d.chunks, len(all), chunks)
		}
		m.reset()
	}
	for _, b := range []string{"", "d", "d\x00\x00\x00\x03", "d\x00\x01\x00\x00", "c\x00\x00\x00\x04", "d\xff\xff\xff\xff\x00"} {
		if n := m.run([]byte(b), defaultWhole); n != 0 || m.chunks != 0 {
			t.Errorf("%d bytes of %q were measured", n, b)
		}
	}
}
