package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestSyncAmidACopyThatFails: the server takes no notice of a Sync amid copy data, but answers one that it
// reads after the copy has failed. Whichever it was, later results stand at the statements they are of.
func TestSyncAmidACopyThatFails(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	bad := &pgproto3.CopyData{Data: []byte("a\x00b\n")}
	many := []pgproto3.FrontendMessage{
		&pgproto3.Query{String: "COPY orders (what) FROM STDIN"}, &pgproto3.CopyData{Data: []byte("fine\n")}, &pgproto3.Sync{}, bad,
		&pgproto3.CopyData{Data: []byte("fine\n")}, &pgproto3.Sync{}, &pgproto3.Sync{}, &pgproto3.CopyDone{},
	}
	for range 3 {
		f.send(many...)
		for i := 1; i <= 3; i++ {
			f.send(&pgproto3.Query{String: fmt.Sprintf("SELECT generate_series(1, %d)", i)})
		}
		// In the extended protocol: what stands behind the Sync that ends it, whichever that is, is run.
		f.send(&pgproto3.Parse{Query: "COPY orders (what) FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, bad, &pgproto3.CopyDone{}, &pgproto3.Sync{},
			&pgproto3.Parse{Query: "SELECT 1 WHERE false"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	}
	f.send(&pgproto3.Query{String: "SELECT 'the end'"})
	for said := ""; !strings.Contains(said, "the end"); {
		m, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if row, ok := m.(*pgproto3.DataRow); ok {
			said = string(row.Values[0])
		}
	}
	f.until('Z')
	f.bye()
	events := w.sink.all()
	text := map[uint64]string{}
	for _, e := range events {
		switch e.Type {
		case recorder.TypeStatement:
			text[e.ID] = string(e.Text)
			if e.Of > 0 {
				text[e.ID] = text[e.Of]
			}
		case recorder.TypeResult:
			ok := len(e.Code) > 0
			switch said := text[e.Of]; {
			case strings.HasPrefix(said, "COPY"):
				ok = string(e.Code) == "22021" || string(e.Tag) == "" && len(e.Code) == 0
			case said == "SELECT 1 WHERE false":
				ok = string(e.Tag) == "SELECT 0"
			case said == "SELECT 'the end'":
				ok = string(e.Tag) == "SELECT 1"
			default:
				ok = string(e.Tag) == "SELECT "+said[len(said)-2:len(said)-1]
			}
			if !ok {
				t.Errorf("%q has the result %s", text[e.Of], show([]recorder.Event{e}))
			}
			delete(text, e.Of)
		}
	}
	for id, said := range text {
		if strings.Contains(said, "series") {
			t.Errorf("statement %d %q has no result", id, said)
		}
	}
}

// TestRequestsBehindADoubtfulSync: whether the server skips them depends on what it had read when the copy
// failed, so a session that sends such is ended before it can make the recording say what was not.
func TestRequestsBehindADoubtfulSync(t *testing.T) {
	w := newWire(t, 0, FrontConfig{})
	f := w.frontend("")
	f.send(&pgproto3.Parse{Query: "COPY orders (what) FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, &pgproto3.CopyData{Data: []byte("a\x00b\n")})
	f.until('G')
	f.send(&pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
	if last := f.lastWords(); last == nil || last.Code != stateProtocol {
		t.Errorf("told %+v", last)
	}
	var end *protocol.EndError
	if r := w.result(); !errors.As(r.err, &end) || end.Code != recorder.EndViolation {
		t.Errorf("the session ended with %v", r.err)
	}
	if n := len(w.sink.of(recorder.TypeBlocked)); n != 0 {
		t.Errorf("%d were refused", n)
	}
}
