package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/curfewdb/curfew/protocol/relay"
	"github.com/curfewdb/curfew/recorder"
)

// honest is a server that answers as PostgreSQL does, told by the bytes of a program what, and a client that
// pipelines.
type honest struct {
	t        testing.TB
	program  []byte
	messages [][]byte // the client's
	answers  [][]byte // what the server says when it has read each of them
	want     []string // results that must be on record
	held     string   // one whose transaction the server's next message tells
}

func (h *honest) next() (b byte) {
	if len(h.program) > 0 {
		b, h.program = h.program[0], h.program[1:]
	}
	return b
}

type message interface{ Encode([]byte) ([]byte, error) }

// says is a message of the client's, and what the server answers. Some come in between that nobody asked for.
func (h *honest) says(m message, answers ...message) {
	h.messages = append(h.messages, encode(h.t, m))
	var b []byte
	for _, a := range answers {
		switch h.next() % 16 {
		case 13:
			b = append(b, encode(h.t, &pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "a word"})...)
		case 14:
			b = append(b, encode(h.t, &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"})...)
		case 15:
			b = append(b, encode(h.t, &pgproto3.NotificationResponse{PID: 1, Channel: "c", Payload: "p"})...)
		}
		b = append(b, encode(h.t, a)...)
	}
	h.answers = append(h.answers, b)
}

// result expects one; it was held until the server's next message.
func (h *honest) result(rows int, code string) {
	h.held = fmt.Sprintf("rows=%d code=%s tx=", rows, code)
}

func (h *honest) settle(tx recorder.Tx) {
	if h.held != "" {
		h.want = append(h.want, h.held+string(tx))
		h.held = ""
	}
}

func (h *honest) fails() message {
	h.settle(recorder.TxUnknown)
	h.result(0, "42P01")
	return &pgproto3.ErrorResponse{Severity: "ERROR", Code: "42P01", Message: "no"}
}

func (h *honest) ready() message {
	b := h.next() % 3
	h.settle([]recorder.Tx{recorder.TxIdle, recorder.TxOpen, recorder.TxFailed}[b])
	return &pgproto3.ReadyForQuery{TxStatus: "ITE"[b]}
}

// rows are those of a statement, up to an end of its own.
func (h *honest) rows(described bool) (list []message) {
	h.settle(recorder.TxUnknown)
	if described {
		list = append(list, &pgproto3.RowDescription{})
	}
	kinds := [][][]byte{{}, {nil}, {[]byte("x"), nil}, {bytes.Repeat([]byte("y"), 1000)}}
	n := int(h.next())
	for range n {
		list = append(list, &pgproto3.DataRow{Values: kinds[n%4]})
	}
	h.result(n, "")
	return append(list, &pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "SELECT %d", n)})
}

func (h *honest) query() {
	var list []message
	for n := h.next() % 4; ; n-- {
		switch h.next() % 5 {
		case 0:
			list = append(list, h.fails())
			h.says(&pgproto3.Query{String: "SELECT 1; SELECT 2"}, append(list, h.ready())...)
			return
		case 1:
			h.settle(recorder.TxUnknown)
			h.result(7, "")
			list = append(list, &pgproto3.CommandComplete{CommandTag: []byte("UPDATE 7")})
		default:
			list = append(list, h.rows(true)...)
		}
		if n == 0 {
			break
		}
	}
	h.says(&pgproto3.Query{String: "SELECT 1; SELECT 2"}, append(list, h.ready())...)
}

func (h *honest) copyIn() {
	h.says(&pgproto3.Query{String: "COPY t FROM STDIN"}, &pgproto3.CopyInResponse{})
	for range h.next() % 8 {
		h.says(&pgproto3.CopyData{Data: bytes.Repeat([]byte("x\n"), int(h.next()))})
	}
	if h.next()%4 == 0 {
		h.says(&pgproto3.CopyFail{Message: "enough"}, h.fails(), h.ready())
		return
	}
	h.result(5, "")
	h.says(&pgproto3.CopyDone{}, &pgproto3.CommandComplete{CommandTag: []byte("COPY 5")}, h.ready())
}

func (h *honest) copyOut() {
	list := []message{&pgproto3.CopyOutResponse{}}
	for range h.next() % 8 {
		list = append(list, &pgproto3.CopyData{Data: bytes.Repeat([]byte("x\n"), int(h.next()))})
	}
	h.result(9, "")
	h.says(&pgproto3.Query{String: "COPY t TO STDOUT"}, append(list, &pgproto3.CopyDone{}, &pgproto3.CommandComplete{CommandTag: []byte("COPY 9")}, h.ready())...)
}

