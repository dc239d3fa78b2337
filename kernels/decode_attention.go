package kernels

import "fmt"

// PageTokens is the number of tokens in a page of the KV cache (engine.PageSize).
// A cache is [pages][KV heads][PageTokens][head size], for keys and for values.
const PageTokens = 32

// MaxDecodeRows is the largest batch that the plan of a decode step takes.
const MaxDecodeRows = 3072

// decodeItemQueries is the number of queries up to which rows share an item.
const decodeItemQueries = 64

// decodePlanShared is the shared memory of the plan for each row of the batch.
const decodePlanShared = 16

// Plan finds which rows of a batch share which pages. Its results hold for all
// layers of a step. Parameters: counts, items, order, page table, positions, B,
// columns of the table, stride of the table, rows for each item (ItemRows). Its
// grid is DecodeSplits. It returns an error for batches above MaxDecodeRows.
func (a *Attention) Plan(batch int) (Spec, error) {
	if batch < 1 || batch > MaxDecodeRows {
		return Spec{}, fmt.Errorf("decode attention: a batch of %d rows: from 1 to %d are supported", batch, MaxDecodeRows)
	}
	return decodePlanSpec(batch), nil
}

func decodePlanSpec(batch int) Spec {
	s := attentionSpec("decode_attention", "decode_attention_plan", "pppppiiii", decodePlanShared*batch)
	s.Block = 256
	return s
}

// ItemRows is the last argument of Plan.
func (a *Attention) ItemRows() int { return max(1, decodeItemQueries/a.Group) }

// DecodeSplits returns the number of splits that a page table of so many columns
// may need.
func DecodeSplits(columns int) int { return (columns*PageTokens + AttentionSplit - 1) / AttentionSplit }

// DecodeGrid returns the grid of Decode, in x. Its blocks share the work, however
// much there is, so it follows from the device alone: four blocks fit on a
// multiprocessor.
func (a *Attention) DecodeGrid(multiprocessors int) int { return 4 * multiprocessors }

// DecodeScratch says how Plan, Decode and Merge use scratch memory: the byte
// offset of each part, and the bytes in all. The plan's parts, up to Sums, must
// stay as they are between Plan and the last Decode that uses it.
type DecodeScratch struct {
	Counts, Items, Order, Sums, Stats, Bytes int
}

// Scratch lays out the scratch memory for a batch whose page table has so many
// columns. Its start must be a multiple of 256.
func (a *Attention) Scratch(batch, columns, kvHeads int) DecodeScratch {
	splits := DecodeSplits(columns)
	queries := splits * batch * kvHeads * a.Group
	var s DecodeScratch
	at := 0
	part := func(bytes int) int {
		from := at
		at = (at + bytes + 255) / 256 * 256
		return from
	}
	s.Counts = part(4 * splits)
	s.Items = part(4 * splits * batch)
	s.Order = part(4 * splits * batch)
	s.Sums = part(4 * queries * a.HeadDim)
	s.Stats = part(8 * queries)
	s.Bytes = at
	return s
}
