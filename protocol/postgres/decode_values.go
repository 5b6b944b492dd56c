package postgres

import (
	"encoding/binary"
	"math"
	"strconv"
)

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
	epochDay        = 10957 // 2000-01-01 in days since 1970-01-01
)

// appendDate writes days since 2000-01-01.
func appendDate(dst []byte, days int64) []byte {
	switch days {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case math.MinInt32:
		return append(dst, "-infinity"...)
	}
	dst, before := appendDay(dst, days)
	return append(dst, before...)
}

// appendDay writes a day, and returns what stands at the end of a date before Christ.
func appendDay(dst []byte, days int64) ([]byte, string) {
	// Days to civil date, proleptic Gregorian; see Hinnant, "chrono-Compatible Low-Level Date Algorithms".
	z := days + epochDay + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day := doy - (153*mp+2)/5 + 1
	month := mp + 3
	if month > 12 {
		month -= 12
	}
	year := yoe + era*400
	if month <= 2 {
		year++
	}
	bc := ""
	if year <= 0 {
		year, bc = 1-year, " BC"
	}
	dst = appendPadded(dst, year, 4)
	dst = appendPadded(append(dst, '-'), month, 2)
	return appendPadded(append(dst, '-'), day, 2), bc
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func appendPadded(dst []byte, v int64, width int) []byte {
	for p := int64(10); width > 1; width-- {
		if v < p {
			for ; width > 1; width-- {
				dst = append(dst, '0')
			}
			break
		}
		p *= 10
	}
	return strconv.AppendInt(dst, v, 10)
}

// appendClock writes microseconds since midnight.
func appendClock(dst []byte, micros int64) []byte {
	if micros < 0 {
		dst = append(dst, '-')
	}
	u := magnitude(micros)
	seconds, fraction := u/microsPerSecond, int64(u%microsPerSecond)
	dst = appendPadded(dst, int64(seconds/3600), 2)
	dst = appendPadded(append(dst, ':'), int64(seconds/60%60), 2)
	dst = appendPadded(append(dst, ':'), int64(seconds%60), 2)
	if fraction == 0 {
		return dst
	}
	dst = appendPadded(append(dst, '.'), fraction, 6)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return uint64(-(v + 1)) + 1
	}
	return uint64(v)
}

// appendTimestamp writes microseconds since 2000-01-01.
func appendTimestamp(dst []byte, micros int64, zone string) []byte {
	switch micros {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case math.MinInt64:
		return append(dst, "-infinity"...)
	}
	days := floorDiv(micros, microsPerDay)
	dst, before := appendDay(dst, days)
	dst = appendClock(append(dst, ' '), micros-days*microsPerDay)
	return append(append(dst, zone...), before...)
}

// appendInterval writes an interval in the server's default style.
func appendInterval(dst []byte, micros int64, days, months int32) []byte {
	from := len(dst)
	negative := false
	unit := func(v int64, name string) {
		if v == 0 {
			return
		}
		if len(dst) > from {
			dst = append(dst, ' ')
			if negative && v > 0 {
				dst = append(dst, '+')
			}
		}
		dst = strconv.AppendInt(dst, v, 10)
		dst = append(append(dst, ' '), name...)
		if v != 1 {
			dst = append(dst, 's')
		}
		negative = v < 0
	}
	unit(int64(months/12), "year")
	unit(int64(months%12), "mon")
	unit(int64(days), "day")
	if micros != 0 || len(dst) == from {
		if len(dst) > from {
			dst = append(dst, ' ')
			if negative && micros > 0 {
				dst = append(dst, '+')
			}
		}
		dst = appendClock(dst, micros)
	}
	return dst
}

// appendNumeric writes groups of four decimal digits. It refuses a number whose text is out of all
// proportion to what was sent for it.
func appendNumeric(dst, v []byte) ([]byte, bool) {
	if len(v) < 8 {
		return dst, false
	}
	n := int(binary.BigEndian.Uint16(v))
	weight := int(int16(binary.BigEndian.Uint16(v[2:])))
	sign := binary.BigEndian.Uint16(v[4:])
	scale := int(binary.BigEndian.Uint16(v[6:]))
	switch sign {
	case 0xC000:
		return append(dst, "NaN"...), true
	case 0xD000:
		return append(dst, "Infinity"...), true
	case 0xF000:
		return append(dst, "-Infinity"...), true
	case 0, 0x4000:
	default:
		return dst, false
	}
	groups := v[8:]
	if len(groups) != 2*n || 4*max(weight, 0)+scale > 8*len(v)+64 {
		return dst, false
	}
	for i := range n {
		if binary.BigEndian.Uint16(groups[2*i:]) > 9999 {
			return dst, false
		}
	}
	group := func(i int) int64 { // the one that counts 10000^i
		if at := weight - i; at >= 0 && at < n {
			return int64(binary.BigEndian.Uint16(groups[2*at:]))
		}
		return 0
	}
	if sign == 0x4000 {
		dst = append(dst, '-')
	}
	if weight < 0 {
		dst = append(dst, '0')
	}
	for i := weight; i >= 0; i-- {
		if i == weight {
			dst = strconv.AppendInt(dst, group(i), 10)
		} else {
			dst = appendPadded(dst, group(i), 4)
		}
	}
	if scale == 0 {
		return dst, true
	}
	dst = append(dst, '.')
	end := len(dst) + scale
	for i := -1; len(dst) < end; i-- {
		dst = appendPadded(dst, group(i), 4)
	}
	return dst[:end], true
}

