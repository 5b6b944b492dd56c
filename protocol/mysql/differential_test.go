package mysql

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

var (
	differential = flag.Int("differential", 24, "how many random conversations are held against the server's log")
	seedFlag     = flag.Uint64("seed", 0, "of the random conversations; 0: by the clock")
)

// TestServerLogIsOnRecord: whatever a client sends and however it slices it, each statement that the server's
// general log says it ran stands in that session's recording, in the server's order, with the server's words
// and parameters.
func TestServerLogIsOnRecord(t *testing.T) {
	need(t)
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d -differential=%d", seed, *differential)
	w := newWire(t, protocol.Level{Sessions: 8})
	w.raw(plainCaps).quit() // from here on MySQL knows the account without TLS
	w.bye()
	admin(t, "test", "DROP TABLE IF EXISTS differ", "CREATE TABLE differ (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT, b INT) CHARACTER SET utf8mb4")
	file := filepath.Join(super(t, "", "SELECT @@datadir"), "differential.log")
	admin(t, "", "SET GLOBAL general_log_file = '"+file+"'", "SET GLOBAL log_output = 'FILE'", "SET GLOBAL general_log = ON")
	defer admin(t, "", "SET GLOBAL general_log = OFF")
	var lanes sync.WaitGroup
	for lane := range 4 {
		lanes.Go(func() {
			for i := lane; i < *differential; i += 4 {
				converses(t, w, rand.New(rand.NewPCG(seed, uint64(i))))
			}
		})
	}
	lanes.Wait()
	eventually(t, "the sessions are over", func() bool { return len(w.account.Joined()) == 0 })
	admin(t, "", "SET GLOBAL general_log = OFF")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ran := generalLog(text)
	matched := 0
	for _, sink := range w.sinks[1:] {
		events := sink.all()
		backend := events[0].Attached.Backend
		matched += holdAgainst(t, backend, statementsOf(events), ran[backend])
		delete(ran, backend)
	}
	for backend, list := range ran {
		if list[0].kind == "Connect" && strings.Contains(list[0].text, w.account.spec.Name) {
			t.Errorf("backend %s is in no recording: %q", backend, list)
		}
	}
	t.Logf("%d statements of the server's log matched", matched)
	if matched < 20**differential {
		t.Errorf("only %d statements were compared", matched)
	}
}

// converses says whatever comes to mind, in slices of any size, and leaves in one way or another.
func converses(t *testing.T, w *wire, rng *rand.Rand) {
	caps := plainCaps
	for _, more := range []capability{capDeprecateEOF, capSessionTrack, capQueryAttributes, capCacheMetadata | capExtendedMetadata, capOptionalMetadata} {
		if rng.IntN(2) == 0 {
			caps |= more
		}
	}
	s, err := w.front.cfg.Engine.prober.server(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Error(err)
		return
	}
	g := &leg{t: t, s: &script{value: map[string]string{}}, port: w.port(), user: w.user, secret: personPassword, account: "-", version: "-",
		caps: caps & s.caps &^ plainCaps, slices: rng, talks: map[string]*talk{}}
	k := g.talk("main")
	defer k.conn.Close()
	c := &talker{Rand: rng, talk: k}
	for len(w.results) > 0 { // how those before went does not matter here
		select {
		case <-w.results:
		default:
		}
	}
	for range 30 + rng.IntN(40) {
		c.unit()
		if k.closed {
			t.Errorf("the session ended: %q", g.out[max(0, len(g.out)-4):])
			return
		}
	}
	for _, line := range g.out {
		if strings.HasPrefix(line, "< ?") {
			t.Errorf("heard: %s", line)
		}
	}
	switch rng.IntN(3) {
	case 0: // vanish
	case 1:
		k.say(`query "SELECT 'before'"`)
		k.say("quit")
		k.say(`query "SELECT 'behind the goodbye'"`)
		k.send()
		for _, err := k.conn.Read(make([]byte, 4096)); err == nil; _, err = k.conn.Read(make([]byte, 4096)) {
		}
	default:
		k.say("quit")
		k.send()
		k.hear()
	}
}

// talker thinks of what to say.
type talker struct {
	*rand.Rand
	talk   *talk
	params []int // placeholders of its prepared statements
	marks  int
}

func (c *talker) pick(of ...string) string { return of[c.IntN(len(of))] }

