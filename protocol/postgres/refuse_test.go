package postgres

import (
	"bytes"
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

// TestLastWords: what a client reads, by the SQLSTATEs that its driver knows.
func TestLastWords(t *testing.T) {
	refusal := func(code string) error {
		return fmt.Errorf("wrapped: %w", &protocol.Refusal{Code: code, Public: "its sentence", Err: errors.New("secret")})
	}
	lost := &protocol.EndError{Code: recorder.EndRecord, Err: errors.New("disk full")}
	for _, c := range []struct {
		why         error
		ended       bool
		state, text string
	}{
		{refusal(protocol.RefuseLogin), false, "28P01", "its sentence"},
		{refusal(protocol.RefuseToken), false, "28000", "its sentence"},
		{refusal(protocol.RefuseNoGrant), false, "28000", "its sentence"},
		{refusal(protocol.RefuseTLS), false, "28000", "its sentence"},
		{refusal(protocol.RefuseUnsupported), false, "0A000", "its sentence"},
		{refusal(protocol.RefuseLimit), false, "53300", "its sentence"},
		{refusal(protocol.RefuseUnavailable), false, "57P03", "its sentence"},
		{refusal(recorder.EndRecord), false, "58030", "its sentence"},
		{refusal(recorder.EndViolation), false, "08P01", "its sentence"},
		{refusal(recorder.EndFailed), false, "XX000", "its sentence"},
		{refusal(recorder.EndExpired), false, "57P01", "its sentence"},
		{refusal(recorder.EndLimit), true, "57P01", "its sentence"},
		{refusal(recorder.EndIdle), true, "57P01", "its sentence"},
		{refusal(recorder.EndViolation), true, "57P01", "its sentence"},
		{refusal(recorder.EndRecord), true, "58030", "its sentence"}, // whoever noticed first
		{spoken("your grant ended"), false, "57P01", "your grant ended"},
		{lost, false, "58030", sentenceRecord},
		{&protocol.EndError{Code: recorder.EndViolation, Err: errors.New("too long")}, false, "08P01", "protocol violation: too long"},
		{&protocol.EndError{Code: recorder.EndServer, Err: errors.New("10.0.0.7 is gone")}, false, "XX000", "internal error"},
		{errors.New("10.0.0.7 is gone"), false, "XX000", "internal error"},
		{errors.New("10.0.0.7 is gone"), true, "57P01", "internal error"},
	} {
		msg := lastWords(c.ended, c.why)
		w := parseWords(msg[headerSize:])
		if msg[0] != msgErrorResponse || !w.fatal() || string(w.code) != c.state || string(w.message) != c.text {
			t.Errorf("%v, ended %t: %s %q", c.why, c.ended, w.code, w.message)
		}
	}
}

// TestServersOwnWords: what the database said of a login reaches the person as it came, behind what says that they
// are in, unless it is about Curfew's own login, or the grant has ended.
func TestServersOwnWords(t *testing.T) {
	said := func(code string) *serverError {
		raw := appendReport(nil, msgErrorResponse, "FATAL", code, "its words")
		return &serverError{code: code, message: "its words", raw: raw}
	}
	for code, shown := range map[string]bool{"3D000": true, "42501": true, "53300": true, "57P03": true, "28P01": false, "28000": false, "28XYZ": false, "": false, "3D0": false} {
		why := fmt.Errorf("10.0.0.7: %w", said(code))
		msg, before := lastWords(false, why), appendMessage(nil, msgAuthentication, []byte{0, 0, 0, authOK})
		if got := bytes.Equal(msg, append(before, said(code).raw...)); got != shown {
			t.Errorf("%s: %q", code, msg)
		}
		if w := parseWords(msg[headerSize:]); !shown && (string(w.code) != "XX000" || string(w.message) != internalError) {
			t.Errorf("%s: %s %q", code, w.code, w.message)
		}
		state, text := public(why)
		if got := state == code && text == "its words"; got != shown {
			t.Errorf("%s: %s %q", code, state, text)
		}
		if msg := lastWords(true, why); msg[0] != msgErrorResponse || string(parseWords(msg[headerSize:]).code) != stateEnded {
			t.Errorf("%s amid an end: %q", code, msg)
		}
	}
}

// TestSeverity: the word that is never translated counts, wherever it stands; after a PANIC the server hangs up,
// too.
func TestSeverity(t *testing.T) {
	for text, fatal := range map[string]bool{
		"SFATAL\x00VFATAL\x00CXX000\x00\x00": true, "SFATAL\x00CXX000\x00\x00": true, "VPANIC\x00\x00": true,
		"SFATALE\x00VFATAL\x00\x00": true, "VFATAL\x00SFATALE\x00\x00": true,
		"SFATAL\x00VERROR\x00\x00": false, "SERROR\x00\x00": false, "": false,
	} {
		if w := parseWords([]byte(text)); w.fatal() != fatal {
			t.Errorf("%q: %q", text, w.severity)
		}
	}
}

// TestWordsCutShort: of what is too long to be looked at whole the beginning counts.
func TestWordsCutShort(t *testing.T) {
	for text, want := range map[string]string{"SERROR\x00C42P01\x00Mrelation of a lo": "relation of a lo", "Mall of it\x00": "all of it", "CXX": "", "M": ""} {
		if w := parseWords([]byte(text)); string(w.message) != want {
			t.Errorf("%q: %q", text, w.message)
		}
	}
}

// TestRefusedPrepare: whose PREPARE TRANSACTION is refused reads whether the level or the name is the reason.
func TestRefusedPrepare(t *testing.T) {
	for allowed, want := range map[bool]string{true: sentenceGID, false: sentencePrepare} {
		if got := (&observer{prepare: allowed}).refusal(); got != want {
			t.Errorf("allowed %t: %s", allowed, got)
		}
	}
}
