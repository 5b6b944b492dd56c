package recorder

import (
	"bytes"
	"testing"
)

// Text of which nothing is escaped is told from other text byte by byte, wherever the byte is.
func TestNeedsNothing(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				text := bytes.Repeat([]byte{'a'}, length)
				text[at] = byte(c)
				want := c < 0x80 && string(appendString(nil, string(text))) == `"`+string(text)+`"`
				if needsNothing(text) != want || needsNothing(string(text)) != want {
					t.Fatalf("%q: %v", text, !want)
				}
			}
		}
	}
}
