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

// TestZeroed: what must not pass is zeroed from where its statement begins; from the first, if the server
// takes but one.
func TestZeroed(t *testing.T) {
	option := []byte{comSetOption, 0, 0}
	for _, test := range []struct {
		caps   capability
		before []byte
		text   []byte
		stays  string
	}{
		{capMultiStatements, nil, command(comQuery, "DO 1; -- c\n XA START 'a'"), "DO 1;"},
		{capMultiStatements, nil, command(comQuery, "DO 1;XA START 'a'; DO 2"), "DO 1;"},
		{capMultiStatements, nil, command(comQuery, "DO 'it\\'s;'; XA START 'a'"), "DO 'it\\'s;"}, // which of the two ends the first?
		{capMultiStatements, nil, command(comQuery, "DO 'x\\'; DO 1; XA START 'a'"), ""},          // where it begins if the backslash escapes
		{capMultiStatements, option, command(comQuery, "DO 1; XA START 'a'"), ""},
		{capMultiStatements, nil, command(comStmtPrepare, "DO 1; XA START 'a'"), ""},
		{0, nil, command(comQuery, "DO 1; XA START 'a'"), ""},
	} {
		p, m := observing(observerConfig{caps: test.caps, mariadb: true})
		if test.before != nil {
			p.client(t, test.before)
		}
		p.client(t, test.text)
		want := test.stays + strings.Repeat("\x00", len(test.text)-1-len(test.stays))
		if got := p.to[len(p.to)-len(want):]; string(got) != want {
			t.Errorf("%q is forwarded as %q", test.text, got)
		}
		statements := m.of(recorder.TypeStatement)
		if len(m.of(recorder.TypeBlocked)) != 1 || !bytes.Equal(statements[len(statements)-1].Text, test.text[1:]) {
			t.Errorf("%q is on record as\n%s", test.text, show(m.all()))
		}
	}
}

// TestLateEnd: wherever a long statement is cut into parts, it ends in two zeros at least, or does not end at
// all: to a server one zero is a blank, and what stands before it could run.
func TestLateEnd(t *testing.T) {
	ended := 0
	for n := range 3 * minWhole {
		p, _ := observing(observerConfig{whole: minWhole, level: protocol.Level{PreparedTransactions: true}})
		text := packets(0, command(comQuery, "XA PREPARE 'A','B',"+strings.Repeat(" ", n)+"4294967295"))
		err := p.outbound(text)
		var end *protocol.EndError
		switch {
		case err == nil && len(p.to) == len(text) && bytes.HasSuffix(p.to, []byte{0, 0}):
		case errors.As(err, &end) && end.Code == recorder.EndViolation && len(p.to) < len(text):
			ended++
		default:
			t.Errorf("%d blanks: %v, the last of %d bytes forwarded are %q", n, err, len(p.to), p.to[len(p.to)-12:])
		}
	}
	if ended == 0 || ended > 10 {
		t.Errorf("%d sessions were ended", ended)
	}
	// Where one statement is taken, what stands before the refused one and was forwarded would run.
	p, _ := observing(observerConfig{whole: minWhole, mariadb: true})
	text := packets(0, command(comQuery, "DO 1;"+strings.Repeat(" ", 2*minWhole)+"XA START 'a'"))
	var end *protocol.EndError
	if err := p.outbound(text); !errors.As(err, &end) || end.Code != recorder.EndViolation || len(p.to) == len(text) {
		t.Errorf("%v, %d bytes of %d were forwarded", err, len(p.to), len(text))
	}
}

// TestXidsBefore: what is prepared before something that must not pass is on record.
func TestXidsBefore(t *testing.T) {
	p, m := observing(observerConfig{caps: capMultiStatements, level: protocol.Level{PreparedTransactions: true}})
	p.client(t, command(comQuery, "XA PREPARE 'a'; XA PREPARE b'1'"))
	if e := m.all(); len(e) != 2 || string(e[0].Prepares) != "X'61',X'',1" || e[1].Type != recorder.TypeBlocked || fmt.Sprint(p.o.prepared()) != "[X'61',X'',1]" {
		t.Errorf("%s%q", show(e), p.o.prepared())
	}
}

// TestManyXids: a session remembers each of its XA transactions once, and not without end.
func TestManyXids(t *testing.T) {
	p, m := observing(observerConfig{level: protocol.Level{PreparedTransactions: true}})
	p.keep = false
	for i := range limitXids {
		for range 2 {
			p.client(t, command(comQuery, fmt.Sprintf("XA PREPARE '%d'", i)))
			p.server(t, okWith(0))
		}
	}
	if n := len(p.o.prepared()); n != limitXids || len(m.of(recorder.TypeBlocked)) != 0 {
		t.Fatalf("%d are known", n)
	}
	p.keep = true
	p.client(t, command(comQuery, "XA PREPARE '0'"), command(comQuery, "XA PREPARE 'more'"))
	if len(p.o.prepared()) != limitXids || len(m.of(recorder.TypeBlocked)) != 1 || bytes.Contains(p.to, []byte("more")) || !bytes.Contains(p.to, []byte("'0'")) {
		t.Errorf("%d are known, forwarded was %q", len(p.o.prepared()), p.to)
	}
}
