package main

import (
	"fmt"
	"time"
)

// progress is a line that is rewritten on a terminal, and elsewhere printed only when what it is about
// has changed.
type progress struct {
	a      *app
	live   bool
	about  int
	shown  bool
	opened bool // a line is on the terminal without its end
}

func (a *app) newProgress() *progress {
	return &progress{a: a, live: isTerminal(a.stderr)}
}

// patience is how long to wait before the line is out of date.
func (p *progress) patience() time.Duration {
	if p.live {
		return 10 * time.Second
	}
	return 30 * time.Second
}

func (p *progress) say(line string, about int) {
	if p.live {
		if width := p.a.terminalWidth(p.a.stderr); width > 1 {
			line = clip(line, width-1)
		}
		fmt.Fprintf(p.a.stderr, "\r\x1b[K%s", line)
		p.opened = true
		return
	}
	if p.shown && p.about == about {
		return
	}
	p.about, p.shown = about, true
	fmt.Fprintln(p.a.stderr, line)
}

func (p *progress) done() {
	if p.opened {
		fmt.Fprintln(p.a.stderr)
		p.opened = false
	}
}
