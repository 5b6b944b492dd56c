package mysql

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// capability is what both ends of a connection have agreed on. The low 32 bits are the protocol's own
// CLIENT_* flags; the high 32 bits are MariaDB's extended ones.
type capability uint64

const (
	capLongPassword capability = 1 << iota // unset by a MariaDB server in its greeting: it has extended capabilities
	capFoundRows
	capLongFlag
	capConnectWithDB
	capNoSchema
	capCompress
	capODBC
	capLocalFiles
	capIgnoreSpace
	capProtocol41
	capInteractive
	capSSL
	capIgnoreSigpipe
	capTransactions
	capReserved
	capSecureConnection
	capMultiStatements
	capMultiResults
	capPSMultiResults
	capPluginAuth
	capConnectAttrs
	capPluginAuthLenenc
	capExpiredPasswords
	capSessionTrack
	capDeprecateEOF
	capOptionalMetadata
	capZstd
	capQueryAttributes
	capMultiFactor
	capCapabilityExtension
	capVerifyServerCert
	capRememberOptions
	capProgress         // MariaDB: progress reports, in ERR packets of the code 0xffff
	capComMulti         // MariaDB: several commands in one packet
	capBulk             // MariaDB: COM_STMT_BULK_EXECUTE
	capExtendedMetadata // MariaDB: extended type information in column definitions
	capCacheMetadata    // MariaDB: column definitions are skipped where the client has them
	capBulkUnitResults  // MariaDB: one result for each row of a bulk
)

// Commands: the first byte of a packet with the sequence number 0.
const (
	comSleep           = 0x00
	comQuit            = 0x01
	comInitDB          = 0x02
	comQuery           = 0x03
	comFieldList       = 0x04
	comCreateDB        = 0x05
	comDropDB          = 0x06
	comRefresh         = 0x07
	comShutdown        = 0x08
	comStatistics      = 0x09
	comProcessInfo     = 0x0a
	comConnect         = 0x0b
	comProcessKill     = 0x0c
	comDebug           = 0x0d
	comPing            = 0x0e
	comTime            = 0x0f
	comDelayedInsert   = 0x10
	comChangeUser      = 0x11
	comBinlogDump      = 0x12
	comTableDump       = 0x13
	comConnectOut      = 0x14
	comRegisterSlave   = 0x15
	comStmtPrepare     = 0x16
	comStmtExecute     = 0x17
	comStmtLongData    = 0x18
	comStmtClose       = 0x19
	comStmtReset       = 0x1a
	comSetOption       = 0x1b
	comStmtFetch       = 0x1c
	comDaemon          = 0x1d
	comBinlogDumpGTID  = 0x1e
	comResetConnection = 0x1f
	comClone           = 0x20
	comSubscribeGroup  = 0x21
	comStmtBulkExecute = 0xfa // MariaDB
	comMulti           = 0xfe // MariaDB
)

// The first byte of what a server sends.
const (
	packetOK    = 0x00
	packetLocal = 0xfb // LOCAL INFILE: the server asks for a file; in rows, NULL
	packetEOF   = 0xfe // also an OK packet in an EOF packet's place, and AuthSwitchRequest
	packetErr   = 0xff
	packetMore  = 0x01 // AuthMoreData
)

// Server status flags.
const (
	statusInTrans             uint16 = 0x0001
	statusAutocommit          uint16 = 0x0002
	statusMoreResults         uint16 = 0x0008
	statusNoGoodIndex         uint16 = 0x0010
	statusNoIndex             uint16 = 0x0020
	statusCursorExists        uint16 = 0x0040
	statusLastRowSent         uint16 = 0x0080
	statusDBDropped           uint16 = 0x0100
	statusNoBackslashEscapes  uint16 = 0x0200
	statusMetadataChanged     uint16 = 0x0400
	statusSlow                uint16 = 0x0800
	statusOutParams           uint16 = 0x1000
	statusInTransReadOnly     uint16 = 0x2000
	statusSessionStateChanged uint16 = 0x4000
	statusAnsiQuotes          uint16 = 0x8000 // MariaDB
)

