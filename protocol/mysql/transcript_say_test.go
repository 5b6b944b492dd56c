package mysql

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// said is a command that was sent.
type said struct {
	command byte
	frames  byte // how many the command took; the server counts on behind them
	file    bool // it was answered by a request for a file, and goes on behind the file
}

// speech are a transcript's words for commands. Text is one or several of "…" in Go's notation, "…"*N for N
// times the same; a number of a statement is its place among those that the connection prepared, from 1, or
// last; $NAME is the id that a connection was greeted with.
var speech = map[string]byte{
	"quit": comQuit, "init_db": comInitDB, "query": comQuery, "field_list": comFieldList, "refresh": comRefresh, "statistics": comStatistics,
	"process_info": comProcessInfo, "process_kill": comProcessKill, "debug": comDebug, "ping": comPing, "prepare": comStmtPrepare,
	"execute": comStmtExecute, "long_data": comStmtLongData, "close": comStmtClose, "reset": comStmtReset, "set_option": comSetOption,
	"fetch": comStmtFetch, "reset_connection": comResetConnection, "bulk": comStmtBulkExecute, "change_user": comChangeUser,
}

// say adds a command to what is sent next:
//
//	query [with NAME VALUE …] TEXT        execute N [cursor] [known] VALUE…     long_data N PARAMETER TEXT
//	bulk N TYPE… / VALUE… / VALUE…        fetch N ROWS                          field_list TABLE PATTERN
//	raw HEX or TEXT …                     data TEXT, data: of a file, and its end
//
// A VALUE is int:N, double:X, string:"…", blob:"…", null, or sent:TYPE for what long_data has sent; of a known one the type
// is not said again. In a bulk it is N, "…", null, default or ignore.
func (k *talk) say(text string) {
	w := &words{t: k.t, rest: text, talk: k}
	word := w.next()
	if word == "data" {
		payload := w.text()
		k.unsent = append(k.unsent, packets(k.fileSeq, payload)...)
		k.fileSeq += byte(1 + len(payload)/maxFrame)
		if len(payload) == 0 {
			k.waiting = append(k.waiting, said{command: k.file.command, file: true})
			k.reader.seq = k.fileSeq
		}
		return
	}
	payload := k.payload(word, w)
	if w.rest != "" {
		k.t.Fatalf("%s: behind its end: %s", text, w.rest)
	}
	k.unsent = appendPacket(k.unsent, 0, payload)
	c := said{frames: byte(1 + len(payload)/maxFrame)}
	if len(payload) > 0 {
		c.command = payload[0]
	}
	if answersTo(c.command) {
		k.waiting = append(k.waiting, c)
	}
}

// answersTo says whether a command is answered; closing the connection is the answer to a goodbye.
func answersTo(command byte) bool { return command != comStmtLongData && command != comStmtClose }

func (k *talk) payload(word string, w *words) []byte {
	if word == "raw" {
		var b []byte
		for w.rest != "" {
			if w.rest[0] == '"' {
				b = append(b, w.quoted()...)
				continue
			}
			more, err := hex.DecodeString(w.next())
			if err != nil {
				k.t.Fatal(err)
			}
			b = append(b, more...)
		}
		return b
	}
	b, ok := speech[word]
	if !ok {
		k.t.Fatalf("no command: %s", word)
	}
	head := []byte{b}
	switch b {
	case comQuery:
		return glue(head, k.attributes(w), w.text())
	case comFieldList:
		return glue(head, w.quoted(), []byte{0}, w.text())
	case comRefresh:
		return append(head, byte(w.number()))
	case comSetOption:
		return glue(head, le16(uint16(w.number())))
	case comProcessKill:
		return glue(head, le32(uint32(w.number())))
	case comStmtExecute:
		return k.execute(w)
	case comStmtBulkExecute:
		return k.bulk(w)
	case comStmtLongData:
		return glue(head, le32(w.handle()), le16(uint16(w.number())), w.text())
	case comStmtClose, comStmtReset:
		return glue(head, le32(w.handle()))
	case comStmtFetch:
		return glue(head, le32(w.handle()), le32(uint32(w.number())))
	}
	return append(head, w.text()...)
}

// attributes stand before a query's text, for those who have them.
func (k *talk) attributes(w *words) []byte {
	if k.caps&capQueryAttributes == 0 {
		return nil
	}
	var names []string
	var values []typedValue
	for w.peek("with") {
		names = append(names, w.next())
		values = append(values, w.value())
	}
	b := []byte{byte(len(names)), 1}
	if len(names) == 0 {
		return b
	}
	nulls := make([]byte, (len(values)+7)/8)
	var types, raw []byte
	for i, v := range values {
		if v.raw == nil {
			nulls[i/8] |= 1 << (i % 8)
		}
		types = appendLenencBytes(append(types, le16(v.typ)...), names[i])
		raw = append(raw, v.raw...)
	}
	return glue(b, nulls, []byte{1}, types, raw)
}

