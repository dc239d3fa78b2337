package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// Decoding is the shape of a decode step, for WorkMemory. The zero value is none.
type Decoding struct {
	Batch, Tokens       int // rows; tokens of the longest sequence
	Heads, KVHeads, Dim int
	Weights             engine.DType
}

// WorkMemory returns about how much device memory a backend takes for itself, for
// scratch memory and tables, besides what is allocated from it: where a model is
// decoded, a part that grows with the batch and the longest sequence.
func WorkMemory(d Decoding) uint64 {
	const rest = 320 << 20 // the head's backward most of all, which stays below 256 MiB
	if d.Batch == 0 || d.KVHeads == 0 {
		return rest
	}
	k, err := kernels.AttentionFor(typeOf(d.Weights), d.Dim, d.Heads/d.KVHeads)
	if err != nil || k.Simple {
		return rest
	}
	pages := (d.Tokens + engine.PageSize - 1) / engine.PageSize
	return rest + uint64(k.Scratch(min(d.Batch, maxDecodeRows), pages, d.KVHeads).Bytes)
}
