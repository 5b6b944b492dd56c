package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/recorder"
)

// TestFloodWhileSkipping: a client that goes on without a Sync after an error is recorded as it goes; what is
// skipped does not pile up until the server speaks again, which it never may.
func TestFloodWhileSkipping(t *testing.T) {
	m := &memory{}
	o := newObserver(0, false)
	o.sink = m
	p := newPump(o)
	execute := encode(t, &pgproto3.Execute{})
	p.write(t, execute)
	if err := p.inbound(encode(t, &pgproto3.ErrorResponse{Severity: "ERROR", Code: "34000", Message: "no portal"})); err != nil {
		t.Fatal(err)
	}
	const flood = 20 * limitLate
	for range flood {
		p.write(t, execute)
		if n := len(o.in.late); n > 2*limitLate {
			t.Fatalf("%d results wait", n)
		}
	}
	p.write(t, encode(t, &pgproto3.Sync{}))
	if err := p.inbound(encode(t, &pgproto3.ReadyForQuery{TxStatus: 'I'})); err != nil {
		t.Fatal(err)
	}
	results := m.of(recorder.TypeResult)
	if len(results) != flood+1 || string(results[0].Code) != "34000" || string(results[0].Message) != "no portal" {
		t.Fatalf("%d results, the first is %s", len(results), show(results[:1]))
	}
	for i, r := range results[1:] {
		if string(r.Code) != codeSkipped || r.Of != uint64(i+2) {
			t.Fatalf("result %d: %s", i+1, show([]recorder.Event{r}))
		}
	}
}
