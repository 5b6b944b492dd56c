package mysql

import (
	"errors"
	"fmt"
	"testing"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// spoken is a grant's own last word.
type spoken string

func (s spoken) Error() string  { return "cause: " + string(s) }
func (s spoken) Public() string { return string(s) }

// TestLastWords: what a client reads, by the numbers that its driver knows.
func TestLastWords(t *testing.T) {
	refusal := func(code string) error {
		return fmt.Errorf("wrapped: %w", &protocol.Refusal{Code: code, Public: "its sentence", Err: errors.New("secret")})
	}
	for _, c := range []struct {
		why            error
		mariadb, ended bool
		code           uint16
		state, text    string
	}{
		{refusal(protocol.RefuseLogin), true, false, 1045, "28000", "its sentence"},
		{refusal(protocol.RefuseToken), true, false, 1045, "28000", "its sentence"},
		{refusal(protocol.RefuseNoGrant), true, false, 1045, "28000", "its sentence"},
		{refusal(protocol.RefuseTLS), false, false, 3159, "HY000", "its sentence"},
		{refusal(protocol.RefuseUnsupported), false, false, 1251, "08004", "its sentence"},
		{refusal(protocol.RefuseLimit), false, false, 1203, "42000", "its sentence"},
		{refusal(protocol.RefuseUnavailable), false, false, 1429, "HY000", "its sentence"},
		{refusal(recorder.EndRecord), false, false, 1026, "HY000", "its sentence"},
		{refusal(recorder.EndViolation), false, false, 1835, "HY000", "its sentence"},
		{refusal(recorder.EndFailed), false, false, 1105, "HY000", "its sentence"},
		{refusal(recorder.EndExpired), true, false, 1927, "70100", "its sentence"},
		{refusal(recorder.EndExpired), false, false, 3169, "HY000", "its sentence"},
		{refusal(recorder.EndIdle), true, true, 1927, "70100", "its sentence"},
		{refusal(recorder.EndIdle), false, true, 3169, "HY000", "its sentence"},
		{refusal(recorder.EndRecord), true, true, 1026, "HY000", "its sentence"}, // whoever noticed first
		{refusal(recorder.EndRecord), false, true, 1026, "HY000", "its sentence"},
		{spoken("your grant ended"), true, false, 1927, "70100", "your grant ended"},
		{&protocol.EndError{Code: recorder.EndRecord, Err: errors.New("disk full")}, true, false, 1026, "HY000", sentenceRecord},
		{&protocol.EndError{Code: recorder.EndViolation, Err: errors.New("too long")}, true, false, 1835, "HY000", "protocol violation: too long"},
		{&protocol.EndError{Code: recorder.EndServer, Err: errors.New("10.0.0.7 is gone")}, true, false, 1105, "HY000", "internal error"},
		{errors.New("10.0.0.7 is gone"), true, false, 1105, "HY000", "internal error"},
		{&serverError{code: 1049, state: "42000", message: "Unknown database 'x'"}, true, false, 1049, "42000", "Unknown database 'x'"},
		{&serverError{code: 1045, state: "28000", message: "Access denied for user 'curfew_i_g'@'10.0.0.7'"}, true, false, 1105, "HY000", "internal error"},
	} {
		msg := lastWords(3, capProtocol41, c.mariadb, c.ended, c.why)
		e, ok := parseErr(msg[headerSize:], capProtocol41)
		if !ok || msg[3] != 3 || int(msg[0]) != len(msg)-headerSize || e.code != c.code || string(e.state) != c.state || string(e.message) != c.text {
			t.Errorf("%v: %d %s %q", c.why, e.code, e.state, e.message)
		}
	}
}
