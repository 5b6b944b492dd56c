package replay

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// long has a prepared statement at its beginning, and runs of it as far as a jump passes over.
func long() string {
	events := []string{`"us":1,"type":"statement","id":1,"kind":"prepare","text":"INSERT INTO t VALUES ($1)","name":"ins"`}
	for i := range 3000 {
		id := 2 * (i + 1)
		events = append(events,
			fmt.Sprintf(`"us":%d,"type":"statement","id":%d,"kind":"bind","of":1,"params":[{"type":"int4","value":"v%dv"}]`, id*1000, id, i),
			fmt.Sprintf(`"us":%d,"type":"statement","id":%d,"kind":"execute","of":%d`, id*1000, id+1, id))
	}
	return session(events...)
}

// A jump shows what playing up to there shows, what was prepared before with it.
func TestJump(t *testing.T) {
	text := long()
	for _, start := range []time.Duration{time.Microsecond, 2 * time.Second, 3 * time.Second, 6 * time.Second, time.Hour} {
		o := Options{NoWait: true, Start: start}
		var want bytes.Buffer
		if err := Play(context.Background(), &want, bytes.NewBufferString(text), o); err != nil {
			t.Fatal(err)
		}
		got := play(t, text, o) // of a strings.Reader
		if got != want.String() {
			t.Errorf("from %v: %d bytes, want %d:\n%.2000s", start, len(got), want.Len(), got)
		}
	}
}

func TestFind(t *testing.T) {
	for _, o := range []Options{{Find: "v2000v"}, {Find: "v2000v", Start: 3 * time.Second}} {
		got := play(t, long(), o)
		if strings.Count(got, "#") != 2 || !strings.Contains(got, "of #1 INSERT INTO t VALUES ($1)") || !strings.Contains(got, "$1 int4 = v2000v") {
			t.Errorf("%+v:\n%s", o, got)
		}
	}
	if got := play(t, long(), Options{Find: "v2000v", Start: 5 * time.Second}); strings.Contains(got, "v2000v") {
		t.Errorf("found before the start:\n%s", got)
	}
	if got := play(t, long(), Options{Find: "v2000v", Until: 3 * time.Second}); strings.Contains(got, "v2000v") {
		t.Errorf("found behind the end:\n%s", got)
	}
}

// Binds that are said to be of each other lead nowhere.
func TestStatementsInACircle(t *testing.T) {
	got := play(t, session(
		`"us":1,"type":"statement","id":1,"kind":"bind","of":2,"name":"here"`,
		`"us":2,"type":"statement","id":2,"kind":"bind","of":1,"name":"here"`,
	), Options{Find: "here"})
	if strings.Count(got, "bind") != 2 {
		t.Error(got)
	}
}

// What an execute runs is found by way of its bind.
func TestFoundExecute(t *testing.T) {
	got := play(t, session(
		`"us":1,"type":"statement","id":1,"kind":"prepare","text":"DELETE FROM t"`,
		`"us":2,"type":"statement","id":2,"kind":"bind","of":1`,
		`"us":3,"type":"statement","id":3,"kind":"execute","of":2,"portal":"here"`,
	), Options{Find: "here"})
	if !strings.Contains(got, `DELETE FROM t`) || strings.Count(got, "of #") != 1 {
		t.Error(got)
	}
}
