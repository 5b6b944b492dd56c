package mysql

import (
	"encoding/hex"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commandsApart are the commands that stand in no transcript, and why.
var commandsApart = map[byte]string{}

// commandNumbers are all commands that either server knows or has known: MySQL's my_command.h, MariaDB's
// mysql_com.h. 0xfb to 0xfd are MariaDB's own between its threads.
func commandNumbers() (list []byte) {
	for b := range byte(comSubscribeGroup + 1) {
		list = append(list, b)
	}
	return append(list, comStmtBulkExecute, 0xfb, 0xfc, 0xfd, comMulti)
}

// responseKinds are the kinds of packets that a server sends, as transcripts have them.
var responseKinds = map[string]string{
	"greeting":                                  `^0 greeting`,
	"AuthSwitchRequest":                         `auth_switch `,
	"AuthMoreData of one byte":                  `auth_more 0[34]$`,
	"AuthMoreData with a key":                   `auth_more KEY$`,
	"OK behind a login":                         `^[1-9] ok status=autocommit$`,
	"ERR in a login":                            `err 1045 28000`,
	"OK":                                        `^1 ok status=`,
	"OK with counts and text":                   `^1 ok status=\S+ affected=\d+ id=\d+ info="Records`,
	"OK behind a command of several frames":     `^[2-9] columns`,
	"ERR":                                       `^1 err \d+ \w{5} "`,
	"ERR amid rows":                             `^[3-9] err \d+ \w{5} "`,
	"ERR behind a result":                       `^\d+ err 1644 45000`,
	"ERR for a packet that is too long":         `err 1153 08S01`,
	"EOF":                                       `^\d+ eof status=`,
	"EOF with warnings":                         `^\d+ eof status=\S+ warnings=[1-9]`,
	"OK in an EOF packet's place":               `^\d+ end status=`,
	"more results behind OK":                    `ok status=\S*more_results`,
	"more results behind rows":                  `(eof|end) status=\S*more_results`,
	"OUT parameters":                            `status=\S*out_params`,
	"column definition":                         `^\d+ column def\.test\.`,
	"column definition with its default":        `^\d+ field .* rest=`,
	"column definition with extended metadata":  `^\d+ column .* extended=`,
	"column count with metadata":                `^\d+ columns \d+ with their definitions`,
	"column count without metadata":             `^\d+ columns \d+ without their definitions`,
	"row of text":                               `^\d+ row "`,
	"NULL in a row of text":                     `^\d+ row .*NULL`,
	"row of several frames":                     `row .*\(16777211 bytes`,
	"binary row":                                `^\d+ binary_row 00`,
	"prepare OK":                                `^1 prepared \d+ columns=0 params=0`,
	"prepare OK with definitions":               `^1 prepared \d+ columns=[1-9]\d* params=[1-9]`,
	"parameter definition":                      `^\d+ param `,
	"a cursor exists":                           `status=\S*cursor_exists`,
	"the cursor's last row":                     `status=\S*last_row_sent`,
	"LOCAL INFILE request":                      `^\d+ file_wanted "`,
	"answer behind a file":                      `^[3-9] ok .*info="Records: \d+  Deleted`,
	"text of COM_STATISTICS":                    `^1 statistics "`,
	"progress report":                           `^progress$`,
	"one result for each row of a bulk":         `^\d+ column def\.\.\.\(\)\.Id\(\)|Affected_rows`,
	"session track: a variable":                 ` variable="`,
	"session track: the schema":                 ` schema="`,
	"session track: that something has changed": ` state="1"`,
	"session track: transaction state":          ` transaction_state="`,
	"session track: characteristics":            ` transaction_characteristics="`,
	"transaction open":                          `status=in_trans`,
	"transaction read only":                     `status=in_trans\S*read_only`,
	"the connection is closed":                  `^closed$`,
}

// responsesApart are the kinds that stand in no transcript, and why.
var responsesApart = map[string]string{
	"AuthSwitchRequest of MySQL before 4.1 (0xfe alone)": "Curfew asks no client by it, and refuses a server that does: TestUpstreamRefuses",
	"AuthNextFactor (0x02)":                              "MULTI_FACTOR is offered to no client",
	"ERR in the greeting's place":                        "Curfew's greeting is its own; a server's reaches whoever provisions: TestProberError",
	"ERR when nobody has asked":                          "servers of these versions hang up without a word: FuzzObserver's seed",
	"session track: GTIDs":                               "needs a server with a binary log; passes as OK's last field as the others do: FuzzOK",
	"compressed packets":                                 "compression is not offered: logins.txt",
	"rows of COM_BINLOG_DUMP":                            "the command is refused: refused.txt",
}

// TestTranscriptsCoverTheProtocol: every command and every kind of answer is in a transcript, or it is said
// why not.
func TestTranscriptsCoverTheProtocol(t *testing.T) {
	files, err := filepath.Glob("testdata/transcript/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	commands, answers := map[byte]bool{}, []string(nil)
	for _, file := range files {
		s := readScript(t, file)
		if s.value["recorded"] == "" && s.value["only"] == "" {
			t.Errorf("%s has no answers: go test -update", file)
		}
		for i, line := range s.body {
			_, mark, text := parse(line)
			switch mark {
			case '<':
				answers = append(answers, text)
				if strings.HasPrefix(text, "?") {
					t.Errorf("%s: %s", file, line)
				}
			case '>':
				if b, ok := commandIn(strings.TrimSpace(strings.TrimPrefix(text, ">"))); ok {
					commands[b] = true
				}
			case 0:
				if line != "" {
					t.Errorf("%s: line %d of its body is none: %s", file, i+1, line)
				}
			}
		}
	}
	for _, b := range commandNumbers() {
		if commands[b] == (commandsApart[b] != "") {
			t.Errorf("%s (%#x): in a transcript %t, in the list of those that are in none %t", commandName(b), b, commands[b], commandsApart[b] != "")
		}
	}
	for kind, pattern := range responseKinds {
		like := regexp.MustCompile(pattern)
		found := false
		for _, a := range answers {
			found = found || like.MatchString(a)
		}
		if !found {
			t.Errorf("no transcript has %s", kind)
		}
		if why := responsesApart[kind]; why != "" {
			t.Errorf("%s stands in both lists: %s", kind, why)
		}
	}
}

// commandIn is the number of a command in a transcript.
func commandIn(text string) (byte, bool) {
	word, rest, _ := strings.Cut(text, " ")
	if word != "raw" {
		b, ok := speech[word]
		return b, ok
	}
	number, _, _ := strings.Cut(rest, " ")
	b, err := hex.DecodeString(number)
	if err != nil || len(b) == 0 {
		return 0, false
	}
	return b[0], true
}

// TestTranscriptWords: no word for a command has another's number, and each is what is on record.
func TestTranscriptWords(t *testing.T) {
	names := map[string]string{"prepare": "stmt_prepare", "execute": "stmt_execute", "long_data": "stmt_send_long_data", "close": "stmt_close",
		"reset": "stmt_reset", "fetch": "stmt_fetch", "bulk": "stmt_bulk_execute"}
	for word, b := range speech {
		name := names[word]
		if name == "" {
			name = word
		}
		if got := commandName(b); got != name {
			t.Errorf("%s is %s", word, got)
		}
	}
}
