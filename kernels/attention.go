package kernels

import (
	"fmt"
	"slices"
)

// AttentionSplit is the number of keys that attention reduces at once, at
// multiples of itself in a sequence's logical position (kSplit in attention.cuh).
const AttentionSplit = 64

// AttentionTile is the number of queries that a block of packed attention
// computes, and of keys that a block of its backward does.
const AttentionTile = 64

// maxHeadDim is the largest head size that any kernel takes.
const maxHeadDim = 256

// attentionDims are the head sizes with kernels of their own on tensor cores.
// Others run on the next larger of them, where they are multiples of 16.
var attentionDims = []int{64, 96, 128}

// AttentionSpecs returns every entry point that AttentionFor and Plan choose from.
func AttentionSpecs() (all []Spec) {
	add := func(specs ...Spec) {
		for _, s := range specs {
			if s.Entry != "" && !slices.ContainsFunc(all, func(o Spec) bool { return o.Entry == s.Entry }) {
				all = append(all, s)
			}
		}
	}
	for _, d := range attentionDims {
		a := tensorCoreAttention(d)
		add(a.Forward, a.Delta, a.DQ, a.DKV, a.KVWrite, a.Decode, a.Merge)
	}
	for _, t := range []Type{F32, BF16} {
		a := simpleAttention(t)
		add(a.Forward, a.Delta, a.DQ, a.DKV, a.KVWrite, a.SimpleDecode)
	}
	add(decodePlanSpec(MaxDecodeRows))
	return all
}

// Attention is the kernels for one element type, head size and number of query
// heads for each key-value head. All the forwards among them give the same bits.
//
// The strides are of rows, in elements. d is the head size and group the number
// of query heads for each key-value head.
type Attention struct {
	HeadDim, Group int
	// Simple says that the kernels are those without tensor cores. Decoding is then
	// one launch of SimpleDecode; otherwise it is Plan, Decode and Merge.
	Simple bool

	// Forward has the parameters O, Q, K, V, LSE (or null), tiles, KV heads, group, d,
	// strides of O, Q, K, V, LSE, scale. Its grid is Blocks of the query tiles.
	Forward Spec
	// Delta is the backward's first step: delta, dO, O, rows, query heads, d, strides of
	// dO, O. delta is rows × query heads F32, dense. Its grid is DeltaGrid.
	Delta Spec
	// DQ: dQ, dO, Q, K, V, LSE, delta, tiles, KV heads, group, d, strides of dQ, dO, Q,
	// K, V, LSE, scale. Its grid is Blocks of the query tiles.
	DQ Spec
	// DKV: dK, dV, dO, Q, K, V, LSE, delta, key tiles, runs, KV heads, group, d, strides
	// of dK, dV, dO, Q, K, V, LSE, scale. Its grid is Blocks of the key tiles.
	DKV Spec

	// KVWrite: K cache, V cache, K, V, rows, slots, KV heads, d, strides of K, V. Its grid
	// is the number of slots.
	KVWrite Spec
	// Decode: sums, stats, Q, K, V, K cache, V cache, page table, positions, counts,
	// items, order, B, KV heads, group, d, columns of the table, strides of the table, Q,
	// K, V, scale. Its grid is DecodeGrid. sums, stats, counts, items and order are parts
	// of DecodeScratch.
	Decode Spec
	// Merge: O, sums, stats, positions, B, query heads, d, columns of the table, stride of
	// O. Its grid is DeltaGrid.
	Merge Spec
	// SimpleDecode: O, Q, K, V, K cache, V cache, page table, positions, KV heads, group,
	// d, columns of the table, strides of the table, O, Q, K, V, scale. Its grid is
	// B · KV heads.
	SimpleDecode Spec
}

const (
	forwardParams      = "ppppppiiiiiiiif"
	deltaParams        = "pppiiiii"
	dqParams           = "ppppppppiiiiiiiiif"
	dkvParams          = "ppppppppppiiiiiiiiiif"
	kvWriteParams      = "ppppppiiii"
	decodeParams       = "ppppppppppppiiiiiiiiif"
	mergeParams        = "ppppiiiii"
	simpleDecodeParams = "ppppppppiiiiiiiiif"
)

// AttentionFor returns the kernels for tensors of type t and a head size. It
// returns an error where there are none.
func AttentionFor(t Type, headDim, group int) (Attention, error) {
	if headDim < 1 || headDim > maxHeadDim || group < 1 {
		return Attention{}, fmt.Errorf("attention: head size %d with %d query heads for each key-value head: head sizes from 1 to %d are supported",
			headDim, group, maxHeadDim)
	}
	if i := slices.IndexFunc(attentionDims, func(d int) bool { return d >= headDim }); t == BF16 && i >= 0 && headDim%16 == 0 && group <= AttentionTile {
		a := tensorCoreAttention(attentionDims[i])
		a.HeadDim, a.Group = headDim, group
		return a, nil
	}
	a := simpleAttention(t)
	a.HeadDim, a.Group = headDim, group
	return a, nil
}

func attentionSpec(module, entry, params string, shared int) Spec {
	return Spec{Entry: entry, Module: module, PTX: ptx(module), Arch: Arch{8, 0}, Params: params, Block: 128, Shared: shared}
}

