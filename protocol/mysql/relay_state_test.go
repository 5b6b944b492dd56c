package mysql

import (
	"strings"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// TestDying: the server says that it hangs up, unasked or in the place of an answer; no other error says that.
func TestDying(t *testing.T) {
	for code, dying := range map[uint16]bool{1053: true, errnoEndedMariaDB.code: true, errnoEndedMySQL.code: true, 1064: false, 1317: false} {
		p, _ := observing(observerConfig{})
		p.client(t, command(comQuery, "DO 1"))
		p.server(t, errWith(code, "HY000", "its words"))
		if p.o.Dying() != dying {
			t.Errorf("an answer of %d: %t", code, !dying)
		}
	}
	p, m := observing(observerConfig{})
	if err := p.inbound(packets(0, errWith(4031, "HY000", "you were idle"))); err != nil {
		t.Fatal(err)
	}
	if got := m.of(recorder.TypeNotice); !p.o.Dying() || len(got) != 1 || string(got[0].Message) != "you were idle" {
		t.Errorf("unasked: %t, recorded:\n%s", p.o.Dying(), show(got))
	}
}

// TestNextSequence: our own last packet has the number that the client waits for, wherever it is in a conversation.
func TestNextSequence(t *testing.T) {
	p, _ := observing(observerConfig{whole: minWhole, level: protocol.Level{LocalInfile: true}})
	want := func(when string, seq byte) {
		t.Helper()
		if got := p.o.next(); got != seq {
			t.Errorf("%s: %d", when, got)
		}
	}
	want("idle", 1)
	p.client(t, command(comQuery, "SELECT 1"))
	want("before an answer", 1)
	answer := packets(1, []byte{1}, column, eofWith(0), []byte("\x011"), eofWith(0))
	part := len(packets(0, []byte{1}, column))
	if err := p.inbound(answer[:part]); err != nil {
		t.Fatal(err)
	}
	want("amid an answer", 3)
	if err := p.inbound(answer[part:]); err != nil {
		t.Fatal(err)
	}
	want("behind an answer", 1)
	p.client(t, command(comQuery, "LOAD DATA LOCAL INFILE 'f' INTO TABLE t"))
	p.server(t, []byte("\xfbf"))
	want("asked for a file", 2)
	p.write(t, appendPacket(nil, 2, []byte("1\n")))
	want("amid a file", 3)
	p.write(t, appendPacket(nil, 3, nil))
	want("behind a file", 4)
}

// TestAnswerToFullFrames: a command of several frames is answered behind the last one's number.
func TestAnswerToFullFrames(t *testing.T) {
	p, _ := observing(observerConfig{})
	p.keep = false
	p.write(t, packets(0, command(comQuery, strings.Repeat(" ", maxFrame))))
	if got := p.o.next(); got != 2 {
		t.Errorf("%d", got)
	}
}

// TestWordsWaitForAWholePacket: amid a packet that the client has the beginning of there is no place for ours.
func TestWordsWaitForAWholePacket(t *testing.T) {
	p, _ := observing(observerConfig{whole: minWhole})
	p.client(t, command(comQuery, "SELECT 1"))
	row := append([]byte{0xfc, 0x00, 0x10}, make([]byte, 4096)...)
	answer := packets(1, []byte{1}, column, eofWith(0), row, eofWith(0))
	whole := len(packets(1, []byte{1}, column, eofWith(0)))
	for _, step := range []struct {
		to   int
		want bool
	}{{whole, true}, {whole + 1000, false}, {whole + headerSize + len(row), true}, {len(answer), true}} {
		if err := p.inbound(answer[len(p.sent):step.to]); err != nil {
			t.Fatal(err)
		}
		if p.o.Whole() != step.want {
			t.Errorf("behind %d of %d bytes: %t", step.to, len(answer), !step.want)
		}
	}
}

// TestOldestInFlight: in flight is the oldest command that was forwarded and not answered.
func TestOldestInFlight(t *testing.T) {
	var q queue
	want := func(what string, id uint64) {
		t.Helper()
		if got := q.oldest(); got != id {
			t.Errorf("%s: %d", what, got)
		}
	}
	q.push().id = 1
	q.push().id = 2
	want("recorded, and not forwarded yet", 0)
	q.forwarded = 1
	want("one of two forwarded", 1)
	q.pop()
	want("the one that was forwarded is answered", 0)
	q.forwarded = 1
	want("the other is forwarded, too", 2)
}

// TestResetForgetsStatements: behind a COM_RESET_CONNECTION a number means nothing any more; until that is answered
// nobody knows what it means, and who uses one waits.
func TestResetForgetsStatements(t *testing.T) {
	p, m := observing(observerConfig{})
	p.client(t, command(comStmtPrepare, "SELECT 1"))
	p.server(t, prepareOK(7, 0, 0))
	p.client(t, executeOf(7))
	p.server(t, okWith(0))
	p.client(t, []byte{comResetConnection}, executeOf(7))
	if len(p.held) == 0 || len(m.of(recorder.TypeStatement)) != 3 {
		t.Errorf("it does not wait; recorded:\n%s", show(m.all()))
	}
	p.server(t, okWith(0))
	p.write(t, nil)
	got := m.of(recorder.TypeStatement)
	if len(got) != 4 || got[1].Of != 1 || got[3].Of != 0 {
		t.Errorf("recorded:\n%s", show(got))
	}
}

// TestMergedResidue: what was noted stays, and things of one name in two databases are two.
func TestMergedResidue(t *testing.T) {
	noted := []protocol.Residue{{Database: "a", Kind: "view", Object: "view v", Action: "quarantined"}}
	got := merge(noted, []protocol.Residue{{Database: "a", Kind: "view", Object: "view v", Action: "reported"}, {Database: "b", Kind: "view", Object: "view v"},
		{Database: "a", Kind: "grant", Object: "view v"}, {Database: "a", Kind: "view", Object: "view w"}})
	if len(got) != 4 || got[0].Action != "quarantined" {
		t.Errorf("%+v", got)
	}
}

// TestKnownAtEitherCount: a session that left or came while the server was asked is ours all the same.
func TestKnownAtEitherCount(t *testing.T) {
	a := newAccount(&Engine{}, newSpec(0))
	now := &fakeSession{}
	now.backend.Store(8)
	if _, err := a.add(now); err != nil {
		t.Fatal(err)
	}
	if got := a.unknown([]seen{{pid: 7}, {pid: 8}, {pid: 9}}, map[uint32]bool{7: true}); len(got) != 1 || got[0].pid != 9 {
		t.Errorf("%+v", got)
	}
}
