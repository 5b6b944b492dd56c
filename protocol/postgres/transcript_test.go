package postgres

import (
	"cmp"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// A transcript is a conversation, message by message, in testdata/transcript/*.txt. The same file is run with
// the server itself and through Curfew, as the same account, and what comes back must be the same text. Lines:
//
//	key: value     up to the first empty line: what the file is and needs
//	# …            a remark
//	! directive    what goes on beside the conversation: directives
//	> message      what the client sends: speech; several in a row go out in one write
//	               (an empty line ends it)
//	< message      what the server answers: hearing
//
// A connection has a name, which stands before > and <; that of the first is main, and is left out. Keys:
//
//	recorded    the server's major version that the answers are from; those of another are not compared with the file
//	direct      the oldest server that speaks like that; with an older one only Curfew's answers are compared
//	only        curfew: Curfew does other than the server; such a file is written by hand
//	listener    cleartext: the listener asks for the password itself, as the server does for this database
//	rules       where: Curfew's own words for what the server says, which have no place in the server's source;
//	            status: which settings a server tells of at login is each version's own, and not for the file
//
// What is waited for, unless a directive says otherwise: a ReadyForQuery for each Query, Sync and
// FunctionCall; the end of the connection for Terminate; one byte for SSLRequest and GSSENCRequest.
//
// go test -update writes the answers anew, from the run with the server itself.
var update = flag.Bool("update", false, "write the transcripts' answers anew, from the server itself")

// transcript is a transcript's file.
type transcript struct {
	name  string
	head  []string
	body  []string
	value map[string]string
}

func readTranscript(t testing.TB, file string) *transcript {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &transcript{name: strings.TrimSuffix(filepath.Base(file), ".txt"), value: map[string]string{}}
	head, body, ok := strings.Cut(string(b), "\n\n")
	if !ok {
		t.Fatalf("%s: no empty line behind its head", file)
	}
	s.head, s.body = strings.Split(head, "\n"), strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	for _, line := range s.head {
		if key, value, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "#") {
			s.value[key] = value
		}
	}
	return s
}

func (s *transcript) rule(name string) bool {
	return slices.Contains(strings.Fields(s.value["rules"]), name)
}

// parse splits a line of the body into the connection's name, the mark and the rest.
func parse(line string) (conn string, mark byte, rest string) {
	for i, c := range line {
		switch {
		case c == '>' || c == '<' || i == 0 && (c == '!' || c == '#'):
			return cmp.Or(line[:i], "main"), byte(c), strings.TrimSpace(line[i+1:])
		case c < 'a' || c > 'z':
			return "", 0, line
		}
	}
	return "", 0, line
}

// leg is one run of a transcript: with the server itself, or through Curfew.
type leg struct {
	t        testing.TB
	s        *transcript
	address  string
	tls      *tls.Config
	user     string // at the wire
	password string
	account  string     // shown as ACCOUNT
	grant    string     // is part of that, and shown alike
	slices   *rand.Rand // nil: what is said goes out in one piece
	ended    func()     // waits for the end of a session
	talks    map[string]*talk
	out      []string
}

// talk is one of its connections.
type talk struct {
	leg       *leg
	name      string
	raw       net.Conn
	conn      net.Conn // raw, or TLS over it
	reader    *frameReader
	bound     scram.ChannelBinding
	scram     *scram.ClientConversation
	challenge string
	pid       uint32
	key       []byte
	said      []byte
	ready     int    // how many ReadyForQuery it has to come to
	until     string // or what else
	quiet     bool   // what is heard is not for the file
}

// run gives the body with the answers that came.
func (g *leg) run() string {
	g.talks = map[string]*talk{}
	defer func() {
		for _, k := range g.talks {
			k.raw.Close()
		}
		for range g.talks {
			g.ended()
		}
	}()
	for i := 0; i < len(g.s.body); i++ {
		line := g.s.body[i]
		conn, mark, rest := parse(line)
		if mark == '<' {
			continue
		}
		g.out = append(g.out, line)
		switch mark {
		case '!':
			g.direct(rest)
		case '>':
			k := g.talk(conn)
			b, err := k.say(rest)
			if err != nil {
				g.t.Fatalf("%s: %v", line, err)
			}
			k.said = append(k.said, b...)
			k.expect(rest)
			if i+1 < len(g.s.body) {
				next, mark, rest := parse(g.s.body[i+1])
				if mark == '>' && next == conn {
					continue // it goes out with this
				}
				if until, ok := strings.CutPrefix(rest, "until "); ok && mark == '!' {
					k.until, k.ready = strings.TrimPrefix(until, "nothing"), 0
					i++
					g.out = append(g.out, g.s.body[i])
				}
			}
			k.send()
			k.listen()
		}
	}
	return strings.Join(g.out, "\n")
}

// talk gives the connection of a name, which is made when it is first named.
func (g *leg) talk(name string) *talk {
	if k := g.talks[name]; k != nil {
		return k
	}
	raw, err := net.Dial("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if g.slices != nil {
		raw = &sliced{Conn: raw, random: g.slices}
	}
	k := &talk{leg: g, name: name, raw: raw, conn: raw, reader: &frameReader{conn: raw}}
	g.talks[name] = k
	return k
}

