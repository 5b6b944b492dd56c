package postgres

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// Speech: what stands behind > is a message's name and its parts. Texts are quoted as in Go, bytes are hex
// behind x, NULL is no value. USER is the user at the wire, PASSWORD theirs.
//
//	Startup 3.0 name "value" …          any version; the names are written as they are
//	SSLRequest, GSSENCRequest           answered by one byte
//	CancelRequest conn [WRONG|SHORT|LONG] the key of that connection; another, a shorter, a longer one
//	SASLInitialResponse "mechanism" FIRST[-n|-y|-p]   SCRAM's first message, with that flag
//	SASLResponse FINAL[-WRONG]          SCRAM's answer; that of another password
//	PasswordMessage "text"
//	Query "sql"
//	Parse "statement" "sql" oid …
//	Bind "portal" "statement" f:formats values … r:formats
//	Describe|Close S|P "name"           Execute "portal" rows
//	Flush, Sync, CopyDone, Terminate    CopyData data      CopyFail "reason"
//	FunctionCall oid f:formats values … r:format
//	Raw data                            whatever else
//
// What a message is called is its name in the protocol's manual.
type speech struct {
	words []string
	talk  *talk
}

// tokens splits a line at blanks outside quotes.
func tokens(line string) (list []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if i := strings.IndexByte(line, '"'); i == 0 {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			list, line = append(list, quoted), line[len(quoted):]
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		list, line = append(list, word), rest
	}
	return list, nil
}

// say gives a message's bytes.
func (k *talk) say(line string) ([]byte, error) {
	words, err := tokens(line)
	if err != nil {
		return nil, err
	}
	s := &speech{words: words, talk: k}
	name := s.next()
	var b []byte
	switch name {
	case "Startup":
		b, err = s.startup()
	case "SSLRequest":
		b = sslRequest()
	case "GSSENCRequest":
		b = gssRequest()
	case "CancelRequest":
		b, err = s.cancelRequest()
	case "Raw":
		b, err = s.data()
	default:
		return s.message(name)
	}
	if err == nil && len(s.words) > 0 {
		err = fmt.Errorf("%s: what is %q?", line, s.words)
	}
	return b, err
}

// message is one that has a type.
func (s *speech) message(name string) ([]byte, error) {
	typ, ok := saying[name]
	if !ok {
		return nil, fmt.Errorf("there is no message %s", name)
	}
	var body []byte
	var err error
	switch name {
	case "SASLInitialResponse":
		var first []byte
		mechanism := s.text()
		first, err = s.scram(string(mechanism))
		body = append(append(mechanism, 0), be32(len(first))...)
		body = append(body, first...)
	case "SASLResponse":
		body, err = s.scram("")
	case "CopyData":
		body, err = s.data()
	case "FunctionCall":
		body = be32(s.number())
		var values []byte
		values, err = s.values(true)
		body = append(body, values...)
	case "Bind":
		body = append(append(s.text(), 0), append(s.text(), 0)...)
		var values []byte
		values, err = s.values(false)
		body = append(body, values...)
	case "Parse":
		body = append(append(s.text(), 0), append(s.text(), 0)...)
		body = binary.BigEndian.AppendUint16(body, uint16(len(s.words)))
		for len(s.words) > 0 {
			body = append(body, be32(s.number())...)
		}
	case "Execute":
		body = append(append(s.text(), 0), be32(s.number())...)
	case "Describe", "Close":
		body = append(append([]byte(s.next()), s.text()...), 0)
	case "Query", "PasswordMessage", "CopyFail":
		body = append(s.text(), 0)
	}
	if err == nil && len(s.words) > 0 {
		err = fmt.Errorf("%s: what is %q?", name, s.words)
	}
	return appendMessage(nil, typ, body), err
}

// saying has the types of a client's messages.
var saying = map[string]byte{
	"Bind": msgBind, "Close": msgClose, "CopyData": msgCopyData, "CopyDone": msgCopyDone, "CopyFail": msgCopyFail,
	"Describe": msgDescribe, "Execute": msgExecute, "Flush": msgFlush, "FunctionCall": msgFunctionCall, "Parse": msgParse,
	"PasswordMessage": msgPassword, "SASLInitialResponse": msgPassword, "SASLResponse": msgPassword, "Query": msgQuery,
	"Sync": msgSync, "Terminate": msgTerminate,
}

func (s *speech) next() string {
	if len(s.words) == 0 {
		return ""
	}
	word := s.words[0]
	s.words = s.words[1:]
	return word
}

