package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// Record is one line of a metrics log.
type Record struct {
	Step int64
	// Values holds the numbers; true and false are 1 and 0; NaN and infinities
	// are restored. A plain null is NaN.
	Values map[string]float64
	// Text holds the strings.
	Text map[string]string
}

// Metrics is the content of a metrics log, in file order.
type Metrics struct {
	Path    string
	Records []Record
	// Torn says that the last line was incomplete and is not among Records:
	// the run was killed, or is writing at this moment.
	Torn bool
}

// ReadMetrics reads the metrics log at path. Errors name file, line and what
// is wrong with it.
func ReadMetrics(path string) (*Metrics, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("metrics log: %w", err)
	}
	defer f.Close()
	return readMetrics(f, path)
}

func readMetrics(r io.Reader, path string) (*Metrics, error) {
	m := &Metrics{Path: path}
	sc := newLineScanner(r, path)
	for sc.next() {
		if sc.torn {
			m.Torn = true
			break
		}
		rec, err := sc.record()
		if err != nil {
			return nil, err
		}
		m.Records = append(m.Records, rec)
	}
	return m, sc.err
}

// LastStep is the step of the last record, -1 if there is none.
func (m *Metrics) LastStep() int64 {
	if len(m.Records) == 0 {
		return -1
	}
	return m.Records[len(m.Records)-1].Step
}

// Keys returns the names of all numeric fields, sorted.
func (m *Metrics) Keys() []string {
	seen := map[string]bool{}
	for _, r := range m.Records {
		for k := range r.Values {
			seen[k] = true
		}
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Column returns the steps at which key was logged and its values there; both
// are empty if it never was.
func (m *Metrics) Column(key string) (steps, values []float64) {
	for _, r := range m.Records {
		if v, ok := r.Values[key]; ok {
			steps = append(steps, float64(r.Step))
			values = append(values, v)
		}
	}
	return steps, values
}

// Last returns the last finite value of key.
func (m *Metrics) Last(key string) (float64, bool) {
	for _, r := range slices.Backward(m.Records) {
		if v, ok := r.Values[key]; ok && !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v, true
		}
	}
	return 0, false
}

// record decodes the current line.
func (s *lineScanner) record() (Record, error) {
	bad := func(format string, args ...any) (Record, error) {
		return Record{}, fmt.Errorf("metrics log %s:%d: %s", s.path, s.line, fmt.Sprintf(format, args...))
	}
	if len(bytes.TrimSpace(s.text)) == 0 {
		return bad("empty line; each line holds one JSON object")
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(s.text, &raw); err != nil {
		return bad("not a JSON object: %v", err)
	}
	stepRaw, ok := raw["step"]
	if !ok {
		return bad(`field "step" is missing`)
	}
	rec := Record{Values: map[string]float64{}, Text: map[string]string{}}
	if err := json.Unmarshal(stepRaw, &rec.Step); err != nil {
		return bad(`field "step" is %s; it must be an integer`, clip(string(stepRaw), 40))
	}
	delete(raw, "step")
	var nonFinite map[string]string
	if nf, ok := raw[nonFiniteKey]; ok {
		if err := json.Unmarshal(nf, &nonFinite); err != nil {
			return bad("field %q is %s; it must map names to words", nonFiniteKey, clip(string(nf), 40))
		}
		delete(raw, nonFiniteKey)
	}
	for k, v := range raw {
		var x any
		if err := json.Unmarshal(v, &x); err != nil {
			return bad("field %q: %v", k, err)
		}
		switch x := x.(type) {
		case float64:
			rec.Values[k] = x
		case bool:
			rec.Values[k] = 0
			if x {
				rec.Values[k] = 1
			}
		case string:
			rec.Text[k] = x
		case nil:
			switch nonFinite[k] {
			case "Infinity":
				rec.Values[k] = math.Inf(1)
			case "-Infinity":
				rec.Values[k] = math.Inf(-1)
			default:
				rec.Values[k] = math.NaN()
			}
		} // a nested value is of some newer version: kept in the file, not read
	}
	return rec, nil
}

// clip shortens s to at most n runes for an error message.
func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
