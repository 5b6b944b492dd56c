package postgres

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// encode gives the bytes of messages.
func encode(t testing.TB, messages ...interface {
	Encode([]byte) ([]byte, error)
}) []byte {
	t.Helper()
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// conversation is one that has a bit of everything.
func conversation(t testing.TB) (client, server []byte) {
	text := bytes.Repeat([]byte("tr\xc3\xbcb "), 100)
	client = encode(t,
		&pgproto3.Query{String: "SELECT 1; SELECT 2"},
		&pgproto3.Parse{Name: "s", Query: "SELECT $1, $2, $3 -- " + string(text), ParameterOIDs: []uint32{23, 25, 0}},
		&pgproto3.Describe{ObjectType: 'S', Name: "s"},
		&pgproto3.Bind{DestinationPortal: "p", PreparedStatement: "s", ParameterFormatCodes: []int16{1, 0, 1}, Parameters: [][]byte{{0, 0, 0, 7}, text, nil}, ResultFormatCodes: []int16{1}},
		&pgproto3.Describe{ObjectType: 'P', Name: "p"}, &pgproto3.Execute{Portal: "p", MaxRows: 3},
		&pgproto3.Close{ObjectType: 'P', Name: "p"}, &pgproto3.Flush{}, &pgproto3.Sync{},
		&pgproto3.Query{String: "COPY t FROM STDIN"},
		&pgproto3.CopyData{Data: text}, &pgproto3.CopyData{Data: []byte("x\n")}, &pgproto3.CopyDone{},
		&pgproto3.FunctionCall{Function: 1234, ArgFormatCodes: []uint16{1}, Arguments: [][]byte{{1, 2}, nil}},
		&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, &pgproto3.Sync{},
		&pgproto3.Query{String: "PREPARE TRANSACTION 'a'; " + string(text)},
		&pgproto3.Terminate{},
	)
	server = encode(t,
		&pgproto3.RowDescription{}, &pgproto3.DataRow{Values: [][]byte{[]byte("1"), nil}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
		&pgproto3.RowDescription{}, &pgproto3.DataRow{Values: [][]byte{text}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{ParameterOIDs: []uint32{23, 25, 1184}}, &pgproto3.NoData{},
		&pgproto3.BindComplete{}, &pgproto3.RowDescription{}, &pgproto3.DataRow{}, &pgproto3.PortalSuspended{}, &pgproto3.CloseComplete{},
		&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: string(text)}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
		&pgproto3.CopyInResponse{}, &pgproto3.CommandComplete{CommandTag: []byte("COPY 2")}, &pgproto3.ReadyForQuery{TxStatus: 'T'},
		&pgproto3.FunctionCallResponse{Result: []byte("r")}, &pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: "p"}, &pgproto3.ReadyForQuery{TxStatus: 'T'},
		&pgproto3.ErrorResponse{Severity: "ERROR", Code: "08P01", Message: "invalid message format"}, &pgproto3.ReadyForQuery{TxStatus: 'E'},
		&pgproto3.CopyOutResponse{}, &pgproto3.CopyData{Data: text}, &pgproto3.CopyDone{},
		&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "bye"},
	)
	return client, server
}

// cutter says how long the next piece is.
type cutter struct {
	sizes []byte
	i     int
}

func (c *cutter) cut(b []byte) (piece, rest []byte) {
	n := len(b)
	if len(c.sizes) > 0 {
		n = min(n, 1+int(c.sizes[c.i%len(c.sizes)]))
		c.i++
	}
	return b[:n], b[n:]
}

// observe feeds a conversation, the client's side first, in pieces, and gives all that came of it.
func observe(whole int, client, server, sizes []byte) (told string, events []recorder.Event, toServer, toClient []byte) {
	m := &memory{}
	o := newObserver(whole, false)
	o.sink = m
	p := newPump(o)
	p.keep = true
	c := cutter{sizes: sizes}
	var outErr, inErr error
	for len(client) > 0 && outErr == nil {
		var piece []byte
		piece, client = c.cut(client)
		outErr = p.outbound(piece)
	}
	for len(server) > 0 && inErr == nil {
		var piece []byte
		piece, server = c.cut(server)
		inErr = p.inbound(piece)
	}
	flushed := o.flush()
	events = m.all()
	told = fmt.Sprintf("%s%v %v %v %d %v", show(events), outErr, inErr, flushed, o.inFlight(), o.names.bytes)
	return told, events, p.to, p.sent
}