func (k *talk) execute(w *words) []byte {
	handle := w.handle()
	cursor, known := w.peek("cursor"), w.peek("known")
	var values []typedValue
	for w.rest != "" {
		values = append(values, w.value())
	}
	b := executeOf(handle, values...)
	if k.caps&capQueryAttributes != 0 && len(values) > 0 {
		// The parameters' count and names are said where the flag of the count is; without it nothing changes.
		b[5] = 0
	}
	if cursor {
		b[5] |= 1
	}
	if known && len(values) > 0 {
		at := 10 + (len(values)+7)/8
		b = slices.Delete(b, at, at+1+2*len(values))
		b = slices.Insert(b, at, 0)
	}
	return b
}

// bulkTypes are a transcript's words for the types of a bulk.
var bulkTypes = map[string]uint16{"int": typeLong, "string": typeString}

func (k *talk) bulk(w *words) []byte {
	b := glue([]byte{comStmtBulkExecute}, le32(w.handle()))
	flags, types := uint16(flagSendTypes), []byte(nil)
	if w.peek("unit") {
		flags |= 0x40 // one result for each row
	}
	var kinds []string
	for w.rest != "" && !w.peek("/") {
		word := w.next()
		kinds = append(kinds, word)
		types = append(types, le16(bulkTypes[word])...)
	}
	b = glue(b, le16(flags), types)
	for i := 0; w.rest != ""; i++ {
		if w.peek("/") {
			i = 0
		}
		switch {
		case w.peek("null"):
			b = append(b, 1)
		case w.peek("default"):
			b = append(b, 2)
		case w.peek("ignore"):
			b = append(b, 3)
		case kinds[i%len(kinds)] == "int":
			b = glue(b, []byte{0}, le32(uint32(w.number())))
		default:
			b = appendLenencBytes(append(b, 0), w.quoted())
		}
	}
	return b
}

// words are the words of a command.
type words struct {
	t    testing.TB
	rest string
	talk *talk
}

func (w *words) next() string {
	word, rest, _ := strings.Cut(w.rest, " ")
	w.rest = strings.TrimLeft(rest, " ")
	return word
}

// peek takes a word if it is the next one.
func (w *words) peek(word string) bool {
	if next, _, _ := strings.Cut(w.rest, " "); next != word {
		return false
	}
	w.next()
	return true
}

func (w *words) number() uint64 {
	word := w.next()
	if name, ok := strings.CutPrefix(word, "$"); ok {
		return uint64(w.talk.leg.talks[name].id)
	}
	n, err := strconv.ParseUint(word, 0, 64)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// handle is what the server calls a statement.
func (w *words) handle() uint32 {
	if w.peek("last") {
		return lastPrepared
	}
	n := w.number()
	if n > 0 && n <= uint64(len(w.talk.handles)) {
		return w.talk.handles[n-1]
	}
	return uint32(n)
}

// quoted is one "…" or "…"*N.
func (w *words) quoted() []byte {
	prefix, err := strconv.QuotedPrefix(w.rest)
	if err != nil {
		w.t.Fatalf("no text: %s", w.rest)
	}
	s, _ := strconv.Unquote(prefix) // it is quoted
	w.rest = w.rest[len(prefix):]
	times := 1
	if strings.HasPrefix(w.rest, "*") {
		if times, err = strconv.Atoi(w.next()[1:]); err != nil {
			w.t.Fatal(err)
		}
	}
	w.rest = strings.TrimLeft(w.rest, " ")
	return bytes.Repeat([]byte(s), times)
}

// text is all that is left. The ids of connections stand in it by their names.
func (w *words) text() (b []byte) {
	for w.rest != "" {
		b = append(b, w.quoted()...)
	}
	for name, k := range w.talk.leg.talks {
		if len(b) < 1<<10 {
			b = bytes.ReplaceAll(b, []byte("$"+name), []byte(strconv.FormatUint(uint64(k.id), 10)))
		}
	}
	return b
}

// value is a typed one.
func (w *words) value() typedValue {
	if w.peek("null") {
		return typedValue{typ: typeNull}
	}
	kind, _, _ := strings.Cut(w.rest, ":")
	w.rest = w.rest[min(len(kind)+1, len(w.rest)):]
	switch kind {
	case "int":
		return integer(uint32(w.number()))
	case "double":
		v, err := strconv.ParseFloat(w.next(), 64)
		if err != nil {
			w.t.Fatal(err)
		}
		return typedValue{typeDouble, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))}
	case "string":
		return typedValue{typeVarString, appendLenencBytes(nil, w.quoted())}
	case "blob":
		return typedValue{typeLongBlob, appendLenencBytes(nil, w.quoted())}
	case "sent":
		w.next()
		return typedValue{typeLongBlob, []byte{}}
	}
	w.t.Fatalf("no value: %s:%s", kind, w.rest)
	return typedValue{}
}

// dialAs logs in without showing it.
func dialAs(t testing.TB, port int, user, password string, caps capability) *rawClient {
	t.Helper()
	c := dialRaw(t, port, user, password, caps)
	c.reader.exact = true // nothing is read before it is asked for
	return c
}

