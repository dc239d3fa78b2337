package cloud

import (
	"context"
	"errors"
	"net"
	"time"
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

// afterError is a passing failure that says when to ask again.
type afterError struct {
	err  error
	wait time.Duration
}

func (e *afterError) Error() string { return e.err.Error() }
func (e *afterError) Unwrap() error { return &transientError{e.err} }

// After marks err as passing, with the time that the server asks to wait.
func After(wait time.Duration, err error) error { return &afterError{err, wait} }

// RetryAfter returns the time that an error marked by After asks to wait.
func RetryAfter(err error) (time.Duration, bool) {
	var a *afterError
	if errors.As(err, &a) {
		return a.wait, true
	}
	return 0, false
}

// notSentError is a call that never left this machine.
type notSentError struct{ err error }

func (e *notSentError) Error() string { return e.err.Error() }
func (e *notSentError) Unwrap() error { return e.err }

// NotSent marks err as that of a call that cannot have been billed, because
// nothing was sent.
func NotSent(err error) error { return &notSentError{err} }

// WasSent reports whether a call that failed with err may have reached the
// cloud.
func WasSent(err error) bool {
	var n *notSentError
	return !errors.As(err, &n)
}

// RejectedError says that the cloud will take no question at all: a wrong key,
// address or model, or no credit. A step that meets it must not go on, and
// nothing is recorded of the question, so that it can be asked once the cause
// is mended.
type RejectedError struct{ Msg string }

func (e *RejectedError) Error() string { return e.Msg }

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