// sliced sends a byte at a time, or a few.
type sliced struct {
	net.Conn
	random *rand.Rand
}

func (s *sliced) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n := 1
		if len(b) > 512 {
			n = min(1+s.random.IntN(200), len(b)-sent)
		}
		if _, err := s.Conn.Write(b[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(b), nil
}

// expect notes what a message's answer ends with.
func (k *talk) expect(line string) {
	name, _, _ := strings.Cut(line, " ")
	switch name {
	case "Query", "Sync", "FunctionCall":
		k.ready++
	case "Terminate", "CancelRequest":
		k.until = "EOF"
	case "SSLRequest", "GSSENCRequest":
		k.until = "byte"
	}
}

func (k *talk) send() {
	_, err := k.conn.Write(k.said)
	k.said = k.said[:0]
	if err != nil && k.until != "EOF" {
		k.leg.t.Fatalf("%s: %v", k.name, err)
	}
}

// listen writes down what comes, up to what is waited for.
func (k *talk) listen() {
	until, ready := strings.Fields(k.until), k.ready
	k.until, k.ready = "", 0
	if slices.Equal(until, []string{"byte"}) {
		k.answer()
		return
	}
	for ready > 0 || len(until) > 0 {
		name := k.hear()
		if name == "ReadyForQuery" {
			ready--
		}
		if len(until) > 0 && name == until[0] {
			until = until[1:]
		}
		if name == "EOF" {
			return
		}
	}
}

// answer is the byte that comes for a request of encryption, or an error in its place.
func (k *talk) answer() {
	var b [1]byte
	if _, err := io.ReadFull(k.conn, b[:]); err != nil {
		k.note(k.ended(err))
		return
	}
	if b[0] == msgErrorResponse {
		k.reader = &frameReader{conn: io.MultiReader(strings.NewReader(string(b[:])), k.conn)}
		for k.hear() != "EOF" {
		}
		return
	}
	k.note(string(b[:]))
}

// hear writes down one message and gives its name.
func (k *talk) hear() string {
	typ, body, err := k.reader.next(1 << 24)
	if err != nil {
		k.note(k.ended(err))
		return "EOF"
	}
	switch typ {
	case msgBackendKeyData:
		k.pid, k.key = uint32(body[0])<<24|uint32(body[1])<<16|uint32(body[2])<<8|uint32(body[3]), slices.Clone(body[4:])
	case msgAuthentication:
		if string(body[:4]) == "\x00\x00\x00\x0b" {
			k.challenge = string(body[4:])
		}
	}
	text := heard(typ, body)
	k.note(text)
	name, _, _ := strings.Cut(text, " ")
	return name
}

// ended says how a connection did. A reset is an end that overtook what was still to be read.
func (k *talk) ended(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		k.leg.t.Errorf("%s, %s: nothing comes any more:\n%s", k.leg.s.name, k.name, strings.Join(k.leg.out, "\n"))
	}
	return "EOF"
}

func (k *talk) note(text string) {
	for _, name := range []string{k.leg.account, k.leg.grant} {
		text = strings.ReplaceAll(text, name, "ACCOUNT")
	}
	mark := "<"
	if k.quiet || strings.HasPrefix(text, "ParameterStatus") && k.leg.s.rule("status") {
		mark = "<<"
	}
	if k.name != "main" {
		mark = k.name + mark
	}
	k.leg.out = append(k.leg.out, mark+" "+text)
}

// direct does what a directive says:
//
//	login [conn] [tls|direct] [3.2] [name=value …]   a whole login, which is not for the file but for comparison
//	tls [conn]          TLS, once it was asked for; direct [conn] begins with it
//	until message …     what the messages before it are waited for with, if not by the rules; EOF; nothing
//	hear [conn] message listens, with nothing said
//	sleeping            waits until the account's backend is in pg_sleep
//	sql statement       runs as the superuser
func (g *leg) direct(line string) {
	word, rest, _ := strings.Cut(line, " ")
	words := strings.Fields(rest)
	conn := "main"
	if len(words) > 0 && words[0][0] >= 'a' && !strings.Contains(words[0], "=") && !slices.Contains([]string{"tls", "direct"}, words[0]) {
		conn, words = words[0], words[1:]
	}
	switch word {
	case "login":
		g.login(conn, words)
	case "tls", "direct":
		g.talk(conn).secure(word == "direct")
	case "hear":
		k := g.talk(conn)
		k.until = strings.Join(words, " ")
		k.listen()
	case "sleeping":
		eventually(g.t, "somebody sleeps", func() bool {
			n, err := g.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = $1", g.account)
			return err == nil && n == "1"
		})
	case "sql":
		if err := tlsServer(g.t).SQL(g.t.Context(), "orders", strings.ReplaceAll(rest, "ACCOUNT", g.account)); err != nil {
			g.t.Fatal(err)
		}
	default:
		g.t.Fatalf("what is ! %s?", line)
	}
}

