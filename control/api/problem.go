package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Codes of problems: a closed set, so that a program can branch on them.
const (
	CodeInvalid         = "invalid"         // the request is malformed, or fields are wrong
	CodeUnauthenticated = "unauthenticated" // no session token, or one that is not good any more
	CodeStepUp          = "step_up"         // the login is too weak or too old for this; a new one that shows what is named here would do
	CodeForbidden       = "forbidden"       // the person may not do this
	CodePolicy          = "policy"          // the policy has no rule that allows it
	CodeNotFound        = "not_found"       // it does not exist, or the person may not see it
	CodeConflict        = "conflict"        // it is not in a state for this any more
	CodeTooLarge        = "too_large"
	CodeUnavailable     = "unavailable" // something that Curfew needs can't be reached; try again
	CodeInternal        = "internal"

	// CodeUnreachable never comes from a server: the client gives it when there was no answer.
	CodeUnreachable = "unreachable"
)

// Problem is every error that the API answers, and every error that the Client returns.
type Problem struct {
	Status int          `json:"status" doc:"HTTP status"`
	Code   string       `json:"code" doc:"What kind of problem, from a closed set"`
	Title  string       `json:"title" doc:"The HTTP status in words"`
	Detail string       `json:"detail" doc:"What happened, for people"`
	Next   string       `json:"next,omitempty" doc:"What to do about it"`
	Errors []FieldError `json:"errors,omitempty" doc:"All fields that are wrong"`

	// With CodeStepUp, what a new login has to show (RFC 9470).
	ACRValues []string `json:"acr_values,omitempty" doc:"step_up: one of these context classes,"`
	AMR       []string `json:"amr,omitempty" doc:"step_up: or one of these methods"`
	MaxAge    *int     `json:"max_age,omitempty" doc:"step_up: proven at most so many seconds before the login"`

	err error // wrapped cause, for the server's log or the client's errors.Is
}

// FieldError is one field that is wrong.
type FieldError struct {
	Field   string `json:"field" doc:"Such as body.duration"`
	Message string `json:"message"`
}

// NewProblem makes a Problem of one of the codes.
func NewProblem(code, detail, next string) *Problem {
	status := statusOf(code)
	return &Problem{Status: status, Code: code, Title: http.StatusText(status), Detail: detail, Next: next}
}

// Because wraps the cause, which only the log will show.
func (p *Problem) Because(err error) *Problem {
	p.err = err
	return p
}

func (p *Problem) Error() string {
	if p.Next == "" {
		return p.Detail
	}
	return p.Detail + "; " + p.Next
}

func (p *Problem) Unwrap() error { return p.err }

// GetStatus and ContentType are what huma asks of an error.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func statusOf(code string) int {
	switch code {
	case CodeInvalid:
		return http.StatusUnprocessableEntity
	case CodeUnauthenticated, CodeStepUp:
		return http.StatusUnauthorized
	case CodeForbidden, CodePolicy:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict:
		return http.StatusConflict
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// codeOf names a status that huma chose while it read the request.
func codeOf(status int) string {
	switch {
	case status == http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case status >= 400 && status < 500:
		return CodeInvalid
	default:
		return CodeInternal
	}
}

const (
	halfBody  = "the body broke off before its end, or took too long"
	sendAgain = "send it again"
)

// fromModel rewrites what huma says about a malformed request. Values are left out: they may be secrets.
func fromModel(m *huma.ErrorModel) *Problem {
	p := &Problem{Status: m.Status, Code: codeOf(m.Status), Title: http.StatusText(m.Status), Detail: m.Detail}
	if p.Code == CodeInternal {
		p.Detail = "internal error"
		return p
	}
	if m.Status == http.StatusRequestTimeout {
		p.Detail, p.Next = halfBody, sendAgain
		return p
	}
	var said []string
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		field, message := e.Location, e.Message
		// huma places a missing field at its parent; people look for the field itself.
		if name, ok := strings.CutPrefix(message, "expected required property "); ok {
			name = strings.TrimSuffix(name, " to be present")
			field, message = strings.TrimPrefix(field+"."+name, "."), "is missing"
		}
		p.Errors = append(p.Errors, FieldError{Field: field, Message: message})
		said = append(said, strings.TrimSpace(strings.TrimPrefix(field, "body.")+" "+message))
	}
	if len(said) > 0 {
		p.Detail = strings.Join(said, "; ")
		p.Next = "correct it and try again; /openapi.json describes every field"
	}
	return p
}

// AsProblem gives err as a Problem, if it is one.
func AsProblem(err error) (*Problem, bool) {
	var p *Problem
	ok := errors.As(err, &p)
	return p, ok
}

// internal is what a client reads of an error that is not meant for it.
func internal(incident string) *Problem {
	return NewProblem(CodeInternal, fmt.Sprintf("internal error (incident %s)", incident),
		"try again; if it stays, give the incident number to whoever runs Curfew")
}
