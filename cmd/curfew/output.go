package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// format gives the chosen output, which must be one of those that the command knows; the first is the default.
func (a *app) format(known ...string) (string, error) {
	if a.output == "" {
		return known[0], nil
	}
	for _, k := range known {
		if a.output == k {
			return k, nil
		}
	}
	return "", problem(exitUsage, "usage", fmt.Sprintf("-o %s is not known here", a.output), "use -o "+strings.Join(known, "|"))
}

// print writes v as JSON, or lets the command write it for eyes.
func (a *app) print(v any, table func(w io.Writer)) error {
	f, err := a.format("table", "json")
	if err != nil {
		return err
	}
	if f == "json" {
		return a.printJSON(v)
	}
	table(a.stdout)
	return nil
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// visible makes everything in s that could move a terminal's cursor, change its colours, or turn the
// direction of the text into something that is seen and does nothing. Names and reasons are written by
// others than those who read them.
func visible(s string) string { return escape(s, false) }

// visibleLines is visible, but keeps line breaks.
func visibleLines(s string) string { return escape(s, true) }

func escape(s string, lines bool) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || hidden(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n' && lines:
			b.WriteByte('\n')
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case hidden(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// hidden reports controls (Cc), formats (Cf, which hold the bidirectional overrides and zero-width
// characters), and the line and paragraph separators.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// cells counts the terminal columns of a visible string.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

func runeCells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// clip cuts s to n columns, the last of which says that something is missing.
func clip(s string, n int) string {
	if cells(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used+runeCells(r) > n-1 {
			return s[:i] + "…"
		}
		used += runeCells(r)
	}
	return s
}

// terminalWidth is 0 when w is no terminal: then nothing is cut.
func (a *app) terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if n, err := strconv.Atoi(a.env("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if n, _, err := term.GetSize(int(f.Fd())); err == nil {
		return n
	}
	return 80
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table writes rows under a head. Only the column named flexible gives way when the terminal is narrow,
// then whatever is widest.
func (a *app) table(w io.Writer, head []string, rows [][]string, flexible int) {
	widths := make([]int, len(head))
	all := append([][]string{head}, rows...)
	for _, row := range all {
		for i := range row {
			row[i] = visible(row[i])
			widths[i] = max(widths[i], cells(row[i]))
		}
	}
	fit(widths, a.terminalWidth(w), flexible)
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			cell = clip(cell, widths[i])
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-cells(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func fit(widths []int, terminal, flexible int) {
	if terminal <= 0 {
		return
	}
	total := 2 * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	const least = 8
	shrink := func(i int) {
		if d := min(total-terminal, widths[i]-least); d > 0 {
			widths[i] -= d
			total -= d
		}
	}
	shrink(flexible)
	for range widths {
		widest := 0
		for i := range widths {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		shrink(widest)
	}
}

// fields writes "name  value" lines, leaving out what is empty.
func fields(w io.Writer, pairs ...string) {
	longest := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			longest = max(longest, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		// What follows in a value of several lines stays in the value's column.
		value := strings.ReplaceAll(visibleLines(pairs[i+1]), "\n", "\n"+strings.Repeat(" ", longest+4))
		fmt.Fprintf(w, "  %-*s  %s\n", longest, pairs[i], value)
	}
}

// when gives a time as people read it: local, and how far away.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	now := a.now()
	local := t.Local()
	layout := "2006-01-02 15:04"
	if y, m, d := local.Date(); sameDay(now, y, m, d) {
		layout = "15:04:05"
	}
	return local.Format(layout) + " (" + relative(t.Sub(now)) + ")"
}

func sameDay(now time.Time, y int, m time.Month, d int) bool {
	ny, nm, nd := now.Local().Date()
	return ny == y && nm == m && nd == d
}

func relative(d time.Duration) string {
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d > 0:
		return "in " + span(d)
	default:
		return span(-d) + " ago"
	}
}

// span gives a duration in at most two units: "1h30m", "2d4h", "45s".
func span(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours := d/(24*time.Hour), d%(24*time.Hour)/time.Hour
	minutes, seconds := d%time.Hour/time.Minute, d%time.Minute/time.Second
	two := func(a time.Duration, x string, b time.Duration, y string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, x)
		}
		return fmt.Sprintf("%d%s%d%s", a, x, b, y)
	}
	switch {
	case days > 0:
		return two(days, "d", hours, "h")
	case hours > 0:
		return two(hours, "h", minutes, "m")
	case minutes > 0:
		return two(minutes, "m", seconds, "s")
	default:
		return fmt.Sprintf("%ds", seconds)
	}
}

// person names somebody: the e-mail, or the subject where there is none.
func person(email, subject string) string {
	if email != "" {
		return email
	}
	return subject
}
