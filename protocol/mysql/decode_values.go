package mysql

import (
	"encoding/binary"
	"math"
	"strconv"
)

// fixedValue writes a value of a type that fixedSize knows as the server would.
func (o *observer) fixedValue(t uint16, b []byte) (text []byte, ok bool) {
	from := len(o.out.text)
	out, ok := appendValue(o.out.text, t, b)
	if !ok {
		return nil, false
	}
	o.out.text = out
	return out[from:len(out):len(out)], true
}

// appendValue writes such a value; of a time, b begins with its length.
func appendValue(dst []byte, t uint16, b []byte) (text []byte, ok bool) {
	le := binary.LittleEndian
	unsigned := t&flagUnsigned != 0
	var u uint64
	var i int64
	switch byte(t) {
	case typeFloat:
		return appendFloat(dst, float64(math.Float32frombits(le.Uint32(b))), 32), true
	case typeDouble:
		return appendFloat(dst, math.Float64frombits(le.Uint64(b)), 64), true
	case typeTime:
		return appendTime(dst, b[1:])
	case typeDate, typeDatetime, typeTimestamp:
		return appendDate(dst, b[1:], byte(t) == typeDate)
	case typeTiny:
		u, i = uint64(b[0]), int64(int8(b[0]))
	case typeShort:
		u, i = uint64(le.Uint16(b)), int64(int16(le.Uint16(b)))
	case typeLong:
		u, i = uint64(le.Uint32(b)), int64(int32(le.Uint32(b)))
	case typeLongLong:
		u, i = le.Uint64(b), int64(le.Uint64(b))
	default:
		return dst, false
	}
	if unsigned {
		return strconv.AppendUint(dst, u, 10), true
	}
	return strconv.AppendInt(dst, i, 10), true
}

// exponentFrom is where servers begin to write a number with an exponent: 15 digits, on either side of the point.
const exponentFrom = 15

// appendFloat writes the shortest number that is the same one.
func appendFloat(dst []byte, v float64, bits int) []byte {
	from := len(dst)
	dst = strconv.AppendFloat(dst, v, 'e', -1, bits)
	at := len(dst) - 1
	for at > from && dst[at] != 'e' {
		at--
	}
	if at == from {
		return dst // NaN, Inf
	}
	exponent, err := strconv.Atoi(string(dst[at+1:]))
	if err == nil && exponent < exponentFrom && exponent >= -exponentFrom {
		return strconv.AppendFloat(dst[:from], v, 'f', -1, bits)
	}
	return strconv.AppendInt(dst[:at+1], int64(exponent), 10)
}

// appendDate writes a date, and the time of day where there is one, or the type has it.
func appendDate(dst []byte, b []byte, dateOnly bool) ([]byte, bool) {
	var v [11]byte
	switch len(b) {
	case 0, 4, 7, 11:
		copy(v[:], b)
	default:
		return dst, false
	}
	dst = appendPadded(dst, uint64(binary.LittleEndian.Uint16(v[:])), 4)
	dst = appendPadded(append(dst, '-'), uint64(v[2]), 2)
	dst = appendPadded(append(dst, '-'), uint64(v[3]), 2)
	if dateOnly && len(b) <= 4 {
		return dst, true
	}
	return appendClock(append(dst, ' '), uint64(v[4]), v[5], v[6], binary.LittleEndian.Uint32(v[7:])), true
}

// appendTime writes a time, which may be negative and have days.
func appendTime(dst []byte, b []byte) ([]byte, bool) {
	var v [12]byte
	switch len(b) {
	case 0, 8, 12:
		copy(v[:], b)
	default:
		return dst, false
	}
	if v[0] != 0 {
		dst = append(dst, '-')
	}
	hours := uint64(binary.LittleEndian.Uint32(v[1:]))*24 + uint64(v[5])
	return appendClock(dst, hours, v[6], v[7], binary.LittleEndian.Uint32(v[8:])), true
}

func appendClock(dst []byte, hours uint64, minutes, seconds byte, micros uint32) []byte {
	dst = appendPadded(dst, hours, 2)
	dst = appendPadded(append(dst, ':'), uint64(minutes), 2)
	dst = appendPadded(append(dst, ':'), uint64(seconds), 2)
	if micros > 0 {
		dst = appendPadded(append(dst, '.'), uint64(micros), 6)
	}
	return dst
}

func appendPadded(dst []byte, v uint64, width int) []byte {
	for p := uint64(10); width > 1; width-- {
		if v < p {
			for ; width > 1; width-- {
				dst = append(dst, '0')
			}
			break
		}
		p *= 10
	}
	return strconv.AppendUint(dst, v, 10)
}