// flight is what comes up to a Sync: behind an error the server skips to it.
func (h *honest) flight() {
	skips := false
	for n := h.next() % 12; n > 0; n-- {
		op, fails := h.next(), h.next()%16 == 0
		var m message
		var answer []message
		switch op % 8 {
		case 0:
			m, answer = &pgproto3.Parse{Name: string('a' + rune(op>>4)), Query: "SELECT $1", ParameterOIDs: []uint32{23}}, []message{&pgproto3.ParseComplete{}}
		case 1, 2:
			m, answer = &pgproto3.Bind{DestinationPortal: "p", PreparedStatement: string('a' + rune(op>>4)), Parameters: [][]byte{[]byte("1")}}, []message{&pgproto3.BindComplete{}}
		case 3:
			m, answer = &pgproto3.Describe{ObjectType: 'S', Name: string('a' + rune(op>>4))}, []message{&pgproto3.ParameterDescription{ParameterOIDs: []uint32{25}}, &pgproto3.NoData{}}
		case 4:
			m, answer = &pgproto3.Close{ObjectType: 'P', Name: "p"}, []message{&pgproto3.CloseComplete{}}
		case 5:
			m, fails = &pgproto3.Flush{}, false
		default:
			m = &pgproto3.Execute{Portal: "p", MaxRows: uint32(op)}
			if !skips && !fails {
				if answer = h.rows(false); op&0x10 != 0 && len(answer) > 1 { // else it would be the tag's number
					answer[len(answer)-1] = &pgproto3.PortalSuspended{}
				}
			}
		}
		switch {
		case skips:
			answer = nil
		case fails:
			answer, skips = []message{h.fails()}, true
		case len(answer) > 0 && op%8 < 5:
			h.settle(recorder.TxUnknown)
		}
		h.says(m, answer...)
	}
	h.says(&pgproto3.Sync{}, h.ready())
}

// FuzzAnswers: whatever an honest server answers to whatever is asked of it, however it is pipelined and sliced,
// each answer is paired with its request, its rows are counted, and both sides read what the other sent.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0, 2, 2, 3, 1, 0, 0, 1, 1, 5, 0x10, 1, 3, 2, 6, 3, 0, 0, 2, 3, 5, 5, 1, 3, 3, 7, 9}, []byte{0})
	f.Add([]byte{1, 11, 0, 1, 1, 1, 6, 1, 200, 6, 0, 3, 4, 5, 1, 1, 11, 3, 1, 3, 1, 0x16, 1, 9, 4, 1, 7, 1, 0, 15, 14, 13}, []byte{3, 60, 255})
	f.Add([]byte{4, 4, 1, 0, 4, 0, 1, 6, 1, 1, 2, 3, 4, 5, 6}, []byte{200})
	f.Fuzz(func(t *testing.T, program, sizes []byte) {
		if len(program) > 200 {
			return
		}
		h := &honest{t: t, program: program}
		for len(h.program) > 0 {
			switch h.next() % 6 {
			case 1, 5:
				h.flight()
			case 2:
				h.copyIn()
			case 3:
				h.copyOut()
			case 4:
				h.result(0, "")
				h.says(&pgproto3.FunctionCall{Function: 1234}, &pgproto3.FunctionCallResponse{Result: []byte("r")}, h.ready())
			default:
				h.query()
			}
		}
		m := &memory{}
		o := newObserver(minWhole, false)
		o.sink = m
		h.talk(newPump(o), cutter{sizes: sizes})
		var got []string
		for _, e := range m.all() {
			if e.Type == recorder.TypeResult && string(e.Code) != codeSkipped {
				got = append(got, fmt.Sprintf("rows=%d code=%s tx=%s", e.Rows, e.Code, e.Tx))
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(h.want) {
			t.Errorf("results\n%q\n want\n%q", got, h.want)
		}
	})
}

// talk plays both sides: the server answers what reached it, the client waits for nothing.
func (h *honest) talk(p *pump, cut cutter) {
	p.keep = true
	client, server := bytes.Join(h.messages, nil), bytes.Join(h.answers, nil)
	sent, said, answered, due := client, []byte(nil), 0, 0
	for len(p.sent) < len(server) || len(p.to) < len(client) {
		before := len(p.sent) + len(p.to)
		piece := []byte(nil)
		if len(p.held) < 8192 {
			piece, sent = cut.cut(sent)
		}
		p.held = append(p.held, piece...)
		used, out, err := p.o.Outbound(p.held)
		p.to, p.held = append(p.to, out...), p.held[used:]
		if err != nil && !errors.Is(err, relay.ErrBusy) {
			h.t.Fatalf("the client's side: %v", err)
		}
		for answered < len(h.messages) && len(p.to) >= due+len(h.messages[answered]) {
			due += len(h.messages[answered])
			said = append(said, h.answers[answered]...)
			answered++
		}
		heard, rest := cut.cut(said)
		said = rest
		if err := p.inbound(heard); err != nil {
			h.t.Fatalf("the server's side: %v", err)
		}
		if len(piece)+len(heard) == 0 && before == len(p.sent)+len(p.to) {
			h.t.Fatalf("nothing goes on: %d of %d bytes reached the server, %d of %d the client", len(p.to), len(client), len(p.sent), len(server))
		}
	}
	if err := p.o.flush(); err != nil {
		h.t.Fatal(err)
	}
	if !bytes.Equal(p.to, client) || !bytes.Equal(p.sent, server) {
		h.t.Error("what is forwarded is not what was sent")
	}
	if n := p.o.inFlight(); n != 0 {
		h.t.Errorf("statement %d is in flight", n)
	}
}

// FuzzCancel: a cancel request finds the session whose whole key it has, and no other.
func FuzzCancel(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0}, uint8(8), false)
	f.Add(make([]byte, 300), uint8(0), true)
	f.Fuzz(func(t *testing.T, body []byte, theirs uint8, long bool) {
		var c cancels
		c.init()
		minor := uint32(0)
		if long {
			minor = 2
		}
		mine := c.issue(&link{}, minor)
		key := append(binary.BigEndian.AppendUint32(nil, mine.pid), mine.key...)
		copy(body, key[:min(int(theirs), len(key))]) // so many bytes of it were guessed
		if found := c.find(body); (found == mine) != bytes.Equal(body, key) || found != nil && found != mine {
			t.Fatalf("%x finds %+v, whose key is %x", body, found, key)
		}
	})
}

