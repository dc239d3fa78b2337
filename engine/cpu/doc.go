// Package cpu is the engine.Backend that computes on the host's cores with the
// kernels of package simd.
//
// What it is not: it has no numeric kernels of its own beyond a few scalar
// lines, and it knows nothing of models. It splits each operation into tiles,
// hands them to a pool of workers, and keeps the promises of engine's numerical
// contract.
//
// # How the contract is kept
//
// A tile owns the elements it writes: no two workers add into one element, so
// results do not depend on the number of threads or on who took which tile.
// Sums over rows run in ascending order inside one tile, or over blocks whose
// size is fixed by the shape alone and which are added in ascending order.
// Package simd makes every element of a matrix product one chain in ascending
// K, whatever the shape, packing or tile. Attention and DecodeAttention share
// the panel layout and the operations on a split (softmax.go), of which the latter
// takes those of many heads and pages at a time. LogProb and Sample share the
// reduction of a vocabulary chunk (logprob.go).
//
// # Execution
//
// Operations are carried out when they are called and have finished when the
// call returns, so Sync and Wait have nothing to wait for. Inside Record they
// are kept as a list, which Run replays. A step that was run once allocates
// nothing when it runs again with the same shapes: scratch memory belongs to
// the backend and its workers and grows only when a larger shape is seen.
//
// Weights are F32 or BF16, everything else is F32. A weight in BF16 gives the bits
// of one with the same values in F32 (simd/gemm_bf16.go).
//
// # Processors and memory
//
// Threads are the operating system's to place, and memory lies where it was first
// written to. On a machine with several memory nodes (lscpu shows them) bind a
// process to one, because panels and activations are read by all threads:
//
//	numactl --cpunodebind=0 --membind=0 updraft train --threads 16 …
//
// with no more threads than the node has cores; or, for a model that needs the
// memory of all, numactl --interleave=all. Several trainings run best one to a node.
//
// Start reading at backend.go, then pool.go and linear.go; attention.go is the
// hardest part.
package cpu