// FuzzObserver: whatever both sides send, nothing panics, memory stays bounded, and the events are the
// same however the network slices the bytes. Nothing is forwarded that was not sent.
func FuzzObserver(f *testing.F) {
	client, server := conversation(f)
	f.Add(client, server, []byte{0})
	f.Add(client, server, []byte{6, 1, 200, 3})
	f.Add([]byte("Q\x00\x00\x00\x06;\x00"), []byte("E\x00\x00\x00\x05\x00Z\x00\x00\x00\x05I"), []byte{2})
	f.Add([]byte("B\x00\x00\x00\x14\x00\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x04"), []byte("t\x7f\xff\xff\xff\xff\xff"), []byte{1, 7})
	f.Fuzz(func(t *testing.T, client, server, sizes []byte) {
		if len(client) > 1<<16 || len(server) > 1<<16 {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		whole, _, to, from := observe(minWhole, client, server, nil)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%d bytes were allocated for %d", n, len(client)+len(server))
		}
		pieces, _, to2, from2 := observe(minWhole, client, server, sizes)
		if whole != pieces {
			t.Errorf("in one piece:\n%s\nin pieces:\n%s", whole, pieces)
		}
		if !bytes.Equal(to, to2) || !bytes.Equal(from, from2) {
			t.Error("what is forwarded depends on the slices")
		}
		if len(to) > len(client) {
			t.Error("more was forwarded than was sent")
		}
	})
}

// FuzzParts: a message that is recorded in parts says the same as one that is recorded whole.
func FuzzParts(f *testing.F) {
	client, _ := conversation(f)
	f.Add(client)
	f.Add(encode(f, &pgproto3.Parse{Query: "x", ParameterOIDs: []uint32{3802, 17, 25, 23}},
		&pgproto3.Bind{ParameterFormatCodes: []int16{1}, Parameters: [][]byte{append([]byte{1}, bytes.Repeat([]byte("j"), 700)...), bytes.Repeat([]byte{0xff}, 500), bytes.Repeat([]byte("\xe2\x9c\x93"), 300), {0, 0, 0, 1}}}))
	f.Fuzz(func(t *testing.T, client []byte) {
		if len(client) > defaultWhole {
			return
		}
		told, parts, to, _ := observe(minWhole, client, nil, nil)
		told2, wholes, to2, _ := observe(defaultWhole, client, nil, nil)
		if !bytes.HasPrefix(to2, to) && !bytes.HasPrefix(to, to2) && !bytes.Contains(bytes.ToLower(client), []byte("prepare")) {
			t.Error("what is forwarded depends on the parts")
		}
		if strings.Contains(told+told2, recorder.EndViolation) {
			return // some of a malformed message may be on record in parts; or a name was too long for a part
		}
		if len(to) != len(client) || len(to2) != len(client) || unfinished(parts) || unfinished(wholes) {
			return // the last message is not complete
		}
		got, want := joined(t, parts), joined(t, wholes)
		if len(got) != len(want) {
			t.Fatalf("%d statements in parts, %d whole", len(got), len(want))
		}
		for id, w := range want {
			g := got[id]
			if g == nil || !bytes.Equal(g.Text, w.Text) || g.Kind != w.Kind || g.Of != w.Of || !bytes.Equal(g.Name, w.Name) || len(g.Params) != len(w.Params) {
				t.Fatalf("statement %d: in parts %s, whole %s", id, show([]recorder.Event{*g}), show([]recorder.Event{*w}))
			}
			for i := range w.Params {
				if g.Params[i].Type != w.Params[i].Type || g.Params[i].Hex == w.Params[i].Hex && !bytes.Equal(g.Params[i].Value, w.Params[i].Value) {
					t.Fatalf("statement %d, parameter %d: in parts %q, whole %q", id, i, g.Params[i].Value, w.Params[i].Value)
				}
			}
		}
	})
}

