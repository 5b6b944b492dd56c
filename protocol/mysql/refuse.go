package mysql

import (
	"errors"

	"github.com/curfewdb/curfew/protocol"
	"github.com/curfewdb/curfew/recorder"
)

// errno is an error number with its SQLSTATE.
type errno struct {
	code  uint16
	state string
}

// What Curfew itself says.
var (
	errnoDenied      = errno{1045, "28000"} // ER_ACCESS_DENIED_ERROR
	errnoTLS         = errno{3159, "HY000"} // ER_SECURE_TRANSPORT_REQUIRED
	errnoOldClient   = errno{1251, "08004"} // ER_NOT_SUPPORTED_AUTH_MODE
	errnoTooMany     = errno{1203, "42000"} // ER_TOO_MANY_USER_CONNECTIONS
	errnoUnreachable = errno{1429, "HY000"} // ER_CONNECT_TO_FOREIGN_DATA_SOURCE
	errnoNotRecorded = errno{1026, "HY000"} // ER_ERROR_ON_WRITE
	errnoMalformed   = errno{1835, "HY000"} // ER_MALFORMED_PACKET
	errnoInternal    = errno{1105, "HY000"} // ER_UNKNOWN_ERROR
	errnoUnknownCom  = errno{1047, "08S01"} // ER_UNKNOWN_COM_ERROR
	errnoForbidden   = errno{1227, "42000"} // ER_SPECIFIC_ACCESS_DENIED_ERROR
	errnoNoThread    = errno{1094, "HY000"} // ER_NO_SUCH_THREAD

	// An ended grant, in the words of each server for a connection that somebody killed.
	errnoEndedMariaDB = errno{1927, "70100"} // ER_CONNECTION_KILLED
	errnoEndedMySQL   = errno{3169, "HY000"} // ER_SESSION_WAS_KILLED
)

const (
	internalError     = "internal error"
	sentenceRecord    = "what you do can't be recorded at the moment, so the session was ended; try again later or tell your Curfew administrator"
	sentenceViolation = "protocol violation: "
)

// errnoEnded is how a server of this kind says that a connection is over.
func errnoEnded(mariadb bool) errno {
	if mariadb {
		return errnoEndedMariaDB
	}
	return errnoEndedMySQL
}

// public is what a client's eyes see of an error: the sentence of a *protocol.Refusal or of whatever has
// one, and of nothing else.
func public(mariadb bool, why error) (no errno, text string) {
	var native *serverError
	if errors.As(why, &native) && native.mayShow() {
		return errno{native.code, native.state}, native.message
	}
	var refusal *protocol.Refusal
	if errors.As(why, &refusal) {
		return errnoOf(mariadb, refusal.Code), refusal.Public
	}
	var speaker interface{ Public() string }
	if errors.As(why, &speaker) {
		return errnoEnded(mariadb), speaker.Public()
	}
	var end *protocol.EndError
	if errors.As(why, &end) {
		switch end.Code {
		case recorder.EndRecord:
			return errnoNotRecorded, sentenceRecord
		case recorder.EndViolation:
			return errnoMalformed, sentenceViolation + end.Err.Error()
		}
	}
	return errnoInternal, internalError
}

// errnoOf gives a Refusal's error number.
func errnoOf(mariadb bool, code string) errno {
	switch code {
	case protocol.RefuseLogin, protocol.RefuseToken, protocol.RefuseNoGrant:
		return errnoDenied
	case protocol.RefuseTLS:
		return errnoTLS
	case protocol.RefuseUnsupported:
		return errnoOldClient
	case protocol.RefuseLimit:
		return errnoTooMany
	case protocol.RefuseUnavailable:
		return errnoUnreachable
	case recorder.EndRecord:
		return errnoNotRecorded
	case recorder.EndViolation:
		return errnoMalformed
	case recorder.EndFailed:
		return errnoInternal
	}
	return errnoEnded(mariadb)
}

// lastWords is the packet that ends a session because of why. An ended session is a killed connection,
// whatever ended it, but a lost recording.
func lastWords(seq byte, caps capability, mariadb, ended bool, why error) []byte {
	no, text := public(mariadb, why)
	if ended && !recordLost(why) {
		no = errnoEnded(mariadb)
	}
	return appendErr(nil, seq, caps, no.code, no.state, text)
}

// recordLost: the session ends because its recording was lost, which reads the same whoever noticed first.
func recordLost(why error) bool {
	var refusal *protocol.Refusal
	return errors.As(why, &refusal) && refusal.Code == recorder.EndRecord
}

// serverError is what the database said when it refused a login.
type serverError struct {
	code           uint16
	state, message string
}

func (e *serverError) Error() string { return "database: " + e.message + " (" + e.state + ")" }

// mayShow says whether the person at the other end should read what the database said: what is about
// the database they asked for and the server's limits, not what is about the login, which is Curfew's.
func (e *serverError) mayShow() bool {
	switch e.code {
	case 1040, // ER_CON_COUNT_ERROR
		1044, // ER_DBACCESS_DENIED_ERROR
		1049, // ER_BAD_DB_ERROR
		1203, // ER_TOO_MANY_USER_CONNECTIONS
		1226: // ER_USER_LIMIT_REACHED
		return true
	}
	return false
}
