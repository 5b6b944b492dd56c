package postgres

import (
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestNothingBehindGoodbye: the server reads nothing behind a Terminate, so nothing behind it is forwarded, or stands
// on record, in one piece with it or not.
func TestNothingBehindGoodbye(t *testing.T) {
	bye := []byte{msgTerminate, 0, 0, 0, 4}
	more := appendMessage(nil, msgQuery, []byte("SELECT 1\x00"))
	for name, pieces := range map[string][][]byte{"one piece": {slices.Concat(bye, more)}, "two": {bye, more}} {
		m := &memory{}
		o := newObserver(0, false)
		o.sink = m
		var to []byte
		for _, b := range pieces {
			for len(b) > 0 { // as the relay does: what is left is shown again
				n, out, err := o.Outbound(b)
				if err != nil || n == 0 {
					t.Fatalf("%s: %d, %v", name, n, err)
				}
				to, b = append(to, out...), b[n:]
			}
		}
		if string(to) != string(bye) || len(m.all()) > 0 || !o.Goodbye() {
			t.Errorf("%s: the server reads %q, recorded:\n%s", name, to, show(m.all()))
		}
	}
}

// TestWordsWaitForAWholeMessage: amid a message that the client has the beginning of there is no place for ours.
func TestWordsWaitForAWholeMessage(t *testing.T) {
	o := newObserver(minWhole, false)
	o.sink = &memory{}
	if _, _, err := o.Outbound(appendMessage(nil, msgQuery, []byte("SELECT 1\x00"))); err != nil {
		t.Fatal(err)
	}
	row := appendMessage(nil, msgDataRow, append([]byte{0, 1, 0, 0, 16, 0}, make([]byte, 4096)...))
	for _, part := range []struct {
		b    []byte
		want bool
	}{{row, true}, {row[:1000], false}, {row[1000:], true}} {
		n, _, err := o.Inbound(part.b)
		if err != nil || n != len(part.b) || o.Whole() != part.want {
			t.Errorf("behind %d of %d bytes: %t, %v", n, len(part.b), o.Whole(), err)
		}
	}
}

// bounded is a sink that lets a session read so many rows.
type bounded struct {
	*memory
	rows  uint64
	asked int
}

func (b *bounded) Read(rows, _ uint64) error {
	if b.asked++; rows > b.rows {
		return errTooMuch
	}
	return nil
}

var errTooMuch = errors.New("you have read too much")

// TestLimits: rows are counted through the whole session, those of a COPY as they come; once the session may read no
// more nobody is asked again.
func TestLimits(t *testing.T) {
	data := &pgproto3.CopyData{Data: []byte("1\n")}
	p, m := scripted()
	b := &bounded{memory: m, rows: 5}
	p.o.limiter = b
	p.client(t, &pgproto3.Query{String: "SELECT 1"}, &pgproto3.Query{String: "COPY t TO STDOUT"})
	p.server(t, &pgproto3.DataRow{}, &pgproto3.DataRow{}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 2")}, ready('I'))
	p.server(t, &pgproto3.CopyOutResponse{}, data, data, data)
	asked := b.asked
	buf, err := data.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	var end *protocol.EndError
	if _, _, err = p.o.Inbound(buf); !errors.As(err, &end) || end.Code != recorder.EndLimit || !errors.Is(err, errTooMuch) || b.asked != asked+1 {
		t.Errorf("%v, asked %d times more", err, b.asked-asked)
	}
	if _, _, err = p.o.Inbound(buf); err != nil || b.asked != asked+1 {
		t.Errorf("%v, asked %d times more", err, b.asked-asked)
	}
}
