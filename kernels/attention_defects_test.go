package kernels_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// smallHeads leaves the kernels for head sizes beyond 64 without a body, which
// takes time to compile.
func smallHeads(text string) string {
	return regexp.MustCompile(`(?m)((updraft::)?\w+<D>\(.*\\)$`).ReplaceAllString(text, "if constexpr (D == 64) $1")
}

// defects sows defects into a module's text; further modules follow after spaces.
func defects(t *testing.T, modules string, list []kerneltest.Defect, check func(*kerneltest.Device) error) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles a kernel for each defect")
	}
	module, _, _ := strings.Cut(modules, " ")
	kerneltest.DefectsIn(t, modules, smallHeads(kerneltest.Source(t, module)), list, check, noConflicts)
}

// checkSmallForward needs head sizes up to 64 alone.
func checkSmallForward(d *kerneltest.Device) error {
	for _, p := range []*attentionProblem{
		newAttention(20, true, 3, 1, 32, prompt(65), misaligned),
		newAttention(21, true, 4, 2, 64, prompt(62, 3, 66), aligned),
		newAttention(22, true, 2, 2, 48, partial, layout{}),
	} {
		if err := p.checkForward(d); err != nil {
			return err
		}
	}
	return isolates(d, true)
}

func TestAttentionDefects(t *testing.T) {
	defects(t, "attention", []kerneltest.Defect{
		{Name: "keys not waited for", Old: "cp_async_wait<0>();\n    block_sync();  // the keys", New: "block_sync();  // the keys"},
		{Name: "no barrier after the keys", Old: "block_sync();  // the keys are", New: "// the keys are"},
		{Name: "no barrier after the values", Old: "block_sync();  // the values and", New: "// the values and"},
		{Name: "sees the next key", Old: "key > pos[e / 2]", New: "key > pos[e / 2] + 1"},
		{Name: "last key of a split not masked", Old: "first + kSplit - 1 > tile.pos0", New: "first + kSplit - 2 > tile.pos0"},
		{Name: "a warp's last split left out", Old: "first <= warp_last; ", New: "first < warp_last; "},
		{Name: "a row beyond the tile is stored", Old: "if (i >= tile.n) continue;", New: "if (i > tile.n) continue;"},
		{Name: "every head reads the first key head", Old: "Source keys{a.K + head * a.d", New: "Source keys{a.K"},
		{Name: "a value that is not finite stays", Old: "clean_values<D>(v, true);", New: ""},
		{Name: "cleaned while others read", Old: "block_sync();  // all have read", New: "// all have read"},
		{Name: "cleaned values not waited for", Old: "block_sync();  // the clean", New: "// the clean"},
		{Name: "the row itself does not see its NaN", Old: "first + key <= pos[h]", New: "first + key < pos[h]"},
		{Name: "LSE of the wrong head", Old: "head * a.group + g] = log_sum", New: "head * a.group] = log_sum"},

		// packed.cuh
		{Name: "one key too many", Old: "if (p >= end) return -1;", New: "if (p > end) return -1;"},
		{Name: "own keys one too early", Old: "own_row + p - prefix_len;", New: "own_row + p - prefix_len - 1;"},
		{Name: "prefix one too long", Old: "p < prefix_len ?", New: "p <= prefix_len ?"},
		{Name: "one query too many", Old: "return i < tile.n ?", New: "return i <= tile.n ?"},
		{Name: "heads in reverse", Old: "(r - i * group) * d : -1;", New: "(group - 1 - (r - i * group)) * d : -1;"},

		// attention.cuh
		{Name: "bank conflicts", Old: "kRowBytes = D * 2 + 16;", New: "kRowBytes = D * 2;"},
		{Name: "columns beyond the head", Old: "first >= 0 && c * 8 < src.d;", New: "first >= 0 && c * 8 <= src.d;"},
		{Name: "elements swapped where not aligned", Old: "p[2].bits | (u32)p[3].bits", New: "p[3].bits | (u32)p[2].bits"},
		{Name: "A's quarters swapped", Old: "row + (j & 1) * 8 + (lane() & 7), kk * 2 + (j >> 1)", New: "row + (j >> 1) * 8 + (lane() & 7), kk * 2 + (j & 1)"},
		{Name: "B's quarters swapped", Old: "row + (j >> 1) * 8 + (lane() & 7), kk * 2 + (j & 1)", New: "row + (j & 1) * 8 + (lane() & 7), kk * 2 + (j >> 1)"},
		{Name: "values' quarters swapped", Old: "cc * 2 + (j >> 1)", New: "cc * 2 + (j & 1)"},
		{Name: "weights swapped", Old: "p[k][1] = pack_bf16(s[2 * k][2], s[2 * k][3]);", New: "p[k][1] = pack_bf16(s[2 * k][3], s[2 * k][2]);"},
		{Name: "maximum of half a row", Old: "    m = max(m, shuffle_xor(m, 2));\n", New: ""},
		{Name: "sum of half a row", Old: "    l = l + shuffle_xor(l, 2);\n", New: ""},
		{Name: "a split that is not seen counts", Old: "m == -kInfinity ? 0.0f : m,", New: "m,"},
		{Name: "factors of a merge swapped", Old: "return fma(own, o, before * O);", New: "return fma(before, o, own * O);"},
		{Name: "pair not aligned", Old: "return (((u64)p | (u64)stride * 2) & 3) == 0;", New: "return (u64)p != 1 && stride >= 0;"},
	}, checkSmallForward)
}

