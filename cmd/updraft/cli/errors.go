package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// Exit codes.
const (
	exitOK        = 0
	exitFailure   = 1
	exitInput     = 2
	exitLimit     = 3   // a limit of the cloud is reached; everything is saved
	exitInterrupt = 130 // 128 + SIGINT
	exitTerminate = 143 // 128 + SIGTERM
)

// inputError marks what the user can mend: a flag, a file, a configuration.
type inputError struct{ err error }

func (e inputError) Error() string { return e.err.Error() }
func (e inputError) Unwrap() error { return e.err }

// input marks err as the user's to mend; nil stays nil, and the end of a
// context is nobody's fault.
func input(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return inputError{err}
}

func inputf(format string, args ...any) error { return inputError{fmt.Errorf(format, args...)} }

// exitCode sorts an error.
func exitCode(err error) int {
	var in inputError
	var line *task.LineError
	var store *cloud.StoreError
	var limit *cloud.LimitError
	var rejected *cloud.RejectedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &in), errors.As(err, &line), errors.Is(err, gapg.ErrNonFinite), errors.Is(err, model.ErrNonFinite):
		return exitInput
	case errors.As(err, &limit):
		return exitLimit
	case errors.As(err, &rejected):
		return exitInput
	case errors.As(err, &store) && (errors.Is(err, cloud.ErrCorrupt) || errors.Is(err, cloud.ErrLocked)):
		return exitInput
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		return exitInput
	}
	return exitFailure
}

// oneLine is what the user reads of an error.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

// missing says that a file or directory is not there in the user's words.
func missing(flag, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return inputf("--%s %s: no such file or directory; check the path", flag, path)
	case errors.Is(err, fs.ErrPermission):
		return inputf("--%s %s: permission denied; check the rights of the file", flag, path)
	}
	return input(err)
}

// writable makes dir and tries it, so that an hour of work does not end at a
// directory that cannot be written.
func writable(flag, dir string) error {
	if dir == "" {
		return inputf("--%s is not set; name the directory to write to", flag)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return inputf("--%s %s: cannot make the directory (%w); choose another", flag, dir, cause(err))
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return inputf("--%s %s: cannot write there (%w); choose another directory", flag, dir, cause(err))
	}
	name := f.Name()
	return errors.Join(f.Close(), os.Remove(name))
}

// cause is the system's reason without the path, which the message has.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// nearest returns the candidate within a small edit distance of s, "" if none.
func nearest(s string, candidates []string) string {
	best, at := "", max(2, len(s)/3)+1
	for _, c := range candidates {
		if d := distance(s, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// hint is ", did you mean X?" where there is something near.
func hint(s string, candidates []string) string {
	if n := nearest(s, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