// unfinished says whether the last statement has no end.
func unfinished(events []recorder.Event) bool {
	more := map[uint64]bool{}
	for _, e := range events {
		if e.Type == recorder.TypeStatement || e.Type == recorder.TypePart {
			more[e.ID] = e.More
		}
	}
	for _, m := range more {
		if m {
			return true
		}
	}
	return false
}

// FuzzFrame: the reader of messages before login gives what was sent, or an error, and never holds more
// than its limit allows.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("p\x00\x00\x00\x08abcdR\x00\x00\x00\x04"), []byte{3})
	f.Add([]byte("p\xff\xff\xff\xff"), []byte{0})
	f.Add([]byte("p\x00\x00\x00\x00"), []byte{0})
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		const limit = 4096
		r := frameReader{conn: &slicer{data: data, cutter: cutter{sizes: sizes}}}
		var back []byte
		for {
			typ, body, err := r.next(limit)
			if cap(r.buf) > 4*limit+len(data) {
				t.Fatalf("%d bytes are held", cap(r.buf))
			}
			if err != nil {
				break
			}
			if len(body) > limit {
				t.Fatalf("a body of %d bytes", len(body))
			}
			back = binary.BigEndian.AppendUint32(append(back, typ), uint32(len(body)+4))
			back = append(back, body...)
		}
		if !bytes.HasPrefix(data, back) {
			t.Fatal("what was read is not what was sent")
		}
	})
}

// slicer is a Reader that gives pieces.
type slicer struct {
	data   []byte
	cutter cutter
}

func (s *slicer) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	piece, _ := s.cutter.cut(s.data[:min(len(p), len(s.data))])
	s.data = s.data[copy(p, piece):]
	return len(piece), nil
}

// FuzzStartup: a stranger may send anything.
func FuzzStartup(f *testing.F) {
	f.Add(startupMessage(version3, "user", "g1", "database", "d", "_pq_.x", "y"))
	f.Add(append(gssRequest(), startupMessage(version3|2, "user", "g1")...))
	f.Add(append(sslRequest(), startupMessage(version3, "user", "g1")...))
	f.Add(append(append(be32(16), be32(codeCancel)...), 0, 0, 0, 1, 0, 0, 0, 2))
	hello := "n,,n=,r=abc"
	f.Add(append(startupMessage(version3, "user", "g1"), appendMessage(nil, msgPassword, []byte("SCRAM-SHA-256\x00"), be32(len(hello)), []byte(hello))...))
	front := NewFront(FrontConfig{})
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(data)
			theirs.Close()
		}()
		defer ours.Close()
		c, err := front.Accept(t.Context(), ours, doorman{})
		if err == nil {
			t.Fatalf("accepted: %+v", c.Login())
		}
		var refusal *protocol.Refusal
		if errors.As(err, &refusal) && refusal.Public == "" {
			t.Error("a refusal that says nothing")
		}
	})
}

// FuzzStartupTLS: the same where TLS is to be had, asked for or begun at once.
func FuzzStartupTLS(f *testing.F) {
	for _, protos := range [][]string{nil, {alpn}, {"h2"}} {
		var hello bytes.Buffer
		config := &tls.Config{ServerName: "x", NextProtos: protos}
		_ = tls.Client(&recording{Writer: &hello}, config).Handshake() // ends where an answer would be read
		f.Add(hello.Bytes())
		f.Add(append(sslRequest(), hello.Bytes()...))
		f.Add(append(append(gssRequest(), sslRequest()...), hello.Bytes()[:len(hello.Bytes())/2]...))
	}
	f.Add(append(sslRequest(), startupMessage(version3, "user", "g1")...))
	f.Add([]byte{recordHandshake, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff})
	front := NewFront(FrontConfig{TLS: serverTLS(selfSigned(f, x509.ECDSAWithSHA256)), RequireTLS: true})
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(data)
			theirs.Close()
		}()
		defer ours.Close()
		c, err := front.Accept(t.Context(), ours, doorman{})
		if err == nil {
			t.Fatalf("accepted: %+v", c.Login())
		}
	})
}

