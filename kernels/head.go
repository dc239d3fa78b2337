package kernels

import "iter"

// VocabChunk is the number of logits that the language-model head reduces at once
// (engine.VocabChunk), of all the rows of a block.
const VocabChunk = 4096

// headThreads is the block of the kernels of head.cu.
const headThreads = 256

func headSpec(entry, params string, shared int) Spec {
	return Spec{Entry: entry, Module: "head", PTX: ptx("head"), Arch: Arch{8, 0}, Params: params, Block: headThreads, Shared: shared}
}

// HeadStats merges a chunk of logits into the state of each row, a block for each
// row; with the last chunk it writes the results.
// Parameters: state, LogProb, Entropy, LSE, products, targets, cols, from, vocab,
// stride of the products, scale. All pointers are to the first row of the block.
func HeadStats() Spec {
	return headSpec("head_stats_f32", "ppppppiiiif", 16*headThreads/32)
}

// HeadGradient turns products into the gradient of the logits, of type dz, which
// may lie in their place: a row of dz then begins where one of products does.
// Parameters: dz, products, targets, LSE, entropy (null: no DEntropy), DLogProb,
// DEntropy (null), cols, from, stride of dz, stride of products, scale.
func HeadGradient(dz Type) Spec {
	return headSpec([2]string{"head_gradient_f32", "head_gradient_bf16"}[dz], "pppppppiiiif", 0)
}

// headRows is the number of rows whose logits are made at once: with a chunk of
// logits they are 32 MiB, which the L2 caches of the larger GPUs hold, and enough
// tiles for all multiprocessors.
const headRows = 2048

// headSum is the memory in bytes that DX is summed in, at most.
const headSum = 128 << 20

// HeadPlan cuts the language-model head of T rows over V logits into products of a
// block of rows and a chunk of the vocabulary.
//
// Forward: for each step, products = X[rows]·W[chunk]ᵀ in F32, then HeadStats.
// Backward: for each step, products again, HeadGradient, DW[chunk] += dzᵀ·X[rows],
// and sum[rows] = or += dz·W[chunk], which is rounded to DX after the rows' last
// chunk. Chunks are the outer loop, so that a chunk's W and DW are in L2 for all the
// rows; where DX would take more than 128 MiB to sum, rows are taken in parts.
type HeadPlan struct {
	T, V, C int
	// Part is the number of rows that walk over the vocabulary together.
	Part int
	// Rows is the number of rows of a block, at most.
	Rows int
	// Stride is the number of elements from a row of products to the next.
	Stride int
}

// PlanHead plans for T rows of C columns and V logits.
func PlanHead(t, v, c int, backward bool) HeadPlan {
	p := HeadPlan{T: t, V: v, C: c, Part: t, Rows: min(t, headRows)}
	if backward && c > 0 {
		p.Part = min(t, max(1, headSum/(4*c)/headRows)*headRows)
	}
	// A multiple of 8 elements, so that rows of the products and of dz are aligned.
	p.Stride = (min(v, VocabChunk) + 7) / 8 * 8
	return p
}

// ProductBytes returns the size of the products, of which HeadGradient makes dz.
func (p HeadPlan) ProductBytes() int { return p.Rows * p.Stride * 4 }

// StateBytes returns the size of the state of HeadStats.
func (p HeadPlan) StateBytes() int { return p.T * 16 }

// SumBytes returns the size of the F32 sum of DX, rows of C elements.
func (p HeadPlan) SumBytes() int { return min(p.T, p.Part) * p.C * 4 }

// HeadStep is a block of rows and a chunk of the vocabulary.
type HeadStep struct {
	Row, Rows  int  // rows Row..Row+Rows
	SumRow     int  // of Row in the sum of DX
	From, Cols int  // logits From..From+Cols
	First      bool // of the rows' chunks: the sum begins
	Last       bool // of the rows' chunks: the sum is complete
}

// Steps returns the steps in order: for any row, chunks ascend; for any chunk, rows.
func (p HeadPlan) Steps() iter.Seq[HeadStep] {
	return func(yield func(HeadStep) bool) {
		for part := 0; part < p.T; part += p.Part {
			for from := 0; from < p.V; from += VocabChunk {
				for row := part; row < min(part+p.Part, p.T); row += p.Rows {
					s := HeadStep{
						Row: row, Rows: min(p.Rows, part+p.Part-row, p.T-row), SumRow: row - part,
						From: from, Cols: min(VocabChunk, p.V-from), First: from == 0, Last: from+VocabChunk >= p.V,
					}
					if !yield(s) {
						return
					}
				}
			}
		}
	}
}
