// Package kernels holds the GPU kernels: their CUDA C++ sources, the PTX that
// clang made of them, and for each entry point a Spec that says how to launch
// it.
//
// It knows nothing of a driver: package cuda loads and launches, engine/gpu
// joins the two. So everything here is testable without a GPU. The sources
// include no header but device.cuh, which has an implementation in PTX and one
// that runs a kernel on a CPU (emu/emulator.h); the tests use the second.
//
// `make ptx` remakes the PTX; building Updraft needs no compiler but Go's. A
// test fails when a source and its committed PTX have parted.
//
// Start reading at gemm_bf16.cu and device.cuh; then spec.go.
package kernels
