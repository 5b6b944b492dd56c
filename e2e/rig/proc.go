package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: USER_HZ, which is 100 wherever Go runs on Linux.
const tick = 10 * time.Millisecond

// CPU is what a process and those it started have used so far: user and system, all threads, also of
// children that have ended and been waited for.
func CPU(pid int) (time.Duration, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range fields[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	total := time.Duration(sum) * tick
	for _, child := range children(pid) {
		if used, err := CPU(child); err == nil { // it may have ended in the meantime
			total += used
		}
	}
	return total, nil
}

// AtRest waits until a process has used no CPU for a while, at most a minute, and gives what it has used.
func AtRest(ctx context.Context, pid int) (time.Duration, error) {
	const while = 5 * tick
	used, err := CPU(pid)
	since := time.Now()
	for deadline := since.Add(time.Minute); err == nil && time.Since(since) < 3*while && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return used, context.Cause(ctx)
		case <-time.After(while / 2):
		}
		var now time.Duration
		if now, err = CPU(pid); now != used {
			used, since = now, time.Now()
		}
	}
	return used, err
}

// stat gives the fields of /proc/PID/stat from the third on.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, ok := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	return fields, nil
}

func children(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is a good one
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(f); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// RSS is how many bytes of memory a process has resident, its children's beside it.
func RSS(pid int) (int, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(fields[21])
	total := pages * os.Getpagesize()
	for _, child := range children(pid) {
		if n, err := RSS(child); err == nil { // it may have ended in the meantime
			total += n
		}
	}
	return total, err
}

// Threads is how many threads a process has.
func Threads(pid int) (int, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[17])
}

// Descriptors is how many file descriptors a process has open.
func Descriptors(pid int) (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(open), err
}

// Load is the machine's load average over one minute.
func Load() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}

// Busy is which share of all cores was not idle while d passed.
func Busy(d time.Duration) (float64, error) {
	busy0, all0, err := cores()
	if err != nil {
		return 0, err
	}
	time.Sleep(d) // what passes in this time is what is measured
	busy1, all1, err := cores()
	if err != nil || all1 == all0 {
		return 0, err
	}
	return float64(busy1-busy0) / float64(all1-all0), nil
}

func cores() (busy, all int64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, 0, errors.New("/proc/stat is not as expected")
	}
	for i, f := range fields[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		all += n
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return busy, all, nil
}
