// Package soak has many people work through one Curfew for a while, on PostgreSQL and MariaDB at once, with
// grants that end all the time and accidents at random, and then counts.
//
// What a caller may rely on: a run fails unless
//
//   - every statement that a server says it ran for an account is in a recording, once; every statement that
//     a client had an answer to was run; and what is recorded and was not run has no answer on record;
//   - no session ends without a reason: its grant's end, its own goodbye, or an accident that befell it;
//   - no end is later than it must be, by the receipts;
//   - descriptors, goroutines and memory are back, or no longer grow, when everybody has gone;
//   - no account, backend, open session, live grant or open recording is left;
//   - what the auditor exports verifies.
//
// What is counted by the databases themselves: PostgreSQL logs every statement (log_statement), MariaDB keeps
// a general log. Every statement carries a tag that no other has.
package soak

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Options of a run. Zero values stand for what is said.
type Options struct {
	Dir      string        // for everything; the caller removes it
	Bin      string        // the curfew binary
	Duration time.Duration // of the load; 10m
	Idle     int           // sessions that do next to nothing; 1000
	Busy     int           // sessions that work; 100
	Crashes  int           // how often Curfew is killed with -9 and started again meanwhile; 0
	Late     time.Duration // the most that any grant may end late; 500ms, which is the limit for a thousand live sessions
	Seed     uint64        // of what happens when; 0 is one of its own
	Log      func(format string, args ...any)
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Duration, 10*time.Minute)
	set(&o.Late, 500*time.Millisecond)
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
}

// Report is what a run has shown.
type Report struct {
	Lines    []Line
	Failures []string
}

// Line is one thing that was looked at.
type Line struct {
	What, Saw, Must string
	OK              bool
}

func (r *Report) check(ok bool, what, saw, must string) {
	r.Lines = append(r.Lines, Line{what, saw, must, ok})
	if !ok {
		r.Failures = append(r.Failures, fmt.Sprintf("%s: %s (must: %s)", what, saw, must))
	}
}

// Print writes the table, and what failed below it.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tSAW\tMUST\t")
	for _, l := range r.Lines {
		verdict := "ok"
		if !l.OK {
			verdict = "FAILED"
		}
		saw, more, cut := strings.Cut(l.Saw, "\n")
		if cut {
			saw += fmt.Sprintf(" … (%d lines more)", 1+strings.Count(more, "\n"))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.What, saw, l.Must, verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "FAILED %s\n", f)
	}
	return nil
}
