package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
)

// MetricsFile is the name of the metrics log inside a run directory.
const MetricsFile = "metrics.jsonl"

// nonFiniteKey holds, in a line of the log, the names of the fields whose
// value JSON cannot express, with the value in words: {"kl":"NaN"}.
const nonFiniteKey = "nonfinite"

// Mark is a position in a metrics log, to be stored in a checkpoint. A log
// that is resumed at a mark is cut back to exactly what it held there.
type Mark struct {
	// Step is the last training step that the checkpoint includes.
	Step int64 `json:"step"`
	// Bytes is the length of the log at the checkpoint. Negative: not known;
	// the log is then cut after the last line of Step.
	Bytes int64 `json:"bytes"`
}

// MetricsLog appends to a metrics.jsonl: one JSON object per line, `step`
// first, the other keys sorted. Equal values give equal bytes, so two runs
// that computed the same wrote the same file (wall-clock fields apart).
//
// A line is handed to the operating system in one write before Write returns;
// a process killed at any instant leaves at most one torn last line, which
// ResumeMetrics drops. A failed write (a full disk) is undone: the file ends
// at the last whole line. A MetricsLog may be used from several goroutines.
type MetricsLog struct {
	mu    sync.Mutex
	f     *os.File
	path  string
	size  int64 // bytes of whole lines
	step  int64 // of the last line
	empty bool
	buf   bytes.Buffer
}

// CreateMetrics starts a new log at path. It refuses to touch a file that
// already holds something: that is another run's record.
func CreateMetrics(path string) (*MetricsLog, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("metrics log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("metrics log %s: %w", path, err)
	}
	if st.Size() > 0 {
		f.Close()
		return nil, fmt.Errorf("metrics log %s: already holds %d bytes of another run; resume that run or choose another output directory", path, st.Size())
	}
	return &MetricsLog{f: f, path: path, empty: true}, nil
}

// ResumeMetrics opens the log of an interrupted run and cuts it back to mark:
// lines written after the checkpoint go, and so does a torn last line. What
// remains is verified line by line; damage before the mark is an error that
// names file and line, and then the file is left as it is. Where the mark is
// at the very start, a missing file is created.
func ResumeMetrics(path string, mark Mark) (*MetricsLog, error) {
	flags := os.O_RDWR
	if mark.Bytes == 0 || (mark.Bytes < 0 && mark.Step <= 0) {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("metrics log %s: missing, but the checkpoint of step %d counts on it; restore it or start a new run", path, mark.Step)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics log: %w", err)
	}
	l := &MetricsLog{f: f, path: path, empty: true}
	if err := l.cut(mark); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// cut finds the length to keep, then truncates to it.
func (l *MetricsLog) cut(mark Mark) error {
	var keep int64
	if mark.Bytes == 0 {
		// Nothing had been written: then the first line, if there is one, is of
		// a later step. Otherwise the mark is not this file's; to cut would
		// destroy a record.
		sc := newLineScanner(l.f, l.path)
		if sc.next() && !sc.torn {
			if rec, err := sc.record(); err == nil && mark.Step > 0 && rec.Step <= mark.Step {
				return fmt.Errorf("metrics log %s: the checkpoint of step %d counts on an empty file, but it begins with step %d; the file and the checkpoint are not of one run", l.path, mark.Step, rec.Step)
			}
		}
		if sc.err != nil {
			return sc.err
		}
	} else {
		sc := newLineScanner(l.f, l.path)
		for sc.next() {
			if mark.Bytes >= 0 && sc.end > mark.Bytes {
				break
			}
			if mark.Bytes < 0 && sc.torn {
				break // written after the checkpoint, whatever it was to say
			}
			rec, err := sc.record()
			if err != nil {
				return err
			}
			if rec.Step > mark.Step {
				if mark.Bytes < 0 {
					break
				}
				return fmt.Errorf("metrics log %s:%d: step %d is past the checkpoint's step %d; the file and the checkpoint are not of one run", l.path, sc.line, rec.Step, mark.Step)
			}
			keep, l.step, l.empty = sc.end, rec.Step, false
		}
		if sc.err != nil {
			return sc.err
		}
		if mark.Bytes >= 0 && keep != mark.Bytes {
			return fmt.Errorf("metrics log %s: the checkpoint of step %d counts on %d bytes, %d whole ones are there; the file was changed or cut", l.path, mark.Step, mark.Bytes, keep)
		}
	}
	if err := l.f.Truncate(keep); err != nil {
		return fmt.Errorf("metrics log %s: cut to %d bytes: %w", l.path, keep, err)
	}
	if _, err := l.f.Seek(keep, io.SeekStart); err != nil {
		return fmt.Errorf("metrics log %s: %w", l.path, err)
	}
	l.size = keep
	return nil
}

// Write appends one line for step. Values may be bool, string, any integer or
// float type, or nil. NaN and infinities are written as null and named in a
// field `nonfinite` of the same line, from which the reader restores them.
// Steps never go back; several lines may share one (training and evaluation).
// The keys `step` and `nonfinite` are the log's own.
func (l *MetricsLog) Write(step int64, values map[string]any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return fmt.Errorf("metrics log %s: is closed", l.path)
	}
	if !l.empty && step < l.step {
		return fmt.Errorf("metrics log %s: step %d after step %d", l.path, step, l.step)
	}
	l.buf.Reset()
	if err := appendRecord(&l.buf, step, values); err != nil {
		return fmt.Errorf("metrics log %s: step %d: %w", l.path, step, err)
	}
	n, err := l.f.Write(l.buf.Bytes())
	if err != nil {
		err = fmt.Errorf("metrics log %s: step %d: %w", l.path, step, err)
		if n > 0 { // leave no torn line behind
			if terr := l.f.Truncate(l.size); terr != nil {
				return errors.Join(err, terr)
			}
			if _, serr := l.f.Seek(l.size, io.SeekStart); serr != nil {
				return errors.Join(err, serr)
			}
		}
		return err
	}
	l.size += int64(n)
	l.step, l.empty = step, false
	return nil
}

