package cloud

import (
	"context"
	"errors"
	"net"
)

// transientError marks an error after which asking again may help.
type transientError struct{ err error }

func (e *transientError) Error() string { return e.err.Error() }
func (e *transientError) Unwrap() error { return e.err }

// Transient marks err as passing: the network, a time limit, an overloaded
// server. A nil error stays nil.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return &transientError{err}
}

// IsTransient reports whether asking again later may help: err was marked by
// Transient, or is a time limit of a context or of the network. Any other error
// is final: a rejected key, a question that the cloud refuses.
func IsTransient(err error) bool {
	var t *transientError
	if errors.As(err, &t) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// StoreError is a failure of the file that a ledger keeps, not of the cloud. A
// step that meets one must not go on: its calls could not be recorded.
type StoreError struct {
	Path   string
	Op     string // what was being done: "open", "record"
	Remedy string // what the user can do
	Err    error
}

// Error gives one line with the file, the cause and the remedy.
func (e *StoreError) Error() string {
	s := "cloud ledger " + e.Path + ": " + e.Op + ": " + e.Err.Error()
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// ErrCorrupt is wrapped by a StoreError for a file that is not, or no longer, a
// ledger. Such a file is never written to.
var ErrCorrupt = errors.New("the file is damaged or not a ledger")

// ErrLocked is wrapped by a StoreError for a file that another process holds.
var ErrLocked = errors.New("another process is using the file")

// recordedError is a failure read back from a ledger, with its kind kept.
type recordedError struct {
	msg       string
	transient bool
}

func (e *recordedError) Error() string { return e.msg }

func (e *recordedError) As(target any) bool {
	if t, ok := target.(**transientError); ok && e.transient {
		*t = &transientError{errors.New(e.msg)}
		return true
	}
	return false
}
