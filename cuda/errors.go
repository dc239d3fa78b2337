package cuda

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a result code of the driver (CUresult). It is an error, so that
// errors.Is(err, cuda.OutOfMemory) works on whatever this package returns.
type Code int32

// The codes that callers tell apart.
const (
	InvalidValue         Code = 1
	OutOfMemory          Code = 2
	NotInitialized       Code = 3
	StubLibrary          Code = 34
	DeviceUnavailable    Code = 46
	NoDevice             Code = 100
	InvalidDevice        Code = 101
	InvalidContext       Code = 201
	NoBinaryForGPU       Code = 209
	InvalidPTX           Code = 218
	UnsupportedPTX       Code = 222
	NotFound             Code = 500
	NotReady             Code = 600
	IllegalAddress       Code = 700
	OutOfResources       Code = 701
	LaunchFailed         Code = 719
	SystemNotReady       Code = 802
	SystemDriverMismatch Code = 803
	Unknown              Code = 999
)

// Error names the code by its number; an *Error holds the driver's name for it.
func (c Code) Error() string { return fmt.Sprintf("CUDA error %d", int32(c)) }

// Error is a failed call of the driver.
type Error struct {
	Call string // "cuMemAlloc_v2"
	Code Code
	Name string // the driver's name, "CUDA_ERROR_OUT_OF_MEMORY"
	Text string // the driver's description
}

func (e *Error) Error() string {
	s := fmt.Sprintf("cuda: %s: error %d", e.Call, int32(e.Code))
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

// Unwrap returns the code.
func (e *Error) Unwrap() error { return e.Code }

// LoadError is a module that the driver could not compile or load.
type LoadError struct {
	Module string // the name that was given to LoadModule
	Log    string // all that the driver's compiler said, perhaps empty
	Err    error  // the *Error
}

// Error is one line: of the log it has the first one that is not empty.
func (e *LoadError) Error() string {
	s := fmt.Sprintf("cuda: module %s: %s", e.Module, strings.TrimPrefix(e.Err.Error(), "cuda: "))
	if log := strings.TrimSpace(e.Log); log != "" {
		first, _, _ := strings.Cut(log, "\n")
		s += ": " + strings.TrimSpace(first)
	}
	switch {
	case errors.Is(e.Err, UnsupportedPTX):
		s += "; the driver is too old for this PTX: " + remedyUpdate
	case errors.Is(e.Err, NoBinaryForGPU):
		s += "; the device is too old for this PTX: compute capability 8.0 (Ampere) or later is needed"
	}
	return s
}

// Unwrap returns the driver's error.
func (e *LoadError) Unwrap() error { return e.Err }

// UnavailableError says why no GPU can be used and what would change that. It
// wraps errors.ErrUnsupported.
type UnavailableError struct {
	Reason string // "libcuda.so.1 was not found"
	Remedy string // "install the NVIDIA driver, 525 or newer"; may be empty
	// DeviceVisible reports that the machine seems to have an NVIDIA device all
	// the same, so that running without it deserves a warning.
	DeviceVisible bool
	Err           error // the cause, or nil
}

// Error is one line.
func (e *UnavailableError) Error() string {
	s := "cuda: no GPU can be used: " + e.Reason
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns errors.ErrUnsupported and the cause.
func (e *UnavailableError) Unwrap() []error {
	if e.Err == nil {
		return []error{errors.ErrUnsupported}
	}
	return []error{errors.ErrUnsupported, e.Err}
}
