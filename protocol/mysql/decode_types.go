package mysql

import "unicode/utf8"

// Types as they stand before a parameter.
const (
	typeDecimal    = 0x00
	typeTiny       = 0x01
	typeShort      = 0x02
	typeLong       = 0x03
	typeFloat      = 0x04
	typeDouble     = 0x05
	typeNull       = 0x06
	typeTimestamp  = 0x07
	typeLongLong   = 0x08
	typeInt24      = 0x09
	typeDate       = 0x0a
	typeTime       = 0x0b
	typeDatetime   = 0x0c
	typeYear       = 0x0d
	typeVarchar    = 0x0f
	typeBit        = 0x10
	typeVector     = 0xf2
	typeBool       = 0xf4
	typeJSON       = 0xf5
	typeNewDecimal = 0xf6
	typeEnum       = 0xf7
	typeSet        = 0xf8
	typeTinyBlob   = 0xf9
	typeMediumBlob = 0xfa
	typeLongBlob   = 0xfb
	typeBlob       = 0xfc
	typeVarString  = 0xfd
	typeString     = 0xfe
	typeGeometry   = 0xff

	flagUnsigned = 0x8000 // of a type with its flags
)

// typeName is a type's name in SQL.
func typeName(t uint16) string {
	if t&flagUnsigned != 0 {
		switch byte(t) {
		case typeTiny:
			return "tinyint unsigned"
		case typeShort:
			return "smallint unsigned"
		case typeInt24:
			return "mediumint unsigned"
		case typeLong:
			return "int unsigned"
		case typeLongLong:
			return "bigint unsigned"
		}
	}
	switch byte(t) {
	case typeDecimal, typeNewDecimal:
		return "decimal"
	case typeTiny:
		return "tinyint"
	case typeShort:
		return "smallint"
	case typeInt24:
		return "mediumint"
	case typeLong:
		return "int"
	case typeLongLong:
		return "bigint"
	case typeFloat:
		return "float"
	case typeDouble:
		return "double"
	case typeNull:
		return "null"
	case typeDate:
		return "date"
	case typeTime:
		return "time"
	case typeDatetime:
		return "datetime"
	case typeTimestamp:
		return "timestamp"
	case typeYear:
		return "year"
	}
	return stringTypeName(byte(t))
}

// stringTypeName has the types whose values come as strings of bytes.
func stringTypeName(t byte) string {
	switch t {
	case typeVarchar, typeVarString:
		return "varchar"
	case typeString:
		return "char"
	case typeBit:
		return "bit"
	case typeVector:
		return "vector"
	case typeBool:
		return "bool"
	case typeJSON:
		return "json"
	case typeEnum:
		return "enum"
	case typeSet:
		return "set"
	case typeTinyBlob:
		return "tinyblob"
	case typeMediumBlob:
		return "mediumblob"
	case typeLongBlob:
		return "longblob"
	case typeBlob:
		return "blob"
	case typeGeometry:
		return "geometry"
	}
	return "unknown"
}

// fixedSize is how many bytes a value takes that has no length before it, or, of a time, one of its own.
func fixedSize(t uint16) (n int, fixed bool) {
	switch byte(t) {
	case typeTiny:
		return 1, true
	case typeShort:
		return 2, true
	case typeLong, typeFloat:
		return 4, true
	case typeLongLong, typeDouble:
		return 8, true
	}
	return 1, timeType(t)
}

// unsure says whether it is not certain how many bytes every server takes for a value. Servers differ in
// some types, and an unknown bit above a type makes another type of it. Clients that know their server send
// none of these.
func unsure(t uint16) bool {
	switch t &^ flagUnsigned {
	case typeDecimal, typeTiny, typeShort, typeLong, typeFloat, typeDouble, typeLongLong, typeTimestamp, typeDate, typeTime, typeDatetime,
		typeVarchar, typeVector, typeJSON, typeNewDecimal, typeEnum, typeSet, typeTinyBlob, typeMediumBlob, typeLongBlob, typeBlob, typeVarString, typeString:
		return false
	}
	return true
}

func timeType(t uint16) bool {
	switch byte(t) {
	case typeDate, typeTime, typeDatetime, typeTimestamp:
		return true
	}
	return false
}

// hexShape says whether a value is shown in hex: what is no text, or need not be.
func hexShape(t uint16, value []byte) bool {
	switch byte(t) {
	case typeVector:
		return true
	case typeTinyBlob, typeMediumBlob, typeLongBlob, typeBlob:
		return !utf8.Valid(value)
	}
	return false
}
