package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// narrator writes what happens so that somebody who watches can follow: what is told, what people
// type, what they read.
type narrator struct {
	w     io.Writer
	began time.Time
	count int
}

func newNarrator(w io.Writer) *narrator { return &narrator{w: w, began: time.Now()} }

func (n *narrator) say(format string, args ...any) {
	fmt.Fprintf(n.w, "\n%s\n", fmt.Sprintf(format, args...))
}

func (n *narrator) step(format string, args ...any) {
	n.count++
	fmt.Fprintf(n.w, "\n[%5.1f s] %d. %s\n", time.Since(n.began).Seconds(), n.count, fmt.Sprintf(format, args...))
}

// typed shows a command line as the person sees it.
func (n *narrator) typed(who, line string) { fmt.Fprintf(n.w, "    %s$ %s\n", who, line) }

func (n *narrator) read(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(n.w, "      %s\n", strings.TrimRight(line, "\n"))
	}
}

// checked tells a fact that was looked up past Curfew.
func (n *narrator) checked(format string, args ...any) {
	fmt.Fprintf(n.w, "    ✓ %s\n", fmt.Sprintf(format, args...))
}

// run runs a command as typed and shows what it says.
func (n *narrator) run(who, line string, cmd *exec.Cmd) (string, error) {
	n.typed(who, line)
	out, err := harness.Run(cmd)
	n.read(out)
	return out, err
}
