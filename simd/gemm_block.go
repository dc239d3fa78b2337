//go:build !noasm && (amd64 || arm64)

package simd

import (
	"sync"
	"unsafe"
)

// Blocking around the micro-kernels, after Goto and van de Geijn (2008) with
// the roles of the operands exchanged: a slice of one or two B panels (kc×16
// each) stays near while the rows of a block of A (mc×kc, under 400 KB, from the
// second level) pass by. With AVX2 the slice stays in the first-level cache; a
// wide tile leaves time to read it from the second, so that it is longer there and
// C less often in the way. C is stored and reloaded between blocks of K, in
// float32, which leaves every chain as it was.
//
// A slice of B is copied together where enough rows follow to pay for it, and a
// block of a transposed A where enough columns do: its elements for one tile are
// a stride apart from step to step of k, often in the same few cache sets.
const (
	maxTileRows = 12       // of any instruction set
	maxKC       = 960      // of any instruction set
	blockA      = 96 << 10 // elements of an A block
	directMax   = 48       // below so many rows, B is not worth copying

	// What a copy of a transposed A costs per step falls with N, what it gains
	// rises with the stride: from so many rows and so large a product of the two
	// (2 KB · 128) it pays.
	copyAMin    = 32
	copyAStride = 256 << 10

	// For few rows B comes from memory rather than from a cache: it is then read
	// in long runs, whose slices of a panel (128 KB) the second level holds.
	longM  = 24
	longKC = 2048

	// How far ahead of a step its row of B is asked for, in steps: 100 ns, the latency
	// of memory, at the pace of a tile of four rows.
	prefetchSteps = 96
)

// scratch holds the copies of one call.
type scratch struct {
	panels [2 * maxKC * PanelWidth]float32
	block  [blockA + maxTileRows*maxKC]float32
}

// scratches keeps them between calls: 560 KB per concurrent call.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

// zeros is the start of a chain that has none.
var zeros [4 * PanelWidth]float32

// job is one product C = init + A·B in the units of the micro-kernels: strides
// in bytes, see gemm_avx2_amd64.s or gemm_neon_arm64.s.
type job struct {
	m, n, k  int
	a        unsafe.Pointer
	rsa, csa uintptr
	b        unsafe.Pointer
	ldb, bps uintptr // from row to row of B, and from panel to panel
	c        unsafe.Pointer
	ldc      uintptr
	init     unsafe.Pointer
	ldi      uintptr
	initStep uintptr // init's displacement from column to column: 4, or 0 for zeros
	bf16     bool    // b holds packed BF16, in pairs of rows
}

func newJob(m, n, k int, a []float32, rsa, csa int, c []float32, ldc int, bias []float32, st start) job {
	g := job{
		m: m, n: n, k: k,
		a: unsafe.Pointer(unsafe.SliceData(a)), rsa: uintptr(4 * rsa), csa: uintptr(4 * csa),
		c: unsafe.Pointer(unsafe.SliceData(c)), ldc: uintptr(4 * ldc),
	}
	switch st {
	case startZero:
		g.init = unsafe.Pointer(&zeros)
	case startC:
		g.init, g.ldi, g.initStep = g.c, g.ldc, 4
	case startBias:
		g.init, g.initStep = unsafe.Pointer(unsafe.SliceData(bias)), 4
	}
	return g
}

// gemmTiles is the product over an unpacked B; no dimension is zero.
func gemmTiles(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	g := newJob(m, n, k, a, rsa, csa, c, ldc, bias, st)
	g.b = unsafe.Pointer(unsafe.SliceData(b))
	g.ldb, g.bps = uintptr(4*ldb), 4*PanelWidth
	if m < directMax {
		whole := n / PanelWidth * PanelWidth
		if whole > 0 {
			g.n = whole
			g.run(false)
		}
		if whole == n {
			return
		}
		g.n = n - whole
		g.b = unsafe.Add(g.b, 4*whole)
		g.c = unsafe.Add(g.c, 4*whole)
		g.init = unsafe.Add(g.init, uintptr(whole)*g.initStep)
	}
	g.run(true)
}

// gemmPackedTiles is the product over a packed B; no dimension is zero.
func gemmPackedTiles(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	g := newJob(m, n, k, a, rsa, csa, c, ldc, bias, st)
	g.b = unsafe.Pointer(unsafe.SliceData(packed))
	g.ldb, g.bps = 4*PanelWidth, uintptr(4*PanelWidth*k)
	g.run(false)
}

