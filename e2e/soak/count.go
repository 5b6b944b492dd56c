package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/curfewdb/curfew/e2e/harness"
)

// tag names one statement.
type tag struct {
	target string
	n      uint64
}

func (t tag) String() string { return fmt.Sprintf("soak-%s-%d", t.target, t.n) }

var tags atomic.Uint64

func (w *world) tag(target string) tag { return tag{target, tags.Add(1)} }

var tagged = regexp.MustCompile(`soak-(orders|shop)-([0-9]+)`)

// tagIn finds the tag in a text.
func tagIn(text string) (tag, bool) {
	m := tagged.FindStringSubmatch(text)
	if m == nil {
		return tag{}, false
	}
	n, err := strconv.ParseUint(m[2], 10, 64)
	return tag{m[1], n}, err == nil
}

// tally counts by statement.
type tally map[tag]int

// answered notes that a client had its statement's answer.
func (w *world) answered(t tag) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[t]++
}

// logPrefix is of PostgreSQL's log: who it was. No statement can begin a line like this, because it is
// looked for at the beginning of an entry only.
const logPrefix = "@%u|"

// ranPostgres counts what PostgreSQL says it ran for accounts. A parameter stands in the DETAIL of its
// statement.
func (w *world) ranPostgres() (tally, error) {
	f, err := os.Open(filepath.Join(w.pg.Dir, "postgres.log"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ran := tally{}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return ran, nil
		}
		if err != nil {
			return nil, err
		}
		user, said, ok := strings.Cut(line, "|")
		if !ok || !strings.HasPrefix(user, "@curfew_") || user == "@curfew_broker" {
			continue
		}
		if !strings.HasPrefix(said, "LOG:  statement: ") && !strings.HasPrefix(said, "LOG:  execute ") && !strings.HasPrefix(said, "DETAIL:  parameters: ") {
			continue
		}
		if t, ok := tagIn(said); ok {
			ran[t]++
		}
	}
}

// ranMariaDB counts what MariaDB says it ran for accounts.
func (w *world) ranMariaDB(ctx context.Context) (tally, error) {
	c, err := w.my.Connect(ctx, "mysql")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	rows, err := c.QueryContext(ctx, `SELECT argument FROM general_log WHERE command_type IN ('Query', 'Execute') AND user_host LIKE 'curfew\_%' AND argument LIKE '%soak-%'`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	ran := tally{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		if t, ok := tagIn(text); ok {
			ran[t]++
		}
	}
	return ran, rows.Err()
}

// kept is what is on record.
type kept struct {
	asked    tally // statements, each once
	finished tally // those that a result without an error is on record of
	sessions int
}

// line is what is read of an exported event.
type line struct {
	Session string `json:"session"`
	Type    string `json:"type"`
	ID      uint64 `json:"id"`
	Kind    string `json:"kind"`
	Of      uint64 `json:"of"`
	Text    string `json:"text"`
	Code    string `json:"code"`
	Params  []struct {
		Value string `json:"value"`
	} `json:"params"`
}

// recorded reads everything that was recorded, as an auditor's program would.
func (w *world) recorded(ctx context.Context, path string) (*kept, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	k := &kept{asked: tally{}, finished: tally{}}
	var by map[uint64]tag // of the session, by the statement's number
	lines := bufio.NewReaderSize(f, 1<<20)
	for ctx.Err() == nil {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return k, nil
		}
		if err != nil {
			return nil, err
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if l.Type == "header" {
			by = map[uint64]tag{}
			k.sessions++
		}
		k.take(l, by)
	}
	return nil, context.Cause(ctx)
}

// take counts one event. What runs a statement that was counted already is that statement.
func (k *kept) take(l line, by map[uint64]tag) {
	switch l.Type {
	case "statement":
		t, ok := tagIn(l.Text)
		for _, p := range l.Params {
			if !ok {
				t, ok = tagIn(p.Value)
			}
		}
		if ok {
			k.asked[t]++
			by[l.ID] = t
		} else if t, built := by[l.Of]; built {
			by[l.ID] = t
		}
	case "result":
		if t, ok := by[l.Of]; ok && l.Code == "" {
			k.finished[t]++
		}
	}
}

// compare holds against each other what clients, servers and recordings say of one target's statements.
func compare(r *Report, target string, told, ran tally, k *kept) {
	var unrecorded, untrue, unrun, twice, inFlight, all int
	var example tag
	for t, n := range ran {
		switch {
		case k.asked[t] == 0:
			unrecorded++
			example = t
		case n != 1 || k.asked[t] != 1:
			twice++
		}
		all++
	}
	for t := range told {
		if t.target == target && (ran[t] == 0 || k.asked[t] == 0) {
			unrun++
		}
	}
	for t := range k.asked {
		if t.target != target || ran[t] > 0 {
			continue
		}
		if inFlight++; k.finished[t] > 0 {
			untrue++
		}
	}
	saw := fmt.Sprintf("%d of %d", unrecorded, all)
	if unrecorded > 0 {
		saw += fmt.Sprintf(", for example %s", example)
	}
	r.check(all > 0 && unrecorded == 0, target+": statements that the server ran and nobody recorded", saw, "0")
	r.check(twice == 0, target+": statements that were run or recorded more than once", itoa(twice), "0")
	r.check(unrun == 0, target+": statements that a client had an answer to, and that were not run or recorded", itoa(unrun), "0")
	r.check(untrue == 0, target+": statements with an answer on record that the server did not run", fmt.Sprintf("%d (of %d in flight at an end)", untrue, inFlight), "0")
}

// exported has the auditor export everything.
func (w *world) exported(ctx context.Context, format, name string) (string, error) {
	path := filepath.Join(w.o.Dir, name)
	_, err := w.sam.Run(ctx, "export", "--format", format, "--file", path)
	return path, err
}

// counted adds what was counted to the report.
func (w *world) counted(ctx context.Context, r *Report) error {
	path, err := w.exported(ctx, "jsonl", "everything.jsonl")
	if err != nil {
		return err
	}
	k, err := w.recorded(ctx, path)
	if err != nil {
		return err
	}
	onPostgres, err := w.ranPostgres()
	if err != nil {
		return err
	}
	onMariaDB, err := w.ranMariaDB(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	compare(r, harness.Orders, w.told, onPostgres, k)
	compare(r, harness.Shop, w.told, onMariaDB, k)
	r.check(k.sessions >= w.counts["sessions"], "sessions on record", fmt.Sprintf("%d for %d logins", k.sessions, w.counts["sessions"]), "all")
	return nil
}
