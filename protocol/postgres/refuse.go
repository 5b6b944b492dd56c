package postgres

import (
	"errors"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// SQLSTATEs that Curfew itself says.
const (
	stateProtocol     = "08P01" // protocol_violation
	stateUnsupported  = "0A000" // feature_not_supported
	stateAuth         = "28000" // invalid_authorization_specification
	statePassword     = "28P01" // invalid_password
	stateForbidden    = "42501" // insufficient_privilege
	stateTooMany      = "53300" // too_many_connections
	stateEnded        = "57P01" // admin_shutdown
	stateCannotNow    = "57P03" // cannot_connect_now
	stateNotRecorded  = "58030" // io_error
	stateInternal     = "XX000" // internal_error
	internalError     = "internal error"
	sentenceRecord    = "what you do can't be recorded at the moment, so the session was ended; try again later or tell your Curfew administrator"
	sentencePrepare   = "PREPARE TRANSACTION is not allowed by your access level: what it leaves would outlive your grant; commit or roll back in the session"
	sentenceGID       = "this PREPARE TRANSACTION could not be rolled back for certain when your grant ends; write its global id in plain ASCII without escapes, in a statement of its own"
	sentenceViolation = "protocol violation: "
)

// public is what a client's eyes see of an error: the sentence of a *protocol.Refusal or of whatever has
// one, and of nothing else.
func public(why error) (state, text string) {
	var native *serverError
	if errors.As(why, &native) && native.mayShow() {
		return native.code, native.message
	}
	var refusal *protocol.Refusal
	if errors.As(why, &refusal) {
		return stateOf(refusal.Code), refusal.Public
	}
	var speaker interface{ Public() string }
	if errors.As(why, &speaker) {
		return stateEnded, speaker.Public()
	}
	var end *protocol.EndError
	if errors.As(why, &end) {
		switch end.Code {
		case recorder.EndRecord:
			return stateNotRecorded, sentenceRecord
		case recorder.EndViolation:
			return stateProtocol, sentenceViolation + end.Err.Error()
		}
	}
	return stateInternal, internalError
}

// refusal is what a client reads whose PREPARE TRANSACTION the server was not sent.
func (o *observer) refusal() string {
	if o.prepare {
		return sentenceGID
	}
	return sentencePrepare
}

// stateOf gives a Refusal's SQLSTATE.
func stateOf(code string) string {
	switch code {
	case protocol.RefuseLogin:
		return statePassword
	case protocol.RefuseToken, protocol.RefuseNoGrant, protocol.RefuseTLS:
		return stateAuth
	case protocol.RefuseUnsupported:
		return stateUnsupported
	case protocol.RefuseLimit:
		return stateTooMany
	case protocol.RefuseUnavailable:
		return stateCannotNow
	case recorder.EndRecord:
		return stateNotRecorded
	case recorder.EndViolation:
		return stateProtocol
	case recorder.EndFailed:
		return stateInternal
	}
	return stateEnded
}

// lastWords is the message that ends a session because of why. An ended session is 57P01
// whatever ended it, but a lost recording.
func lastWords(ended bool, why error) []byte {
	var native *serverError
	if errors.As(why, &native) && native.mayShow() && !ended {
		return append(appendMessage(nil, msgAuthentication, []byte{0, 0, 0, authOK}), native.raw...)
	}
	state, text := public(why)
	if ended && !recordLost(why) {
		state = stateEnded
	}
	return appendError(nil, "FATAL", state, text)
}

// recordLost: the session ends because its recording was lost, which reads the same whoever noticed first.
func recordLost(why error) bool {
	var refusal *protocol.Refusal
	return errors.As(why, &refusal) && refusal.Code == recorder.EndRecord
}

// appendError appends an ErrorResponse.
func appendError(dst []byte, severity, state, text string) []byte {
	return appendReport(dst, msgErrorResponse, severity, state, text)
}

// appendNotice appends a NoticeResponse.
func appendNotice(dst []byte, text string) []byte {
	return appendReport(dst, msgNoticeResponse, "NOTICE", "00000", text)
}

func appendReport(dst []byte, typ byte, severity, state, text string) []byte {
	var body []byte
	field := func(code byte, value string) {
		body = append(body, code)
		body = append(body, value...)
		body = append(body, 0)
	}
	field('S', severity)
	field('V', severity)
	field('C', state)
	field('M', text)
	body = append(body, 0)
	return appendMessage(dst, typ, body)
}

// words is what an ErrorResponse or NoticeResponse says, as far as Curfew needs it. Its slices alias the body.
type words struct {
	severity, code, message []byte
}

// parseWords reads the fields; a body that was cut short gives those that it holds.
func parseWords(body []byte) (r words) {
	for len(body) > 0 && body[0] != 0 {
		field := body[0]
		value, rest, ok := cstring(body[1:])
		if !ok {
			value = body[1:]
		}
		switch field {
		case 'S':
			if r.severity == nil {
				r.severity = value
			}
		case 'V': // never translated, unlike S
			r.severity = value
		case 'C':
			r.code = value
		case 'M':
			r.message = value
		}
		if !ok {
			break
		}
		body = rest
	}
	return r
}

// fatal says whether the server hangs up after this.
func (r words) fatal() bool {
	return string(r.severity) == "FATAL" || string(r.severity) == "PANIC"
}

// serverError is what the database said when it refused a login.
type serverError struct {
	code, message string
	raw           []byte // the whole message, as it came
}

func (e *serverError) Error() string { return "database: " + e.message + " (" + e.code + ")" }

// mayShow says whether the person at the other end should read what the database said: everything but
// what it says about the login, which is Curfew's and not hers.
func (e *serverError) mayShow() bool { return len(e.code) == 5 && e.code[:2] != "28" }
