package chat

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

// jsonValue reads JSON into the engine's values; keys keep their order.
func jsonValue(b []byte) (jinja.Value, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := readValue(d)
	if err != nil {
		return v, fmt.Errorf("not valid JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return v, errors.New("not valid JSON: something follows the value")
	}
	return v, nil
}

func readValue(d *json.Decoder) (jinja.Value, error) {
	t, err := d.Token()
	if err != nil {
		return jinja.Undefined(), err
	}
	switch t {
	case json.Delim('['):
		var items []jinja.Value
		for d.More() {
			v, err := readValue(d)
			if err != nil {
				return v, err
			}
			items = append(items, v)
		}
		_, err := d.Token()
		return jinja.NewList(items), err
	case json.Delim('{'):
		v := jinja.NewDict()
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return v, err
			}
			item, err := readValue(d)
			if err != nil {
				return v, err
			}
			v.AsDict().Set(key.(string), item) // a decoder's key is a string
		}
		_, err := d.Token()
		return v, err
	}
	return jinja.FromGoValue(t), nil
}

// jsonStyle is how tojson writes, as Python's json.dumps.
type jsonStyle struct {
	indent    string // of a level; lines are broken where broken is set
	broken    bool
	item, key string // separators
	ascii     bool
	sorted    bool
}

func (s *jsonStyle) append(b []byte, v jinja.Value, level int) ([]byte, error) {
	if level > 2*maxLevels { // as what is set may be, within a literal
		return nil, errors.New("tojson: nested too deep")
	}
	line := func(b []byte, level int) []byte {
		if s.broken {
			b = append(b, '\n')
			for range level {
				b = append(b, s.indent...)
			}
		}
		return b
	}
	var err error
	switch {
	case v.IsNone():
		return append(b, "null"...), nil
	case v.IsBool():
		return strconv.AppendBool(b, v.AsBool()), nil
	case v.IsInt():
		return strconv.AppendInt(b, v.AsInt(), 10), nil
	case v.IsFloat():
		switch f := v.AsFloat(); {
		case math.IsNaN(f):
			return append(b, "NaN"...), nil
		case math.IsInf(f, 0):
			return append(b, strings.Replace(pythonFloat(f), "inf", "Infinity", 1)...), nil
		default:
			return append(b, pythonFloat(f)...), nil
		}
	case v.IsString():
		return s.appendString(b, v.AsString()), nil
	case v.IsList():
		items := v.AsList().Items
		if len(items) == 0 {
			return append(b, "[]"...), nil
		}
		b = append(b, '[')
		for i, item := range items {
			if i > 0 {
				b = append(b, s.item...)
			}
			if b, err = s.append(line(b, level+1), item, level+1); err != nil {
				return nil, err
			}
		}
		return append(line(b, level), ']'), nil
	case v.IsDict():
		keys := v.AsDict().OrderedKeys()
		if s.sorted {
			slices.Sort(keys)
		}
		if len(keys) == 0 {
			return append(b, "{}"...), nil
		}
		b = append(b, '{')
		for i, key := range keys {
			if i > 0 {
				b = append(b, s.item...)
			}
			b = append(s.appendString(line(b, level+1), key), s.key...)
			item, _ := v.AsDict().Get(key)
			if b, err = s.append(b, item, level+1); err != nil {
				return nil, err
			}
		}
		return append(line(b, level), '}'), nil
	}
	return nil, errors.New("tojson: a value that is not defined, or a function")
}

func (s *jsonStyle) appendString(b []byte, text string) []byte {
	b = append(b, '"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r < ' ' || s.ascii && r > '~' && r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		case s.ascii && r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// pythonFloat is repr of a float.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return cmp.Or(map[bool]string{true: "-inf"}[f < 0], "inf")
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(s, "e")
	if e, _ := strconv.Atoi(exponent); e < -4 || e >= 16 {
		return s
	}
	s = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