func (g *leg) value(sql string, args ...any) (string, error) {
	return tlsServer(g.t).Value(g.t.Context(), "postgres", sql, args...)
}

// secure begins TLS. A server that speaks it directly wants to hear the protocol's name.
func (k *talk) secure(direct bool) {
	config := k.leg.tls.Clone()
	if direct {
		config.NextProtos = []string{alpn}
	}
	conn := tls.Client(k.raw, config)
	if err := conn.HandshakeContext(k.leg.t.Context()); err != nil {
		k.leg.t.Fatalf("%s: %v", k.name, err)
	}
	state := conn.ConnectionState()
	k.conn, k.reader, k.bound = conn, &frameReader{conn: conn}, endPoint(state.PeerCertificates[0])
}

// login is the whole of one.
func (g *leg) login(conn string, words []string) {
	k := g.talk(conn)
	k.quiet = true
	version, params, mech := "3.0", `database "orders"`, mechanism
	do := func(line, until string) {
		b, err := k.say(line)
		if err != nil {
			g.t.Fatal(err)
		}
		k.said, k.until = b, until
		k.send()
		k.listen()
	}
	for _, w := range words {
		switch name, value, ok := strings.Cut(w, "="); {
		case ok:
			params += " " + name + " " + strconv.Quote(value)
		case w == "tls":
			do("SSLRequest", "byte")
			k.secure(false)
			mech = mechanismPlus
		case w == "direct":
			k.secure(true)
			mech = mechanismPlus
		default:
			version = w
		}
	}
	do("Startup "+version+" user USER "+params, "AuthenticationSASL")
	do(fmt.Sprintf("SASLInitialResponse %q FIRST", mech), "AuthenticationSASLContinue")
	do("SASLResponse FINAL", "ReadyForQuery")
	k.quiet = false
}

// TestTranscripts runs each of them with the server and through Curfew.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcript/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	w := newSecureWire(t, "", FrontConfig{})
	clear := newSecureWire(t, "", FrontConfig{Cleartext: true})
	major := tlsMajor(t)
	for _, file := range files {
		s := readTranscript(t, file)
		t.Run(s.name, func(t *testing.T) {
			via := w
			if s.value["listener"] == "cleartext" {
				via = clear
			}
			s.test(t, via, major)
		})
	}
}

func (s *transcript) test(t *testing.T, w *secureWire, major int) {
	least, _ := strconv.Atoi(s.value["direct"]) // none: any
	run := func(direct bool, random *rand.Rand) string {
		g := &leg{t: t, s: s, account: w.account.spec.Name, grant: w.user, slices: random, tls: w.client}
		g.address, g.user, g.password, g.ended = w.addr(), w.user, grantPassword, func() { w.result() }
		if direct {
			g.ended = func() {}
			g.address, g.user, g.password = fmt.Sprintf("127.0.0.1:%d", tlsServer(t).Port), w.account.spec.Name, w.account.secret
		}
		return g.run()
	}
	through := run(false, nil)
	if s.value["only"] == "" && major >= least {
		direct := run(true, nil)
		if *update {
			s.write(t, forFile(direct), major)
		}
		if s.rule("where") {
			direct, through = wherein.ReplaceAllString(direct, ""), wherein.ReplaceAllString(through, "")
		}
		if direct != through {
			t.Errorf("with the server itself and through Curfew:\n%s", difference(direct, through))
		}
	}
	recorded := cmp.Or(s.value["recorded"], strconv.Itoa(major))
	if !*update && (recorded == strconv.Itoa(major) || least > major) {
		if in, is := strings.Join(s.body, "\n"), forFile(through); in != is {
			t.Errorf("in the file and through Curfew:\n%s", difference(in, is))
		}
	}
	sliced := wherein.ReplaceAllString(run(false, rand.New(rand.NewPCG(1, 2))), "")
	if through = wherein.ReplaceAllString(through, ""); sliced != through {
		t.Errorf("in one piece and in many:\n%s", difference(through, sliced))
	}
}

// forFile leaves out what is only compared.
func forFile(text string) string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if head, _, _ := strings.Cut(line, " "); !strings.HasSuffix(head, "<<") {
			lines = append(lines, wherein.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(lines, "\n")
}

func (s *transcript) write(t *testing.T, body string, major int) {
	var head []string
	for _, line := range s.head {
		if !strings.HasPrefix(line, "recorded: ") {
			head = append(head, line)
		}
	}
	head = append(head, fmt.Sprintf("recorded: %d", major))
	text := strings.Join(head, "\n") + "\n\n" + body + "\n"
	if err := os.WriteFile(filepath.Join("testdata/transcript", s.name+".txt"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// difference shows the first lines that are not the same, with what is around them.
func difference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	i := 0
	for i < len(as) && i < len(bs) && as[i] == bs[i] {
		i++
	}
	from := max(0, i-3)
	return fmt.Sprintf("%s\n  one:\n%s\n  other:\n%s", strings.Join(as[from:i], "\n"),
		strings.Join(as[i:min(i+4, len(as))], "\n"), strings.Join(bs[i:min(i+4, len(bs))], "\n"))
}
