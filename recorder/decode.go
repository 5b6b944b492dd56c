package recorder

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// wireEvent is a line as encoding/json reads it: unknown fields are passed over.
type wireEvent struct {
	Seq    *uint64 `json:"seq"`
	Erased string  `json:"erased"`
	Us     int64   `json:"us"`
	Type   Type    `json:"type"`
	Salt   string  `json:"salt"`

	ID          uint64      `json:"id"`
	Kind        Kind        `json:"kind"`
	Of          uint64      `json:"of"`
	Text        string      `json:"text"`
	TextB64     []byte      `json:"text_b64"`
	Name        string      `json:"name"`
	NameB64     []byte      `json:"name_b64"`
	Portal      string      `json:"portal"`
	PortalB64   []byte      `json:"portal_b64"`
	Params      []wireParam `json:"params"`
	MaxRows     uint64      `json:"max_rows"`
	Field       string      `json:"field"`
	Index       int         `json:"index"`
	More        bool        `json:"more"`
	Redacted    int         `json:"redacted"`
	Prepares    string      `json:"prepares"`
	PreparesB64 []byte      `json:"prepares_b64"`

	N            int    `json:"n"`
	Tag          string `json:"tag"`
	TagB64       []byte `json:"tag_b64"`
	Rows         uint64 `json:"rows"`
	Bytes        uint64 `json:"bytes"`
	DurationUs   int64  `json:"duration_us"`
	FirstRowUs   int64  `json:"first_row_us"`
	Code         string `json:"code"`
	CodeB64      []byte `json:"code_b64"`
	Message      string `json:"message"`
	MessageB64   []byte `json:"message_b64"`
	MessageBytes uint64 `json:"message_bytes"`
	Errno        uint16 `json:"errno"`
	InsertID     uint64 `json:"insert_id"`
	Warnings     uint16 `json:"warnings"`
	Tx           Tx     `json:"tx"`
	Direction    string `json:"direction"`
	SHA256       string `json:"sha256"`

	From        string    `json:"from"`
	Severity    string    `json:"severity"`
	SeverityB64 []byte    `json:"severity_b64"`
	Reason      string    `json:"reason"`
	Attached    *Attached `json:"attached"`
	Header      *Header   `json:"header"`
	End         *End      `json:"end"`
}

type wireParam struct {
	Type     string  `json:"type"`
	Name     string  `json:"name"`
	NameB64  []byte  `json:"name_b64"`
	Value    *string `json:"value"`
	ValueB64 []byte  `json:"value_b64"`
	Hex      *string `json:"hex"`
	Withheld bool    `json:"withheld"`
	More     bool    `json:"more"`
}

// decodeEvent reads one line, without its newline.
func decodeEvent(line []byte) (Event, error) {
	if !utf8.Valid(line) {
		return Event{}, errors.New("is not UTF-8")
	}
	var w wireEvent
	if err := json.Unmarshal(line, &w); err != nil {
		return Event{}, fmt.Errorf("is not an event: %w", err)
	}
	if w.Seq == nil {
		return Event{}, errors.New("has no seq")
	}
	if w.Erased != "" {
		if h, err := hex.DecodeString(w.Erased); err != nil || len(h) != 32 {
			return Event{}, errors.New("erased is not a hash")
		}
		return Event{Seq: *w.Seq, Erased: w.Erased}, nil
	}
	if w.Type == "" {
		return Event{}, errors.New("has no type")
	}
	if salt, err := hex.DecodeString(w.Salt); err != nil || len(salt) != 16 {
		return Event{}, errors.New("salt is not 16 bytes in hex")
	}
	return w.event()
}

func (w *wireEvent) event() (Event, error) {
	e := Event{
		Seq: *w.Seq, Micros: w.Us, Type: w.Type,
		ID: w.ID, Kind: w.Kind, Of: w.Of,
		Text: either(w.Text, w.TextB64), Name: either(w.Name, w.NameB64), Portal: either(w.Portal, w.PortalB64),
		MaxRows: w.MaxRows, Field: w.Field, Index: w.Index, More: w.More, Redacted: w.Redacted,
		Prepares: either(w.Prepares, w.PreparesB64),
		N:        w.N, Tag: either(w.Tag, w.TagB64), Rows: w.Rows, Bytes: w.Bytes,
		Code: either(w.Code, w.CodeB64), Message: either(w.Message, w.MessageB64), MessageBytes: w.MessageBytes,
		Errno: w.Errno, InsertID: w.InsertID, Warnings: w.Warnings, Tx: w.Tx, Direction: w.Direction,
		From: w.From, Severity: either(w.Severity, w.SeverityB64), Reason: w.Reason,
		Attached: w.Attached, Header: w.Header, End: w.End,
	}
	if w.End != nil && e.Reason == "" {
		e.Reason = w.End.Reason
	}
	if w.Us < 0 || w.Index < 0 || w.N < 0 || w.Redacted < 0 {
		return Event{}, errors.New("has a negative number")
	}
	var err error
	if e.Duration, err = micros(w.DurationUs); err != nil {
		return Event{}, fmt.Errorf("duration_us %w", err)
	}
	if e.FirstRow, err = micros(w.FirstRowUs); err != nil {
		return Event{}, fmt.Errorf("first_row_us %w", err)
	}
	if w.SHA256 != "" {
		if e.SHA256, err = hex.DecodeString(w.SHA256); err != nil || len(e.SHA256) != 32 {
			return Event{}, errors.New("sha256 is not a hash")
		}
	}
	if len(w.Params) > 0 {
		e.Params = make([]Param, len(w.Params))
		for i := range w.Params {
			if e.Params[i], err = w.Params[i].param(); err != nil {
				return Event{}, fmt.Errorf("parameter %d %w", i, err)
			}
		}
	}
	return e, nil
}

func (w *wireParam) param() (Param, error) {
	p := Param{Type: w.Type, Name: either(w.Name, w.NameB64), More: w.More, Withheld: w.Withheld}
	switch {
	case w.Hex != nil:
		v, err := hex.DecodeString(*w.Hex)
		if err != nil {
			return Param{}, errors.New("is not hex")
		}
		p.Value, p.Hex = v, true
	case len(w.ValueB64) > 0:
		p.Value = w.ValueB64
	case w.Value != nil:
		p.Value = []byte(*w.Value)
	default:
		p.Null = true
	}
	return p, nil
}

func either(text string, b64 []byte) []byte {
	if text != "" {
		return []byte(text)
	}
	if len(b64) > 0 {
		return b64
	}
	return nil
}

func micros(us int64) (time.Duration, error) {
	if us < 0 || us > math.MaxInt64/int64(time.Microsecond) {
		return 0, errors.New("is out of range")
	}
	return time.Duration(us) * time.Microsecond, nil
}
