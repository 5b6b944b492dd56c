package recorder

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block gives the text of a fenced block of docs/FORMAT.md.
func block(t *testing.T, lang string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	section := doc[bytes.Index(doc, []byte("### 1.8")):]
	m := regexp.MustCompile("(?s)```" + lang + "\n(.*?)```").FindSubmatch(section)
	if m == nil {
		t.Fatalf("docs/FORMAT.md has no example in %s", lang)
	}
	return string(m[1])
}

// The worked example of docs/FORMAT.md is what this package writes and reads, to the byte.
func TestFormatExample(t *testing.T) {
	text := block(t, "jsonl")
	lines, events, err := readAll(NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	var tree Tree
	var hashes strings.Builder
	var third [32]byte
	for i, line := range lines {
		e := events[i]
		st := stamp{seq: e.Seq, micros: e.Micros}
		salt := regexp.MustCompile(`"salt":"(\w+)"`).FindStringSubmatch(line)[1]
		hex.Decode(st.salt[:], []byte(salt))
		if e.Type == TypeEnd {
			e.Reason = "" // the end object has it
		}
		again, err := appendEvent(nil, &st, &e, body{text: e.Text, more: e.More, redacted: e.Redacted, inline: maxPart})
		if err != nil || string(again) != line {
			t.Errorf("written as\n%s\nthe document has\n%s", again, line)
		}
		leaf := LeafHash([]byte(line))
		tree.Append(leaf)
		if i == 2 {
			third = tree.Root()
		}
		fmt.Fprintf(&hashes, "leaf %-15d %x\n", i, leaf)
	}
	fmt.Fprintf(&hashes, "%-20s %x\n%-20s %x\n", "root of the first 3", third, "root", tree.Root())
	if got := block(t, "text"); got != hashes.String() {
		t.Errorf("the hashes are\n%s\nthe document has\n%s", hashes.String(), got)
	}
}

// The commands of the example give the hashes that they are said to give.
func TestFormatCommands(t *testing.T) {
	for _, tool := range []string{"sh", "sed", "tr", "sha256sum", "xxd"} {
		program(t, tool)
	}
	dir := t.TempDir()
	text := block(t, "jsonl")
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", block(t, "sh"))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(text, "\n")
	var two Tree
	two.Append(LeafHash([]byte(lines[0])))
	two.Append(LeafHash([]byte(lines[1])))
	want := fmt.Sprintf("%x  -\n%x  -\n", LeafHash([]byte(lines[3])), two.Root())
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// Every field that is written is in the document, and so is every type, kind and end.
func TestFormatNamesEverything(t *testing.T) {
	doc, err := os.ReadFile("../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	l := openLibrary(t, t.TempDir(), Options{})
	w := create(t, l, "s1")
	record(t, w, everyEvent()...)
	record(t, w, statement(99, "ALTER ROLE a PASSWORD 'x'"+repeatText(maxPart)), Event{Type: TypeResult, Message: make([]byte, 2*maxPart)})
	seal(t, w)
	lines, _ := content(t, l, "s1")
	words := map[string]bool{}
	for _, m := range regexp.MustCompile(`"([a-z_0-9]+)":`).FindAllStringSubmatch(strings.Join(lines, "\n"), -1) {
		words[strings.TrimSuffix(m[1], "_b64")] = true
	}
	for _, word := range []string{
		"simple", "prepare", "bind", "execute", "function", "command", "idle", "open", "failed", "erased",
		EndClient, EndVanished, EndExpired, EndRevoked, EndReleased, EndServer, EndRecord, EndDrained,
		EndViolation, EndForeign, EndInterrupted, EndFailed,
	} {
		words[word] = true
	}
	for word := range words {
		if !bytes.Contains(doc, []byte("`"+word+"`")) && !bytes.Contains(doc, []byte("**"+word+"**")) && !bytes.Contains(doc, []byte(`"`+word+`"`)) {
			t.Errorf("docs/FORMAT.md does not name %q", word)
		}
	}
}
