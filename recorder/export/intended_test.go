package export

import (
	"bytes"
	"strings"
	"testing"

	"github.com/curfewdb/curfew/recorder"
	"github.com/curfewdb/curfew/recorder/intended"
	"github.com/curfewdb/curfew/recorder/ledger"
)

var dialects = map[string]recorder.Dialect{"postgres": recorder.DialectDollars}

// named has the request of alice's grant name what it is for.
func named(f *fact) bool {
	if r, ok := f.data.(ledger.RequestCreated); ok && r.Request == "r1" {
		r.SQL = "UPDATE orders SET note='one 1'; UPDATE orders SET note='two 2'; vacuum"
		f.data = r
	}
	return true
}

func TestABundleSaysWhatWasInside(t *testing.T) {
	key := newKey(t)
	w := newWorld(t, key)
	w.sign(named)
	r, err := Verify(t.Context(), w.bundle(Scope{}), VerifyOptions{Key: key.VerifierKey(), Dialects: dialects})
	check(t, err)
	if !r.OK() || !says(r, SeverityNote, "grant g1: 4 of 6 executed statements were outside the intended SQL of request r1") {
		t.Errorf("%+v", r.Findings)
	}
	if len(r.Intended) != 1 {
		t.Fatalf("%+v", r.Intended)
	}
	one := r.Intended[0]
	if one.Grant != "g1" || one.Request != "r1" || one.Sessions != 2 || one.Executed != 6 || one.Inside != 2 || one.Outside != 4 || len(one.Statements) != 6 {
		t.Errorf("%+v", one)
	}
	if len(one.Planned) != 3 || one.Planned[0].Executed != 1 || one.Planned[1].Executed != 1 || one.Planned[2].Verdict != intended.NotExecuted {
		t.Errorf("%+v", one.Planned)
	}
	// Whoever does not say how the engines' SQL is written is told nothing of it.
	if r := verify(t, w.bundle(Scope{}), key.VerifierKey(), ""); len(r.Intended) != 0 {
		t.Errorf("%+v", r.Intended)
	}
}

func TestJSONLinesSayWhatIsInside(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.sign(named)
	src := w.source()
	src.Dialects = dialects
	var b bytes.Buffer
	check(t, JSONL(t.Context(), &b, src, Scope{}, nil))
	found := map[string]int{}
	for line := range strings.Lines(b.String()) {
		verdict := ""
		for _, v := range []string{"inside", "outside"} {
			if strings.Contains(line, `","intended":"`+v+`","`) {
				verdict = v
			}
		}
		switch {
		case strings.Contains(line, `"type":"statement"`) && strings.Contains(line, `"grant":"g1"`):
			want := "outside"
			if strings.Contains(line, "'one 1'") || strings.Contains(line, "'two 2'") {
				want = "inside"
			}
			if verdict != want {
				t.Errorf("%q: %s", verdict, line)
			}
			found[verdict]++
		case verdict != "":
			t.Errorf("a word on what is no statement of that grant: %s", line)
		}
	}
	if found["inside"] != 2 || found["outside"] != 4 {
		t.Errorf("%v", found)
	}
}
