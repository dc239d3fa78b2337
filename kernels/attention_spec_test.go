package kernels

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAttentionConstantsAgreeWithSource(t *testing.T) {
	constant := func(file, pattern string) int {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		m := regexp.MustCompile(pattern).FindSubmatch(src)
		require.NotNil(t, m, "%s: %s", file, pattern)
		v, err := strconv.Atoi(string(m[1]))
		require.NoError(t, err)
		return v
	}
	require.Equal(t, AttentionSplit, constant("attention.cuh", `kSplit = (\d+);`))
	require.Equal(t, PageTokens, constant("attention.cuh", `kPage = (\d+);`))
	require.Equal(t, queryTileInts, constant("packed.cuh", `kTileInts = (\d+);`))
	require.Equal(t, keyTileInts, constant("packed.cuh", `kKeyTileInts = (\d+);`))
	require.Equal(t, maxHeadDim, 32*constant("attention_simt.cu", `kColumns = (\d+);`))
	require.Equal(t, decodePlanSpec(1).Block, constant("decode_attention.cu", `kPlanThreads = (\d+);`))
	require.Zero(t, AttentionSplit%PageTokens, "a split is whole pages")
}

func TestAttentionFor(t *testing.T) {
	for _, c := range []struct {
		kind     Type
		d, group int
		entry    string
	}{
		{BF16, 16, 1, "attention_bf16_d64"}, {BF16, 64, 7, "attention_bf16_d64"}, {BF16, 80, 1, "attention_bf16_d96"},
		{BF16, 96, 64, "attention_bf16_d96"}, {BF16, 128, 6, "attention_bf16_d128"},
		{BF16, 128, 65, "attention_simt_bf16"}, {BF16, 144, 1, "attention_simt_bf16"}, {BF16, 72, 1, "attention_simt_bf16"},
		{F32, 64, 2, "attention_simt_f32"},
	} {
		a, err := AttentionFor(c.kind, c.d, c.group)
		require.NoError(t, err)
		require.Equal(t, c.entry, a.Forward.Entry)
		require.Equal(t, c.entry[:14] == "attention_simt", a.Simple)
	}
	for _, c := range [][2]int{{0, 1}, {257, 1}, {64, 0}} {
		_, err := AttentionFor(BF16, c[0], c[1])
		require.ErrorContains(t, err, "from 1 to 256")
	}
	a, err := AttentionFor(BF16, 64, 1)
	require.NoError(t, err)
	_, err = a.Plan(MaxDecodeRows + 1)
	require.ErrorContains(t, err, "3073 rows")
}

// Query tiles cover every row of every segment once, and say where its keys are.
func TestQueryTiles(t *testing.T) {
	segments := []Segment{{0, 100, 0, 0}, {100, 30, 0, 100}, {130, 7, 5, 20}}
	a := Attention{Group: 3} // 21 rows to a tile
	list := a.QueryTiles(segments)
	seen := make([]int, 137)
	last := 1 << 30
	for i := 0; i < len(list); i += queryTileInts {
		row0, n, pos0, prefix, prefixLen, own := int(list[i]), int(list[i+1]), int(list[i+2]), int(list[i+3]), int(list[i+4]), int(list[i+5])
		require.LessOrEqual(t, n*a.Group, AttentionTile)
		require.LessOrEqual(t, pos0+n, last, "most keys first")
		last = pos0 + n
		for r := row0; r < row0+n; r++ {
			seen[r]++
			at := slices.IndexFunc(segments, func(s Segment) bool { return r >= s.Start && r < s.Start+s.Len })
			s := segments[at]
			require.Equal(t, []int{s.PrefixStart, s.PrefixLen, s.Start, s.PrefixLen + r - s.Start}, []int{prefix, prefixLen, own, pos0 + r - row0})
		}
	}
	require.Equal(t, slices.Repeat([]int{1}, 137), seen)
	require.Equal(t, len(list)/queryTileInts*2, a.Blocks(list, 2))
}

// Key tiles cover every row once, and their runs name exactly the pairs of a query
// and a key that it sees.
func TestKeyTiles(t *testing.T) {
	segments := []Segment{{0, 100, 0, 0}, {100, 30, 0, 100}, {130, 7, 5, 20}, {137, 70, 70, 30}}
	tiles, runs := KeyTiles(segments)
	seen := map[[2]int]int{}
	rows := 0
	for i := 0; i < len(tiles); i += keyTileInts {
		row0, n, from, to := int(tiles[i]), int(tiles[i+1]), int(tiles[i+2]), int(tiles[i+3])
		rows += n
		before := -1
		for _, r := range slices.Collect(slices.Chunk(runs[from*keyTileInts:to*keyTileInts], keyTileInts)) {
			require.Greater(t, int(r[0]), before, "runs ascend")
			before = int(r[0])
			for q := int(r[0]); q < int(r[0]+r[1]); q++ {
				for key := max(row0, int(r[2])); key < min(row0+n, int(r[3])) && key <= q; key++ {
					seen[[2]int{q, key}]++
				}
			}
		}
	}
	require.Equal(t, 207, rows)
	pairs := 0
	for _, s := range segments {
		for i := range s.Len {
			for p := range s.PrefixLen {
				require.Equal(t, 1, seen[[2]int{s.Start + i, s.PrefixStart + p}])
			}
			for p := range i + 1 {
				require.Equal(t, 1, seen[[2]int{s.Start + i, s.Start + p}])
			}
			pairs += s.PrefixLen + i + 1
		}
	}
	require.Len(t, seen, pairs)
	require.Equal(t, len(tiles)/keyTileInts*3, KeyBlocks(tiles, 3))
}

func TestDecodeScratch(t *testing.T) {
	a := Attention{HeadDim: 64, Group: 4}
	s := a.Scratch(5, 7, 2) // four splits
	require.Equal(t, DecodeScratch{0, 256, 512, 768, 768 + 4*5*8*64*4, 768 + 4*5*8*64*4 + 1280}, s)
	require.Equal(t, 4, DecodeSplits(7))
}
