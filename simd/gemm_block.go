//go:build !noasm && amd64

package simd

import "unsafe"

// Blocking around the micro-kernels, after Goto and van de Geijn (2008) with
// the roles of the operands exchanged: a slice of one B panel (kc×16, 20 KB)
// stays in the first-level cache while the rows of a block of A (mc×kc, under
// 400 KB, from the second level) pass by. C is stored and reloaded between
// blocks of K, in float32, which leaves every chain as it was.
const (
	tileRows  = 6
	maxKC     = 320
	blockA    = 96 << 10 // elements of an A block
	directMax = 48       // below so many rows, B is not worth copying
)

// zeros is the start of a chain that has none.
var zeros [4 * PanelWidth]float32

// job is one product C = init + A·B in the units of the micro-kernels: strides
// in bytes, see gemm_avx2_amd64.s.
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

// gemmTiles is the product over an unpacked B.
func gemmTiles(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	if m == 0 || n == 0 {
		return
	}
	g := newJob(m, n, k, a, rsa, csa, c, ldc, bias, st)
	g.b = unsafe.Pointer(unsafe.SliceData(b))
	g.ldb, g.bps = uintptr(4*ldb), 4*PanelWidth
	if m < directMax {
		whole := n / PanelWidth * PanelWidth
		if whole == n {
			g.run(nil)
			return
		}
		if whole > 0 {
			g.n = whole
			g.run(nil)
			g.n = n - whole
			g.b = unsafe.Add(g.b, 4*whole)
			g.c = unsafe.Add(g.c, 4*whole)
			g.init = unsafe.Add(g.init, uintptr(whole)*g.initStep)
		}
	}
	g.runPacking()
}

// gemmPackedTiles is the product over a packed B.
func gemmPackedTiles(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	if m == 0 || n == 0 {
		return
	}
	g := newJob(m, n, k, a, rsa, csa, c, ldc, bias, st)
	g.b = unsafe.Pointer(unsafe.SliceData(packed))
	g.ldb, g.bps = 4*PanelWidth, uintptr(4*PanelWidth*k)
	g.run(nil)
}

// runPacking runs the job with each slice of a B panel copied to the stack
// before use, with zeros beyond n. It is apart from run because of the size of
// its frame.
//
//go:noinline
func (g *job) runPacking() {
	const line = 16
	var buf [maxKC*PanelWidth + line]float32
	skip := -(uintptr(unsafe.Pointer(&buf)) >> 2) % line
	g.run((*panelSlice)(unsafe.Pointer(&buf[skip])))
}

type panelSlice [maxKC * PanelWidth]float32

// run is the loop nest. With buf, B is copied there slice by slice; without, B
// must hold whole panels.
func (g *job) run(buf *panelSlice) {
	kc, mc, group := g.k, g.m, 1
	if g.m <= tileRows && buf == nil {
		// One tile of rows reads B once: only latency matters.
		switch {
		case g.m == 1:
			group = 4
		case g.m <= 3:
			group = 2
		}
	} else {
		kc = evenBlock(g.k, maxKC)
		mc = max(tileRows, blockA/max(kc, 1)/tileRows*tileRows)
	}
	for i0 := 0; i0 < g.m; i0 += mc {
		rows := min(mc, g.m-i0)
		a := unsafe.Add(g.a, uintptr(i0)*g.rsa)
		c := unsafe.Add(g.c, uintptr(i0)*g.ldc)
		init, ldi, step := unsafe.Add(g.init, uintptr(i0)*g.ldi), g.ldi, g.initStep
		for p0 := 0; ; {
			kb := min(kc, g.k-p0)
			ak := unsafe.Add(a, uintptr(p0)*g.csa)
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
				if buf != nil {
					copyPanel(buf, b, ldb, kb, cols)
					b, ldb = unsafe.Pointer(buf), 4*PanelWidth
				}
				cj := unsafe.Add(c, 4*j)
				ij := unsafe.Add(init, uintptr(j)*step)
				if cols < PanelWidth {
					tailColumn(rows, cols, kb, ak, g.rsa, g.csa, b, ldb, cj, g.ldc, ij, ldi)
				} else {
					column(rows, panels, kb, ak, g.rsa, g.csa, b, ldb, g.bps, cj, g.ldc, ij, ldi)
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
	blocks := max(1, (n+limit-1)/limit)
	return (n + blocks - 1) / blocks
}

// nextRows chooses the rows of the next tile so that the last ones are not left
// with few accumulators.
func nextRows(left int) int {
	switch {
	case left >= 11 || left <= 6:
		return min(left, tileRows)
	case left <= 8:
		return 4
	default:
		return 5
	}
}

// column runs the tiles of one group of panels.
func column(rows, panels, k int, a unsafe.Pointer, rsa, csa uintptr, b unsafe.Pointer, ldb, bps uintptr,
	c unsafe.Pointer, ldc uintptr, init unsafe.Pointer, ldi uintptr) {
	for rows > 0 {
		r := nextRows(rows)
		tile(r, panels, k, (*float32)(a), rsa, csa, (*float32)(b), ldb, bps, (*float32)(c), ldc, (*float32)(init), ldi)
		rows -= r
		a = unsafe.Add(a, uintptr(r)*rsa)
		c = unsafe.Add(c, uintptr(r)*ldc)
		init = unsafe.Add(init, uintptr(r)*ldi)
	}
}

// tailColumn runs the tiles of a last panel of fewer than 16 columns through a
// scratch tile. The panel itself is padded.
func tailColumn(rows, cols, k int, a unsafe.Pointer, rsa, csa uintptr, b unsafe.Pointer, ldb uintptr,
	c unsafe.Pointer, ldc uintptr, init unsafe.Pointer, ldi uintptr) {
	var t [tileRows][PanelWidth]float32
	for rows > 0 {
		r := nextRows(rows)
		for i := range r {
			copy(t[i][:cols], unsafe.Slice((*float32)(unsafe.Add(init, uintptr(i)*ldi)), cols))
		}
		tile(r, 1, k, (*float32)(a), rsa, csa, (*float32)(b), ldb, 0, &t[0][0], 4*PanelWidth, &t[0][0], 4*PanelWidth)
		for i := range r {
			copy(unsafe.Slice((*float32)(unsafe.Add(c, uintptr(i)*ldc)), cols), t[i][:cols])
		}
		rows -= r
		a = unsafe.Add(a, uintptr(r)*rsa)
		c = unsafe.Add(c, uintptr(r)*ldc)
		init = unsafe.Add(init, uintptr(r)*ldi)
	}
}

// copyPanel copies k rows of cols ≤ 16 columns into buf, zero beyond cols.
func copyPanel(buf *panelSlice, b unsafe.Pointer, ldb uintptr, k, cols int) {
	if cols == PanelWidth {
		for p := range k {
			*(*[PanelWidth]float32)(unsafe.Pointer(&buf[p*PanelWidth])) = *(*[PanelWidth]float32)(b)
			b = unsafe.Add(b, ldb)
		}
		return
	}
	for p := range k {
		row := buf[p*PanelWidth:][:PanelWidth]
		copy(row, unsafe.Slice((*float32)(b), cols))
		clear(row[cols:])
		b = unsafe.Add(b, ldb)
	}
}
