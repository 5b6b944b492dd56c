package mysql

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// A transcript is a conversation, packet by packet, in testdata/transcript/*.txt. The same file is run with the
// server itself and through Curfew, as the same account, and what comes back must be the same text. Lines:
//
//	key: value     up to the first empty line: what the file is and needs
//	# …            a remark
//	! directive    what goes on beside the conversation: directives
//	> command      what the client sends: speech; >> what goes out in one write with the next
//	< seq packet   what the server answers: hearing
//
// A connection has a name, which stands before > and <; that of the first is main, and is left out. Keys:
//
//	server      mariadb or mysql: the file is of no use with the other
//	recorded    the server that its answers are from; with any other version they are not compared with the file
//	only        curfew: Curfew does other than the server; such a file is written by hand
//	level       what the access level allows: local_infile, xa
//	client      capabilities of the connections, plus what every client has
//	rules       names of rules by which answers are made alike that can't be equal: rules
//	combine     yes: it is run with every combination of capabilities that change the framing, too
//	size        large: many megabytes
//
// go test -update writes the answers anew, from the run with the server itself: those that are from this version,
// or from none.
var update = flag.Bool("update", false, "write the transcripts' answers anew, from the server itself")

// rules are what can't be equal, by name, beside what is shown by a word of its own wherever it comes: ACCOUNT,
// VERSION, the numbers of prepared statements, PROOF (by which MariaDB 11.4 and later vouch for their certificate)
// and MySQL's statement_id.
var rules = map[string]string{
	"statistics":  "what COM_STATISTICS counts goes on counting: its numbers are N",
	"processlist": "a list of connections names ids, ports and times: its rows are left out, and what ends them is not numbered",
	"progress":    "how many reports of progress come depends on time: they are one line, and what ends an answer is not numbered",
	"key":         "the RSA key is each server's own: it is KEY",
}

// script is a transcript's file.
type script struct {
	name  string
	head  []string
	body  []string
	value map[string]string
}

func readScript(t testing.TB, file string) *script {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{name: strings.TrimSuffix(filepath.Base(file), ".txt"), value: map[string]string{}}
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
	for _, name := range strings.Fields(s.value["rules"]) {
		if rules[name] == "" {
			t.Fatalf("%s: there is no rule %q", file, name)
		}
	}
	return s
}

func (s *script) rule(name string) bool {
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

// leg is one run of a script: with the server itself, or through Curfew.
type leg struct {
	t       testing.TB
	s       *script
	port    int
	user    string
	secret  string
	account string     // the account's name, shown as ACCOUNT, as the user is
	version string     // the server's, shown as VERSION
	slices  *rand.Rand // nil: what is said goes out in one piece
	caps    capability // of every connection, where none are named
	talks   map[string]*talk
	out     []string
	holds   bool // the next answers are not waited for
}

// run gives the body with the answers that came.
func (g *leg) run() string {
	g.talks = map[string]*talk{}
	defer func() {
		for _, k := range g.talks {
			k.conn.Close()
		}
	}()
	for _, line := range g.s.body {
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
			if more, ok := strings.CutPrefix(rest, ">"); ok {
				k.say(strings.TrimSpace(more))
				continue
			}
			k.say(rest)
			k.send()
			if !g.holds {
				k.hear()
			}
			g.holds = false
		}
	}
	return strings.Join(g.out, "\n")
}

// talk gives a connection, which is made if it is not there yet.
func (g *leg) talk(name string) *talk {
	if g.talks[name] == nil {
		g.connect(name, nil)
	}
	return g.talks[name]
}

func (g *leg) show(k *talk, format string, args ...any) {
	name := k.name
	if name == "main" {
		name = ""
	}
	alike := strings.NewReplacer(g.account, "ACCOUNT", "'"+g.user+"'", "'ACCOUNT'", g.version, "VERSION")
	text := proofs.ReplaceAllString(alike.Replace(fmt.Sprintf(format, args...)), "info=PROOF")
	g.out = append(g.out, name+"< "+statementIDs.ReplaceAllString(text, "${1}N"))
}

var (
	proofs       = regexp.MustCompile(`info="\\x01[0-9A-F]{64}"`)
	statementIDs = regexp.MustCompile(`(variable="statement_id" )"\d+"`)
)

