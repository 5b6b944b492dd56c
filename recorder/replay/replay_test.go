package replay

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/curfewdb/curfew/recorder"
)

var update = flag.Bool("update", false, "rewrite testdata")

const salt = `"salt":"000102030405060708090a0b0c0d0e0f"`

// session is a recording as docs/FORMAT.md has it, with times of its own.
func session(events ...string) string {
	lines := []string{`"us":0,"type":"header","header":{"format":1,"session":"s1","grant":"g1","request":"r1","installation":"abc123","node":"n1",` +
		`"began":"2026-08-11T09:30:00Z","identity":{"issuer":"https://id.example.test","subject":"42","email":"alice@example.test","name":"Alice","groups":["developers"]},` +
		`"target":"orders","level":"writer","policy":"sha256:00","engine":"postgres","account":"curfew_abc123_g1","database":"orders","client":"127.0.0.1:5000","application":"psql","login":"scram-sha-256"}`}
	lines = append(lines, events...)
	var b strings.Builder
	for i, l := range lines {
		fmt.Fprintf(&b, `{"seq":%d,%s,%s}`+"\n", i, salt, l)
	}
	return b.String()
}

var story = []string{
	`"us":1000,"type":"attached","attached":{"backend":"4711","server":"15.20","tls":"TLS 1.3"}`,
	`"us":500000,"type":"statement","id":1,"kind":"simple","text":"SELECT *\n\tFROM orders\n WHERE id = 1;"`,
	`"us":503200,"type":"result","of":1,"tag":"SELECT 1","rows":1,"bytes":20,"duration_us":3200,"first_row_us":900,"tx":"idle"`,
	`"us":2000000,"type":"statement","id":2,"kind":"prepare","text":"INSERT INTO t VALUES ($1, $2, $3)","name":"ins"`,
	`"us":2000100,"type":"statement","id":3,"kind":"bind","of":2,"name":"ins","params":[{"type":"int4","value":"42"},{"type":"text","value":null},{"type":"bytea","hex":"00ff"}]`,
	`"us":2000200,"type":"statement","id":4,"kind":"execute","of":3`,
	`"us":2000900,"type":"result","of":4,"rows":0,"duration_us":700,"code":"23505","severity":"ERROR","message":"duplicate key\n  0:00:09.000  #9 forged","tx":"failed"`,
	`"us":3000000,"type":"statement","id":5,"kind":"simple","text":"ALTER ROLE a PASSWORD '***'","redacted":1`,
	`"us":3000100,"type":"blocked","of":5,"reason":"not at this level"`,
	`"us":3500000,"type":"statement","id":6,"kind":"simple","text":"SELECT '","more":true`,
	`"us":3500010,"type":"part","of":6,"field":"text","text_b64":"w7wnLOI=","more":true`,
	`"us":3500020,"type":"notice","from":"server","severity":"NOTICE","code":"00000","message":"in between"`,
	`"us":3500030,"type":"part","of":6,"field":"text","text_b64":"nJM="`,
	`"us":4000000,"type":"copy","of":6,"direction":"in","rows":3,"bytes":30,"duration_us":1500000,"sha256":"` + strings.Repeat("ab", 32) + `"`,
	`"us":4100000,"type":"statement","id":7,"kind":"simple","text":"PREPARE TRANSACTION 'x'","prepares":"x"`,
	`"us":4200000,"type":"cancel","of":7,"from":"127.0.0.1:6000"`,
	`"us":4300000,"type":"weather"`,
	`"erased":"` + strings.Repeat("0", 64) + `"`,
	`"us":5000000,"type":"end","end":{"reason":"your grant ended at 09:30 UTC","code":"expired","in_flight":7,"fate":"aborted","txid":"99","statements":7}`,
}

