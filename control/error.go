package control

import (
	"errors"
	"fmt"
	"time"

	"github.com/curfewdb/curfew/policy"
	"github.com/curfewdb/curfew/store"
)

// Codes of an Error: the closed set that the API and the CLI know.
const (
	CodeNotFound        = "not_found"       // it doesn't exist, or the asker may not know that it does
	CodeForbidden       = "forbidden"       // the asker sees it and may not do this to it
	CodeInvalid         = "invalid"         // the question makes no sense, whoever asks
	CodeConflict        = "conflict"        // it is too late for that, or it has been done
	CodePolicy          = "policy"          // no rule allows it
	CodeUnauthenticated = "unauthenticated" // the asker is not logged in, or no longer
	CodeStepUp          = "step_up"         // the asker's login is too weak or too old for this; a new one may do
	CodeUnavailable     = "unavailable"     // the store or the identity provider can't be used now
)

// Error is what the desk answers when it refuses. Public and Next are for the asker's eyes; Err is for the
// log alone.
type Error struct {
	Code   string // Code constants
	Public string // what happened
	Next   string // what to do next
	Err    error  // cause; may be nil

	StepUp *policy.StepUp // CodeStepUp: what a new login has to show
}

func (e *Error) Error() string {
	s := e.Public
	if e.Next != "" {
		s += "; " + e.Next
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// EndedError is the cause of a context that Hold gave, once its grant has ended.
type EndedError struct {
	Code   string    // recorder.End*: expired, revoked, released, foreign
	Public string    // for the holder's eyes: what happened and what to do next
	At     time.Time // when the grant ended
}

func (e *EndedError) Error() string { return e.Public }

// clockTime is how a moment reads in a sentence.
func clockTime(t time.Time) string {
	if t = t.UTC(); t.Second() != 0 {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("15:04 UTC")
}

func noSuch(what, id string) *Error {
	return &Error{
		Code:   CodeNotFound,
		Public: fmt.Sprintf("there is no %s %.40q that you may see", what, id),
		Next:   fmt.Sprintf("list what you may see: curfew %ss", what),
	}
}

// failed turns an error of the store into one of ours; what is already one of ours stays as it is.
func failed(err error, what, id string) error {
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, store.ErrNotFound):
		return noSuch(what, id)
	}
	return unavailable(err)
}

func unavailable(err error) *Error {
	return &Error{
		Code:   CodeUnavailable,
		Public: "Curfew's store can't be used right now, and nothing was changed",
		Next:   "try again; if that doesn't help, the server's log says why",
		Err:    err,
	}
}
