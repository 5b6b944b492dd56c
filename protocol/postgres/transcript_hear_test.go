package postgres

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Hearing: what stands behind < is a message's name and all that is in it. What can't be equal is made so
// by rules that have names:
//
//	PID, KEY    a backend's pid, and its cancel key but for its length: those through Curfew are Curfew's
//	SALT, PROOF what SCRAM makes up, and how often it stretches: an account's secret is random
//	ACCOUNT     the account's name
//	VERSION     the server's version
//	TABLE       the oid of a table
//
// Where in the server's source an error was raised (F, L, R) is compared between two runs, and is not in the
// file. With the rule "where" it is not compared: Curfew says the same, from another place.
type hearing struct {
	body []byte
	bad  bool
}

// heard writes a message as text. What doesn't fit is in hex, so that nothing is lost.
func heard(typ byte, body []byte) string {
	name := messages[typ]
	h := &hearing{body: body}
	var text string
	switch typ {
	case msgAuthentication:
		return h.authentication()
	case msgParameterStatus:
		text = h.parameter()
	case msgBackendKeyData:
		h.skip(4)
		text = fmt.Sprintf("PID KEY(%d bytes)", len(h.body))
		h.body = nil
	case msgReadyForQuery:
		text = string(h.take(1))
	case msgCommandComplete:
		text = h.string()
	case msgNotification:
		h.skip(4)
		text = "PID " + h.string() + " " + h.string()
	case msgErrorResponse, msgNoticeResponse:
		text = h.report()
	case msgRowDescription:
		text = h.columns()
	case msgDataRow:
		text = h.row()
	case msgParameterDescription:
		for n := h.short(); n > 0 && !h.bad; n-- {
			text += fmt.Sprintf("%d ", h.long())
		}
	case msgCopyInResponse, msgCopyOutResponse, msgCopyBothResponse:
		text = fmt.Sprintf("%d", h.take(1))
		for n := h.short(); n > 0 && !h.bad; n-- {
			text += fmt.Sprintf(" %d", h.short())
		}
	case msgCopyData:
		text = shown(h.take(len(h.body)))
	case msgFunctionCallResponse:
		text = h.value()
	case msgNegotiateProtocol:
		text = fmt.Sprintf("%d.%d", h.short(), h.short())
		for n := h.long(); n > 0 && !h.bad; n-- {
			text += " " + h.string()
		}
	}
	if name == "" || h.bad || len(h.body) > 0 {
		return fmt.Sprintf("%s %q %x", name, typ, body)
	}
	return strings.TrimSpace(name + " " + text)
}

// messages has the server's messages, by type.
var messages = map[byte]string{
	msgAuthentication: "Authentication", msgBackendKeyData: "BackendKeyData", msgBindComplete: "BindComplete",
	msgCloseComplete: "CloseComplete", msgCommandComplete: "CommandComplete", msgCopyBothResponse: "CopyBothResponse",
	msgCopyData: "CopyData", msgCopyDone: "CopyDone", msgCopyInResponse: "CopyInResponse", msgCopyOutResponse: "CopyOutResponse",
	msgDataRow: "DataRow", msgEmptyQueryResponse: "EmptyQueryResponse", msgErrorResponse: "ErrorResponse",
	msgFunctionCallResponse: "FunctionCallResponse", msgNegotiateProtocol: "NegotiateProtocolVersion", msgNoData: "NoData",
	msgNoticeResponse: "NoticeResponse", msgNotification: "NotificationResponse", msgParameterDescription: "ParameterDescription",
	msgParameterStatus: "ParameterStatus", msgParseComplete: "ParseComplete", msgPortalSuspended: "PortalSuspended",
	msgReadyForQuery: "ReadyForQuery", msgRowDescription: "RowDescription",
}

// requests has the kinds of Authentication.
var requests = map[uint32]string{
	authOK: "AuthenticationOk", authCleartextPassword: "AuthenticationCleartextPassword", authSASL: "AuthenticationSASL",
	authSASLContinue: "AuthenticationSASLContinue", authSASLFinal: "AuthenticationSASLFinal",
}

func (h *hearing) authentication() string {
	whole := h.body
	code := h.long()
	text := requests[code]
	switch code {
	case authSASL:
		for len(h.body) > 1 && !h.bad {
			text += " " + h.string()
		}
		h.skip(1)
	case authSASLContinue:
		text += " " + salts.ReplaceAllString(string(h.take(len(h.body))), "r=PROOF,s=SALT,i=SALT")
	case authSASLFinal:
		text += " " + proofs.ReplaceAllString(string(h.take(len(h.body))), "v=PROOF")
	}
	if text == "" || h.bad || len(h.body) > 0 {
		return fmt.Sprintf("Authentication %x", whole)
	}
	return text
}

var (
	salts  = regexp.MustCompile(`^r=[!-+\--~]+,s=[A-Za-z0-9+/=]+,i=[0-9]+$`)
	proofs = regexp.MustCompile(`^v=[A-Za-z0-9+/=]+$`)
)

func (h *hearing) parameter() string {
	name, value := h.string(), h.string()
	if name == `"server_version"` {
		value = "VERSION"
	}
	return name + " " + value
}

// report has an error's fields in their order, but for the place, which is last.
func (h *hearing) report() string {
	var text, where strings.Builder
	for !h.bad {
		field := h.take(1)
		if h.bad || field[0] == 0 {
			break
		}
		to := &text
		if strings.Contains("FLR", string(field)) {
			to = &where
		}
		fmt.Fprintf(to, " %s=%s", field, h.string())
	}
	return text.String() + where.String()
}

// wherein is what an error says of the server's source.
var wherein = regexp.MustCompile(`(?m) F="[^"]*" L="[^"]*" R="[^"]*"$`)

func (h *hearing) columns() string {
	var text strings.Builder
	for n := h.short(); n > 0 && !h.bad; n-- {
		name, table := h.string(), "0"
		if h.long() != 0 {
			table = "TABLE"
		}
		fmt.Fprintf(&text, " [%s %s.%d type %d size %d mod %d format %d]", name, table, h.short(), h.long(), int16(h.short()), int32(h.long()), h.short())
	}
	return text.String()
}

func (h *hearing) row() string {
	var text strings.Builder
	for n := h.short(); n > 0 && !h.bad; n-- {
		text.WriteString(" " + h.value())
	}
	return text.String()
}

func (h *hearing) value() string {
	size := int32(h.long())
	if size == -1 {
		return "NULL"
	}
	return shown(h.take(int(size)))
}

// shown is a text as it is, and what is none in hex.
func shown(b []byte) string {
	if utf8.Valid(b) && !strings.ContainsRune(string(b), 0) {
		return strconv.Quote(string(b))
	}
	return fmt.Sprintf("x%x", b)
}

func (h *hearing) take(n int) []byte {
	if n < 0 || n > len(h.body) {
		h.bad = true
		return make([]byte, max(0, min(n, 8)))
	}
	b := h.body[:n]
	h.body = h.body[n:]
	return b
}

func (h *hearing) skip(n int) { h.take(n) }

func (h *hearing) short() uint16 { return binary.BigEndian.Uint16(h.take(2)) }
func (h *hearing) long() uint32  { return binary.BigEndian.Uint32(h.take(4)) }

func (h *hearing) string() string {
	s, rest, ok := cstring(h.body)
	if !ok {
		h.bad = true
		return ""
	}
	h.body = rest
	return strconv.Quote(string(s))
}