// gemmPackedBF16Tiles is the product over a packed B in BF16; no dimension is zero.
func gemmPackedBF16Tiles(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32, st start) {
	g := newJob(m, n, k, a, rsa, csa, c, ldc, bias, st)
	g.b, g.bf16 = unsafe.Pointer(unsafe.SliceData(packed)), true
	g.ldb, g.bps = 2*PanelWidth, uintptr(2*PanelWidth*(k+k%2))
	g.run(widensBF16(m))
}

// run is the loop nest. With copyB, B is packed slice by slice, with zeros
// beyond n, or widened; without, B must hold whole panels.
func (g *job) run(copyB bool) {
	copyA := g.m >= copyAMin && g.csa != 4 && g.csa*uintptr(g.n) >= copyAStride
	var s *scratch
	if copyA || copyB {
		s = scratches.Get().(*scratch)
		defer scratches.Put(s)
	}
	kc, mc, rowsMax := g.k, g.m, tileRows()
	if g.m > rowsMax || copyB {
		if kc = evenBlock(g.k, blockDepth()); g.m <= longM && !copyB {
			kc = evenBlock(g.k, longKC)
		}
		if g.bf16 {
			kc += kc % 2 // blocks begin with a pair
		}
		mc = max(rowsMax, blockA/kc/rowsMax*rowsMax)
	}
	group := panelGroup(g.m)
	if copyB {
		group = min(group, 2)
	}
	for i0 := 0; i0 < g.m; i0 += mc {
		rows := min(mc, g.m-i0)
		a := unsafe.Add(g.a, uintptr(i0)*g.rsa)
		c := unsafe.Add(g.c, uintptr(i0)*g.ldc)
		init, ldi, step := unsafe.Add(g.init, uintptr(i0)*g.ldi), g.ldi, g.initStep
		for p0 := 0; ; {
			kb := min(kc, g.k-p0)
			depth := kb // of a copied panel
			if g.bf16 {
				depth += kb % 2
			}
			t := tiles{k: kb, a: unsafe.Add(a, uintptr(p0)*g.csa), rsa: g.rsa, csa: g.csa, step: g.rsa, bf16: g.bf16 && !copyB, next: !copyB && g.bps > g.ldb}
			if copyA {
				t.copyBlock(s, rows)
			}
			for j := 0; j < g.n; {
				panels := 1
				if n := g.n - j; n >= group*PanelWidth {
					panels = group
				} else if group == 4 && n >= 2*PanelWidth {
					panels = 2
				}
				b := unsafe.Add(g.b, uintptr(j/PanelWidth)*g.bps+uintptr(p0)*g.ldb)
				ldb := g.ldb
				cols := min(panels*PanelWidth, g.n-j)
				bps := g.bps
				if copyB {
					for q := range panels {
						panel := s.panels[q*depth*PanelWidth:][:depth*PanelWidth]
						from := unsafe.Add(b, uintptr(q)*bps)
						if g.bf16 {
							widenPairs(&panel[0], (*uint16)(from), depth/2)
						} else {
							copyPanel(panel, from, ldb, kb, min(cols, PanelWidth))
						}
					}
					b, ldb, bps = unsafe.Pointer(&s.panels), 4*PanelWidth, uintptr(4*PanelWidth*depth)
				}
				cj := unsafe.Add(c, 4*j)
				ij := unsafe.Add(init, uintptr(j)*step)
				if cols < PanelWidth {
					t.tail(rows, cols, b, ldb, cj, g.ldc, ij, ldi)
				} else {
					t.column(rows, panels, b, ldb, bps, cj, g.ldc, ij, ldi)
				}
				j += cols
			}
			if p0 += kb; p0 >= g.k {
				break
			}
			init, ldi, step = c, g.ldc, 4
		}
	}
}

// evenBlock splits n into the fewest blocks of at most limit, and returns the
// size that makes them even.
func evenBlock(n, limit int) int {
	blocks := (n + limit - 1) / limit
	return (n + blocks - 1) / blocks
}

// tiles is a block of A cut into tiles of rows.
type tiles struct {
	k        int
	a        unsafe.Pointer
	rsa, csa uintptr // within a tile
	step     uintptr // bytes per row from tile to tile
	packed   bool    // a tile of r rows is [k][r], with r instead of csa
	bf16     bool    // b holds BF16
	next     bool    // the panels after those at hand follow in memory
}

// steps returns how many steps a micro-kernel takes, and how far apart they are in a
// panel whose rows are ldb bytes apart.
func (t *tiles) steps(ldb uintptr) (count, apart uintptr) {
	if t.bf16 {
		return uintptr(t.k / 2), 2 * ldb
	}
	return uintptr(t.k), ldb
}

