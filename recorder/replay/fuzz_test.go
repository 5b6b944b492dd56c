package replay

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var colors = regexp.MustCompile(`\x1b\[[0-9]{1,2}m`)

// FuzzPlay: whatever a recording holds, a terminal that shows it obeys nothing of it: there is no control character, no
// mark of direction and no broken text in what is written, but line breaks and our own colours.
func FuzzPlay(f *testing.F) {
	const salt = `"salt":"000102030405060708090a0b0c0d0e0f"`
	head := `{"seq":0,"us":0,"type":"header",` + salt + `,"header":{"format":1,"session":"s1","began":"2026-08-11T09:30:00Z","target":"orders\u001b[2J","identity":{"email":"\u202ea"}}}` + "\n"
	f.Add([]byte(head+`{"seq":1,"us":5,"type":"statement",`+salt+`,"id":1,"kind":"simple","text":"select '\u001b]0;x\u0007'\n\t1 \u009b"}`+"\n"), uint8(0), uint16(0), "")
	f.Add([]byte(head+`{"seq":1,"us":5,"type":"statement",`+salt+`,"id":1,"kind":"bind","of":7,"more":true,"params":[{"type":"x\r","value_b64":"/w==","more":true}]}`+"\n"+
		`{"seq":2,"us":6,"type":"part",`+salt+`,"of":1,"field":"param","text_b64":"4oCu"}`+"\n"+
		`{"seq":3,"us":7,"type":"result",`+salt+`,"of":1,"tag":"\u0085","message":"no\u2028","code":"42\b01"}`+"\n"), uint8(0xff), uint16(30), "x")
	f.Add([]byte(head+`{"seq":1,"erased":"`+strings.Repeat("0", 64)+`"}`+"\n"+`{"seq":2,"us":1,"type":"we\u001bather",`+salt+`}`+"\n"), uint8(1), uint16(7), "")
	f.Add([]byte(head+`{"seq":1,"us":9,"type":"end",`+salt+`,"end":{"code":"client\u001b","reason":"\u200f"}}`+"\n"), uint8(2), uint16(0), "c")
	f.Fuzz(func(t *testing.T, lines []byte, how uint8, width uint16, find string) {
		o := Options{NoWait: true, Width: int(width % 300), Color: how&1 != 0, Find: find}
		if how&2 != 0 {
			o.Start = time.Duration(how) * time.Microsecond
		}
		if how&4 != 0 {
			o.Until = time.Duration(how) * 10 * time.Microsecond
		}
		var out bytes.Buffer
		_ = Play(t.Context(), &out, bytes.NewReader(lines), o) // where it breaks off it says so
		if limit := 64*len(lines) + 64<<10; out.Len() > limit*(1+int(width%300)/8) {
			t.Fatalf("%d bytes are shown of %d", out.Len(), len(lines))
		}
		shown := out.String()
		if o.Color {
			shown = colors.ReplaceAllString(shown, "")
		}
		if !utf8.ValidString(shown) {
			t.Fatalf("broken text: %q", shown)
		}
		for _, r := range shown {
			if r != '\n' && !unicode.IsGraphic(r) {
				t.Fatalf("%q is in %q", r, shown)
			}
		}
	})
}
