package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Messages a client sends after login.
const (
	msgBind         = 'B'
	msgClose        = 'C'
	msgCopyData     = 'd' // both directions
	msgCopyDone     = 'c' // both directions
	msgCopyFail     = 'f'
	msgDescribe     = 'D'
	msgExecute      = 'E'
	msgFlush        = 'H'
	msgFunctionCall = 'F'
	msgParse        = 'P'
	msgPassword     = 'p' // and SASL responses; before login only
	msgQuery        = 'Q'
	msgSync         = 'S'
	msgTerminate    = 'X'
)

// Messages a server sends.
const (
	msgAuthentication       = 'R'
	msgBackendKeyData       = 'K'
	msgBindComplete         = '2'
	msgCloseComplete        = '3'
	msgCommandComplete      = 'C'
	msgCopyBothResponse     = 'W'
	msgCopyInResponse       = 'G'
	msgCopyOutResponse      = 'H'
	msgDataRow              = 'D'
	msgEmptyQueryResponse   = 'I'
	msgErrorResponse        = 'E'
	msgFunctionCallResponse = 'V'
	msgNegotiateProtocol    = 'v'
	msgNoData               = 'n'
	msgNoticeResponse       = 'N'
	msgNotification         = 'A'
	msgParameterDescription = 't'
	msgParameterStatus      = 'S'
	msgParseComplete        = '1'
	msgPortalSuspended      = 's'
	msgReadyForQuery        = 'Z'
	msgRowDescription       = 'T'
)

// The codes that stand where a StartupMessage has its version.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSSENC = 80877104
	version3   = 3 << 16
)

// newestMinor is the newest minor version of protocol 3 that is spoken here: 3.2, which is 3.0 with longer
// cancel keys.
const newestMinor = 2

// The lengths of a cancel key: 3.0 has one, and 3.2 those between.
const (
	keyShort   = 4
	keyLong    = 32
	keyLongest = 256
)

// recordHandshake is the first byte of TLS, which no startup message can begin with: it would be 350 MB long.
const recordHandshake = 0x16

// errHello says that TLS began without an SSLRequest.
var errHello = errors.New("TLS where a startup message was expected")

const (
	// limitBeforeLogin is the longest message anybody may send who has not proved who they are.
	limitBeforeLogin = 64 << 10
	// limitSmall and limitLarge are PostgreSQL's own: what has no data in it is short, what has is
	// shorter than 1 GB.
	limitSmall = 10000
	limitLarge = 0x3fffffff

	headerSize = 5 // type and length
)

var errTooLong = errors.New("message is too long")

// frameReader reads messages before the relay takes over. It reads ahead, and gives what it has read
// too much to the relay. Lengths come from a stranger: nothing is allocated before they were checked,
// and then in steps, as the bytes arrive.
type frameReader struct {
	conn io.Reader
	buf  []byte // buf[pos:] was read and not handed out
	pos  int
}

// next returns the next message. The body is valid until the next call.
func (f *frameReader) next(limit int) (typ byte, body []byte, err error) {
	head, err := f.take(headerSize)
	if err != nil {
		return 0, nil, err
	}
	typ = head[0]
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 {
		return 0, nil, fmt.Errorf("message %q has the invalid length %d", typ, size)
	}
	if int64(size) > int64(limit) {
		return 0, nil, fmt.Errorf("%w: %q has %d bytes", errTooLong, typ, size)
	}
	body, err = f.take(int(size) - 4)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return typ, body, err
}

// take returns the next n bytes, which are valid until the next call.
func (f *frameReader) take(n int) ([]byte, error) {
	for len(f.buf)-f.pos < n {
		if f.pos > 0 {
			f.buf = f.buf[:copy(f.buf, f.buf[f.pos:])]
			f.pos = 0
		}
		if len(f.buf) == cap(f.buf) {
			f.buf = append(f.buf, make([]byte, max(4096, cap(f.buf)))...)[:len(f.buf)]
		}
		got, err := f.conn.Read(f.buf[len(f.buf):cap(f.buf)])
		f.buf = f.buf[:len(f.buf)+got]
		if got > 0 {
			continue
		}
		if err == io.EOF && len(f.buf) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	b := f.buf[f.pos : f.pos+n : f.pos+n]
	f.pos += n
	return b, nil
}

// rest is what was read too much.
func (f *frameReader) rest() []byte { return f.buf[f.pos:] }

// readStartup reads one of the messages that have no type: StartupMessage and its relatives. It reads
// not one byte more, because what follows an SSLRequest belongs to TLS: bytes that somebody slipped in
// behind it in clear end up in the handshake, which fails on them. If TLS begins instead, the error is
// errHello and the body is what was read of it.
func readStartup(conn net.Conn) (code uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0] == recordHandshake {
		return 0, head[:], errHello
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 8 || size > limitBeforeLogin {
		return 0, nil, fmt.Errorf("startup message has the invalid length %d", size)
	}
	body = make([]byte, size-8)
	if _, err := io.ReadFull(conn, body); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return binary.BigEndian.Uint32(head[4:]), body, nil
}

// checkClient judges a client's header after login as PostgreSQL does: an unknown type or an impossible
// length ends the session before a byte of the body is looked at.
func checkClient(typ byte, size uint32) error {
	limit := uint32(limitSmall)
	switch typ {
	case msgQuery, msgParse, msgBind, msgFunctionCall, msgCopyData:
		limit = limitLarge
	case msgClose, msgCopyDone, msgCopyFail, msgDescribe, msgExecute, msgFlush, msgSync, msgTerminate:
	default:
		return fmt.Errorf("invalid frontend message type %d", typ)
	}
	if size < 4 || size > limit {
		return fmt.Errorf("invalid length %d of message %q", size, typ)
	}
	return nil
}

// cstring splits b behind its first NUL.
func cstring(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return nil, b, false
}

// appendMessage appends a message of whole parts.
func appendMessage(dst []byte, typ byte, parts ...[]byte) []byte {
	size := 4
	for _, p := range parts {
		size += len(p)
	}
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}
