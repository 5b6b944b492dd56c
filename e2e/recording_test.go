package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// record is a recording as a program reads it that has nothing but docs/FORMAT.md.
type record struct {
	name    string
	backend string
	header  header
	list    []*statement // by number, from 1
	blocked []string     // the sentences of what was refused
	refused map[int]bool // and the numbers of those statements
	copies  []transfer
	cancels int
	end     struct {
		Code, Fate string
		InFlight   int `json:"in_flight"`
	}
}

// statement is one of a recording, put together from its parts.
type statement struct {
	Kind     string
	Of       int
	name     string
	index    int // the parameter that a command's text is a piece of
	text     []byte
	params   []*value
	prepares string
	results  []outcome
}

// value is one parameter.
type value struct {
	typ  string
	name string
	data []byte
	null bool
	hex  bool // data is in a form of the database's own
	more bool
}

type outcome struct {
	Tag, Code, Message string
	Errno              int
	Rows, Bytes        int
}

// transfer is bulk data beside the statements.
type transfer struct {
	Direction, Tag, SHA256 string
	Bytes                  int
	Of                     int
	Rows                   int
}

type param struct {
	Type     string  `json:"type"`
	Name     string  `json:"name"`
	Value    *string `json:"value"`
	ValueB64 *string `json:"value_b64"`
	Hex      *string `json:"hex"`
	More     bool    `json:"more"`
}

func raw(t testing.TB, text, b64, inHex *string) []byte {
	t.Helper()
	switch {
	case b64 != nil:
		return must(base64.StdEncoding.DecodeString(*b64))(t)
	case inHex != nil:
		return must(hex.DecodeString(*inHex))(t)
	case text != nil:
		return []byte(*text)
	}
	return nil
}

// recordings reads all the recordings of a grant, in the order of their sessions' ids.
func (s *town) recordings(t testing.TB, grant string) []*record {
	t.Helper()
	var all []*record
	for _, file := range must(filepath.Glob(filepath.Join(s.exported(t, "--grant", grant), "recordings", "*")))(t) {
		all = append(all, recording(t, plainLines(t, file)))
	}
	return all
}

type event struct {
	Type     string
	ID, Of   int
	Kind     string
	Name     string
	Text     *string `json:"text"`
	TextB64  *string `json:"text_b64"`
	Hex      *string `json:"hex"`
	Field    string
	Index    int
	Params   []param
	Prepares string
	outcome
	Direction string
	SHA256    string
	Reason    string
	End       json.RawMessage
	Attached  struct{ Backend string }
	Header    header
}

// header is what of a recording's first line is looked at.
type header struct {
	Session, TLS, Login string
	Identity            struct {
		Subject, Email string
		Workload       bool
	}
}

// recording reads what FORMAT.md describes, as another program would.
func recording(t testing.TB, lines []string) *record {
	t.Helper()
	rec := &record{refused: map[int]bool{}}
	for _, line := range lines {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %.1000s", err, line)
		}
		switch e.Type {
		case "header":
			rec.name, rec.header = e.Header.Session, e.Header
		case "attached":
			rec.backend = e.Attached.Backend
		case "statement":
			st := &statement{Kind: e.Kind, Of: e.Of, name: e.Name, index: e.Index, text: raw(t, e.Text, e.TextB64, nil), prepares: e.Prepares}
			st.add(t, e.Params)
			if rec.list = append(rec.list, st); len(rec.list) != e.ID {
				t.Fatalf("statement %d is the %d. in the recording", e.ID, len(rec.list))
			}
		case "part":
			rec.list[e.Of-1].part(t, &e)
		case "result":
			if e.Of > 0 {
				rec.list[e.Of-1].results = append(rec.list[e.Of-1].results, e.outcome)
			}
		case "blocked":
			rec.blocked = append(rec.blocked, e.Reason)
			rec.refused[e.Of] = true
		case "copy":
			rec.copies = append(rec.copies, transfer{e.Direction, e.Tag, e.SHA256, e.Bytes, e.Of, e.Rows})
		case "cancel":
			rec.cancels++
		case "end":
			if err := json.Unmarshal(e.End, &rec.end); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id, st := range rec.list {
		rec.gather(t, id+1, st)
	}
	return rec
}

// longData is the type of a parameter that was sent ahead in pieces, each a command; its value is the
// number of the first of them.
const longData = "stmt_send_long_data"

// gather puts such parameters together.
func (r *record) gather(t testing.TB, id int, st *statement) {
	t.Helper()
	for i, p := range st.params {
		if p.typ != longData {
			continue
		}
		first := must(strconv.Atoi(string(p.data)))(t)
		p.data = nil
		for _, piece := range r.list[first-1 : id-1] {
			if piece.name == longData && piece.Of == st.Of && piece.index == i {
				p.data = append(p.data, piece.text...)
			}
		}
	}
}

// part goes on with what a statement's event began.
func (st *statement) part(t testing.TB, e *event) {
	t.Helper()
	if e.Prepares != "" {
		st.prepares = e.Prepares
	}
	switch {
	case e.Field == "text":
		st.text = append(st.text, raw(t, e.Text, e.TextB64, nil)...)
	case len(e.Params) == 0:
		st.params[e.Index].data = append(st.params[e.Index].data, raw(t, e.Text, e.TextB64, e.Hex)...)
	default:
		st.add(t, e.Params)
	}
}

// add goes on with the list of parameters: the first of these may be more of the last one.
func (st *statement) add(t testing.TB, params []param) {
	t.Helper()
	for i, p := range params {
		data := raw(t, p.Value, p.ValueB64, p.Hex)
		if n := len(st.params); i == 0 && n > 0 && st.params[n-1].more {
			st.params[n-1].data = append(st.params[n-1].data, data...)
			st.params[n-1].more = p.More
			continue
		}
		st.params = append(st.params, &value{typ: p.Type, name: p.Name, data: data, hex: p.Hex != nil, more: p.More,
			null: p.Value == nil && p.ValueB64 == nil && p.Hex == nil && !p.More})
	}
}

// logged is the value as PostgreSQL writes it into its log.
func (v *value) logged() string {
	switch {
	case v.null:
		return "NULL"
	case v.hex:
		return `'\x` + hex.EncodeToString(v.data) + "'"
	}
	return "'" + strings.ReplaceAll(string(v.data), "'", "''") + "'"
}

// at gives a statement by its number, nil for 0.
func (r *record) at(id int) *statement {
	if id == 0 {
		return nil
	}
	return r.list[id-1]
}

// sql is the text of a statement, or of the one that it runs.
func (r *record) sql(st *statement) string {
	for st.Of > 0 && (st.Kind == "execute" || st.Kind == "bind") {
		st = r.at(st.Of)
	}
	return string(st.text)
}

// find gives the statements of a kind whose SQL has the words.
func (r *record) find(kind, words string) (found []*statement) {
	for _, st := range r.list {
		if st.Kind == kind && strings.Contains(r.sql(st), words) {
			found = append(found, st)
		}
	}
	return found
}
