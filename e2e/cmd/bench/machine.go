package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/curfewdb/curfew/e2e/rig"
)

// machine is what a run was made on.
type machine struct {
	At       time.Time `json:"at"`
	Cores    int       `json:"cores"`
	CPU      string    `json:"cpu"`
	Kernel   string    `json:"kernel"`
	Versions []string  `json:"versions"`
	Load     float64   `json:"load"`       // one-minute load average before
	After    float64   `json:"load_after"` // and when all was measured, by ourselves mostly
	Busy     float64   `json:"busy"`       // share of the cores that others used before
	Warnings []string  `json:"warnings,omitempty"`
}

// quiet is how busy a machine may be before that is a reason to doubt.
const quiet = 0.05

func about(ctx context.Context, curfew string) machine {
	m := machine{At: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), CPU: model()}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	for _, cmd := range [][]string{{curfew, "version"}, {"haproxy", "-v"}, {"pgbouncer", "--version"}, {"pgbench", "--version"},
		{"mariadbd", "--version"}, {"go", "version"}} {
		out, err := exec.CommandContext(ctx, cmd[0], cmd[1:]...).Output()
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if err != nil {
			first = fmt.Sprintf("%s: %v", cmd[0], err)
		}
		m.Versions = append(m.Versions, first)
	}
	var err error
	if m.Load, err = rig.Load(); err != nil {
		m.Warnings = append(m.Warnings, err.Error())
	}
	if m.Busy, err = rig.Busy(2 * time.Second); err != nil {
		m.Warnings = append(m.Warnings, err.Error())
	}
	if m.Busy > quiet || m.Load > float64(m.Cores)/2 {
		m.Warnings = append(m.Warnings, fmt.Sprintf("this machine is not quiet (load %.2f, %.0f %% busy before anything was measured): ratios drift, absolute figures mean little", m.Load, 100*m.Busy))
	}
	return m
}

func (m *machine) finish() { m.After, _ = rig.Load() }

func model() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it there is no name
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (m *machine) lines() []string {
	lines := []string{
		fmt.Sprintf("%s, %d cores, %s, Linux %s", m.At.Format(time.RFC3339), m.Cores, m.CPU, m.Kernel),
		strings.Join(m.Versions, "; "),
		fmt.Sprintf("load %.2f before, %.2f after; %.0f %% busy before", m.Load, m.After, 100*m.Busy),
	}
	for _, w := range m.Warnings {
		lines = append(lines, "WARNING: "+w)
	}
	return lines
}