const (
	headerSize = 4        // length and sequence number
	maxFrame   = 0xffffff // a frame of exactly this length has a successor

	// limitBeforeLogin is the longest packet anybody may send who has not proved who they are.
	limitBeforeLogin = 64 << 10
)

var (
	errTooLong  = errors.New("packet is too long")
	errSequence = errors.New("packets out of order")
)

// packetReader reads packets before the relay takes over, and knows the conversation's next sequence
// number, for what is written, too. It reads ahead unless it must not, and gives what it has read too
// much to the relay. Lengths come from a stranger: nothing is allocated before they were checked, and
// then in steps, as the bytes arrive.
type packetReader struct {
	conn  io.Reader
	exact bool // not one byte more than asked for is read: what follows may belong to TLS
	seq   byte // of the next packet, whichever side sends it
	buf   []byte
	pos   int // buf[pos:] was read and not handed out
}

// read returns the next packet's payload, whole, however many frames it came in. It is valid until the
// next call.
func (r *packetReader) read(limit int) ([]byte, error) {
	var whole []byte
	for {
		head, err := r.take(headerSize)
		if err != nil {
			if err == io.EOF && whole != nil {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		if head[3] != r.seq {
			return nil, fmt.Errorf("%w: got %d, expected %d", errSequence, head[3], r.seq)
		}
		r.seq++
		if size > limit-len(whole) {
			return nil, fmt.Errorf("%w: it has at least %d bytes", errTooLong, len(whole)+size)
		}
		frame, err := r.take(size)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if whole == nil && size < maxFrame {
			return frame, nil
		}
		whole = append(whole, frame...)
		if size < maxFrame {
			return whole, nil
		}
	}
}

// take returns the next n bytes, which are valid until the next call.
func (r *packetReader) take(n int) ([]byte, error) {
	for len(r.buf)-r.pos < n {
		if r.pos > 0 {
			r.buf = r.buf[:copy(r.buf, r.buf[r.pos:])]
			r.pos = 0
		}
		if len(r.buf) == cap(r.buf) {
			r.buf = append(r.buf, make([]byte, max(4096, cap(r.buf)))...)[:len(r.buf)]
		}
		end := cap(r.buf)
		if r.exact {
			end = min(end, n)
		}
		got, err := r.conn.Read(r.buf[len(r.buf):end])
		r.buf = r.buf[:len(r.buf)+got]
		if got > 0 {
			continue
		}
		if err == io.EOF && len(r.buf) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	b := r.buf[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return b, nil
}

// rest is what was read too much.
func (r *packetReader) rest() []byte { return r.buf[r.pos:] }

// appendPacket appends a packet, in as many frames as it takes. The first has the sequence number seq.
func appendPacket(dst []byte, seq byte, payload []byte) []byte {
	for {
		n := min(len(payload), maxFrame)
		dst = append(dst, byte(n), byte(n>>8), byte(n>>16), seq)
		dst = append(dst, payload[:n]...)
		if n < maxFrame {
			return dst
		}
		payload, seq = payload[n:], seq+1
	}
}

// lenencInt reads a length-encoded integer at the beginning of b, and says how many bytes it takes.
// n is 0 and ok false where it is not whole, or is none (NULL, an ERR packet's first byte).
func lenencInt(b []byte) (v uint64, n int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch b[0] {
	case 0xfb, 0xff:
		return 0, 0, false
	case 0xfc:
		n = 3
	case 0xfd:
		n = 4
	case 0xfe:
		n = 9
	default:
		return uint64(b[0]), 1, true
	}
	if len(b) < n {
		return 0, 0, false
	}
	for i := n - 1; i > 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v, n, true
}

// lenencBytes splits b behind the length-encoded string at its beginning.
func lenencBytes(b []byte) (v, rest []byte, ok bool) {
	size, n, ok := lenencInt(b)
	if !ok || size > uint64(len(b)-n) {
		return nil, b, false
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

// appendLenenc appends a length-encoded integer.
func appendLenenc(dst []byte, v uint64) []byte {
	switch {
	case v < 0xfb:
		return append(dst, byte(v))
	case v < 1<<16:
		return append(dst, 0xfc, byte(v), byte(v>>8))
	case v < 1<<24:
		return append(dst, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xfe), v)
}

// appendLenencBytes appends a length-encoded string.
func appendLenencBytes[T string | []byte](dst []byte, v T) []byte {
	return append(appendLenenc(dst, uint64(len(v))), v...)
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

// okPacket is an OK packet, also one in an EOF packet's place. Its slices alias the payload.
type okPacket struct {
	affected, insertID uint64
	status, warnings   uint16
	info, state        []byte
}

// parseOK reads an OK packet; its first byte, 0x00 or 0xfe, is not looked at.
func parseOK(payload []byte, caps capability) (ok okPacket, whole bool) {
	if len(payload) == 0 {
		return ok, false
	}
	b := payload[1:]
	for _, v := range []*uint64{&ok.affected, &ok.insertID} {
		n, size, good := lenencInt(b)
		if !good {
			return ok, false
		}
		*v, b = n, b[size:]
	}
	if caps&(capProtocol41|capTransactions) != 0 {
		if len(b) < 2 {
			return ok, false
		}
		ok.status, b = binary.LittleEndian.Uint16(b), b[2:]
	}
	if caps&capProtocol41 != 0 {
		if len(b) < 2 {
			return ok, false
		}
		ok.warnings, b = binary.LittleEndian.Uint16(b), b[2:]
	}
	if len(b) == 0 { // servers leave out what is empty
		return ok, ok.status&statusSessionStateChanged == 0 || caps&capSessionTrack == 0
	}
	info, rest, good := lenencBytes(b)
	if caps&capSessionTrack == 0 {
		// The manuals have it reach to the packet's end, the servers put its length before it.
		if !good || len(rest) > 0 {
			info = b
		}
		ok.info = info
		return ok, true
	}
	if !good {
		return ok, false
	}
	ok.info, b = info, rest
	if ok.status&statusSessionStateChanged != 0 {
		if ok.state, b, good = lenencBytes(b); !good {
			return ok, false
		}
	}
	return ok, len(b) == 0
}

// appendOK appends an OK packet's payload.
func appendOK(dst []byte, ok okPacket, caps capability) []byte {
	dst = appendLenenc(appendLenenc(append(dst, packetOK), ok.affected), ok.insertID)
	dst = binary.LittleEndian.AppendUint16(dst, ok.status)
	dst = binary.LittleEndian.AppendUint16(dst, ok.warnings)
	changed := caps&capSessionTrack != 0 && ok.status&statusSessionStateChanged != 0
	if len(ok.info) > 0 || changed {
		dst = appendLenencBytes(dst, ok.info)
	}
	if changed {
		dst = appendLenencBytes(dst, ok.state)
	}
	return dst
}

// errPacket is an ERR packet. Its slices alias the payload.
type errPacket struct {
	code           uint16
	state, message []byte
}

// parseErr reads an ERR packet; its first byte is not looked at. What a server says before it knows the
// client has no SQLSTATE.
func parseErr(payload []byte, caps capability) (e errPacket, whole bool) {
	if len(payload) < 3 {
		return e, false
	}
	e.code = binary.LittleEndian.Uint16(payload[1:])
	b := payload[3:]
	if caps&capProtocol41 != 0 && len(b) >= 6 && b[0] == '#' {
		e.state, b = b[1:6:6], b[6:]
	}
	e.message = b
	return e, true
}

// appendErr appends a whole ERR packet.
func appendErr(dst []byte, seq byte, caps capability, code uint16, state, text string) []byte {
	payload := []byte{packetErr, byte(code), byte(code >> 8)}
	if caps&capProtocol41 != 0 {
		payload = append(append(payload, '#'), state...)
	}
	return appendPacket(dst, seq, append(payload, text...))
}
