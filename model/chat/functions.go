package chat

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

// reserved begins the names of the functions that stand in for the engine's.
const reserved = "updraft_"

// Functions that rewrite puts in.
const (
	fnText      = reserved + "text"      // a value as {{ }} writes it
	fnTurn      = reserved + "turn"      // a turn of a loop
	fnEnter     = reserved + "enter"     // of a macro
	fnLeave     = reserved + "leave"     // of a macro
	fnValue     = reserved + "value"     // what is set
	fnAttribute = reserved + "attribute" // what is set in a namespace
	fnForbidden = reserved + "forbidden" // a method that changes its object
)

// filters and methods (of strings) are those that have functions here;
// forbidden methods change lists or mappings.
var (
	filters = names("tojson trim string map select reject selectattr rejectattr indent")
	methods = names("strip lstrip rstrip split")

	forbidden = names("append extend insert remove pop popitem clear sort reverse update setdefault")
)

func names(list string) map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(list) {
		m[name] = true
	}
	return m
}

// Bounds of what a template may do in one rendering.
const (
	maxTurns   = 100_000 // turns of loops and calls of macros
	maxCalls   = 200     // macros within macros
	maxString  = 16 << 20
	maxWritten = 64 << 20 // bytes
	maxRange   = 10_000
	maxLevels  = 500        // lists and mappings within one another
	maxVisited = 50_000_000 // values, in checking what is set
)

// run is the state of one rendering.
type run struct {
	now          time.Time
	turns, calls int
	written      int // bytes
	visited      int
	namespaces   map[*jinja.Dict]bool
}

type (
	value  = jinja.Value
	kwargs = map[string]jinja.Value
)

// functions returns the variables that are functions.
func (r *run) functions() map[string]value {
	r.namespaces = map[*jinja.Dict]bool{}
	vars := map[string]value{}
	add := func(name string, f func([]value, kwargs) (value, error)) { vars[name] = jinja.NewCallable(name, f) }
	one := func(name string, f func(v value) (value, error)) {
		add(name, func(a []value, _ kwargs) (value, error) {
			if len(a) == 0 {
				return value{}, fmt.Errorf("%s: an argument is missing", name)
			}
			return f(a[0])
		})
	}
	one(fnText, func(v value) (value, error) { return r.write(text(v)) })
	one(reserved+"string", func(v value) (value, error) { return jinja.NewString(text(v)), nil })
	one(fnValue, func(v value) (value, error) { return v, r.bounded(v, false, 0) })
	one(fnAttribute, func(v value) (value, error) { return v, r.bounded(v, true, 0) })
	one(fnForbidden, func(value) (value, error) {
		return value{}, errors.New("it changes a list or a mapping, which chat templates may not")
	})
	one("raise_exception", func(v value) (value, error) { return value{}, &RefusedError{text(v)} })
	one("strftime_now", func(v value) (value, error) { return strftime(r.now, text(v)) })
	add(fnTurn, func([]value, kwargs) (value, error) { return jinja.NewString(""), r.turn() })
	add(fnEnter, func([]value, kwargs) (value, error) {
		if r.calls++; r.calls > maxCalls {
			return value{}, fmt.Errorf("macros call each other more than %d deep", maxCalls)
		}
		return jinja.NewString(""), r.turn()
	})
	add(fnLeave, func([]value, kwargs) (value, error) { r.calls--; return jinja.NewString(""), nil })
	add("namespace", r.namespace)
	add("range", numbers)
	add(reserved+"tojson", func(a []value, k kwargs) (value, error) {
		v, err := toJSON(a, k)
		if err != nil {
			return v, err
		}
		return r.write(v.AsString())
	})
	add(reserved+"trim", func(a []value, k kwargs) (value, error) {
		if chars, ok := k["chars"]; ok {
			a = append(a[:1:1], chars)
		}
		return strip(a, true, true)
	})
	add(reserved+"strip", func(a []value, _ kwargs) (value, error) { return strip(a, true, true) })
	add(reserved+"lstrip", func(a []value, _ kwargs) (value, error) { return strip(a, true, false) })
	add(reserved+"rstrip", func(a []value, _ kwargs) (value, error) { return strip(a, false, true) })
	add(reserved+"split", split)
	add(reserved+"indent", indent)
	add(reserved+"map", apply)
	for name, keep := range map[string]bool{"select": true, "reject": false} {
		add(reserved+name, func(a []value, _ kwargs) (value, error) { return choose(a, false, keep) })
		add(reserved+name+"attr", func(a []value, _ kwargs) (value, error) { return choose(a, true, keep) })
	}
	return vars
}