// recording is a connection that only takes.
type recording struct {
	net.Conn
	io.Writer
}

func (r *recording) Read([]byte) (int, error)         { return 0, io.EOF }
func (r *recording) Write(b []byte) (int, error)      { return r.Writer.Write(b) }
func (r *recording) Close() error                     { return nil }
func (r *recording) SetDeadline(time.Time) error      { return nil }
func (r *recording) SetWriteDeadline(time.Time) error { return nil }

// FuzzValues: a binary value from a client decodes to text of a size in proportion, or not at all.
func FuzzValues(f *testing.F) {
	for _, oid := range []uint32{oidBool, oidInt8, oidFloat4, oidDate, oidTimestampTZ, oidInterval, oidNumeric, oidUUID, oidJSONB, 1007, 1231} {
		f.Add(oid, []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9})
		f.Add(oid, []byte{0, 1, 0x7f, 0xff, 0x40, 0, 0x3f, 0xff, 0, 1})
		f.Add(oid, bytes.Repeat([]byte{0x80}, 16))
	}
	f.Fuzz(func(t *testing.T, oid uint32, v []byte) {
		text, ok := appendValue(nil, oid, v)
		if ok && len(text) > 64*len(v)+1024 {
			t.Errorf("%d bytes of text for %d", len(text), len(v))
		}
	})
}

// FuzzLexer: the same is found however the text is sliced.
func FuzzLexer(f *testing.F) {
	f.Add([]byte("PREPARE TRANSACTION 'a'; SELECT E'\\'' U&'x' $a$ /* ; */ $a$ -- x\n \"y\""), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		whole, pieces := newLexer(settings{}), newLexer(settings{})
		found := whole.scan(text, true)
		gids := fmt.Sprintf("%q", whole.take())
		n := int(size) + 1
		rest := text
		var list [][]byte
		for len(rest) > n {
			pieces.scan(rest[:n], false)
			list = append(list, pieces.take()...)
			rest = rest[n:]
		}
		if again := pieces.scan(rest, true); again != found {
			t.Errorf("found %v whole, %v in pieces", found, again)
		}
		list = append(list, pieces.take()...)
		if found && fmt.Sprintf("%q", list) != gids && !sameSet(list, gids) {
			t.Errorf("gids %s whole, %q in pieces", gids, list)
		}
	})
}

// sameSet compares without order: both readings are taken in turn at each piece.
func sameSet(list [][]byte, want string) bool {
	for _, g := range list {
		if !bytes.Contains([]byte(want), fmt.Appendf(nil, "%q", g)) {
			return false
		}
	}
	return true
}

// FuzzInterleaved: both sides at once, in pieces: nothing panics, results point at statements that are on
// record, and a statement is recorded before its result.
func FuzzInterleaved(f *testing.F) {
	client, server := conversation(f)
	f.Add(client, server, []byte{0})
	f.Add(client, server, []byte{60, 10, 255})
	f.Fuzz(func(t *testing.T, client, server, sizes []byte) {
		m := &memory{}
		o := newObserver(minWhole, false)
		o.sink = m
		p := newPump(o)
		c := cutter{sizes: sizes}
		for len(client) > 0 || len(server) > 0 {
			var piece []byte
			piece, client = c.cut(client)
			if p.outbound(piece) != nil {
				client = nil
			}
			piece, server = c.cut(server)
			if p.inbound(piece) != nil {
				server = nil
			}
		}
		seen := uint64(0)
		for _, e := range m.all() {
			if e.Type == recorder.TypeStatement {
				if e.ID != seen+1 || e.Of >= e.ID {
					t.Fatalf("statement %d of %d behind %d", e.ID, e.Of, seen)
				}
				seen = e.ID
			} else if e.Of > seen {
				t.Fatalf("%s of statement %d, which is not on record", e.Type, e.Of)
			}
		}
	})
}
