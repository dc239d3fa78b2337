package kernels_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

func TestScatterEmulated(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error { return checkScatter(d, 2600) })
}

// checkScatter compares with a loop in ascending order, to the bit. With many rows
// ids meet over more than one stretch that a block looks at.
func checkScatter(d *kerneltest.Device, most int) error {
	r := rand.New(rand.NewPCG(21, 22))
	for i, s := range [][3]int{{1, 1, 1}, {40, 9, 6}, {150, 513, 4}, {most, 6, 700}, {70, 30, 3}} {
		rows, cols, limit, l := s[0], s[1], s[2], placings[i%3]
		ids := make([]int32, rows)
		for t := range ids {
			switch t % 4 {
			case 0:
				ids[t] = int32(limit - 1)
			case 1, 3:
				ids[t] = int32(r.IntN(limit))
			case 2:
				ids[t] = []int32{-1, int32(limit)}[t/4%2]
			}
		}
		table := matInOut(d, kernels.F32, l, limit, cols, normal(r, limit*cols))
		src := matIn(d, kernels.F32, placings[(i+2)%3], rows, cols, normal(r, rows*cols))
		want := append([]float32(nil), table.v...)
		for t, id := range ids {
			if id < 0 || int(id) >= limit {
				continue
			}
			for c := range cols {
				want[int(id)*cols+c] += src.v[t*cols+c]
			}
		}
		k := kernels.ScatterAdd()
		x, y := k.Grid(rows, cols)
		if err := d.Launch(k.Spec, [3]int{x, y}, table.p(), src.p(), ints(d, ids), rows, cols, limit, table.stride, src.stride); err != nil {
			return err
		}
		if err := table.exactly("table", want); err != nil {
			return fmt.Errorf("%v: %w", s, err)
		}
	}
	return nil
}

func TestScatterEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "scatter", []kerneltest.Defect{
		{Name: "every row is an owner", Old: "if (match(ids, end - kScan, 0, end, id)) return;", New: "if (match(ids, end - kScan, 0, end, id) && cols < 0) return;"},
		{Name: "a short look back", Old: "for (int end = mine; end > 0; end -= kScan)", New: "for (int end = mine; end > mine - kScan && end > 0; end -= kScan)"},
		{Name: "itself counts as earlier", Old: "match(ids, end - kScan, 0, end, id)) return", New: "match(ids, end - kScan + 1, 0, end + 1, id)) return"},
		{Name: "ids beyond the table", Old: "id < 0 || id >= limit", New: "id < 0 || id > limit"},
		{Name: "descending", Old: "kList + (k0 + k) * 4", New: "kList + (count - 1 - k0 - k) * 4"},
		{Name: "answers overwritten early", Old: "    block_sync();  // masks, answers and list have been read: they may be overwritten\n", New: ""},
		{Name: "list read early", Old: "    count += (u32)__builtin_popcount(mask);\n  }\n  block_sync();", New: "    count += (u32)__builtin_popcount(mask);\n  }"},
		{Name: "columns beyond the row", Old: "if (i < left) to[i] = sum[i];", New: "if (i < left + 1) to[i] = sum[i];"},
		{Name: "misaligned rows", Old: " && aligned16(src) && src_stride % 4 == 0", New: ""},
	}, func(d *kerneltest.Device) error { return checkScatter(d, 2600) })
}
