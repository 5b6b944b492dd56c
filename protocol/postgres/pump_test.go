package postgres

import (
	"encoding/binary"
	"testing"

	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

type sinkFunc func(...recorder.Event) error

func (f sinkFunc) Record(events ...recorder.Event) error { return f(events...) }

func be32(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// pump feeds an observer as the relay does, in pieces of any size.
type pump struct {
	o    *observer
	held []byte // from the client
	in   []byte // from the server
	sent []byte // what would have been forwarded to the client
	to   []byte // what would have been forwarded to the server, if keep
	keep bool
}

func newPump(o *observer) *pump { return &pump{o: o} }

func (p *pump) outbound(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), relay.BufferSize-len(p.held))
		p.held = append(p.held, b[:n]...)
		b = b[n:]
		used, out, err := p.o.Outbound(p.held)
		if p.keep {
			p.to = append(p.to, out...)
		}
		p.held = p.held[:copy(p.held, p.held[used:])]
		if err != nil {
			return err
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

func (p *pump) write(t *testing.T, b []byte) {
	t.Helper()
	if err := p.outbound(b); err != nil {
		t.Fatal(err)
	}
	if len(p.held) == relay.BufferSize {
		t.Fatal("the observer makes no progress")
	}
}
