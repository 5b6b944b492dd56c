package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/curfewdb/curfew/control/api"
	"github.com/curfewdb/curfew/internal/config"
	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/protocol"
)

// inspectHouse reads the configuration and asks each target what the broker lacks: what check shows.
func inspectHouse(ctx context.Context, path string, targets []string) (checkReport, error) {
	r := checkReport{Config: path}
	cfg, pol, err := config.Load(path, engineWords())
	var wrong *config.Errors
	if errors.As(err, &wrong) {
		for _, p := range wrong.Problems {
			r.Problems = append(r.Problems, fileProblem{File: p.File, Line: p.Line, Key: p.Key, Message: p.Message})
		}
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if len(targets) == 0 {
		targets = slices.Sorted(maps.Keys(cfg.Targets))
	}
	for _, name := range targets {
		if _, ok := cfg.Targets[name]; !ok {
			return r, problem(exitNotFound, api.CodeNotFound, fmt.Sprintf("%s has no target %q", path, name), "it has "+list(slices.Sorted(maps.Keys(cfg.Targets))))
		}
	}
	for _, name := range targets {
		r.Targets = append(r.Targets, inspectTarget(ctx, name, cfg.Targets[name], pol))
	}
	return r, nil
}

func inspectTarget(ctx context.Context, name string, t config.Target, pol *policy.Policy) targetReport {
	r := targetReport{Target: name}
	password, err := config.Secret(t.Password)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	e, err := engines()[t.Engine].New(ctx, protocol.TargetConfig{Name: name, URL: t.URL, Password: password, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer e.Close()
	levels := levelsOf(pol, name)
	r.Setup = e.Setup(levels)
	if r.Findings, err = e.Check(ctx, levels); err != nil {
		r.Error = err.Error()
	}
	return r
}