// sql is a text that is like no other, or an odd one.
func (c *talker) sql() string {
	c.marks++
	switch c.IntN(14) {
	case 0:
		return fmt.Sprintf("SELEC %d", c.marks)
	case 1:
		return fmt.Sprintf("  SELECT %d /* ; it's */ -- tail; %d\n", c.marks, c.marks)
	case 2:
		return fmt.Sprintf("/*!40000 SELECT */ %d # 'x", c.marks)
	case 3:
		return fmt.Sprintf("SELECT '%s', %d", strings.Repeat(c.pick("é", "\\'", "x;", "\t"), c.IntN(9000)), c.marks)
	case 4:
		return c.pick("BEGIN", "COMMIT", "ROLLBACK", "SET autocommit = 1", "SET @a = ';'")
	case 5:
		return c.pick("SET NAMES latin1", "SET NAMES utf8mb4", "SET NAMES gbk", "SET sql_mode = 'ANSI_QUOTES'", "SET sql_mode = 'NO_BACKSLASH_ESCAPES'", "SET sql_mode = ''")
	case 6:
		return fmt.Sprintf("SELECT '\xfc\xe9', %d", c.marks)
	case 7:
		return fmt.Sprintf("INSERT INTO differ (a, b) VALUES ('differential', %d)", c.marks)
	case 8:
		return fmt.Sprintf("SELECT \"a'b\", `id` FROM differ WHERE id = %d", c.marks)
	case 9:
		return fmt.Sprintf("SELECT id, b FROM differ LIMIT %d", c.IntN(5)+1)
	}
	return fmt.Sprintf("SELECT %d", c.marks)
}

// unit says something and hears the answers.
func (c *talker) unit() {
	k := c.talk
	query := func(text string) { k.say("query " + strconv.Quote(text)) }
	switch c.IntN(12) {
	case 0, 1:
		for range 1 + c.IntN(20) {
			query(c.sql())
		}
	case 2:
		query(c.sql() + ";\n" + c.sql() + "; ;" + c.sql())
	case 3:
		params := c.IntN(4)
		text := fmt.Sprintf("SELECT %d", c.marks) + strings.Repeat(", ?", params)
		k.say("prepare " + strconv.Quote(text))
		c.marks++
		c.params = append(c.params, params)
	case 4, 5, 6:
		c.executes()
	case 7:
		k.say(c.pick(`init_db "test"`, `init_db "nowhere"`, "ping", `field_list "differ"`, "statistics", "set_option 0", "reset_connection"))
	case 8:
		query(c.pick("XA START 'x'", "DO 1; XA START 'x'; DO 2", "/*!XA START 'x' */"))
	case 9:
		k.say(c.pick("raw 11 \"root\\x00\\x00\"", "raw 08", "process_kill 1", "raw 12"))
	case 10:
		query("KILL QUERY 4294967295")
	default:
		query(c.sql())
	}
	k.send()
	k.hear()
}

// executes runs a prepared statement, if there is one.
func (c *talker) executes() {
	k := c.talk
	if len(k.handles) == 0 {
		return
	}
	n := c.IntN(len(k.handles))
	for range 1 + c.IntN(3) {
		line := fmt.Sprintf("execute %d", n+1)
		if c.IntN(6) == 0 {
			k.say(fmt.Sprintf("reset %d", n+1))
		}
		for i := range c.params[n] {
			switch c.IntN(5) {
			case 0:
				line += " null"
			case 1:
				line += fmt.Sprintf(" int:%d", c.IntN(1<<31))
			case 2:
				line += ` string:"` + strings.Repeat("w", c.IntN(40000)) + `"`
			case 3:
				for range 1 + c.IntN(3) {
					k.say(fmt.Sprintf(`long_data %d %d "%s"`, n+1, i, strings.Repeat("l", c.IntN(2000))))
				}
				line += " sent:blob"
			default:
				line += ` string:"` + c.pick("a b", "x?y", "") + `"`
			}
		}
		k.say(line)
	}
	if c.IntN(8) == 0 {
		k.say(fmt.Sprintf("close %d", n+1))
	}
}

// logged is what the server says it ran.
type logged struct{ kind, text string }

var logEntry = regexp.MustCompile(`(?m)^[0-9T:. Z+-]*\t+ *(\d+) (Connect|Query|Prepare|Execute|Long Data|Close stmt|Reset stmt|Reset Connection|Init DB|Field List|Quit|Ping|Statistics|Set option|Fetch|Kill|Debug|Refresh|Error|Change user|Binlog Dump|Shutdown|Processlist)(?:\t|$)`)

// generalLog reads the server's log, connection by connection.
func generalLog(text []byte) map[string][]logged {
	ran := map[string][]logged{}
	found := logEntry.FindAllSubmatchIndex(text, -1)
	for i, m := range found {
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		id := string(text[m[2]:m[3]])
		ran[id] = append(ran[id], logged{string(text[m[4]:m[5]]), string(bytes.TrimSuffix(text[m[1]:end], []byte("\n")))})
	}
	return ran
}

// stated is a statement on record.
type stated struct {
	recorder.Event
	blocked bool
	at      int            // how far the server's log has come in a text of several statements
	sent    map[int]string // parameters that were sent ahead
}

