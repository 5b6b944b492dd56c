package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/curfewdb/curfew/recorder"
)

// Types whose binary form is known here, by their fixed OIDs (pg_type.dat).
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidJSON        = 114
	oidXML         = 142
	oidFloat4      = 700
	oidFloat8      = 701
	oidUnknown     = 705
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidInterval    = 1186
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802
)

// typeByOID names a type that is known here.
func typeByOID(oid uint32) string {
	switch oid {
	case 0, oidUnknown:
		return "unknown"
	case oidBool:
		return "bool"
	case oidBytea:
		return "bytea"
	case oidChar:
		return "char"
	case oidName:
		return "name"
	case oidInt8:
		return "int8"
	case oidInt2:
		return "int2"
	case oidInt4:
		return "int4"
	case oidText:
		return "text"
	case oidOID:
		return "oid"
	case oidJSON:
		return "json"
	case oidXML:
		return "xml"
	case oidFloat4:
		return "float4"
	case oidFloat8:
		return "float8"
	case oidBPChar:
		return "bpchar"
	case oidVarchar:
		return "varchar"
	case oidDate:
		return "date"
	case oidTime:
		return "time"
	case oidTimestamp:
		return "timestamp"
	case oidTimestampTZ:
		return "timestamptz"
	case oidInterval:
		return "interval"
	case oidNumeric:
		return "numeric"
	case oidUUID:
		return "uuid"
	case oidJSONB:
		return "jsonb"
	}
	return arrayByOID(oid)
}

// arrayByOID names an array of a type that is known here.
func arrayByOID(oid uint32) string {
	switch oid {
	case 1000:
		return "bool[]"
	case 1001:
		return "bytea[]"
	case 1003:
		return "name[]"
	case 1005:
		return "int2[]"
	case 1007:
		return "int4[]"
	case 1009:
		return "text[]"
	case 1014:
		return "bpchar[]"
	case 1015:
		return "varchar[]"
	case 1016:
		return "int8[]"
	case 1021:
		return "float4[]"
	case 1022:
		return "float8[]"
	case 1028:
		return "oid[]"
	case 1115:
		return "timestamp[]"
	case 1182:
		return "date[]"
	case 1183:
		return "time[]"
	case 1185:
		return "timestamptz[]"
	case 1187:
		return "interval[]"
	case 1231:
		return "numeric[]"
	case 199:
		return "json[]"
	case 2951:
		return "uuid[]"
	case 3807:
		return "jsonb[]"
	}
	return ""
}

// limitOIDNames is how many names of the form oid:N a session keeps.
const limitOIDNames = 256

// typeName names any type.
func (o *observer) typeName(oid uint32) string {
	if name := typeByOID(oid); name != "" {
		return name
	}
	if name := o.oids[oid]; name != "" {
		return name
	}
	name := "oid:" + strconv.FormatUint(uint64(oid), 10)
	if o.oids == nil {
		o.oids = map[uint32]string{}
	}
	if len(o.oids) < limitOIDNames {
		o.oids[oid] = name
	}
	return name
}

// shape is how a value is shown.
type shape byte

const (
	shapeText   shape = iota // its bytes are its text form
	shapeHex                 // its bytes, in hex
	shapeDecode              // its text form is made from its binary form
)

// shapeOf says how a value is shown.
func shapeOf(oid uint32, binaryForm bool) shape {
	if !binaryForm {
		return shapeText
	}
	switch oid {
	case oidText, oidVarchar, oidBPChar, oidName, oidJSON, oidXML, oidUnknown, oidChar:
		return shapeText
	case oidBytea:
		return shapeHex
	}
	if typeByOID(oid) == "" || oid == 0 {
		return shapeHex
	}
	return shapeDecode
}

// splitShape is the same for a value that is too long to be seen in one piece.
func splitShape(oid uint32, binaryForm bool) shape {
	s := shapeOf(oid, binaryForm)
	switch {
	case s != shapeDecode:
		return s
	case oid == oidJSONB:
		return shapeText
	}
	return shapeHex
}

// param shows one parameter. What does not decode is shown in hex.
func (o *observer) param(oid uint32, binaryForm bool, value []byte) recorder.Param {
	p := recorder.Param{Type: o.typeName(oid), Value: value}
	switch shapeOf(oid, binaryForm) {
	case shapeHex:
		p.Hex = true
	case shapeDecode:
		from := len(o.out.text)
		text, ok := appendValue(o.out.text, oid, value)
		if !ok {
			p.Hex = true
			return p
		}
		o.out.text = text
		p.Value = text[from:len(text):len(text)]
	}
	return p
}

// appendValue appends the text form of a binary value, as the server would write it.
func appendValue(dst []byte, oid uint32, v []byte) ([]byte, bool) {
	switch oid {
	case oidText, oidVarchar, oidBPChar, oidName, oidJSON, oidXML, oidUnknown:
		return append(dst, v...), true
	case oidBytea:
		return hex.AppendEncode(append(dst, '\\', 'x'), v), true
	case oidJSONB:
		if len(v) == 0 || v[0] != 1 {
			return dst, false
		}
		return append(dst, v[1:]...), true
	case oidNumeric:
		return appendNumeric(dst, v)
	}
	if want := fixedSize(oid); want > 0 {
		if len(v) != want {
			return dst, false
		}
		return appendFixed(dst, oid, v), true
	}
	return appendArray(dst, v)
}

// fixedSize is the length of a type's binary form, 0 if it varies.
func fixedSize(oid uint32) int {
	switch oid {
	case oidBool:
		return 1
	case oidInt2:
		return 2
	case oidInt4, oidOID, oidFloat4, oidDate:
		return 4
	case oidInt8, oidFloat8, oidTime, oidTimestamp, oidTimestampTZ:
		return 8
	case oidUUID, oidInterval:
		return 16
	}
	return 0
}

func appendFixed(dst []byte, oid uint32, v []byte) []byte {
	switch oid {
	case oidBool:
		if v[0] != 0 {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case oidInt2:
		return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(v))), 10)
	case oidInt4:
		return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(v))), 10)
	case oidOID:
		return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint32(v)), 10)
	case oidInt8:
		return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(v)), 10)
	case oidFloat4:
		return appendFloat(dst, float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 32)
	case oidFloat8:
		return appendFloat(dst, math.Float64frombits(binary.BigEndian.Uint64(v)), 64)
	case oidUUID:
		return appendUUID(dst, v)
	case oidDate:
		return appendDate(dst, int64(int32(binary.BigEndian.Uint32(v))))
	case oidTime:
		return appendClock(dst, int64(binary.BigEndian.Uint64(v)))
	case oidTimestamp:
		return appendTimestamp(dst, int64(binary.BigEndian.Uint64(v)), "")
	case oidTimestampTZ:
		return appendTimestamp(dst, int64(binary.BigEndian.Uint64(v)), "+00")
	}
	return appendInterval(dst, int64(binary.BigEndian.Uint64(v)), int32(binary.BigEndian.Uint32(v[8:])), int32(binary.BigEndian.Uint32(v[12:])))
}

// appendFloat writes the shortest form that gives the same value, as PostgreSQL 12 and later do.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	most := 1e15
	if bits == 32 {
		most = 1e6
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= most) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}

func appendUUID(dst, v []byte) []byte {
	for i, part := range [...][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, v[part[0]:part[1]])
	}
	return dst
}