func TestAttentionBackwardDefects(t *testing.T) {
	check := func(d *kerneltest.Device) error {
		for _, p := range []*attentionProblem{
			newAttention(30, true, 3, 1, 32, prompt(65, 2), misaligned),
			newAttention(31, true, 4, 2, 64, partial, aligned),
			newAttention(32, true, 2, 2, 48, prompt(70, 64, 3), aligned),
		} {
			if err := newBackward(p).check(d); err != nil {
				return err
			}
		}
		return nil
	}
	defects(t, "attention_backward attention_simt", []kerneltest.Defect{
		{Name: "dQ: values not waited for", Old: "cp_async_wait<0>();\n    block_sync();  // the values", New: "block_sync();  // the values"},
		{Name: "dQ: no barrier after the values", Old: "block_sync();  // the values are", New: "// the values are"},
		{Name: "dQ: no barrier after the keys", Old: "block_sync();  // the keys are", New: "// the keys are"},
		{Name: "dQ: sees the next key", Old: "key > pos[e / 2]", New: "key > pos[e / 2] + 1"},
		{Name: "dQ: delta of the wrong head", Old: "(a.kv_heads * group) + first_head + g];", New: "(a.kv_heads * group) + first_head];"},
		{Name: "no barrier after dO", Old: "block_sync();  // dO and delta", New: "// dO and delta"},
		{Name: "no barrier after the queries", Old: "block_sync();  // queries and LSE", New: "// queries and LSE"},
		{Name: "dO replaced while others read", Old: "block_sync();  // all are done with dO", New: "// all are done with dO"},
		{Name: "queries not waited for", Old: "cp_async_wait<0>();\n    block_sync();  // queries", New: "block_sync();  // queries"},
		{Name: "keys before the prefix", Old: "run.key_from > tile.row0 || ", New: ""},
		{Name: "keys beyond the prefix", Old: "run.key_to < tile.row0 + tile.n ||", New: ""},
		{Name: "queries before the key", Old: " ||\n                    run.row0 + by_group(first) < tile.row0 + tile.n - 1;", New: ";"},
		{Name: "keys of the wrong half", Old: "key + e / 2 * 8)", New: "key)"},
		{Name: "runs end early", Old: "if (first < run().n * group) return;", New: "if (first + 64 < run().n * group) return;"},
		{Name: "delta not renewed", Old: "  load_stat(delta, a.delta", New: "  if (p.first == 0) load_stat(delta, a.delta"},
		{Name: "dK not scaled", Old: "store_tile<D>(sum_k, a.scale,", New: "store_tile<D>(sum_k, 1.0f,"},
		{Name: "half of the statistics", Old: "if (r >= 64) return;", New: "if (r >= 32) return;"},
	}, check)
}

func TestDecodeAttentionDefects(t *testing.T) {
	check := func(d *kerneltest.Device) error {
		for _, p := range []*decodeProblem{
			newDecode(40, true, 2, 1, 16, aligned, sequence{n: 0}, sequence{n: -1}, sequence{n: 63}, sequence{n: 64}),
			newDecode(41, true, 48, 2, 64, misaligned, sequence{n: 140}, sequence{130, 0, 128}, sequence{70, 0, 66}, sequence{80, 0, 64}),
		} {
			if err := p.check(d); err != nil {
				return err
			}
		}
		return checkPlan(d)
	}
	defects(t, "decode_attention attention", []kerneltest.Defect{
		{Name: "shared while it is written", Old: "p >= first + kSplit) {", New: "p >= first + kSplit - 1) {"},
		{Name: "one page decides", Old: "two = pages[1];", New: "two = 0;"},
		{Name: "pages not waited for", Old: "block_sync();  // all pages", New: "// all pages"},
		{Name: "leaders not waited for", Old: "block_sync();  // all leaders", New: "// all leaders"},
		{Name: "beginnings not waited for", Old: "block_sync();  // all beginnings", New: "// all beginnings"},
		{Name: "items too long", Old: "min(rows_per_item, size - rank)", New: "size - rank"},
		{Name: "rows beyond the table", Old: "position / kPage < columns;", New: "position / kPage <= columns;"},
		{Name: "new key not stored at a split's end", Old: "if (last < kSplit) {", New: "if (last < kSplit - 1) {"},
		{Name: "new key read before it is stored", Old: "block_sync();  // the copies", New: "// the copies"},
		{Name: "copies not waited for", Old: "    cp_async_wait<0>();\n    block_sync();  // queries, keys", New: "    block_sync();  // queries, keys"},
		{Name: "no barrier after the copies", Old: "block_sync();  // queries, keys", New: "// queries, keys"},
		{Name: "no barrier after the scores", Old: "block_sync();  // all scores", New: "// all scores"},
		{Name: "next item too early", Old: "block_sync();  // all are done with keys", New: "// all are done with keys"},
		{Name: "key beyond the position", Old: "col + 1 <= last ?", New: "col <= last ?"},
		{Name: "reads unseen slots", Old: "min(last + 1, kSplit)", New: "kSplit"},
		{Name: "second page is the first", Old: "r < kPage ? page0 : page1", New: "r < kSplit ? page0 : page1"},
		{Name: "a query of the next row", Old: "rows[i / group] * stride", New: "rows[(i + 1) / group] * stride"},
		{Name: "last split not merged", Old: "p / kSplit + 1 : 0", New: "p / kSplit : 0"},
		{Name: "items of later splits lost", Old: "place = i - base - shuffle(sum - count, at);", New: "place = i - base;"},
		{Name: "negative slots written", Old: "if (slot < 0) return;", New: "if (slot < -1) return;"},
	}, check)
}