func (r *run) turn() error {
	if r.turns++; r.turns > maxTurns {
		return fmt.Errorf("it does not end within %d turns of its loops", maxTurns)
	}
	return nil
}

// write counts what is written.
func (r *run) write(s string) (value, error) {
	if r.written += len(s); r.written > maxWritten {
		return value{}, fmt.Errorf("it writes more than %d bytes", maxWritten)
	}
	return jinja.NewString(s), nil
}

// bounded refuses to set what a loop could double or nest without end and, as
// an attribute of a namespace, what holds a namespace: namespaces alone can be
// changed, so that nothing ever holds itself.
func (r *run) bounded(v value, attribute bool, level int) error {
	if r.visited++; r.visited > maxVisited {
		return errors.New("it sets too many large values")
	}
	switch {
	case level > maxLevels:
		return fmt.Errorf("lists or mappings nested more than %d deep", maxLevels)
	case v.IsString() && len(v.AsString()) > maxString:
		return fmt.Errorf("a string of more than %d bytes", maxString)
	case v.IsList():
		for _, x := range v.AsList().Items {
			if err := r.bounded(x, attribute, level+1); err != nil {
				return err
			}
		}
	case v.IsDict():
		d := v.AsDict()
		if attribute && r.namespaces[d] {
			return errors.New("a namespace within a namespace")
		}
		for _, k := range d.Keys {
			if err := r.bounded(d.Data[k], attribute, level+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) namespace(_ []value, k kwargs) (value, error) {
	v := jinja.NewDict()
	for name, x := range k {
		if err := r.bounded(x, true, 0); err != nil {
			return value{}, err
		}
		v.AsDict().Set(name, x)
	}
	r.namespaces[v.AsDict()] = true
	return v, nil
}

// text is str of a value.
func text(v value) string {
	switch {
	case v.IsString():
		return v.AsString()
	case v.IsUndefined() || v.IsCallable():
		return ""
	case v.IsFloat():
		return pythonFloat(v.AsFloat())
	}
	return v.String()
}

func numbers(a []value, _ kwargs) (value, error) {
	n := []int64{0, 0, 1}
	for i, v := range a {
		if !v.IsInt() || i > 2 {
			return value{}, errors.New("range: takes up to three whole numbers")
		}
		n[i] = v.AsInt()
	}
	if len(a) == 1 {
		n[0], n[1] = 0, n[0]
	}
	if len(a) == 0 || n[2] == 0 {
		return value{}, errors.New("range: needs an end, and a step that is not 0")
	}
	var items []value
	for i := n[0]; n[2] > 0 && i < n[1] || n[2] < 0 && i > n[1]; i += n[2] {
		if len(items) == maxRange {
			return value{}, fmt.Errorf("range: more than %d numbers", maxRange)
		}
		items = append(items, jinja.NewInt(i))
	}
	return jinja.NewList(items), nil
}

// toJSON is tojson(value, ensure_ascii=False, indent=None, separators=None,
// sort_keys=False), as transformers defines it.
func toJSON(a []value, k kwargs) (value, error) {
	for i, name := range []string{"ensure_ascii", "indent", "separators", "sort_keys"} {
		if len(a) > i+1 {
			if k == nil {
				k = kwargs{}
			}
			k[name] = a[i+1]
		}
	}
	s := jsonStyle{item: ", ", key: ": ", ascii: k["ensure_ascii"].IsTruthy(), sorted: k["sort_keys"].IsTruthy()}
	switch v := k["indent"]; {
	case v.IsInt():
		n := v.AsInt()
		if n < 0 || n > 64 {
			return value{}, fmt.Errorf("tojson: indent %d", n)
		}
		s.broken, s.indent, s.item = true, strings.Repeat(" ", int(n)), ","
	case v.IsString():
		s.broken, s.indent, s.item = true, v.AsString(), ","
	}
	if v := k["separators"]; v.IsList() && v.AsList().Len() == 2 {
		s.item, s.key = text(v.AsList().Get(0)), text(v.AsList().Get(1))
	}
	b, err := s.append(nil, a[0], 0)
	return jinja.NewString(string(b)), err
}

func strip(a []value, left, right bool) (value, error) {
	s, in := text(a[0]), pythonSpace
	if len(a) > 1 && !a[1].IsNone() {
		chars := text(a[1])
		in = func(r rune) bool { return strings.ContainsRune(chars, r) }
	}
	if left {
		s = strings.TrimLeftFunc(s, in)
	}
	if right {
		s = strings.TrimRightFunc(s, in)
	}
	return jinja.NewString(s), nil
}

// split is str.split(sep=None, maxsplit=-1).
func split(a []value, k kwargs) (value, error) {
	most := -1
	if v, ok := k["maxsplit"]; ok {
		a = append(slices.Clone(a[:min(2, len(a))]), v)
	}
	if len(a) > 2 && a[2].IsInt() && a[2].AsInt() >= 0 {
		most = int(min(a[2].AsInt(), 1<<30)) + 1
	}
	s := text(a[0])
	var pieces []string
	switch {
	case len(a) > 1 && !a[1].IsNone():
		if text(a[1]) == "" {
			return value{}, errors.New("split: an empty separator")
		}
		pieces = strings.SplitN(s, text(a[1]), most)
	default:
		for s = strings.TrimLeftFunc(s, pythonSpace); s != ""; s = strings.TrimLeftFunc(s, pythonSpace) {
			n := strings.IndexFunc(s, pythonSpace)
			if n < 0 || len(pieces)+1 == most {
				n = len(s)
			}
			pieces, s = append(pieces, s[:n]), s[n:]
		}
	}
	items := make([]value, len(pieces))
	for i, p := range pieces {
		items[i] = jinja.NewString(p)
	}
	return jinja.NewList(items), nil
}

// indent is indent(s, width=4, first=False, blank=False).
func indent(a []value, k kwargs) (value, error) {
	args := []value{jinja.NewInt(4), jinja.NewBool(false), jinja.NewBool(false)}
	copy(args, a[1:])
	for i, name := range []string{"width", "first", "blank"} {
		if v, ok := k[name]; ok {
			args[i] = v
		}
	}
	pad := text(args[0])
	if args[0].IsInt() {
		n := args[0].AsInt()
		if n < 0 || n > 64 {
			return value{}, fmt.Errorf("indent: width %d", n)
		}
		pad = strings.Repeat(" ", int(n))
	}
	lines := strings.Split(text(a[0]), "\n")
	for i, line := range lines {
		if (i > 0 || args[1].IsTruthy()) && (line != "" || args[2].IsTruthy()) {
			lines[i] = pad + line
		}
	}
	return jinja.NewString(strings.Join(lines, "\n")), nil
}

// list is what a filter over a sequence gets.
func list(v value) []value {
	switch {
	case v.IsList():
		return v.AsList().Items
	case v.IsDict():
		var keys []value
		for _, k := range v.AsDict().Keys {
			keys = append(keys, jinja.NewString(k))
		}
		return keys
	}
	return nil
}

func attribute(v value, name string) value {
	for part := range strings.SplitSeq(name, ".") {
		switch n, err := strconv.Atoi(part); {
		case v.IsDict():
			v, _ = v.AsDict().Get(part)
		case v.IsList() && err == nil && n >= 0 && n < v.AsList().Len():
			v = v.AsList().Get(n)
		default:
			return jinja.Undefined()
		}
	}
	return v
}

// apply is map(attribute=…, default=…) and map(filter).
func apply(a []value, k kwargs) (value, error) {
	out := []value{}
	f := func(v value) (value, error) { return v, nil }
	if name, ok := k["attribute"]; ok {
		f = func(v value) (value, error) {
			if v = attribute(v, text(name)); v.IsUndefined() {
				v = k["default"]
			}
			return v, nil
		}
	} else {
		name := ""
		if len(a) > 1 {
			name = text(a[1])
		}
		switch name {
		case "string":
			f = func(v value) (value, error) { return jinja.NewString(text(v)), nil }
		case "upper":
			f = func(v value) (value, error) { return jinja.NewString(strings.ToUpper(text(v))), nil }
		case "lower":
			f = func(v value) (value, error) { return jinja.NewString(strings.ToLower(text(v))), nil }
		case "trim":
			f = func(v value) (value, error) { return strip(append([]value{v}, a[2:]...), true, true) }
		case "tojson":
			f = func(v value) (value, error) { return toJSON(append([]value{v}, a[2:]...), k) }
		case "length", "count":
			f = func(v value) (value, error) {
				if v.IsString() {
					return jinja.NewInt(int64(utf8.RuneCountInString(v.AsString()))), nil
				}
				return jinja.NewInt(int64(len(list(v)))), nil
			}
		default:
			return value{}, fmt.Errorf("map: the filter %q is not supported there", name)
		}
	}
	for _, v := range list(a[0]) {
		v, err := f(v)
		if err != nil {
			return v, err
		}
		out = append(out, v)
	}
	return jinja.NewList(out), nil
}

// choose is select, reject and, of attributes, selectattr and rejectattr.
func choose(a []value, attributes, keep bool) (value, error) {
	out, rest := []value{}, a[1:]
	name := ""
	if attributes {
		if len(rest) == 0 {
			return value{}, errors.New("selectattr: needs the name of an attribute")
		}
		name, rest = text(rest[0]), rest[1:]
	}
	for _, item := range list(a[0]) {
		v := item
		if attributes {
			v = attribute(item, name)
		}
		ok, err := passes(v, rest)
		if err != nil {
			return value{}, err
		}
		if ok == keep {
			out = append(out, item)
		}
	}
	return jinja.NewList(out), nil
}

// passes tells whether a value passes a test: its truth where none is named.
func passes(v value, test []value) (bool, error) {
	if len(test) == 0 {
		return v.IsTruthy(), nil
	}
	arg := value{}
	if len(test) > 1 {
		arg = test[1]
	}
	switch name := text(test[0]); name {
	case "defined":
		return !v.IsUndefined(), nil
	case "undefined":
		return v.IsUndefined(), nil
	case "none":
		return v.IsNone(), nil
	case "string":
		return v.IsString(), nil
	case "mapping":
		return v.IsDict(), nil
	case "true":
		return v.IsBool() && v.AsBool(), nil
	case "false":
		return v.IsBool() && !v.AsBool(), nil
	case "eq", "equalto", "==":
		return v.Equals(arg), nil
	case "ne", "!=":
		return !v.Equals(arg), nil
	case "in":
		return arg.IsString() && v.IsString() && strings.Contains(arg.AsString(), v.AsString()) || slices.ContainsFunc(list(arg), v.Equals), nil
	default:
		return false, fmt.Errorf("the test %q is not supported there", name)
	}
}

// strftime writes a time by Python's directives.
func strftime(t time.Time, format string) (value, error) {
	layouts := map[byte]string{
		'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
		'B': "January", 'b': "Jan", 'h': "Jan", 'A': "Monday", 'a': "Mon", 'j': "002", 'e': "_2",
		'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		bare := format[i] == '-' && i+1 < len(format) // %-d: without a leading zero
		if bare {
			i++
		}
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			b.WriteByte('%')
		case !ok:
			return value{}, fmt.Errorf("strftime_now: the directive %%%c is not supported", format[i])
		case bare:
			s := strings.TrimLeft(t.Format(layout), "0 ")
			if s == "" {
				s = "0"
			}
			b.WriteString(s)
		default:
			b.WriteString(t.Format(layout))
		}
	}
	return jinja.NewString(b.String()), nil
}