// login shows a login, which is played here as a client of that plugin does it.
func (g *leg) login(name string, words []string) {
	set := map[string]string{"plugin": pluginNative, "password": "right", "user": g.user}
	var caps []string
	for _, word := range words {
		if key, value, ok := strings.Cut(word, "="); ok {
			set[key] = value
		} else {
			caps = append(caps, word)
		}
	}
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(g.port)))
	if err != nil {
		g.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	k := &talk{leg: g, name: name, rawClient: &rawClient{upstream: &upstream{conn: conn}, t: g.t}}
	k.reader.conn = conn
	g.talks[name] = k
	p := k.next()
	if p == nil {
		return
	}
	greeting, err := parseGreeting(p)
	if err != nil {
		g.t.Fatal(err)
	}
	k.showGreeting(greeting)
	k.id, k.server = greeting.id, greeting.server
	secret := map[string]string{"right": g.secret, "wrong": "wrong", "none": ""}[set["password"]]
	said := g.capsOf(caps)
	k.caps = said & (greeting.caps | capLongFlag)
	pr := &prover{plugin: set["plugin"], scramble: greeting.scramble, l: landing{secret: secret}}
	b := glue((&upstream{caps: said}).opening(landing{charset: 45, maxPacket: 1 << 24}), []byte(set["user"]), []byte{0}, appendLenencBytes(nil, k.prove(pr)))
	if said&capConnectWithDB != 0 {
		b = append(append(b, set["database"]...), 0)
	}
	k.write(glue(b, []byte(pr.plugin), []byte{0}))
	for {
		p := k.next()
		if p == nil || !k.letIn(p, pr) {
			return
		}
	}
}

// write sends a packet of the login.
func (k *talk) write(payload []byte) {
	k.unsent = appendPacket(k.unsent, k.reader.seq, payload)
	k.reader.seq++
	k.send()
}

// prove is the first answer of a plugin.
func (k *talk) prove(pr *prover) []byte {
	if pr.l.secret == "" {
		return nil
	}
	if pr.plugin == pluginClear {
		return append([]byte(pr.l.secret), 0)
	}
	answer, _ := pr.first()
	return answer
}

// letIn shows a packet of the login and answers it; false: it is over.
func (k *talk) letIn(p []byte, pr *prover) bool {
	g := k.leg
	switch {
	case p[0] == packetOK, p[0] == packetErr:
		k.plain(p)
		return false
	case p[0] == packetEOF:
		name, data, _ := cstring(p[1:])
		g.show(k, "%d auth_switch %s with %d bytes", k.reader.seq-1, name, len(data))
		if pr.plugin = string(name); len(data)%2 == 1 {
			data = data[:len(data)-1]
		}
		pr.scramble = bytes.Clone(data)
		k.write(k.prove(pr))
	case p[0] == packetMore && len(p) > 2:
		g.show(k, "%d auth_more KEY", k.reader.seq-1)
		k.write(make([]byte, 256))
	default:
		g.show(k, "%d auth_more %x", k.reader.seq-1, p[1:])
		if len(p) == 2 && p[1] == sha2AskFull {
			k.write([]byte{sha2AskKey})
		}
	}
	return true
}

func (k *talk) showGreeting(s greeting) {
	k.leg.show(k, "%d greeting %s charset=%d status=%s plugin=%s %s", k.reader.seq-1, s.version, s.charset, statusNames(s.status), s.plugin, capNames(s.caps&^notOffered))
	if len(s.scramble) != scrambleBytes {
		k.leg.show(k, "? a scramble of %d bytes", len(s.scramble))
	}
}

// notOffered are the capabilities that Curfew does not hand on: compression and several commands in one packet
// would hide what is to be recorded, several factors are of no use, and TLS is each listener's own.
const notOffered = capCompress | capZstd | capComMulti | capMultiFactor | capCapabilityExtension | capSSL

// capWords are the names of the capabilities, by their bits.
var capWords = strings.Fields("long_password found_rows long_flag connect_with_db no_schema compress odbc local_files ignore_space protocol_41 interactive ssl " +
	"ignore_sigpipe transactions reserved secure_connection multi_statements multi_results ps_multi_results plugin_auth connect_attrs plugin_auth_lenenc " +
	"expired_passwords session_track deprecate_eof optional_metadata zstd query_attributes multi_factor capability_extension verify_server_cert remember_options " +
	"progress com_multi bulk extended_metadata cache_metadata bulk_unit_results")

func capNamed(t testing.TB, name string) capability {
	t.Helper()
	i := slices.Index(capWords, name)
	if i < 0 {
		t.Fatalf("no capability: %s", name)
	}
	return 1 << i
}

func capNames(caps capability) string {
	var list []string
	for i := range 64 {
		if caps&(1<<i) == 0 {
			continue
		}
		if i < len(capWords) {
			list = append(list, capWords[i])
		} else {
			list = append(list, fmt.Sprintf("bit_%d", i))
		}
	}
	return strings.Join(list, " ")
}
