package postgres

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The types of messages that the protocol's manual has, after login and before.
const (
	clientTypes = "BCdcfDEHFPpQSX"
	serverTypes = "RK23CdcGHWDIEVvnNAtS1sZT"
)

// unheard are the messages that stand in no transcript, and why.
var unheard = map[string]string{
	"CopyBothResponse":          "a server sends it on connections of the replication protocol alone, which are refused (replication.txt)",
	"AuthenticationKerberosV5":  "no server has sent it for long",
	"AuthenticationMD5Password": "the verifiers of grants and accounts are SCRAM's, of which nobody can make MD5's",
	"AuthenticationGSS":         "there is no GSSAPI at the wire",
	"AuthenticationGSSContinue": "there is no GSSAPI at the wire",
	"AuthenticationSSPI":        "there is no SSPI at the wire",
	"GSSResponse":               "there is no GSSAPI at the wire",
}

// TestEveryMessageHasATranscript: each message of the protocol is said or heard in a transcript, or there is a
// reason why not. That the list is whole is held against frame.go, too.
func TestEveryMessageHasATranscript(t *testing.T) {
	seen := map[string]bool{}
	files, err := filepath.Glob("testdata/transcript/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, line := range readTranscript(t, file).body {
			if _, mark, rest := parse(line); mark == '>' || mark == '<' {
				name, _, _ := strings.Cut(rest, " ")
				seen[string(mark)+name] = true
			}
		}
	}
	want := func(mark, name string) {
		if seen[mark+name] == (unheard[name] != "") {
			t.Errorf("%s%s: in a transcript: %v; a reason why not: %q", mark, name, seen[mark+name], unheard[name])
		}
	}
	said := map[byte]bool{}
	for name, typ := range saying {
		said[typ] = true
		want(">", name)
	}
	for _, name := range []string{"Startup", "SSLRequest", "GSSENCRequest", "CancelRequest", "GSSResponse", "Raw"} {
		want(">", name)
	}
	for typ, name := range messages {
		if typ != msgAuthentication {
			want("<", name)
		}
	}
	for _, name := range requests {
		want("<", name)
	}
	for _, name := range []string{"AuthenticationKerberosV5", "AuthenticationMD5Password", "AuthenticationGSS", "AuthenticationGSSContinue", "AuthenticationSSPI"} {
		want("<", name)
	}
	for _, b := range []byte(clientTypes) {
		if !said[b] {
			t.Errorf("no speech has a client's %q", b)
		}
	}
	for _, b := range []byte(serverTypes) {
		if messages[b] == "" {
			t.Errorf("no hearing has a server's %q", b)
		}
	}
	for name, b := range constants(t) {
		if !strings.ContainsRune(clientTypes+serverTypes, rune(b)) {
			t.Errorf("%s, %q, is no message of the manual's", name, b)
		}
	}
}

// constants are the types of messages that frame.go knows.
func constants(t *testing.T) map[string]byte {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "frame.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]byte{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "msg") || len(spec.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || len(text) != 1 {
			t.Fatalf("%s: %v", spec.Names[0].Name, err)
		}
		types[spec.Names[0].Name] = text[0]
		return true
	})
	if len(types) < len(clientTypes)+len(serverTypes)-2 { // d and c are on both sides
		t.Fatalf("frame.go has %d types", len(types))
	}
	return types
}