// Mark makes everything written so far durable (fsync) and returns the
// position to store in a checkpoint that includes step.
func (l *MetricsLog) Mark(step int64) (Mark, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return Mark{}, fmt.Errorf("metrics log %s: is closed", l.path)
	}
	if err := l.f.Sync(); err != nil {
		return Mark{}, fmt.Errorf("metrics log %s: sync: %w", l.path, err)
	}
	return Mark{Step: step, Bytes: l.size}, nil
}

// Path returns the file's path as given.
func (l *MetricsLog) Path() string { return l.path }

// Close syncs and closes the file. A second Close does nothing.
func (l *MetricsLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Sync(), l.f.Close())
	l.f = nil
	if err != nil {
		return fmt.Errorf("metrics log %s: close: %w", l.path, err)
	}
	return nil
}

// appendRecord encodes one line, newline included.
func appendRecord(buf *bytes.Buffer, step int64, values map[string]any) error {
	keys := make([]string, 0, len(values))
	nonFinite := map[string]string{}
	for k, v := range values {
		switch k {
		case "":
			return errors.New("a value without a name")
		case "step", nonFiniteKey:
			return fmt.Errorf("the name %q is the log's own", k)
		}
		keys = append(keys, k)
		if f, ok := asFloat(v); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			nonFinite[k] = nonFiniteWord(f)
		}
	}
	if len(nonFinite) > 0 {
		keys = append(keys, nonFiniteKey)
	}
	slices.Sort(keys)

	fmt.Fprintf(buf, `{"step":%d`, step)
	for _, k := range keys {
		name, err := json.Marshal(k)
		if err != nil {
			return err
		}
		buf.WriteByte(',')
		buf.Write(name)
		buf.WriteByte(':')
		if k == nonFiniteKey {
			b, err := json.Marshal(nonFinite) // maps are marshalled with sorted keys
			if err != nil {
				return err
			}
			buf.Write(b)
			continue
		}
		if _, bad := nonFinite[k]; bad {
			buf.WriteString("null")
			continue
		}
		switch v := values[k].(type) {
		case nil, bool, string, float32, float64,
			int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
			b, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			buf.Write(b)
		default:
			return fmt.Errorf("%s: a value of type %T cannot be logged; use a number, a string or a bool", k, v)
		}
	}
	buf.WriteString("}\n")
	return nil
}

func asFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case float32:
		return float64(v), true
	}
	return 0, false
}

func nonFiniteWord(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case f > 0:
		return "Infinity"
	default:
		return "-Infinity"
	}
}

// lineScanner walks the lines of a log and remembers where each one ends.
type lineScanner struct {
	r    *bufio.Reader
	path string
	text []byte
	line int
	end  int64 // offset after the line, its newline included
	torn bool  // the last line has no newline
	err  error
}

func newLineScanner(r io.Reader, path string) *lineScanner {
	return &lineScanner{r: bufio.NewReaderSize(r, 1<<16), path: path}
}

func (s *lineScanner) next() bool {
	b, err := s.r.ReadBytes('\n')
	if err != nil && err != io.EOF {
		s.err = fmt.Errorf("metrics log %s:%d: %w", s.path, s.line+1, err)
		return false
	}
	if len(b) == 0 {
		return false
	}
	s.line++
	s.end += int64(len(b))
	s.torn = err == io.EOF
	s.text = bytes.TrimRight(b, "\r\n")
	return true
}
