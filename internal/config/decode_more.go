package config

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// sizes are the units of a number of bytes.
var sizes = []struct {
	name string
	n    uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"", 1}}

// number reads a whole number of any size, with a unit of bytes where there may be one.
func (d *decoder) number(n *yaml.Node, key string, out reflect.Value, options []string) {
	digits, unit := n.Value, uint64(1)
	if has(options, "size") {
		for _, u := range sizes {
			if rest, ok := strings.CutSuffix(n.Value, u.name); ok {
				digits, unit = strings.TrimSpace(rest), u.n
				break
			}
		}
	}
	v, err := strconv.ParseUint(digits, 10, 64)
	switch {
	case err != nil && has(options, "size"):
		d.add(n.Line, key, "must be a number of bytes like 64MiB or 1GB, not %q", n.Value)
	case err != nil:
		d.add(n.Line, key, "must be a whole number, not %q", n.Value)
	case v > math.MaxInt64/unit:
		d.add(n.Line, key, "%s is more than can be counted", n.Value)
	case v == 0:
		d.add(n.Line, key, "0 would allow nothing: remove the key for no limit")
	default:
		out.SetUint(v * unit)
	}
}

// time reads a moment, which must say where on earth it is meant.
func (d *decoder) time(n *yaml.Node, key string, out reflect.Value) {
	if n.Kind != yaml.ScalarNode {
		d.add(n.Line, key, "must be a time like 2026-03-01 14:00 Europe/Berlin, not %s", kindName(n))
		return
	}
	t, err := parseMoment(n.Value)
	if err != nil {
		d.add(n.Line, key, "%s", err)
		return
	}
	out.Set(reflect.ValueOf(t))
}

// parseMoment reads 2026-03-01T14:00:00+01:00, or a date, perhaps a time, and a time zone with spaces between.
func parseMoment(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	wrong := fmt.Errorf("%q is not a time: write it like 2026-03-01 14:00 Europe/Berlin or 2026-03-01T14:00:00+01:00", s)
	words := strings.Fields(s)
	if len(words) < 2 || len(words) > 3 {
		return time.Time{}, wrong
	}
	zone := words[len(words)-1]
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" || strings.Contains(zone, ":") {
		return time.Time{}, wrong
	}
	at := strings.Join(words[:len(words)-1], " ")
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, at, loc); err == nil {
			return t, nil
		}
	}
	return time.Time{}, wrong
}

// anything reads a value of whatever kind, as a provider's JSON would have it.
func (d *decoder) anything(n *yaml.Node, key string, out reflect.Value) {
	var v any
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			d.value(c, fmt.Sprintf("%s[%d]", key, i), reflect.ValueOf(&list[i]).Elem(), nil)
		}
		v = list
	case yaml.MappingNode:
		m := map[string]any{}
		d.pairs(n, key, func(name string, c *yaml.Node) {
			var one any
			d.value(c, join(key, name), reflect.ValueOf(&one).Elem(), nil)
			m[name] = one
		})
		v = m
	default:
		switch n.Tag {
		case "!!bool":
			v = strings.EqualFold(n.Value, "true")
		case "!!int", "!!float":
			f, err := strconv.ParseFloat(n.Value, 64)
			if err != nil {
				d.add(n.Line, key, "%q is no number that a claim can have", n.Value)
				return
			}
			v = f
		default:
			v = n.Value
		}
	}
	out.Set(reflect.ValueOf(v))
}