// direct follows a directive:
//
//	sql STATEMENT             run as the administrator; ACCOUNT is the account
//	until QUESTION            waits until the administrator's question is answered by something else than 0
//	hold                      the next answers are not waited for
//	hear [NAME]               they are now
//	gone [NAME]               reads what comes until the connection is closed
//	connect [NAME] CAPS…      makes a connection; -CAP: without what it would have
//	login [NAME] plugin=P password=right|wrong|none database=D user=U CAPS…   the same, and shows it
func (g *leg) direct(text string) {
	word, rest, _ := strings.Cut(text, " ")
	fields := strings.Fields(rest)
	name := "main"
	if len(fields) > 0 && len(fields[0]) == 1 {
		name, fields = fields[0], fields[1:]
	}
	ctx := context.WithoutCancel(g.t.Context())
	switch word {
	case "sql":
		account := "'" + g.account + "'@'127.0.0.1'"
		if err := testServer.SQL(ctx, "test", strings.ReplaceAll(rest, "ACCOUNT", account)); err != nil {
			g.t.Fatal(err)
		}
	case "until":
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			if v, err := testServer.Value(ctx, "test", rest); err == nil && v != "0" {
				return
			}
			if time.Now().After(deadline) {
				g.t.Fatalf("%s: not so after 20 s: %s", g.s.name, rest)
			}
		}
	case "hold":
		g.holds = true
	case "hear":
		g.talks[name].hear()
	case "gone":
		for k := g.talks[name]; !k.closed; {
			if p := k.next(); p != nil {
				g.show(k, "? %s", brief(p))
			}
		}
	case "connect":
		g.connect(name, fields)
	case "login":
		g.login(name, fields)
	default:
		g.t.Fatalf("%s: no directive: %s", g.s.name, text)
	}
}

// capsOf are the capabilities of a connection.
func (g *leg) capsOf(words []string) capability {
	caps := plainCaps | g.caps
	for _, word := range words {
		if name, without := strings.CutPrefix(word, "-"); without {
			caps &^= capNamed(g.t, name)
		} else {
			caps |= capNamed(g.t, word)
		}
	}
	return caps
}

func (g *leg) connect(name string, words []string) {
	c := dialAs(g.t, g.port, g.user, g.secret, g.capsOf(words))
	g.talks[name] = &talk{leg: g, name: name, rawClient: c}
}

// talk is one connection of a leg.
type talk struct {
	*rawClient
	leg     *leg
	name    string
	handles []uint32 // of its prepared statements, in their order
	unsent  []byte
	waiting []said // commands that were not answered yet
	file    *said  // the server waits for a file's data
	fileSeq byte
	closed  bool
}

// send sends what was said, in slices if the leg wants that.
func (k *talk) send() {
	for len(k.unsent) > 0 {
		n := len(k.unsent)
		if r := k.leg.slices; r != nil {
			switch r.IntN(3) {
			case 0:
				n = 1 + r.IntN(min(n, 7))
			case 1:
				n = 1 + r.IntN(min(n, 1<<10))
			default:
				n = 1 + r.IntN(min(n, 1<<20))
			}
		}
		if _, err := k.conn.Write(k.unsent[:n]); err != nil {
			break // how it ended is read
		}
		k.unsent = k.unsent[n:]
	}
	k.unsent = nil
}

// next reads a packet, or shows that the connection is closed.
func (k *talk) next() []byte {
	if k.closed {
		return nil
	}
	k.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	seq := k.reader.seq
	p, err := k.reader.read(1 << 30)
	switch {
	case err == nil:
		if k.reader.seq != seq+1+byte(len(p)/maxFrame) {
			k.leg.show(k, "? a packet of %d bytes takes %d to %d", len(p), seq, k.reader.seq)
		}
		return p
	case err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed):
		k.leg.show(k, "closed")
	default:
		k.leg.show(k, "? %v", err)
	}
	k.closed = true
	return nil
}

// TestTranscripts: a conversation through Curfew is the one with the server itself, also in slices, of which
// the same is on record.
func TestTranscripts(t *testing.T) { testTranscripts(t, "") }

// TestFrameBoundaryTranscripts: the same of those with many megabytes.
func TestFrameBoundaryTranscripts(t *testing.T) {
	if raceDetector {
		t.Skip("make test has it without the race detector")
	}
	testTranscripts(t, "large")
}

func testTranscripts(t *testing.T, size string) {
	need(t)
	files, err := filepath.Glob("testdata/transcript/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	info, err := newProber(targetOf(t, testServer, "sslmode=disable")).server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		s := readScript(t, file)
		if s.value["size"] != size {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			if s.value["server"] != "" && (s.value["server"] == "mariadb") != testServer.IsMariaDB() {
				t.Skip("for " + s.value["server"])
			}
			s.test(t, file, info)
		})
	}
}

// kindOf names a server as a file's head does.
func kindOf(s server) string {
	kind := "MySQL"
	if s.mariadb {
		kind = "MariaDB"
	}
	return fmt.Sprintf("%s %d.%d", kind, s.major, s.minor)
}

