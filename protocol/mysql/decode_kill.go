package mysql

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// killText is SQL that is a KILL by a connection's id and nothing else.
type killText struct {
	id    uint64
	at, n int // where the id stands
}

// parseKill reads KILL [HARD|SOFT] [QUERY|CONNECTION] id.
func parseKill(text []byte) (k killText, ok bool) {
	const longest = 256
	if len(text) > longest {
		return k, false
	}
	rest := text
	next := func() []byte {
		rest = bytes.TrimLeft(rest, " \t\r\n\f\v")
		n := 0
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n]|0x20 >= 'a' && rest[n]|0x20 <= 'z') {
			n++
		}
		word := rest[:n]
		rest = rest[n:]
		return word
	}
	if !bytes.EqualFold(next(), []byte("kill")) {
		return k, false
	}
	word := next()
	if bytes.EqualFold(word, []byte("hard")) || bytes.EqualFold(word, []byte("soft")) {
		word = next()
	}
	if bytes.EqualFold(word, []byte("query")) || bytes.EqualFold(word, []byte("connection")) {
		word = next()
	}
	id, err := strconv.ParseUint(string(word), 10, 64)
	if err != nil || len(bytes.Trim(rest, " \t\r\n\f\v;")) > 0 {
		return k, false
	}
	return killText{id: id, at: len(text) - len(rest) - len(word), n: len(word)}, true
}

// passesExtra says whether a command may pass in the connection that is there for KILL alone.
func (o *observer) passesExtra(body []byte, whole bool) bool {
	switch body[0] {
	case comQuit, comProcessKill:
		return true
	case comQuery:
		if !whole || o.caps&capQueryAttributes != 0 && !plainQuery(body) {
			return false
		}
		_, ok := parseKill(queryText(body, o.caps))
		return ok
	}
	return false
}

// plainQuery says whether a COM_QUERY that may have attributes has none.
func plainQuery(body []byte) bool { return len(body) >= 3 && body[1] == 0 && body[2] == 1 }

// queryText is the text of a COM_QUERY without attributes.
func queryText(body []byte, caps capability) []byte {
	if caps&capQueryAttributes != 0 {
		return body[3:]
	}
	return body[1:]
}

// cancels deals with SQL that is a KILL: an id that a client of the same grant was greeted with becomes the
// backend's. The text stays as long as it is, so that framing does.
func (o *observer) cancels(text []byte) error {
	k, ok := parseKill(text)
	if !ok {
		return nil
	}
	backend, found, err := o.killed(k.id)
	if err != nil || !found {
		return err
	}
	p := patch{at: text[k.at : k.at+k.n], fill: ' '}
	p.n = len(strconv.AppendUint(p.text[:0], uint64(backend), 10))
	if p.n <= k.n {
		o.out.patches = append(o.out.patches, p)
	}
	return nil
}

// processKill deals with the command that does the same by its number. The server would take any number,
// and not say whose it is.
func (o *observer) processKill(id []byte) error {
	backend, found, err := o.killed(uint64(binary.LittleEndian.Uint32(id)))
	if err != nil {
		return err
	}
	if !found {
		o.refuse(refusal{errnoNoThread, sentenceThread})
		return nil
	}
	p := patch{at: id, n: 4}
	binary.LittleEndian.PutUint32(p.text[:], backend)
	o.out.patches = append(o.out.patches, p)
	return nil
}

// killed has it put on record that a session is cancelled, if it is one of the same grant. mu is not held
// meanwhile: that session may be about to cancel this one.
func (o *observer) killed(id uint64) (backend uint32, ok bool, err error) {
	if _, mine := ours(id); !mine || o.kill == nil {
		return 0, false, nil
	}
	o.mu.Unlock()
	backend, ok, err = o.kill(id)
	o.mu.Lock()
	if err != nil {
		err = unrecorded(err)
	}
	return backend, ok, err
}
