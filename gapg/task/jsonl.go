package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// LineError is what is wrong with one line of a file of problems.
type LineError struct {
	File  string
	Line  int    // from 1
	Field string // "" if the line as a whole is meant
	Msg   string // what is wrong and how to mend it
}

// Error names file, line and field.
func (e *LineError) Error() string {
	s := e.File + ":" + strconv.Itoa(e.Line) + ": "
	if e.Field != "" {
		s += "field \"" + e.Field + "\": "
	}
	return s + e.Msg
}

// ReadOptions say what to do with problems that are well formed and yet of no
// use. The zero value is strict.
type ReadOptions struct {
	// SkipUnsolvable leaves problems without a solution out and reports them in
	// ReadReport.Unsolvable; otherwise the first one is an error.
	SkipUnsolvable bool

	// AllowUnsolvable keeps them, without looking for a solution: with a large
	// file of six-number problems that saves minutes.
	AllowUnsolvable bool

	// MaxLine is the longest line in bytes; 0 means 16 MiB.
	MaxLine int
}

// ReadReport tells what a reader did beside what it returned.
type ReadReport struct {
	Lines      int   // lines read, blank ones included
	Unsolvable []int // numbers of lines left out for want of a solution
	Duplicates []int // numbers of lines whose problem an earlier line has; they are kept
}

// ReadCountdownFile reads problems from a JSONL file: see ReadCountdown.
func ReadCountdownFile(path string, opt ReadOptions) ([]Countdown, ReadReport, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, ReadReport{}, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, ReadReport{}, fmt.Errorf("%s is a directory: give a JSONL file with the fields nums and target", path)
	}
	return ReadCountdown(f, path, opt)
}

// ReadCountdown reads one problem per line, {"nums": [1, 2, 3], "target": 7}, as
// in the data set Countdown-Tasks-3to4. Other fields and blank lines are
// ignored. name stands for the file in errors. A fault of a line is a *LineError;
// a file without any problem is an error too.
func ReadCountdown(r io.Reader, name string, opt ReadOptions) ([]Countdown, ReadReport, error) {
	if opt.MaxLine <= 0 {
		opt.MaxLine = 16 << 20
	}
	var (
		out  []Countdown
		rep  ReadReport
		br   = bufio.NewReaderSize(r, 64<<10)
		seen = make(map[string]bool)
	)
	for {
		line, err := readLine(br, opt.MaxLine)
		if errors.Is(err, errLineTooLong) {
			return nil, rep, &LineError{name, rep.Lines + 1, "", fmt.Sprintf("the line is longer than %d bytes: is this a JSONL file, one object per line?", opt.MaxLine)}
		}
		if err != nil && err != io.EOF {
			return nil, rep, fmt.Errorf("%s: line %d: %w", name, rep.Lines+1, err)
		}
		end := err == io.EOF
		if end && len(line) == 0 {
			break
		}
		rep.Lines++
		if rep.Lines == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // some tools begin a file with a byte order mark
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			p, lerr := parseLine(line)
			if lerr != nil {
				lerr.File, lerr.Line = name, rep.Lines
				return nil, rep, lerr
			}
			keep := true
			if !opt.AllowUnsolvable && !p.Solvable() {
				if !opt.SkipUnsolvable {
					return nil, rep, &LineError{name, rep.Lines, "", fmt.Sprintf("%v has no solution: mend or remove the line, or choose to skip such problems", p)}
				}
				rep.Unsolvable = append(rep.Unsolvable, rep.Lines)
				keep = false
			}
			if keep {
				if k := p.Key(); seen[k] {
					rep.Duplicates = append(rep.Duplicates, rep.Lines)
				} else {
					seen[k] = true
				}
				out = append(out, p)
			}
		}
		if end {
			break
		}
	}
	if len(out) == 0 {
		if len(rep.Unsolvable) > 0 {
			return nil, rep, fmt.Errorf("%s: none of its %d problems has a solution", name, len(rep.Unsolvable))
		}
		return nil, rep, fmt.Errorf("%s: the file holds no problem: each line must be an object like {\"nums\": [1, 2, 3], \"target\": 7}", name)
	}
	return out, rep, nil
}

var errLineTooLong = errors.New("line too long")

// readLine returns the next line without its newline; with the last one comes
// io.EOF. It never holds more than limit bytes.
func readLine(br *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errLineTooLong
		}
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return bytes.TrimSuffix(line, []byte("\n")), err
		}
	}
}

func parseLine(line []byte) (Countdown, *LineError) {
	fail := func(field, format string, args ...any) (Countdown, *LineError) {
		return Countdown{}, &LineError{Field: field, Msg: fmt.Sprintf(format, args...)}
	}
	if line[0] != '{' {
		return fail("", "not a JSON object: each line must be like {\"nums\": [1, 2, 3], \"target\": 7}")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return fail("", "malformed JSON: %v", err)
	}
	rawNums, ok := fields["nums"]
	if !ok {
		return fail("nums", "missing: it must be a list of whole numbers")
	}
	rawTarget, ok := fields["target"]
	if !ok {
		return fail("target", "missing: it must be a whole number")
	}
	var list []json.RawMessage
	if err := json.Unmarshal(rawNums, &list); err != nil || list == nil {
		return fail("nums", "must be a list of whole numbers, is %s", excerpt(rawNums))
	}
	p := Countdown{Nums: make([]int, len(list))}
	for i, raw := range list {
		n, ok := wholeNumber(raw)
		if !ok {
			return fail("nums", "must be a list of whole numbers, holds %s", excerpt(raw))
		}
		p.Nums[i] = n
	}
	if p.Target, ok = wholeNumber(rawTarget); !ok {
		return fail("target", "must be a whole number, is %s", excerpt(rawTarget))
	}
	if err := p.Validate(); err != nil {
		return fail("", "%v", err)
	}
	return p, nil
}

// wholeNumber accepts JSON integers only: not 3.0, "3" or null.
func wholeNumber(raw json.RawMessage) (int, bool) {
	n, err := strconv.Atoi(string(raw))
	return n, err == nil
}

func excerpt(raw []byte) string {
	const most = 40
	if len(raw) > most {
		return string(raw[:most]) + "…"
	}
	return string(raw)
}
