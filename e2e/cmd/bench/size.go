package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/e2e/harness"
	"github.com/curfewdb/curfew/e2e/rig"
)

// loaded is a grant under which pgbench ran, and which has ended.
type loaded struct {
	grant      string
	statements float64
}

// load runs pgbench under a grant of its own.
func (st *stage) load(ctx context.Context, protocol string) (loaded, error) {
	_, creds, err := st.grant(ctx, harness.Orders, time.Hour)
	if err != nil {
		return loaded{}, err
	}
	s, err := st.selects(ctx, st.through(creds), false, protocol, 8)
	if err != nil {
		return loaded{}, err
	}
	if _, err := st.asker.Release(ctx, creds.Grant); err != nil {
		return loaded{}, err
	}
	_, err = rig.Receipt(ctx, st.asker, creds.Grant, time.Minute)
	return loaded{creds.Grant, s.work * 1e5}, err
}

// sealed is how many bytes the sealed recordings of a grant have.
func (st *stage) sealed(ctx context.Context, grant string) (bytes float64, err error) {
	sessions, err := st.reader.Sessions(ctx, api.SessionFilter{Grant: grant, Limit: 1000})
	if err != nil {
		return 0, err
	}
	in := map[string]bool{}
	for _, s := range sessions {
		if s.Root == "" {
			return 0, fmt.Errorf("session %s is not sealed", s.ID)
		}
		in[s.ID+".jsonl.zst"] = true
	}
	root := filepath.Join(st.curfew.Dir, "data", "recordings", "sealed")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !in[d.Name()] {
			return err
		}
		info, err := os.Stat(path)
		if err == nil {
			bytes += float64(info.Size())
			delete(in, d.Name())
		}
		return err
	})
	if err == nil && len(in) > 0 {
		err = errors.New("a recording has no file")
	}
	return bytes, err
}

func sizeRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, err
	}
	r := row{Name: "size", Work: "recording size per statement, sealed", Must: "≤ 60 B", Goal: "≤ 30 B"}
	var each []float64
	var said []string
	for _, p := range protocols {
		l, err := st.load(ctx, p)
		if err != nil {
			return nil, err
		}
		bytes, err := st.sealed(ctx, l.grant)
		if err != nil {
			return nil, err
		}
		each = append(each, bytes/l.statements)
		said = append(said, fmt.Sprintf("%s %.1f", p, bytes/l.statements))
		r.Cells = append(r.Cells, cell{Work: p + " ×8", Contender: curfew, Value: bytes / l.statements, Unit: "B"})
	}
	r.Value = slices.Max(each)
	r.Measured = "B: " + strings.Join(said, ", ")
	r.Verdict = bar{60, 30, true}.verdict(r.Value)
	r.Note = "of pgbench -S: statement, parameters and result of each; the verdict is on the largest"
	return []row{r}, nil
}

func exportRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, err
	}
	l, err := st.load(ctx, "prepared")
	if err != nil {
		return nil, err
	}
	out := filepath.Join(st.dir, "export.jsonl")
	defer os.Remove(out) // the directory goes as well
	var rates, walls []float64
	for range st.set.rounds {
		spent, err := st.through(st.orders).spent()
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := st.sam.Run(ctx, "export", "--grant", l.grant, "--format", "jsonl", "--file", out); err != nil {
			return nil, err
		}
		took := time.Since(began)
		cpu, err := spent(ctx)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(out)
		if err != nil {
			return nil, err
		}
		mb := float64(info.Size()) / 1e6
		rates, walls = append(rates, mb/cpu.Seconds()), append(walls, mb/took.Seconds())
	}
	return []row{{Name: "export", Work: "export to JSONL, one core", Value: median(rates),
		Measured: fmt.Sprintf("%.0f MB/s of the server's CPU (%.0f MB/s by the clock, with the client)", median(rates), median(walls)),
		Must:     "≥ 100 MB/s", Goal: "≥ 200 MB/s", Verdict: bar{100, 200, false}.verdict(median(rates)),
		Note: fmt.Sprintf("curfew export of %.0f statements, bytes of JSON to seconds of the server's CPU", l.statements)}}, nil
}