// tensorCoreAttention returns the kernels for head sizes up to d in bf16.
func tensorCoreAttention(d int) Attention {
	row := 2*d + 16 // bytes of a row of a tile in shared memory
	name := func(kernel string) string { return fmt.Sprintf("%s_bf16_d%d", kernel, d) }
	return Attention{
		Forward: attentionSpec("attention", name("attention"), forwardParams, 3*AttentionTile*row+16),
		Delta:   attentionSpec("attention_simt", "attention_delta_bf16", deltaParams, 0),
		DQ:      attentionSpec("attention_backward", name("attention_dq"), dqParams, 4*AttentionTile*row),
		DKV:     attentionSpec("attention_backward", name("attention_dkv"), dkvParams, 4*AttentionTile*row+2*4*AttentionTile),
		KVWrite: attentionSpec("decode_attention", "kv_write_bf16", kvWriteParams, 0),
		Decode:  attentionSpec("decode_attention", name("decode_attention"), decodeParams, (16+2*AttentionSplit)*row+16*72*4),
		Merge:   attentionSpec("decode_attention", "decode_attention_merge_bf16", mergeParams, 0),
	}
}

// simpleAttention returns the kernels without tensor cores.
func simpleAttention(t Type) Attention {
	spec := func(kernel, params string) Spec {
		if t == BF16 {
			return attentionSpec("attention_simt", kernel+"_bf16", params, 0)
		}
		return attentionSpec("attention_simt", kernel+"_f32", params, 0)
	}
	return Attention{
		Simple:       true,
		Forward:      spec("attention_simt", forwardParams),
		Delta:        spec("attention_delta", deltaParams),
		DQ:           spec("attention_dq_simt", dqParams),
		DKV:          spec("attention_dkv_simt", dkvParams),
		KVWrite:      spec("kv_write_simt", kvWriteParams),
		SimpleDecode: spec("decode_attention_simt", simpleDecodeParams),
	}
}

// Segment is a run of rows of a packed batch; it is engine.Segment, whose
// documentation holds here. Segments are in ascending order of Start.
type Segment struct {
	Start, Len             int
	PrefixStart, PrefixLen int
}

// queryTileInts and keyTileInts are the numbers of ints of an entry (packed.cuh).
const (
	queryTileInts = 8
	keyTileInts   = 4
)

// QueryTiles returns the list of tiles that Forward and DQ take, those with the
// most keys first: a block that starts late should have little to do.
func (a *Attention) QueryTiles(segments []Segment) []int32 {
	rows := max(1, AttentionTile/a.Group)
	type tile struct{ segment, from, n int }
	var tiles []tile
	for i, s := range segments {
		for from := 0; from < s.Len; from += rows {
			tiles = append(tiles, tile{i, from, min(rows, s.Len-from)})
		}
	}
	end := func(t tile) int { return segments[t.segment].PrefixLen + t.from + t.n }
	slices.SortStableFunc(tiles, func(x, y tile) int { return end(y) - end(x) })
	list := make([]int32, 0, len(tiles)*queryTileInts)
	for _, t := range tiles {
		s := segments[t.segment]
		list = append(list, int32(s.Start+t.from), int32(t.n), int32(s.PrefixLen+t.from),
			int32(s.PrefixStart), int32(s.PrefixLen), int32(s.Start), 0, 0)
	}
	return list
}

// KeyTiles returns the list of tiles that DKV takes, those with the most queries
// first, and the list of their runs.
func KeyTiles(segments []Segment) (tiles, runs []int32) {
	type tile struct{ row, n, from, to, queries int }
	var all []tile
	for i, s := range segments {
		for from := 0; from < s.Len; from += AttentionTile {
			t := tile{row: s.Start + from, n: min(AttentionTile, s.Len-from), from: len(runs) / keyTileInts}
			run := func(row, n, keyFrom, keyTo int) {
				runs = append(runs, int32(row), int32(n), int32(keyFrom), int32(keyTo))
				t.queries += n
			}
			run(t.row, s.Len-from, t.row, t.row+t.n)
			for _, later := range segments[i+1:] {
				keyFrom, keyTo := max(later.PrefixStart, t.row), min(later.PrefixStart+later.PrefixLen, t.row+t.n)
				if keyFrom < keyTo {
					run(later.Start, later.Len, keyFrom, keyTo)
				}
			}
			t.to = len(runs) / keyTileInts
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(x, y tile) int { return y.queries - x.queries })
	for _, t := range all {
		tiles = append(tiles, int32(t.row), int32(t.n), int32(t.from), int32(t.to))
	}
	return tiles, runs
}

// Blocks returns the grid, in x, for a list of QueryTiles.
func (a *Attention) Blocks(tiles []int32, kvHeads int) int {
	return len(tiles) / queryTileInts * kvHeads
}

// KeyBlocks returns the grid of DKV, in x, for a list of KeyTiles.
func KeyBlocks(tiles []int32, kvHeads int) int { return len(tiles) / keyTileInts * kvHeads }

// DeltaGrid returns the grid of Delta and Merge, in x: a warp has one query head
// of a row.
func (a *Attention) DeltaGrid(rows, heads int) int { return (rows*heads + 3) / 4 }
