package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// Ctrl-C in the stock client is a second connection with a KILL QUERY of the id that it was greeted with.
// It interrupts the statement at the server, is on record, and the session goes on.
func TestCtrlCInTheStockClient(t *testing.T) {
	t.Parallel()
	s, w := shop, word(t)
	g := must(s.alice.Granted(t.Context(), s.target, "reader", 10*time.Minute, s.bob))(t)
	creds := must(s.alice.Credentials(t.Context(), g.ID))(t)
	client := creds.MariaDB(t.Context(), "mariadb", "--force", "--unbuffered", "--skip-column-names", "shop")
	var stdout, stderr bytes.Buffer
	client.Stdout, client.Stderr = &stdout, &stderr
	stdin := must(client.StdinPipe())(t)
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	say := func(text string) {
		t.Helper()
		if _, err := stdin.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say("SELECT '" + w + "', SLEEP(60);\n")
	s.underway(t, w)
	began := time.Now()
	if err := client.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	say("SELECT 'goes', 'on';\n")
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	err := client.Wait()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the statement went on for %v", took)
	}
	if !strings.Contains(stdout.String(), "goes\ton") {
		t.Errorf("the session did not go on: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	must(s.alice.Run(t.Context(), "release", g.ID))(t)
	s.receipt(t, g.ID, "released")
	cancels := 0
	for _, rec := range s.recordings(t, g.ID) {
		cancels += rec.cancels
	}
	if cancels != 1 {
		t.Errorf("%d cancels are on record", cancels)
	}
}
