package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/curfewdb/curfew/auth"
	"github.com/curfewdb/curfew/control"
	"github.com/curfewdb/curfew/recorder/export"
)

// Export implements Evidence. Every recording in it is authorised and put on the ledger by itself, before
// a byte is shown; who exports more than single targets must be a reader of all of them.
func (d *Desk) Export(ctx context.Context, who auth.Identity, s Scope, format, from string) (func(context.Context, io.Writer) error, error) {
	sessions, err := d.inScope(ctx, who, s)
	if err != nil {
		return nil, err
	}
	for _, session := range sessions {
		if _, err := d.Desk.ReadRecording(ctx, who, session.ID, "export", from); err != nil {
			return nil, err
		}
	}
	src := export.Source{Ledger: d.Ledger, Recordings: d.Recordings, Dialects: d.Dialects}
	scope := export.Scope{Session: s.Session, Grant: s.Grant, Target: s.Target, From: s.From, To: s.To}
	return func(ctx context.Context, w io.Writer) error {
		var missing error
		progress := func(p export.Progress) {
			if p.Err != nil {
				missing = errors.Join(missing, fmt.Errorf("recording of session %s: %w", p.Session, p.Err))
				d.Log.ErrorContext(ctx, "recording left out of an export", "session", p.Session, "error", p.Err)
			}
		}
		if format == FormatJSONL {
			// Nothing in JSON Lines says that something is missing, so the download has to.
			return errors.Join(export.JSONL(ctx, w, src, scope, progress), missing)
		}
		return export.Write(ctx, w, src, scope, progress) // Verify finds what is missing in a bundle
	}, nil
}

// inScope authorises the scope as a whole and gives the sessions in it.
func (d *Desk) inScope(ctx context.Context, who auth.Identity, s Scope) ([]control.Session, error) {
	target := s.Target
	switch {
	case s.Session != "":
		one, err := d.Desk.Session(ctx, who, s.Session)
		if err != nil {
			return nil, err
		}
		if (s.Grant != "" && s.Grant != one.Grant) || (s.Target != "" && s.Target != one.Target) {
			return nil, NewProblem(CodeNotFound, "no session that you may see is all of this", "leave out --grant or --target")
		}
		target = one.Target
	case s.Grant != "":
		g, err := d.Desk.Grant(ctx, who, s.Grant)
		if err != nil {
			return nil, err
		}
		if s.Target != "" && s.Target != g.Target {
			return nil, NewProblem(CodeNotFound, "no grant that you may see is all of this", "leave out --target")
		}
		target = g.Target
	}
	if target == "" {
		target = everyTarget
	}
	if !d.Desk.MayRead(who, target) {
		return nil, NewProblem(CodeForbidden, "the policy's readers for this don't include you",
			"export a target whose reader you are (--target), or ask whoever keeps the policy to add you")
	}
	if s.Session != "" {
		one, err := d.Desk.Session(ctx, who, s.Session)
		return []control.Session{one}, err
	}
	all, err := d.Desk.Sessions(ctx, who, control.SessionFilter{Grant: s.Grant, Target: s.Target})
	var in []control.Session
	for _, one := range all {
		if (s.To.IsZero() || one.Began.Before(s.To)) && (s.From.IsZero() || one.Ended.IsZero() || !one.Ended.Before(s.From)) {
			in = append(in, one)
		}
	}
	return in, err
}

// everyTarget is what only readers of all targets may read.
const everyTarget = "*"