// appendArray writes an array whose elements are known here.
func appendArray(dst, v []byte) ([]byte, bool) {
	const maxDimensions = 6
	if len(v) < 12 {
		return dst, false
	}
	dims := int(binary.BigEndian.Uint32(v))
	elem := binary.BigEndian.Uint32(v[8:])
	if typeByOID(elem) == "" || arrayByOID(elem) != "" || elem == 0 {
		return dst, false
	}
	if dims == 0 && len(v) == 12 {
		return append(dst, "{}"...), true
	}
	if dims < 1 || dims > maxDimensions || len(v) < 12+8*dims {
		return dst, false
	}
	a := array{elem: elem, v: v[12+8*dims:]}
	bounds := false
	for i := range dims {
		size, lower := binary.BigEndian.Uint32(v[12+8*i:]), int32(binary.BigEndian.Uint32(v[16+8*i:]))
		if size == 0 || size > uint32(len(v)) {
			return dst, false
		}
		a.sizes[i] = int(size)
		a.lower[i] = int64(lower)
		bounds = bounds || lower != 1
	}
	if bounds {
		for i := range dims {
			dst = strconv.AppendInt(append(dst, '['), a.lower[i], 10)
			dst = strconv.AppendInt(append(dst, ':'), a.lower[i]+int64(a.sizes[i])-1, 10)
			dst = append(dst, ']')
		}
		dst = append(dst, '=')
	}
	dst, ok := a.append(dst, 0, dims)
	return dst, ok && len(a.v) == 0
}

// array is an array that is being written.
type array struct {
	elem  uint32
	sizes [6]int
	lower [6]int64
	v     []byte // elements that were not written yet
}

func (a *array) append(dst []byte, dim, dims int) ([]byte, bool) {
	dst = append(dst, '{')
	for i := range a.sizes[dim] {
		if i > 0 {
			dst = append(dst, ',')
		}
		var ok bool
		if dim+1 < dims {
			dst, ok = a.append(dst, dim+1, dims)
		} else {
			dst, ok = a.appendElement(dst)
		}
		if !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

func (a *array) appendElement(dst []byte) ([]byte, bool) {
	if len(a.v) < 4 {
		return dst, false
	}
	size := int(int32(binary.BigEndian.Uint32(a.v)))
	a.v = a.v[4:]
	if size == -1 {
		return append(dst, "NULL"...), true
	}
	if size < 0 || size > len(a.v) {
		return dst, false
	}
	from := len(dst)
	dst, ok := appendValue(dst, a.elem, a.v[:size])
	a.v = a.v[size:]
	if !ok {
		return dst, false
	}
	return quoteElement(dst, from), true
}

// quoteElement puts an element in quotes if the server would.
func quoteElement(dst []byte, from int) []byte {
	text := dst[from:]
	escapes, quote := 0, len(text) == 0 || len(text) == 4 && (text[0]|0x20) == 'n' && (text[1]|0x20) == 'u' && (text[2]|0x20) == 'l' && (text[3]|0x20) == 'l'
	for _, c := range text {
		switch c {
		case '"', '\\':
			escapes++
			quote = true
		case '{', '}', ',', ' ', '\t', '\n', '\r', '\v', '\f':
			quote = true
		}
	}
	if !quote {
		return dst
	}
	end := len(dst)
	for range escapes + 2 {
		dst = append(dst, 0)
	}
	w := len(dst) - 1
	dst[w] = '"'
	for r := end - 1; r >= from; r-- {
		w--
		dst[w] = dst[r]
		if c := dst[r]; c == '"' || c == '\\' {
			w--
			dst[w] = '\\'
		}
	}
	dst[from] = '"'
	return dst
}
