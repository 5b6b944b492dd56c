package replay

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/curfewdb/curfew/recorder"
)

func (p *player) header(h *recorder.Header) {
	p.began = h.Began
	for _, f := range [][2]string{
		{"session", join(" · ", h.Session, prefix("grant ", h.Grant), prefix("request ", h.Request))},
		{"person", join(" · ", join(" ", h.Identity.Name, "<"+h.Identity.Email+">"), h.Identity.Subject+" at "+h.Identity.Issuer,
			strings.Join(h.Identity.Groups, ", "))},
		{"target", join(" · ", h.Target, h.Level, h.Engine, prefix("database ", h.Database), prefix("account ", h.Account))},
		{"client", join(" · ", h.Client, h.Application, h.Login, h.TLS, prefix("protocol ", h.Protocol))},
		{"began", join(" · ", h.Began.UTC().Format("2006-01-02 15:04:05.000 UTC"), prefix("node ", h.Node),
			prefix("installation ", h.Installation), prefix("policy ", h.Policy))},
	} {
		p.out.field(f[0], f[1])
	}
	p.out.rule()
}

func (p *player) attached(e *recorder.Event, at time.Duration) {
	p.begin(at, dim, "attached")
	if a := e.Attached; a != nil {
		p.out.text(plain, join(" · ", prefix("backend ", a.Backend), prefix("server ", a.Server), a.Address, a.TLS))
	}
}

func (p *player) statement(e *recorder.Event, at time.Duration) {
	p.begin(at, bold, fmt.Sprintf("#%d", e.ID))
	var what []string
	name := e.Name
	if e.Kind == recorder.KindCommand {
		what, name = append(what, join(" ", string(e.Kind), string(e.Name))), nil
	} else if e.Kind != recorder.KindSimple {
		what = append(what, string(e.Kind))
	}
	if e.Of > 0 {
		what = append(what, fmt.Sprintf("of #%d", e.Of))
	}
	if len(name) > 0 {
		what = append(what, fmt.Sprintf("name %q", name))
	}
	if e.Field == recorder.FieldParam { // a value that is sent ahead
		what = append(what, fmt.Sprintf("$%d", e.Index+1))
	}
	if len(e.Portal) > 0 {
		what = append(what, fmt.Sprintf("portal %q", e.Portal))
	}
	if e.MaxRows > 0 {
		what = append(what, fmt.Sprintf("at most %d rows", e.MaxRows))
	}
	if e.Redacted > 0 {
		what = append(what, fmt.Sprintf("%d redacted", e.Redacted))
	}
	if len(what) > 0 {
		p.out.text(dim, strings.Join(what, ", ")+" ")
	}
	if len(e.Text) == 0 && e.Kind != recorder.KindPrepare {
		p.out.text(dim, p.before(e.Of))
	}
	p.out.bytes(bold, e.Text, e.More)
	p.open = partKey{of: e.ID, field: recorder.FieldText}
	for i := range e.Params {
		p.param(i, &e.Params[i])
		p.open = partKey{}
	}
	if len(e.Prepares) > 0 {
		p.out.line(yellow, fmt.Sprintf("prepares transaction %q", e.Prepares))
	}
}

// sentAhead is the type of a parameter whose value is in statements before; its own is the first one's number.
const sentAhead = "stmt_send_long_data"

func (p *player) param(i int, v *recorder.Param) {
	name := fmt.Sprintf("$%d", i+1)
	if len(v.Name) > 0 {
		name = string(v.Name)
	}
	if v.Type == sentAhead {
		p.out.line(cyan, name+" = ")
		p.out.text(dim, "sent from #"+string(v.Value)+" on")
		return
	}
	p.out.line(cyan, name+" "+v.Type+" = ")
	switch {
	case v.Null:
		p.out.text(dim, "NULL")
	case v.Withheld:
		p.out.text(dim, "(not recorded)")
	case v.Hex:
		p.out.text(cyan, `\x`+hex.EncodeToString(v.Value))
	default:
		p.out.bytes(cyan, v.Value, v.More)
	}
	if v.More {
		p.out.text(dim, " …")
	}
}

// part goes on where the part before it left off, or says what it continues.
func (p *player) part(e *recorder.Event, at time.Duration) {
	if len(e.Params) > 0 { // further values of a statement whose list is too long for one event
		p.begin(at, dim, "more")
		p.out.text(dim, fmt.Sprintf("of #%d", e.Of))
		for i := range e.Params {
			p.param(e.Index+i, &e.Params[i])
		}
		return
	}
	key := partKey{of: e.Of, field: e.Field, index: e.Index}
	if key != p.open {
		p.begin(at, dim, "more")
		what := "text"
		if e.Field == recorder.FieldParam {
			what = fmt.Sprintf("$%d", e.Index+1)
		}
		p.out.text(dim, fmt.Sprintf("of #%d %s: ", e.Of, what))
	}
	p.out.bytes(bold, e.Text, e.More)
	if p.open = key; !e.More {
		p.open = partKey{}
	}
}

func (p *player) result(e *recorder.Event, at time.Duration) {
	c, what := green, "→"
	if len(e.Code) > 0 {
		c, what = red, "✗"
	}
	p.begin(at, c, what)
	var words []string
	if e.Of > 0 {
		words = append(words, fmt.Sprintf("#%d", e.Of))
	}
	if len(e.Code) > 0 {
		words = append(words, join(" ", string(e.Severity), string(e.Code), string(e.Message)))
	} else {
		words = append(words, join(" ", string(e.Tag), string(e.Message)))
	}
	words = append(words, plural(e.Rows, "row"))
	if e.Bytes > 0 {
		words = append(words, plural(e.Bytes, "byte"))
	}
	words = append(words, span(e.Duration))
	if e.FirstRow > 0 {
		words = append(words, "first row "+span(e.FirstRow))
	}
	if e.Tx == recorder.TxOpen || e.Tx == recorder.TxFailed {
		words = append(words, "transaction "+string(e.Tx))
	}
	p.out.text(c, join(" · ", words...))
}

func (p *player) copied(e *recorder.Event, at time.Duration) {
	p.begin(at, green, "copy "+e.Direction)
	sum := ""
	if len(e.SHA256) > 0 {
		sum = "sha256 " + hex.EncodeToString(e.SHA256)
	}
	p.out.text(green, join(" · ", about(e.Of), string(e.Tag), plural(e.Rows, "row"), plural(e.Bytes, "byte"), span(e.Duration), sum))
}

func (p *player) notice(e *recorder.Event, at time.Duration) {
	p.begin(at, yellow, "notice")
	p.out.text(yellow, join(" ", prefix("from ", e.From), string(e.Severity), string(e.Code), string(e.Message)))
}

func (p *player) end(e *recorder.End, at time.Duration) {
	p.begin(at, bold, "end")
	inFlight := ""
	if e.InFlight > 0 {
		inFlight = fmt.Sprintf("#%d in flight", e.InFlight)
	}
	p.out.text(bold, join(" · ", e.Code, e.Reason, inFlight, prefix("fate ", e.Fate), prefix("transaction ", e.TxID),
		plural(e.Statements, "statement")))
}

func about(of uint64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("#%d", of)
}

func prefix(p, s string) string {
	if s == "" {
		return ""
	}
	return p + s
}

// join leaves out what is empty.
func join(sep string, words ...string) string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, sep)
}

func plural(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// clock is an offset as h:mm:ss.mmm.
func clock(d time.Duration) string {
	ms := d.Milliseconds()
	return fmt.Sprintf("%d:%02d:%02d.%03d", ms/3_600_000, ms/60_000%60, ms/1000%60, ms%1000)
}
