package mysql

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// attributed is a query with one attribute; what stands behind its type is the value and the text.
func attributed(typ uint16, null byte, behind string) []byte {
	return glue([]byte{comQuery, 1, 1, null, 1}, le16(typ), []byte("\x01n"), []byte(behind))
}

// noStatement is a text that a server quotes from its first byte on when it refuses it.
const noStatement = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// TestAttributeSizes: whatever type an attribute has, the text that MySQL runs is the text on record, or
// one of the two refuses the packet.
func TestAttributeSizes(t *testing.T) {
	w := newWire(t, protocol.Level{})
	if testServer.IsMariaDB() {
		t.Skip("MySQL's own")
	}
	w.raw(eofCaps).quit() // from here on it knows the account without TLS
	w.bye()
	c := dialRaw(t, testServer.Port, w.account.spec.Name, w.account.secret, eofCaps|capQueryAttributes)
	agreed := 0
	for typ := range 256 {
		for _, flags := range []int{0, flagUnsigned, 0x100, 0x4000} {
			for _, null := range []byte{0, 1} {
				for _, head := range []string{"$", "\x00", "\x04\xea\x07\x01\x01", "\x07\xea\x07\x01\x01\x01\x01\x01", "\x08\x00\x01\x00\x00\x00\x01\x01\x01", "\x0b", "\x0c", "\xfb", "\xfc\x05\x00", "\xfe\x05\x00\x00\x00\x00\x00\x00\x00"} {
					if _, fixed := fixedSize(uint16(typ)); head != "$" && (null == 1 || fixed && !timeType(uint16(typ))) {
						continue // it has no length
					}
					query := attributed(uint16(typ|flags), null, head+noStatement)
					p, m := observing(observerConfig{caps: capQueryAttributes})
					if p.outbound(packets(0, query)) != nil {
						continue
					}
					c.send(query)
					e, ok := parseErr(c.packet(1), c.caps)
					if !ok || e.code != errnoParse {
						continue
					}
					_, near, _ := strings.Cut(string(e.message), "near '")
					near, _, _ = strings.Cut(near, "'")
					text := m.of(recorder.TypeStatement)[0].Text
					if agreed++; near == "" || !bytes.HasPrefix(text, []byte(near)) {
						t.Errorf("type %#x behind %q: the server reads %q, on record is %q", typ|flags, head, near, text)
					}
				}
			}
		}
	}
	if agreed < 1000 {
		t.Errorf("%d packets were compared", agreed)
	}
}

// TestAttributeTypes: of a type for which servers may take another number of bytes than expected, nothing
// passes: the text behind it would not be the one on record.
func TestAttributeTypes(t *testing.T) {
	for _, typ := range []uint16{typeNull, typeInt24, typeYear, typeBit, typeBool, typeGeometry, 0x0e, 0x20, 0x100 | typeTiny, 0x4000 | typeLong, 0x7f00 | typeString} {
		p, m := observing(observerConfig{caps: capQueryAttributes})
		err := p.outbound(packets(0, attributed(typ, 0, "\x08SELECT 'harmless' -- \nDROP")))
		var end *protocol.EndError
		if !errors.As(err, &end) || end.Code != recorder.EndViolation || len(p.to) > 0 {
			t.Errorf("type %#x: %v, on record %s", typ, err, show(m.all()))
		}
		p, m = observing(observerConfig{caps: capQueryAttributes})
		p.client(t, attributed(typ, 1, "DO 1"))
		if got := m.all(); len(got) != 1 || string(got[0].Text) != "DO 1" {
			t.Errorf("type %#x, NULL: %s", typ, show(got))
		}
	}
}

// TestAttributeNames: the names of attributes take no more memory than a sane client needs.
func TestAttributeNames(t *testing.T) {
	p, _ := observing(observerConfig{caps: capQueryAttributes})
	const count = 40
	query := glue([]byte{comQuery, count, 1}, make([]byte, count/8), []byte{1})
	for i := range count {
		query = glue(query, le16(typeTiny), appendLenencBytes(nil, strings.Repeat(fmt.Sprint(i%10), 2000)))
	}
	err := p.outbound(packets(0, glue(query, make([]byte, count), []byte("DO 1"))))
	var end *protocol.EndError
	if !errors.As(err, &end) || end.Code != recorder.EndViolation || cap(p.o.out.msg.list.names) > 2*limitNames {
		t.Errorf("%v, %d bytes of names are kept", err, cap(p.o.out.msg.list.names))
	}
}
