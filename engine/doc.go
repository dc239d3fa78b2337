// Package engine defines what a compute device offers to a model: typed
// memory, about two dozen coarse operations forward and backward, and recorded
// programs for decoding. It holds the contract only; the implementations are
// engine/cpu and engine/gpu, and enginetest runs one conformance suite over
// any of them.
//
// # Shape letters
//
// The letters are the same in every package:
//
//	T      rows of a packed batch (tokens of all segments, no padding)
//	B      rows of a decode batch (one token of each running sequence)
//	C      hidden size            F      intermediate (feed-forward) size
//	H      query heads            KV     key-value heads (KV divides H)
//	D      head dimension         V      vocabulary size
//	L      layers                 M N K  only inside matrix products
//
// Matrices are row-major with a row stride in elements.
//
// # Execution
//
// A Backend is a stream: calls are carried out in order, possibly later. Host
// memory meets device memory only in Upload, Download and Wait. An operation
// copies its argument structs and host slices when it is called, so the caller
// may reuse them at once. A Backend is not safe for concurrent use; two
// trainers in one process use two.
//
// Decoding records its step once with Record and replays it with Run: the
// recorded operations take lengths, positions and page tables from device
// memory, so that a replay needs no host decision. A GPU backend records a
// CUDA graph, the CPU backend a list of calls.
//
// # Numerical contract
//
//  1. Determinism: the same inputs, packing, seed and device kind give the
//     same bits, forward and backward. Sums are ordered.
//  2. Batch invariance of the forward: a row's result does not depend on the
//     other rows, on their number or on its place among them. Each output
//     element of a matrix product is one accumulation in ascending K, by one
//     family of instructions on a device, at every number of rows: a chain of
//     fused multiply-adds on the CPU and for F32 on a GPU, a chain of matrix
//     instructions into one float32 accumulator for BF16 on a GPU. Attention is
//     computed in splits of keys at multiples of the split in the sequence's
//     logical position, merged in ascending order, in Attention and
//     DecodeAttention alike; the split is the backend's, a multiple of PageSize.
//     Log-sum-exp runs over vocabulary chunks of VocabChunk in ascending order,
//     in LogProb and Sample alike.
//  3. Hence the log-probs of Sample equal those of LogProb bit for bit for the
//     same token history.
//  4. The backward is deterministic for a given packing, no more: with and
//     without prompt sharing its gradients agree within derived tolerances.
//  5. Sums are in float32. Results are rounded to BF16 at named places alone:
//     once where a BF16 tensor is written, and before a product the
//     probabilities of attention, their gradients, and the gradient of the
//     logits. ops.go names them with each operation.
//
// # Precision
//
// Two types describe how a model computes on a device: W of its matrices, and A
// of the activations that enter and leave matrix products and attention, which
// Backend.Precision gives. With W of BF16, A is BF16 on a GPU and F32 on the CPU,
// whose results are then those of F32 with the same weights, to the bit. The
// residual stream and its gradient, norms' and biases' weights, statistics,
// log-probs, weight gradients and optimizer state are F32 at any W; so are all
// logits.
//
// Misuse of shapes panics with a constant string, as an index out of range
// would; failures of a device are errors, returned by Alloc, Wait and Sync.
package engine

// PageSize is the number of tokens in a page of the KV cache. Sequences share a
// prompt by sharing its full pages.
const PageSize = 32

// VocabChunk is the number of vocabulary entries over which log-sum-exp and
// entropy are reduced before they are merged in ascending order.
const VocabChunk = 4096
