package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// What go test -json says becomes a result; nothing at all, and a death in the middle, are no success.
func TestFollow(t *testing.T) {
	const start, pass = `{"Action":"run","Test":"TestA"}`, `{"Action":"pass","Test":"TestA"}`
	for name, c := range map[string]struct {
		said   []string
		passed bool
		want   string
	}{
		"good":     {[]string{start, pass, `{"Action":"pass"}`}, true, "passed: 1 tests, 0 skipped"},
		"failed":   {[]string{start, pass, `{"Action":"fail","Test":"TestB"}`, `{"Action":"fail"}`}, false, "FAILED: TestB "},
		"died":     {[]string{start, pass, `{"Action":"fail"}`}, false, "FAILED:  the tests ended before their time"},
		"no build": {[]string{`x.go:1: syntax error`, `{"Action":"build-fail"}`, `{"Action":"fail"}`}, false, "FAILED:  it does not build"},
		"nothing":  {nil, false, "FAILED:  "},
	} {
		r, err := follow(strings.NewReader(strings.Join(c.said, "\n")), io.Discard)
		if err != nil || r.passed() != c.passed || r.String() != c.want {
			t.Errorf("%s: %v, %v, %q, want %q", name, err, r.passed(), r, c.want)
		}
	}
	skipped := `{"Action":"output","Test":"TestC","Output":"    a_test.go:7: too old\n"}` + "\n" + `{"Action":"skip","Test":"TestC"}`
	r, err := follow(strings.NewReader(skipped), io.Discard)
	if err != nil || len(r.skips) != 1 || r.skips[0] != (skip{"TestC", "too old"}) {
		t.Errorf("%v, %+v", err, r.skips)
	}
}

// The tests that are named are those of the suite.
func TestCheckNames(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	if err := checkNames(); err != nil {
		t.Error(err)
	}
	t.Chdir("cmd")
	if err := checkNames(); err == nil {
		t.Error("a directory without tests has them all")
	}
}
