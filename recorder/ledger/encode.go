package ledger

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxLine is the longest line that Decode accepts and that a reader of a ledger has to hold.
const MaxLine = 16 << 20

// NewEntry makes the entry at index n with a fresh salt.
func NewEntry(n int64, at time.Time, typ string, data any) (Entry, error) {
	raw, err := marshal(data)
	if err != nil {
		return Entry{}, fmt.Errorf("ledger entry %s: %w", typ, err)
	}
	var salt [16]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return Entry{}, fmt.Errorf("salt of a ledger entry: %w", err)
	}
	return Entry{Index: n, Time: at.UTC(), Type: typ, Salt: hex.EncodeToString(salt[:]), Data: raw}, nil
}

// Encode gives the entry's line, without a newline.
func Encode(e Entry) ([]byte, error) {
	if err := check(e); err != nil {
		return nil, err
	}
	line, err := marshal(e)
	if err != nil {
		return nil, fmt.Errorf("ledger entry %d: %w", e.Index, err)
	}
	if len(line) > MaxLine {
		return nil, fmt.Errorf("ledger entry %d (%s) is %d bytes long, more than %d", e.Index, e.Type, len(line), MaxLine)
	}
	return line, nil
}

// Decode reads one line. Fields and types it does not know are passed over; a line that is not one
// JSON object, or lacks what every entry has, is an error.
func Decode(line []byte) (Entry, error) {
	if len(line) > MaxLine {
		return Entry{}, fmt.Errorf("line is %d bytes long, more than %d", len(line), MaxLine)
	}
	if !utf8.Valid(line) {
		return Entry{}, errors.New("line is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	e := Entry{Index: -1}
	if err := d.Decode(&e); err != nil {
		return Entry{}, fmt.Errorf("line is not a ledger entry: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Entry{}, errors.New("line holds more than one JSON value")
	}
	if err := check(e); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// Into unpacks Data into the struct that belongs to the entry's type.
func (e Entry) Into(v any) error {
	if err := json.Unmarshal(e.Data, v); err != nil {
		return fmt.Errorf("data of ledger entry %d (%s): %w", e.Index, e.Type, err)
	}
	return nil
}

// LeafHash is the RFC 6962 leaf hash of a line without its newline.
func LeafHash(line []byte) tlog.Hash { return tlog.RecordHash(line) }

func check(e Entry) error {
	switch {
	case e.Index < 0:
		return errors.New("ledger entry has no index")
	case e.Type == "":
		return fmt.Errorf("ledger entry %d has no type", e.Index)
	case e.Time.IsZero():
		return fmt.Errorf("ledger entry %d has no time", e.Index)
	case len(e.Data) == 0:
		return fmt.Errorf("ledger entry %d has no data", e.Index)
	}
	if salt, err := hex.DecodeString(e.Salt); err != nil || len(salt) != 16 {
		return fmt.Errorf("ledger entry %d has no salt of 16 bytes in hex", e.Index)
	}
	return nil
}

// marshal leaves <, > and & as they are: SQL and reasons are full of them, and people read these lines.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
