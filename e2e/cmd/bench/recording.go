package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curfewdb/curfew/e2e/harness"
)

// relay starts a bare relay as a process of its own. stop ends it, and reports one that did not end well.
func (st *stage) relay(name string, args ...string) (c contender, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return c, nil, err
	}
	url := "postgres://curfew_broker@" + st.pg.Addr + "/orders?sslmode=disable"
	cmd := exec.Command(self, append([]string{bareName, "-url", url, "-password", harness.BrokerPassword, "-role", "orders_writer"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return c, nil, err
	}
	if err := cmd.Start(); err != nil {
		return c, nil, err
	}
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself: Wait tells
		late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		return cmd.Wait()
	}
	st.closers = append(st.closers, stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return c, stop, errors.Join(fmt.Errorf("the bare relay %s said nothing: %w", name, err), stop())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // it says nothing else
	addr, user, _ := strings.Cut(strings.TrimSpace(line), " ")
	c, err = at(name, addr, user, barePassword, "orders", cmd.Process.Pid)
	return c, stop, err
}

// Bare relays as contenders.
const (
	keeping  = "recording"
	dropping = "discarding"
	onDisk   = "disk"
	inMemory = "process"
)

// recordingRows: what recording costs. With it off, statements and results are still found and decoded, but
// not encoded, hashed, written or sealed.
func recordingRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, err
	}
	dir, err := st.recordings("cost")
	if err != nil {
		return nil, err
	}
	args := []string{"-dir", dir}
	if st.set.profile != "" {
		path, err := filepath.Abs(st.set.profile)
		if err != nil {
			return nil, err
		}
		args = append(args, "-profile", path)
	}
	on, stopOn, err := st.relay(keeping, args...)
	if err != nil {
		return nil, err
	}
	off, stopOff, err := st.relay(dropping)
	if err != nil {
		return nil, err
	}
	works, all := []string{"simple ×1", "simple ×8", "prepared ×8", "extended ×32"}, []contender{on, off}
	kinds, counts := []string{"simple", "simple", "prepared", "extended"}, []int{1, 8, 8, 32}
	cells, err := st.turns(ctx, all, works, func(ctx context.Context, c contender, i int) (shot, error) {
		return st.selects(ctx, c, false, kinds[i], counts[i])
	})
	if err := errors.Join(err, stopOn(), stopOff()); err != nil {
		return nil, err
	}
	more := geomean(ratios(cells, keeping, dropping, rounds.cpu)) - 1
	tps := geomean(ratios(cells, keeping, dropping, rounds.rate))
	return []row{{Name: "recording", Work: "cost of recording: on against off", Value: more, Cells: cellsOf(works, all, cells, dropping, "tps", "CPU s/100k"),
		Measured: fmt.Sprintf("%+.0f %% CPU, tps × %.2f", 100*more, tps), Must: "≤ 10 % CPU", Goal: "≤ 5 %", Verdict: bar{0.10, 0.05, true}.verdict(more),
		Note: "off is the same program with a sink that keeps nothing: statements are still found and decoded, but not encoded, hashed and written"}}, nil
}

// durabilityRows: what waiting for the disk costs.
func durabilityRows(ctx context.Context, st *stage) ([]row, error) {
	if err := fillPostgres(ctx, st); err != nil {
		return nil, err
	}
	var all []contender
	var stops []func() error
	for _, d := range []string{inMemory, onDisk} {
		dir, err := st.recordings(d)
		if err != nil {
			return nil, err
		}
		c, stop, err := st.relay(d, "-dir", dir, "-durability", d)
		if err != nil {
			return nil, err
		}
		all, stops = append(all, c), append(stops, stop)
	}
	works := []string{"simple ×32", "prepared ×32"}
	cells, err := st.turns(ctx, all, works, func(ctx context.Context, c contender, i int) (shot, error) {
		return st.selects(ctx, c, false, strings.Fields(works[i])[0], 32)
	})
	for _, stop := range stops {
		err = errors.Join(err, stop())
	}
	if err != nil {
		return nil, err
	}
	tps := geomean(ratios(cells, onDisk, inMemory, rounds.rate))
	kind, err := fileSystem(st.set.disk)
	if err != nil {
		return nil, err
	}
	return []row{{Name: "durability", Work: "durability: disk to process, 32 clients", Value: tps, Cells: cellsOf(works, all, cells, inMemory, "tps", "CPU s/100k"),
		Measured: fmt.Sprintf("%.2f", tps), Must: "≥ 0.5", Goal: "≥ 0.8", Verdict: bar{0.5, 0.8, false}.verdict(tps),
		Note: "recordings in " + st.set.disk + " (" + kind + ")"}}, nil
}

// fileSystem names what a directory is on: in memory, waiting for the disk costs nothing.
func fileSystem(dir string) (string, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return "", err
	}
	switch fs.Type {
	case 0x01021994:
		return "tmpfs: IN MEMORY, so this row says nothing; choose another with -disk", nil
	case 0xEF53:
		return "ext4", nil
	case 0x58465342:
		return "xfs", nil
	}
	return fmt.Sprintf("file system %#x", fs.Type), nil
}