// FuzzVerifier: what is taken for a verifier is one, whole.
func FuzzVerifier(f *testing.F) {
	known, err := scramVerifier("secret", 4096)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(known))
	f.Add([]byte("SCRAM-SHA-256$-1:YQ==$YQ==:YQ=="))
	f.Add([]byte("MYSQL$::"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseVerifier(text)
		if err != nil {
			if v.Iters != 0 || v.Salt != "" || v.StoredKey != nil || v.ServerKey != nil {
				t.Error("half a verifier")
			}
			return
		}
		enc := base64.StdEncoding.EncodeToString
		again, err := parseVerifier(fmt.Appendf(nil, "%s$%d:%s$%s:%s", mechanism, v.Iters, enc([]byte(v.Salt)), enc(v.StoredKey), enc(v.ServerKey)))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(v) || v.Iters < 1 {
			t.Fatalf("%q, written and read again: %v", text, err)
		}
	})
}

// FuzzTarget: whatever URL an operator writes, what is taken says how TLS is spoken and who the broker is, and no error
// shows a password.
func FuzzTarget(f *testing.F) {
	for _, text := range []string{
		"postgres://broker@db.example.test:5433/shop?sslmode=disable", "postgres://broker:hunter2@db.example.test", "postgresql://broker@/shop?host=/run",
		"postgres://@[::1]:0/?user=x&connect_timeout=5", "postgres://broker@h/a?password=hunter2", "postgres://%zz:hunter2@h", "postgres://b@h/?sslpassword=hunter2+",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "cert") || strings.Contains(text, "key") || strings.Contains(text, "%") && strings.Contains(text, "?") {
			return // names files of this machine
		}
		made, q, err := targetURL(text)
		if err == nil {
			again, q2, err := targetURL(made)
			if err != nil || again != made || q.Encode() != q2.Encode() || q.Get("sslmode") == "" && len(q["sslmode"]) == 0 {
				t.Fatalf("%q becomes %q, and that %q, %v", text, made, again, err)
			}
			return
		}
		u, perr := url.Parse(text)
		if perr != nil || u.User == nil {
			return
		}
		if p, _ := u.User.Password(); len(p) > 5 && strings.Count(text, p) == 1 && strings.Contains(err.Error(), p) {
			t.Errorf("%q: the error shows the password: %v", text, err)
		}
	})
}
