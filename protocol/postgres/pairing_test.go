package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

// scripted is a pump whose events are kept.
func scripted() (*pump, *memory) {
	m := &memory{}
	o := newObserver(0, false)
	o.sink = m
	return newPump(o), m
}

func (p *pump) client(t *testing.T, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		p.write(t, encode(t, m))
	}
}

func (p *pump) server(t *testing.T, messages ...pgproto3.BackendMessage) {
	t.Helper()
	for _, m := range messages {
		if err := p.inbound(encode(t, m)); err != nil {
			t.Fatal(err)
		}
	}
}

func ready(status byte) *pgproto3.ReadyForQuery { return &pgproto3.ReadyForQuery{TxStatus: status} }

func failed(code string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code}
}

// TestRefusedNames: what the server refused has changed no name: a statement that could not replace
// another one's name leaves it that.
func TestRefusedNames(t *testing.T) {
	p, m := scripted()
	four := [][]byte{{0, 0, 0, 9}}
	p.client(t, &pgproto3.Parse{Name: "s", Query: "SELECT $1", ParameterOIDs: []uint32{23}}, &pgproto3.Sync{})
	p.server(t, &pgproto3.ParseComplete{}, ready('I'))
	// The second Parse fails, as the name is taken; what is bound in the same breath behind the Sync may be either.
	p.client(t, &pgproto3.Parse{Name: "s", Query: "SELECT $1", ParameterOIDs: []uint32{700}}, &pgproto3.Close{ObjectType: 'S', Name: "s"}, &pgproto3.Sync{},
		&pgproto3.Bind{PreparedStatement: "s", ParameterFormatCodes: []int16{1}, Parameters: four}, &pgproto3.Sync{})
	p.server(t, failed("42P05"), ready('I'), &pgproto3.BindComplete{}, ready('I'))
	p.client(t, &pgproto3.Bind{PreparedStatement: "s", ParameterFormatCodes: []int16{1}, Parameters: four}, &pgproto3.Sync{})
	p.server(t, &pgproto3.BindComplete{}, ready('I'))
	want := `statement 1 prepare of=0 name="s" portal="" text="SELECT $1"
statement 2 prepare of=0 name="s" portal="" text="SELECT $1"
statement 3 bind of=0 name="s" portal="" text="" unknown=hex:00000009
result of=2 n=0 tag="" rows=0 bytes=0 code="42P05" message="" tx="idle"
statement 4 bind of=1 name="s" portal="" text="" int4="9"
`
	if got := show(m.all()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestRefusedPortals: the same of portals. None outlives its transaction, the one without a name included.
func TestRefusedPortals(t *testing.T) {
	p, m := scripted()
	p.client(t, &pgproto3.Parse{Name: "s", Query: "SELECT 1"}, &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}, &pgproto3.Sync{})
	p.server(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, ready('T'))
	p.client(t, &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s"}, &pgproto3.Sync{})
	p.server(t, failed("42P03"), ready('T'))
	p.client(t, &pgproto3.Bind{DestinationPortal: "q", PreparedStatement: "nothing"}, &pgproto3.Close{ObjectType: 'P', Name: "p"}, &pgproto3.Sync{})
	p.server(t, failed("26000"), ready('T'))
	p.client(t, &pgproto3.Execute{Portal: "p"}, &pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Sync{})
	p.server(t, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.BindComplete{}, ready('I'))
	p.client(t, &pgproto3.Execute{}, &pgproto3.Execute{Portal: "p"})
	var of []uint64
	for _, e := range m.of(recorder.TypeStatement) {
		if e.Kind == recorder.KindExecute {
			of = append(of, e.Of)
		}
	}
	if !slices.Equal(of, []uint64{2, 0, 0}) {
		t.Errorf("executed were %v:\n%s", of, show(m.all()))
	}
}

// TestSQLForgetsNames: after DEALLOCATE a name may be another statement's.
func TestSQLForgetsNames(t *testing.T) {
	p, m := scripted()
	p.client(t, &pgproto3.Parse{Name: "s", Query: "SELECT $1", ParameterOIDs: []uint32{700}}, &pgproto3.Sync{})
	p.server(t, &pgproto3.ParseComplete{}, ready('I'))
	p.client(t, &pgproto3.Query{String: "DEALLOCATE s; PREPARE s(int) AS SELECT $1"})
	p.server(t, &pgproto3.CommandComplete{CommandTag: []byte("DEALLOCATE")}, &pgproto3.CommandComplete{CommandTag: []byte("PREPARE")}, ready('I'))
	p.client(t, &pgproto3.Bind{PreparedStatement: "s", ParameterFormatCodes: []int16{1}, Parameters: [][]byte{{0, 0, 0, 9}}})
	if got := show(m.of(recorder.TypeStatement)[2:]); got != "statement 3 bind of=0 name=\"s\" portal=\"\" text=\"\" unknown=hex:00000009\n" {
		t.Error(got)
	}
}

// TestCommitError: a transaction that fails at the Sync is a second result of what it had done.
func TestCommitError(t *testing.T) {
	p, m := scripted()
	p.client(t, &pgproto3.Parse{Query: "INSERT"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.Query{String: "SELECT"})
	p.server(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")}, failed("23503"), ready('I'),
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, ready('I'))
	if got, want := show(m.of(recorder.TypeResult)), `result of=3 n=0 tag="INSERT 0 1" rows=1 bytes=0 code="" message="" tx=""
result of=3 n=0 tag="" rows=0 bytes=0 code="23503" message="" tx="idle"
result of=4 n=0 tag="SELECT 1" rows=1 bytes=0 code="" message="" tx="idle"
`; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestManyNames: a client that names without end makes the session remember no more than its limit.
func TestManyNames(t *testing.T) {
	p, _ := scripted()
	oids := make([]uint32, 1000)
	for i := range 3000 {
		name := fmt.Sprintf("s%d", i)
		p.client(t, &pgproto3.Parse{Name: name, Query: "x", ParameterOIDs: oids}, &pgproto3.Bind{DestinationPortal: name, PreparedStatement: "none"}, &pgproto3.Sync{})
		p.server(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, ready('T'))
		if p.o.names.bytes > limitNamed {
			t.Fatalf("%d bytes are remembered after %d", p.o.names.bytes, i)
		}
	}
	p.client(t, &pgproto3.Sync{})
	p.server(t, ready('I'))
	if len(p.o.names.portals) != 0 {
		t.Error("portals outlive their transaction")
	}
	p.o.names.forgetStatements()
	if p.o.names.bytes != 0 {
		t.Errorf("%d bytes are counted for nothing", p.o.names.bytes)
	}
}

// TestBusy: a client that asks without end is made to wait, and goes on when the server has answered.
func TestBusy(t *testing.T) {
	p, m := scripted()
	b := bytes.Repeat(encode(t, &pgproto3.Execute{}), limitPending+10)
	err := p.outbound(b)
	if !errors.Is(err, relay.ErrBusy) || p.o.queue.n != limitPending {
		t.Fatalf("%v, %d requests are pending", err, p.o.queue.n)
	}
	p.server(t, failed("34000")) // which drops them all
	if p.o.queue.n != 0 || len(p.o.queue.ring) > 1024 {
		t.Errorf("%d are pending, room for %d", p.o.queue.n, len(p.o.queue.ring))
	}
	n, _, err := p.o.Outbound(p.held)
	if err != nil || n == 0 {
		t.Error(n, err)
	}
	skipped := 0
	for _, e := range m.of(recorder.TypeResult) {
		if string(e.Code) == codeSkipped {
			skipped++
		}
	}
	if skipped == 0 {
		p.server(t, ready('I'))
	}
}

// TestCopyData that the server does not wait for counts as far as it was sent.
func TestCopyEndsEarly(t *testing.T) {
	p, m := scripted()
	p.client(t, &pgproto3.Query{String: "COPY t FROM STDIN"})
	p.server(t, &pgproto3.CopyInResponse{})
	p.client(t, &pgproto3.CopyData{Data: []byte("abc\n")})
	p.server(t, failed("22P02"), ready('I'))
	p.client(t, &pgproto3.CopyData{Data: []byte("more\n")}, &pgproto3.CopyFail{Message: "oh"}, &pgproto3.Query{String: "COPY t FROM STDIN"})
	p.server(t, &pgproto3.CopyInResponse{})
	p.client(t, &pgproto3.CopyData{Data: []byte("d\n")}, &pgproto3.CopyDone{})
	p.server(t, &pgproto3.CommandComplete{CommandTag: []byte("COPY 1")}, ready('I'))
	if got, want := show(m.of(recorder.TypeCopy)), copyLine(1, "in", 0, []byte("abc\n"))+copyLine(2, "in", 1, []byte("d\n")); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if p.o.queue.n != 0 {
		t.Errorf("%d requests are pending", p.o.queue.n)
	}
}

// TestReplicationStream: what can't be recorded ends the session.
func TestReplicationStream(t *testing.T) {
	p, _ := scripted()
	err := p.inbound([]byte("W\x00\x00\x00\x07\x00\x00\x00"))
	if err == nil || !strings.Contains(err.Error(), "replication") {
		t.Error(err)
	}
}

// TestQueryDropsUnnamed: a simple query makes an unnamed statement and portal of its own and drops them,
// so what is bound or run without a name behind it is not what was there before.
func TestQueryDropsUnnamed(t *testing.T) {
	p, m := scripted()
	p.client(t, &pgproto3.Query{String: "BEGIN"})
	p.server(t, &pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}, ready('T'))
	p.client(t, &pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Sync{})
	p.server(t, &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, ready('T'))
	p.client(t, &pgproto3.Query{String: "SELECT 2"})
	p.server(t, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, ready('T'))
	p.client(t, &pgproto3.Execute{}, &pgproto3.Sync{})
	p.server(t, failed("34000"), ready('E'))
	p.client(t, &pgproto3.Bind{}, &pgproto3.Sync{})
	p.server(t, failed("26000"), ready('E'))
	got := show(m.all())
	for _, want := range []string{`execute of=0`, `statement 6 bind of=0`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}
}