// statementsOf puts a recording's statements together.
func statementsOf(events []recorder.Event) (list []*stated) {
	byID := map[uint64]*stated{}
	for _, e := range events {
		s := byID[max(e.ID, e.Of)]
		switch {
		case e.Type == recorder.TypeStatement:
			s = &stated{Event: e, sent: map[int]string{}}
			byID[e.ID] = s
			list = append(list, s)
		case e.Type == recorder.TypeBlocked:
			s.blocked = true
		case e.Type == recorder.TypePart && e.Field == recorder.FieldText:
			s.Text = append(s.Text, e.Text...)
		case e.Type == recorder.TypePart:
			for i, p := range e.Params {
				if at := e.Index + i; at < len(s.Params) {
					s.Params[at].Value = append(s.Params[at].Value, p.Value...)
				} else {
					s.Params = append(s.Params, p)
				}
			}
		}
	}
	ahead := map[uint64]map[int]string{}
	for _, s := range list {
		switch string(s.Name) {
		case "stmt_send_long_data":
			if ahead[s.Of] == nil {
				ahead[s.Of] = map[int]string{}
			}
			ahead[s.Of][s.Index] += string(s.Text)
		case "stmt_reset":
			delete(ahead, s.Of)
		}
		if s.Kind == recorder.KindExecute {
			s.sent = ahead[s.Of]
			delete(ahead, s.Of)
		}
	}
	return list
}

// trim takes off what servers take off a text's ends.
func trim(text string) string { return strings.Trim(text, " ;\t\n\v\f\r\x00") }

// is says whether a statement is what the server logged.
func (s *stated) is(l logged, list []*stated) bool {
	text := trim(l.text)
	same := func(recorded []byte) bool {
		own := trim(string(recorded))
		return own == text || s.blocked && strings.HasPrefix(own, text)
	}
	switch l.kind {
	case "Query":
		if s.Kind != recorder.KindSimple || s.at == 0 && same(s.Text) {
			return s.Kind == recorder.KindSimple
		}
		at := bytes.Index(s.Text[s.at:], []byte(text))
		if testServer.IsMariaDB() || at < 0 { // MySQL logs each statement of a text for itself
			return false
		}
		s.at += at + len(text)
		return true
	case "Prepare":
		return s.Kind == recorder.KindPrepare && same(s.Text)
	case "Init DB", "Field List":
		return strings.EqualFold(strings.ReplaceAll(l.kind, " ", "_"), string(s.Name)) && strings.HasPrefix(text, trim(string(s.Text)))
	case "Execute":
		at := slices.IndexFunc(list, func(o *stated) bool { return o.ID == s.Of })
		return s.Kind == recorder.KindExecute && at >= 0 && s.executed(string(list[at].Text), text)
	}
	return false
}

// executed says whether a text is the prepared one with the parameters in it. A server shows them in one way
// or another.
func (s *stated) executed(prepared, text string) bool {
	prepared, _, _ = strings.Cut(prepared, ", ?")
	text, ok := strings.CutPrefix(text, prepared)
	for i, p := range s.Params {
		if text, ok = strings.CutPrefix(text, ", "); !ok {
			return false
		}
		forms := shownAs(string(p.Value))
		sent, ahead := s.sent[i]
		switch {
		case ahead:
			forms = shownAs(sent)
			if n := len(text) - len(strings.TrimLeft(text, "0123456789")); n > 0 {
				forms = append(forms, text[:n]) // MariaDB, where the parameter was a number before
			}
		case p.Null:
			forms = []string{"NULL"}
		case p.Type == "int":
			forms = []string{string(p.Value)}
		}
		at := slices.IndexFunc(forms, func(f string) bool { return strings.HasPrefix(text, f) })
		if at < 0 {
			return false
		}
		text = text[len(forms[at]):]
	}
	return ok && text == ""
}

// shownAs are the ways in which servers show a text, by its character set.
func shownAs(text string) []string {
	if text == "" {
		return []string{"''", `""`}
	}
	return []string{"'" + text + "'", fmt.Sprintf("X'%X'", text), fmt.Sprintf("0x%X", text)}
}

// holdAgainst checks that what the server ran is on record, in its order.
func holdAgainst(t *testing.T, backend string, list []*stated, log []logged) (matched int) {
	t.Helper()
	next := 0
	for _, l := range log {
		switch l.kind {
		case "Query", "Prepare", "Execute", "Init DB", "Field List", "Kill", "Change user", "Binlog Dump", "Shutdown", "Refresh":
		default:
			continue
		}
		text := trim(l.text)
		if l.kind == "Init DB" && strings.HasPrefix(text, "Access denied") {
			continue // no statement, but how the one before went
		}
		if l.kind == "Prepare" && !testServer.IsMariaDB() && slices.ContainsFunc(list[:next], func(s *stated) bool { return s.is(l, list) }) {
			continue // MySQL prepares anew what is run with parameters of other types
		}
		if strings.Contains(text, "XA START") {
			t.Errorf("backend %s ran %s %q", backend, l.kind, text)
		}
		from := next
		for next < len(list) && !list[next].is(l, list) {
			next++
		}
		if next == len(list) {
			t.Errorf("backend %s: not on record behind statement %d: %s %.300q", backend, from, l.kind, text)
			for i := max(0, from-2); i < min(from+6, len(list)); i++ {
				t.Logf("on record %d: %s %s %.200q %.200v of %d, blocked %t", i+1, list[i].Kind, list[i].Name, list[i].Text, list[i].Params, list[i].Of, list[i].blocked)
			}
			return matched
		}
		if list[next].at == 0 {
			next++
		}
		matched++
	}
	return matched
}