func play(t *testing.T, text string, o Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := Play(context.Background(), &out, strings.NewReader(text), o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestStory(t *testing.T) {
	for name, o := range map[string]Options{
		"plain":  {NoWait: true},
		"narrow": {NoWait: true, Width: 60},
		"colour": {NoWait: true, Color: true},
	} {
		got := play(t, session(story...), o)
		file := "testdata/" + name + ".txt"
		if *update {
			os.MkdirAll("testdata", 0o755)
			os.WriteFile(file, []byte(got), 0o644)
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Nothing that was recorded reaches the terminal as anything but text.
func TestNothingIsObeyed(t *testing.T) {
	const evil = `\u001b]0;owned\u0007\u001b[2J\r\b\u009b31m\u202egnp\u2066\u200b\u2028\u007f\ud834\udd73`
	text := session(
		`"us":1,"type":"attached","attached":{"backend":"`+evil+`","server":"`+evil+`"}`,
		`"us":2,"type":"statement","id":1,"kind":"`+evil+`","text":"`+evil+`","name":"`+evil+`","portal":"`+evil+`","params":[{"type":"`+evil+`","value":"`+evil+`"}]`,
		`"us":2,"type":"statement","id":2,"kind":"simple","text_b64":"G1sySv+b4oDi"`,
		`"us":3,"type":"result","of":1,"tag":"`+evil+`","code":"`+evil+`","message":"`+evil+`"`,
		`"us":4,"type":"notice","from":"`+evil+`","severity":"`+evil+`","message":"`+evil+`"`,
		`"us":4,"type":"copy","direction":"`+evil+`"`,
		`"us":4,"type":"cancel","from":"`+evil+`"`,
		`"us":4,"type":"`+evil+`"`,
		`"us":5,"type":"blocked","reason":"`+evil+`"`,
		`"us":6,"type":"end","end":{"reason":"`+evil+`","code":"`+evil+`"}`,
	)
	text = strings.Replace(text, `"application":"psql"`, `"application":"`+evil+`"`, 1)
	got := play(t, text, Options{NoWait: true})
	for i, r := range got {
		if r != '\n' && (!unicode.IsGraphic(r) || r == unicode.ReplacementChar) {
			t.Errorf("%q reached the terminal: …%q", r, got[max(0, i-40):i])
		}
	}
	if !strings.Contains(got, `\x1b[2J\x0d\x08\u009b31m\u202e`) || !strings.Contains(got, `\xff\x9b\xe2\x80\xe2`) {
		t.Errorf("not made visible:\n%s", got)
	}
}

// No text of a stranger stands where an event's time or a header's name does.
func TestNoForgedLines(t *testing.T) {
	got := play(t, session(`"us":1,"type":"statement","id":1,"kind":"simple","text":"a\n0:00:01.000    #2    b"`), Options{NoWait: true})
	for _, line := range strings.Split(got, "\n") {
		if strings.Contains(line, "#2") && !strings.HasPrefix(line, strings.Repeat(" ", inset)) {
			t.Errorf("forged: %q", line)
		}
	}
}

// Wide characters take two columns: a line of them must not run past the width, where the terminal
// would go on in the first column.
func TestWideCharacters(t *testing.T) {
	text := session(`"us":1,"type":"statement","id":1,"kind":"simple","text":"` + strings.Repeat("語", 100) + `"`)
	for _, line := range strings.Split(play(t, text, Options{NoWait: true, Width: 60}), "\n") {
		if columns := len([]rune(line)) + strings.Count(line, "語"); columns > 60 {
			t.Errorf("%d columns: %q", columns, line)
		}
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want time.Duration
	}{
		{Options{}, 5 * time.Second},
		{Options{Speed: 2}, 2500 * time.Millisecond},
		{Options{Speed: 0.5}, 10 * time.Second},
		{Options{Idle: 500 * time.Millisecond}, 3200*time.Millisecond + 180*time.Microsecond},
		{Options{NoWait: true}, 0},
		{Options{Start: 3 * time.Second}, 2 * time.Second},
		{Options{Until: 3 * time.Second}, 2000900 * time.Microsecond},
		{Options{Start: time.Second, Until: 3 * time.Second}, 1000900 * time.Microsecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			play(t, session(story...), c.o)
			got := time.Since(began)
			if c.o.Idle > 0 {
				if got < 3*time.Second || got > 4*time.Second {
					t.Errorf("%+v took %v", c.o, got)
				}
			} else if got != c.want {
				t.Errorf("%+v took %v, want %v", c.o, got, c.want)
			}
		})
	}
}

// What is shown is shown before the pause that follows it.
func TestShownBeforeThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- Play(ctx, w, strings.NewReader(session(story...)), Options{})
			w.Close()
		}()
		var seen bytes.Buffer
		go io.Copy(&seen, r)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := seen.String(); !strings.Contains(s, "FROM orders") || strings.Contains(s, "INSERT") {
			t.Errorf("after a second:\n%s", s)
		}
		cancel()
		synctest.Wait()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestStartKeepsWhatIsReferredTo(t *testing.T) {
	got := play(t, session(story...), Options{NoWait: true, Start: 2000050 * time.Microsecond, Until: 3 * time.Second})
	if !strings.Contains(got, "alice@example.test") || !strings.Contains(got, "INSERT INTO t") || strings.Contains(got, "FROM orders") || strings.Contains(got, "***") {
		t.Errorf("%s", got)
	}
}

// The values of a Bind whose list goes on in parts are shown with their places in the whole list.
func TestParametersInParts(t *testing.T) {
	got := play(t, session(
		`"us":1,"type":"statement","id":1,"kind":"bind","params":[{"type":"int4","value":"41"}],"more":true`,
		`"us":2,"type":"part","of":1,"field":"param","index":1,"params":[{"type":"int4","value":"42"},{"type":"text","value":null}]`,
	), Options{NoWait: true})
	for _, want := range []string{"$1 int4 = 41", "more", "$2 int4 = 42", "$3 text = NULL"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
}

// What only MySQL has: commands by their names, attributes by theirs, values that were sent ahead, and files.
func TestMySQL(t *testing.T) {
	got := play(t, session(
		`"us":1,"type":"statement","id":1,"kind":"prepare","text":"SELECT ?, ?"`,
		`"us":2,"type":"statement","id":2,"kind":"command","name":"stmt_send_long_data","of":1,"field":"param","index":1,"text":"a long value"`,
		`"us":3,"type":"statement","id":3,"kind":"execute","of":1,"params":[{"type":"int","value":"7"},{"type":"stmt_send_long_data","value":"2"},{"type":"char","value":"abc","name":"trace\u001b[31m"}]`,
		`"us":4,"type":"statement","id":4,"kind":"command","name":"ping"`,
		`"us":5,"type":"statement","id":5,"kind":"simple","text":"LOAD DATA LOCAL INFILE 'f' INTO TABLE t"`,
		`"us":6,"type":"copy","of":5,"direction":"in","tag":"f.csv","rows":3,"bytes":30`,
	), Options{NoWait: true})
	for _, want := range []string{
		"#2  command stmt_send_long_data, of #1, $2 a long value", "#3  execute, of #1 SELECT ?, ?", "$1 int = 7", "$2 = sent from #2 on", `trace\x1b[31m char = abc`,
		"#4  command ping", "#5 · f.csv · 3 rows",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
}

func TestBrokenRecording(t *testing.T) {
	text := session(story...)
	var out bytes.Buffer
	err := Play(context.Background(), &out, strings.NewReader(text[:len(text)-30]), Options{NoWait: true})
	var bad *recorder.FormatError
	if !errors.As(err, &bad) || !strings.Contains(out.String(), "cancel") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := Play(context.Background(), failing{}, strings.NewReader(text), Options{NoWait: true}); err == nil {
		t.Error("a closed terminal was not noticed")
	}
	if err := Play(context.Background(), io.Discard, strings.NewReader(text), Options{Speed: -1}); err == nil {
		t.Error("time ran backwards")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