// test runs a script on all its legs.
func (s *script) test(t *testing.T, file string, info server) {
	var caps capability
	for _, word := range strings.Fields(s.value["client"]) {
		caps |= capNamed(t, word)
	}
	if lacking := caps &^ info.caps; lacking != 0 {
		t.Skip("for a server with " + capNames(lacking))
	}
	allows := strings.Fields(s.value["level"])
	w := newWire(t, protocol.Level{LocalInfile: slices.Contains(allows, "local_infile"), PreparedTransactions: slices.Contains(allows, "xa")})
	w.raw(plainCaps).quit() // from here on MySQL knows the account without TLS
	w.bye()
	w.recorded(&leg{s: s})
	name := w.account.spec.Name
	through := func(caps capability, slices *rand.Rand) (text string, onRecord []string) {
		g := &leg{t: t, s: s, port: w.port(), user: w.user, secret: personPassword, account: name, version: info.version, caps: caps, slices: slices}
		text = g.run()
		return text, w.recorded(g)
	}
	direct := func(caps capability) string {
		g := &leg{t: t, s: s, port: testServer.Port, user: name, secret: w.account.secret, account: name, version: info.version, caps: caps}
		return g.run()
	}
	want := strings.Join(s.body, "\n")
	if s.value["only"] != "curfew" {
		got := direct(caps)
		switch recorded := s.value["recorded"]; {
		case *update && (recorded == "" || recorded == kindOf(info)):
			s.rewrite(t, file, kindOf(info), got)
		case recorded == kindOf(info) && got != want:
			t.Errorf("the server says%s", differ(want, got))
		}
		want = got
	} else if s.value["recorded"] != "" && s.value["recorded"] != kindOf(info) {
		t.Skip("for " + s.value["recorded"])
	}
	got, first := through(caps, nil)
	if got != want {
		t.Fatalf("through Curfew%s", differ(want, got))
	}
	seed := uint64(time.Now().UnixNano())
	got, second := through(caps, rand.New(rand.NewPCG(seed, 0)))
	if got != want {
		t.Errorf("in slices, by seed %d%s", seed, differ(want, got))
	}
	if !slices.Equal(first, second) {
		t.Errorf("in slices, by seed %d, on record%s", seed, differ(strings.Join(first, ""), strings.Join(second, "")))
	}
	if s.value["combine"] != "" {
		for _, more := range combinations(info.caps) {
			want := direct(caps ^ more)
			if got, _ := through(caps^more, nil); got != want {
				t.Errorf("with %s%s", capNames(caps^more), differ(want, got))
			}
		}
	}
}

// combinations are those of the capabilities that change the framing, or how much a text may hold.
func combinations(has capability) (list []capability) {
	change := []capability{capDeprecateEOF, capSessionTrack, capMultiStatements | capMultiResults, capOptionalMetadata, capCacheMetadata | capExtendedMetadata}
	change = slices.DeleteFunc(change, func(c capability) bool { return has&c == 0 })
	for i := range 1 << len(change) {
		var caps capability
		for n, c := range change {
			if i>>n&1 != 0 {
				caps |= c
			}
		}
		list = append(list, caps)
	}
	return list
}

// recorded is what is on record of a leg's sessions, which are over, but for what differs from one to the next.
func (w *wire) recorded(g *leg) (list []string) {
	w.t.Helper()
	eventually(w.t, "the sessions are over", func() bool { return len(w.account.Joined()) == 0 })
	for len(w.results) > 0 {
		<-w.results
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	sinks := w.sinks
	w.sinks = nil
	for _, sink := range sinks {
		// How far the server is when a command comes is chance: what it says is apart.
		said := together(sink.all())
		heard := slices.DeleteFunc(slices.Clone(said), fromClient)
		text := show(append(slices.DeleteFunc(said, func(e recorder.Event) bool { return !fromClient(e) }), heard...))
		if g.s.rule("statistics") || g.s.rule("processlist") {
			text = regexp.MustCompile(`(rows|bytes)=\d+`).ReplaceAllString(text, "$1=N")
		}
		for name, k := range g.talks {
			text = strings.ReplaceAll(text, strconv.FormatUint(uint64(k.id), 10), "$"+name)
			for i, handle := range k.handles {
				text = strings.ReplaceAll(text, fmt.Sprintf("(%d)", handle), fmt.Sprintf("(statement %d)", i+1))
			}
		}
		list = append(list, text)
	}
	slices.Sort(list) // which of two is attached first nobody says
	return list
}

func fromClient(e recorder.Event) bool {
	return e.Type == recorder.TypeStatement || e.Type == recorder.TypePart || e.Type == recorder.TypeBlocked
}

// together puts the parts of statements together, and long ones into a few words.
func together(events []recorder.Event) (list []recorder.Event) {
	for _, e := range events {
		last := len(list) - 1
		switch {
		case e.Type == recorder.TypeAttached:
		case e.Type == recorder.TypePart && last >= 0 && list[last].ID == e.ID && e.Field == recorder.FieldText && len(e.Params) == 0 && len(e.Prepares) == 0:
			list[last].Text, list[last].More = append(list[last].Text, e.Text...), e.More
		default:
			list = append(list, e)
		}
	}
	for i := range list {
		if len(list[i].Text) > 200 {
			list[i].Text = []byte(brief(list[i].Text))
		}
	}
	return list
}

// rewrite writes the answers into the file.
func (s *script) rewrite(t *testing.T, file, kind, body string) {
	t.Helper()
	head := slices.DeleteFunc(slices.Clone(s.head), func(line string) bool { return strings.HasPrefix(line, "recorded: ") })
	text := strings.Join(append(head, "recorded: "+kind), "\n") + "\n\n" + body + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// differ shows the first lines that are not the same.
func differ(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	from := max(0, i-3)
	part := func(l []string) string { return strings.Join(l[min(from, len(l)):min(i+4, len(l))], "\n") }
	return fmt.Sprintf(", from line %d on:\n%.2000s\ninstead of:\n%.2000s", i+1, part(b), part(a))
}