// text is a quoted one, or USER's or PASSWORD's.
func (s *speech) text() []byte {
	word := s.next()
	switch word {
	case "USER":
		return []byte(s.talk.leg.user)
	case "PASSWORD":
		return []byte(s.talk.leg.password)
	}
	text, err := strconv.Unquote(word)
	if err != nil {
		s.talk.leg.t.Fatalf("%s is no text", word)
	}
	return []byte(text)
}

func (s *speech) number() int {
	word := s.next()
	n, err := strconv.Atoi(cmp.Or(word, "0"))
	if err != nil {
		s.talk.leg.t.Fatalf("%s is no number", word)
	}
	return n
}

// data is a text, or hex.
func (s *speech) data() ([]byte, error) {
	if len(s.words) > 0 && strings.HasPrefix(s.words[0], "x") {
		return hex.DecodeString(s.next()[1:])
	}
	return s.text(), nil
}

// values are those of Bind and FunctionCall: formats, values, formats of what comes back, of which a call
// has a single one.
func (s *speech) values(call bool) (body []byte, err error) {
	formats := func(prefix string) []byte {
		var list []string
		if len(s.words) > 0 && strings.HasPrefix(s.words[0], prefix) {
			list = strings.Split(s.next()[len(prefix):], ",")
		}
		b := binary.BigEndian.AppendUint16(nil, uint16(len(list)))
		for _, f := range list {
			n, _ := strconv.Atoi(f) // another format's number is one, too
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
		return b
	}
	body = formats("f:")
	var values []byte
	n := uint16(0)
	for ; len(s.words) > 0 && !strings.HasPrefix(s.words[0], "r:"); n++ {
		if s.words[0] == "NULL" {
			s.next()
			values = append(values, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		v, err := s.data()
		if err != nil {
			return nil, err
		}
		values = append(append(values, be32(len(v))...), v...)
	}
	body = append(binary.BigEndian.AppendUint16(body, n), values...)
	results := formats("r:")
	if call {
		results = append(results, 0, 0)[2:4]
	}
	return append(body, results...), nil
}

func (s *speech) startup() ([]byte, error) {
	major, minor, _ := strings.Cut(s.next(), ".")
	hi, err1 := strconv.Atoi(major)
	lo, err2 := strconv.Atoi(minor)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("%s.%s is no version", major, minor)
	}
	var params []string
	for len(s.words) > 1 {
		params = append(params, s.next(), string(s.text()))
	}
	return startupMessage(uint32(hi<<16|lo), params...), nil
}

func (s *speech) cancelRequest() ([]byte, error) {
	of := s.talk.leg.talks[s.next()]
	if of == nil || of.pid == 0 {
		return nil, fmt.Errorf("whose request is to be cancelled?")
	}
	key := slices.Clone(of.key)
	switch s.next() {
	case "WRONG":
		key[len(key)-1] ^= 1
	case "SHORT":
		key = key[:len(key)-1]
	case "LONG":
		key = append(key, 0)
	}
	b := append(be32(12+len(key)), be32(codeCancel)...)
	return append(append(b, be32(int(of.pid))...), key...), nil
}

// scram gives the next message of the conversation, or what stands there instead.
func (s *speech) scram(mech string) ([]byte, error) {
	k := s.talk
	word := ""
	if len(s.words) > 0 && !strings.HasPrefix(s.words[0], `"`) {
		word = s.next()
	}
	kind, flag, _ := strings.Cut(word, "-")
	switch kind {
	case "FIRST":
		k.scram = k.leg.conversation(flag == "p" || flag == "" && mech == mechanismPlus, flag == "y", k.bound)
		first, err := k.scram.Step("")
		return []byte(first), err
	case "FINAL":
		final, err := k.scram.Step(k.challenge)
		if flag == "WRONG" && err == nil {
			i := strings.Index(final, ",p=") + len(",p=")
			final = final[:i] + strings.Repeat("A", 43) + "="
		}
		return []byte(final), err
	}
	return s.text(), nil
}

// conversation is a client's side of SCRAM.
func (g *leg) conversation(plus, knows bool, bound scram.ChannelBinding) *scram.ClientConversation {
	c, err := scram.SHA256.NewClient("", g.password, "")
	if err != nil {
		g.t.Fatal(err)
	}
	c = c.WithMinIterations(1)
	switch {
	case plus:
		return c.NewConversationWithChannelBinding(bound)
	case knows:
		return c.NewConversationAdvertisingChannelBinding()
	}
	return c.NewConversation()
}
