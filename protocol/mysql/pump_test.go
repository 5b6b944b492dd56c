package mysql

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

type sinkFunc func(...recorder.Event) error

func (f sinkFunc) Record(events ...recorder.Event) error { return f(events...) }

// pump feeds an observer as the relay does, in pieces of any size.
type pump struct {
	o    *observer
	held []byte // from the client
	in   []byte // from the server
	sent []byte // what would have been forwarded to the client, if keep
	to   []byte // what would have been forwarded to the server, if keep
	keep bool
}

// observing is a pump whose events are kept.
func observing(c observerConfig) (*pump, *memory) {
	m := &memory{}
	c.caps |= capProtocol41 | capTransactions
	o := newObserver(c)
	o.sink = m
	return &pump{o: o, keep: true}, m
}

// outbound feeds what the client sent. A busy observer keeps what it has not dealt with.
func (p *pump) outbound(b []byte) error {
	for first := true; first || len(b) > 0; first = false {
		n := min(len(b), relay.BufferSize-len(p.held))
		p.held = append(p.held, b[:n]...)
		b = b[n:]
		used, out, err := p.o.Outbound(p.held)
		if p.keep {
			p.to = append(p.to, out...)
		}
		p.held = p.held[:copy(p.held, p.held[used:])]
		if err == relay.ErrBusy {
			p.held = append(p.held, b...)
			return nil
		}
		if err != nil {
			return err
		}
		if len(p.held) == relay.BufferSize {
			return errors.New("the observer makes no progress")
		}
	}
	return nil
}

func (p *pump) inbound(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), relay.BufferSize-len(p.in))
		p.in = append(p.in, b[:n]...)
		b = b[n:]
		used, out, err := p.o.Inbound(p.in)
		if p.keep {
			p.sent = append(p.sent, out...)
		}
		p.in = p.in[:copy(p.in, p.in[used:])]
		if err != nil {
			return err
		}
	}
	return nil
}

// client sends commands in one go.
func (p *pump) client(t testing.TB, payloads ...[]byte) {
	t.Helper()
	var b []byte
	for _, payload := range payloads {
		b = appendPacket(b, 0, payload)
	}
	p.write(t, b)
}

func (p *pump) write(t testing.TB, b []byte) {
	t.Helper()
	if err := p.outbound(b); err != nil {
		t.Fatal(err)
	}
}

// server sends the packets of one answer, from the sequence number 1 on.
func (p *pump) server(t testing.TB, payloads ...[]byte) {
	t.Helper()
	if err := p.inbound(packets(1, payloads...)); err != nil {
		t.Fatal(err)
	}
}

// packets are consecutive packets.
func packets(seq byte, payloads ...[]byte) (b []byte) {
	for _, payload := range payloads {
		b = appendPacket(b, seq, payload)
		seq += byte(1 + len(payload)/maxFrame)
	}
	return b
}

func command(b byte, text string) []byte { return append([]byte{b}, text...) }

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }

// glue concatenates.
func glue(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Packets of a server.

func okWith(status uint16) []byte { return glue([]byte{packetOK, 0, 0}, le16(status), le16(0)) }

func eofWith(status uint16) []byte { return glue([]byte{packetEOF, 0, 0}, le16(status)) }

func errWith(code uint16, state, text string) []byte {
	return appendErr(nil, 0, capProtocol41, code, state, text)[headerSize:]
}

func prepareOK(handle uint32, columns, params uint16) []byte {
	return glue([]byte{packetOK}, le32(handle), le16(columns), le16(params), []byte{0, 0, 0})
}

var column = []byte("\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x0b\x00\x00\x00\x03\x81\x00\x00\x00\x00")

// executeOf is a COM_STMT_EXECUTE of one set of typed values.
func executeOf(handle uint32, params ...typedValue) []byte {
	b := glue([]byte{comStmtExecute}, le32(handle), []byte{0}, le32(1))
	if len(params) == 0 {
		return b
	}
	nulls := make([]byte, (len(params)+7)/8)
	var types, values []byte
	for i, p := range params {
		types = append(types, le16(p.typ)...)
		if p.raw == nil {
			nulls[i/8] |= 1 << (i % 8)
		}
		values = append(values, p.raw...)
	}
	return glue(b, nulls, []byte{1}, types, values)
}

// typedValue is a parameter as it stands in a packet; nil is NULL.
type typedValue struct {
	typ uint16
	raw []byte
}

func str(s string) typedValue { return typedValue{typeVarString, appendLenencBytes(nil, s)} }

func integer(v uint32) typedValue { return typedValue{typeLong, le32(v)} }