// copyBlock packs the block, tile after tile.
func (t *tiles) copyBlock(s *scratch, rows int) {
	for i := 0; i < rows; {
		r := nextRows(rows - i)
		src := unsafe.Add(t.a, uintptr(i)*t.rsa)
		if t.rsa == 4 && r >= copyTilesMin {
			count := 1
			for left := rows - i - r; left > 0 && nextRows(left) == r; left -= r {
				count++
			}
			copyTiles(r, &s.block[i*t.k], (*float32)(src), t.csa, t.k, count)
			i += r * count
			continue
		}
		dst := s.block[i*t.k:][:r*t.k]
		for p := range t.k {
			for q := range r {
				dst[p*r+q] = *(*float32)(unsafe.Add(src, uintptr(p)*t.csa+uintptr(q)*t.rsa))
			}
		}
		i += r
	}
	t.a, t.rsa, t.step, t.packed = unsafe.Pointer(&s.block), 4, uintptr(4*t.k), true
}

// strideK is the distance between steps of k in a tile of r rows.
func (t *tiles) strideK(r int) uintptr {
	if t.packed {
		return uintptr(4 * r)
	}
	return t.csa
}

// tile runs the micro-kernel for r rows from a on.
func (t *tiles) tile(r, panels int, a, b unsafe.Pointer, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	if t.bf16 {
		tileBF16(r, panels, t.k, (*float32)(a), t.rsa, t.strideK(r), (*uint16)(b), bps, c, ldc, init, ldi, ahead, pace)
		return
	}
	tile(r, panels, t.k, (*float32)(a), t.rsa, t.strideK(r), (*float32)(b), ldb, bps, c, ldc, init, ldi, ahead, pace)
}

// column runs the tiles over one group of panels. While several tiles pass over it,
// they ask for the next group, each for its part and all evenly, so that memory is
// read while they compute. Each pointer is made from its base when it is needed: one
// that runs past the end of its slice must not exist where the garbage collector
// looks.
func (t *tiles) column(rows, panels int, b unsafe.Pointer, ldb, bps uintptr,
	c unsafe.Pointer, ldc uintptr, init unsafe.Pointer, ldi uintptr) {
	steps, pace := t.steps(ldb)
	ahead, part := prefetchSteps*pace, uintptr(0)
	if count := uintptr(rows+tileRows()-1) / uintptr(tileRows()); count > 1 && t.next {
		pace /= count
		ahead, part = uintptr(panels)*bps, pace*steps
	}
	for i := 0; i < rows; {
		r := nextRows(rows - i)
		u := uintptr(i)
		t.tile(r, panels, unsafe.Add(t.a, u*t.step), b, ldb, bps,
			(*float32)(unsafe.Add(c, u*ldc)), ldc, (*float32)(unsafe.Add(init, u*ldi)), ldi, ahead, pace)
		ahead += part
		i += r
	}
}

// tail runs the tiles over a last panel of fewer than 16 columns through a
// scratch tile. The panel itself is padded.
func (t *tiles) tail(rows, cols int, b unsafe.Pointer, ldb uintptr,
	c unsafe.Pointer, ldc uintptr, init unsafe.Pointer, ldi uintptr) {
	var s [maxTileRows][PanelWidth]float32
	_, pace := t.steps(ldb)
	for i := 0; i < rows; {
		r := nextRows(rows - i)
		for q := range r {
			copy(s[q][:cols], unsafe.Slice((*float32)(unsafe.Add(init, uintptr(i+q)*ldi)), cols))
		}
		t.tile(r, 1, unsafe.Add(t.a, uintptr(i)*t.step), b, ldb, 0, &s[0][0], 4*PanelWidth, &s[0][0], 4*PanelWidth, prefetchSteps*pace, pace)
		for q := range r {
			copy(unsafe.Slice((*float32)(unsafe.Add(c, uintptr(i+q)*ldc)), cols), s[q][:cols])
		}
		i += r
	}
}

// copyPanel packs k rows of cols ≤ 16 columns, zero beyond cols.
func copyPanel(dst []float32, b unsafe.Pointer, ldb uintptr, k, cols int) {
	if cols == PanelWidth {
		copyRows(&dst[0], (*float32)(b), ldb, k)
		return
	}
	for p := range k {
		row := dst[p*PanelWidth:][:PanelWidth]
		copy(row, unsafe.Slice((*float32)(unsafe.Add(b, uintptr(p)*ldb)), cols))
		clear(row[cols:])
	}
}
