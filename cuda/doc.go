// Package cuda is a thin binding of the CUDA driver API: devices, memory,
// streams, events, modules made from PTX, and launches.
//
// It opens libcuda.so.1 by dlopen when Open is called, and not before: a binary
// needs no CUDA file to be built or to start, and a program that never calls
// Open pays nothing. The prototypes are declared here (libcuda.h); no toolkit
// header is used. Where there is no GPU, no driver, or no cgo, Open returns an
// *UnavailableError that says why and what would help; errors.Is finds
// errors.ErrUnsupported in it.
//
// A library in an unusual place is named by the environment variable
// UPDRAFT_LIBCUDA.
//
// It is not an engine: it knows no tensors and no kernels, and decides nothing.
// engine/gpu does that on top.
//
// Handles are safe for use by several goroutines as far as the driver's are; a
// Stream's operations run in the order in which they were issued. A context is
// current per OS thread in CUDA, and goroutines move between threads, so every
// call sets its device's context in the same step in C: no caller needs
// runtime.LockOSThread. Waiting calls take no context.Context, since nothing can
// interrupt the driver; who needs cancellation polls Event.Done.
//
// Shape misuse (a range outside a buffer, arguments that do not fit a kernel's
// parameters, use after Free) panics with a constant string; whatever the driver
// reports comes back as an error.
//
// Start reading at driver.go.
package cuda
