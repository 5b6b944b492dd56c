package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/curfewdb/curfew/control/api"
)

// Exit status.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitLogin       = 3
	exitForbidden   = 4
	exitNotFound    = 5
	exitConflict    = 6
	exitUnreachable = 7
	exitFound       = 8
	exitInterrupted = 130
)

const exitStatusHelp = `Exit status:
  0  done                              5  not found, or not yours to see
  1  something failed                  6  no longer possible (lapsed, cancelled, ended)
  2  the command line is wrong         7  the server can't be reached, or is not ready
  3  not logged in                     8  verify, check or policy found something
  4  forbidden, refused or denied    130  interrupted
connect ends with the client's own status once that has run.`

// fail tells the person, or the program with -o json, what happened and what to do next.
func (a *app) fail(cmd *cobra.Command, err error, interrupted bool) int {
	status, p := a.explain(cmd, err, interrupted)
	if p == nil {
		return status
	}
	if a.output == "json" {
		enc := json.NewEncoder(a.stderr)
		enc.SetIndent("", "  ")
		_ = enc.Encode(struct { // nowhere is left to report that stderr is gone
			Error *api.Problem `json:"error"`
		}{p})
		return status
	}
	fmt.Fprintf(a.stderr, "curfew: %s\n", visible(p.Detail))
	if p.Next != "" {
		fmt.Fprintf(a.stderr, "  next: %s\n", visible(p.Next))
	}
	return status
}

func (a *app) explain(cmd *cobra.Command, err error, interrupted bool) (int, *api.Problem) {
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.status, nil
		}
		_, p := a.explain(cmd, exit.err, false)
		return exit.status, p
	}
	if p, ok := api.AsProblem(err); ok {
		if interrupted && errors.Is(err, context.Canceled) {
			return exitInterrupted, api.NewProblem(p.Code, "interrupted", "")
		}
		return exitStatus(p.Code), p
	}
	if interrupted && errors.Is(err, context.Canceled) {
		return exitInterrupted, &api.Problem{Code: "interrupted", Detail: "interrupted"}
	}
	if isUsage(err) {
		return exitUsage, &api.Problem{Code: "usage", Detail: err.Error(), Next: "see " + cmd.CommandPath() + " --help"}
	}
	return exitFailed, &api.Problem{Code: "failed", Detail: err.Error()}
}

func exitStatus(code string) int {
	switch code {
	case api.CodeInvalid:
		return exitUsage
	case api.CodeUnauthenticated, api.CodeStepUp:
		return exitLogin
	case api.CodeForbidden, api.CodePolicy:
		return exitForbidden
	case api.CodeNotFound:
		return exitNotFound
	case api.CodeConflict:
		return exitConflict
	case api.CodeUnreachable, api.CodeUnavailable:
		return exitUnreachable
	default:
		return exitFailed
	}
}

// problem is an error of the command line's own: what happened and what to do next.
func problem(status int, code, detail, next string) error {
	return &exitError{status, &api.Problem{Code: code, Detail: detail, Next: next}}
}
