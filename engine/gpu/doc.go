// Package gpu is the engine.Backend that computes on an NVIDIA GPU, with the
// kernels of package kernels through the driver binding of package cuda.
//
// What it is not: it has no arithmetic of its own, and it knows nothing of models.
// It checks an operation's arguments, resolves its tensors to addresses, chooses
// kernels by element types, shapes and alignment, and puts launches into a stream.
//
// # Execution
//
// A Backend is one CUDA stream. Nothing waits for the device but Wait, Sync and
// Close, and an upload or a download that finds its staging memory full. Host
// slices are copied through page-locked rings (staging.go); tickets stand for
// events behind the copies. Inside Record, launches are kept as a list, from
// which a CUDA graph is captured when the recording ends; Run is one call.
//
// Memory comes from a pool that gives freed blocks out again in the stream's
// order. Scratch memory and the tables that attention needs of a packing are made
// when they are first needed and kept: a step that was run once makes the driver
// allocate nothing when it runs again with the same shapes.
//
// # Failures
//
// Misuse panics with a constant string when an operation is submitted. What the
// driver reports is kept and returned by the next Wait or Sync, with the name of
// the operation. A kernel that fails on the device shows later than it was
// submitted: the message then names the last operation before the failure was
// seen.
//
// Start reading at backend.go, then program.go and launch.go; ops.go has the table
// of operations and kernels.
package gpu
