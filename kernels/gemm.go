package kernels

import (
	"fmt"
	"math"
)

// Family is a kind of tensor-core instruction. All products of a device's forward
// use one family, at every number of rows: two families may round differently.
type Family uint8

// The families.
const (
	MMA   Family = iota // mma.sync: compute capability 8.0 and later
	WGMMA               // wgmma: compute capability 9.0 alone (sm_90a)
)

// Chip is what the choice of a kernel depends on.
type Chip struct {
	Arch   Arch
	SMs    int // multiprocessors
	Family Family
}

// Matrix is a row-major matrix in device memory: the address of its first element,
// and the elements from one row to the next. The zero Matrix is absent.
type Matrix struct {
	Addr   uint64
	Stride int
}

// ProductOp says how the factors of a Product lie and what is made of the result.
type ProductOp uint8

// The products, for an engine's linear maps y = x·Wᵀ of T rows from K to N columns.
const (
	// Forward is C[M,N] = A[M,K]·B[N,K]ᵀ + Bias + R: Y = X·Wᵀ with M = T.
	Forward ProductOp = iota
	// ForwardGated is C[M,N] = A[M,K]·B[N,K]ᵀ and Y[M,N/2] = silu(gate)·up, where the
	// first N/2 columns of C are the gates. bf16 and family MMA only; see GatedFits.
	ForwardGated
	// GradInput is C[M,N] = A[M,K]·B[K,N] + R: DX = DY·W with M = T, where the
	// product's N and K are the map's K and N.
	GradInput
	// GradWeight is C[M,N] = A[K,M]ᵀ·B[K,N] + R: DW = DYᵀ·X with K = T, where the
	// product's M and N are the map's N and K.
	GradWeight
)

var productNames = [...]string{"nt", "gated", "nn", "tn"}

// String gives the part of the entry points' names.
func (o ProductOp) String() string { return productNames[o] }

// Product is a matrix product with its epilogue: what is asked of Plan. C may be
// added to by giving it as R too. Contracts are in gemm_bf16.cu, gemm_bf16_grad.cu
// and gemm_f32.cu.
type Product struct {
	Op      ProductOp
	Factors Type // of A and B
	Result  Type // of C and R; F32 where the factors are
	M, N, K int  // M, N ≥ 1; K ≥ 0
	A, B, C Matrix
	R       Matrix // added to the product; may be C; absent: nothing is added
	Y       Matrix // of ForwardGated: [M, N/2] of the type of C
	Bias    uint64 // address of N F32, of Forward; 0: none
	// Counters is the address of NumCounters u32, all zero. A launch leaves them
	// zero, so launches of one stream share them. Without them (NumCounters 0) a
	// GradWeight is not split, which is slower where the weight is small.
	Counters    uint64
	NumCounters int
}

// maxParams is the most parameters that a product's kernel has.
const maxParams = 16

// Launch is a kernel with everything that a launch of it needs.
type Launch struct {
	Spec *Spec
	Grid int // blocks, in x
	// Args has the bits of each argument, one for each letter of Spec.Params: an
	// address, a 32-bit integer in the low half, or for a tensor map its index in Maps.
	Args [maxParams]uint64
	Maps [2]Map
}

// args fills in the arguments, by the letters of the parameters.
func (l *Launch) args(v ...uint64) {
	if len(v) != len(l.Spec.Params) {
		panic("kernels: arguments do not fit the parameters")
	}
	copy(l.Args[:], v)
}

// GatedFits reports whether p, a ForwardGated, can be planned: it asks for bf16,
// aligned rows and a number of gates that is a multiple of 4. Where it does not
// fit, Forward and the SwiGLU kernel give the same bits.
func (p *Product) GatedFits() bool {
	return p.Factors == BF16 && p.Result == BF16 && p.N%8 == 0 && p.R.Addr == 0 && p.Bias == 0 && p.aligned() &&
		rowsAligned(p.C, p.M, 8, 2) && rowsAligned(p.Y, p.M, 8, 2)
}

// aligned reports whether the rows of both factors start at multiples of 16 bytes.
func (p *Product) aligned() bool {
	rowsA, rowsB := p.M, p.N
	switch p.Op {
	case GradInput:
		rowsB = p.K
	case GradWeight:
		rowsA, rowsB = p.K, p.K
	}
	return rowsAligned(p.A, rowsA, 16, 2) && rowsAligned(p.B, rowsB, 16, 2)
}

// rowsAligned reports whether each of a number of rows starts at a multiple of
// align bytes.
func rowsAligned(m Matrix, rows, align, size int) bool {
	return m.Addr%uint64(align) == 0 && (rows <= 1 || m.Stride*size%align == 0)
}

// check returns an error where the product is not one that the kernels compute.
func (p *Product) check() error {
	colsA, colsB := p.K, p.K
	switch p.Op {
	case GradInput:
		colsB = p.N
	case GradWeight:
		colsA, colsB = p.M, p.N
	}
	switch {
	case p.M < 1 || p.N < 1 || p.K < 0:
		return fmt.Errorf("kernels: product %s: M = %d, N = %d, K = %d: M and N must be at least 1, K at least 0", p.Op, p.M, p.N, p.K)
	case p.C.Stride < p.N || p.A.Stride < colsA || p.B.Stride < colsB || p.R.Addr != 0 && p.R.Stride < p.N:
		return fmt.Errorf("kernels: product %s of M = %d, N = %d, K = %d: strides %d, %d and %d (and %d of what is added): one is smaller than its row",
			p.Op, p.M, p.N, p.K, p.C.Stride, p.A.Stride, p.B.Stride, p.R.Stride)
	case p.Factors == F32 && p.Result != F32:
		return fmt.Errorf("kernels: product %s: factors in F32 have their result in F32", p.Op)
	case p.Bias != 0 && p.Op != Forward:
		return fmt.Errorf("kernels: product %s: a bias belongs to the forward", p.Op)
	case p.Op == ForwardGated && !p.GatedFits():
		return fmt.Errorf("kernels: product %s: the operands do not fit (GatedFits)", p.Op)
	case p.Op == ForwardGated && p.Y.Stride < p.N/2:
		return fmt.Errorf("kernels: product %s: Y has stride %d, smaller than its row of %d", p.Op, p.Y.Stride, p.N/2)
	case max(p.M, p.N, p.K, p.A.Stride, p.B.Stride, p.C.Stride, p.R.Stride, p.Y.Stride) > math.MaxInt32-512 ||
		tiles(p.M, 16) > math.MaxInt32/64/tiles(p.N, 16):
		return fmt.Errorf("kernels: product %s of M = %d, N = %d, K = %d: a size is too large", p.Op, p.M, p.N, p.K)
	}
	return nil
}

// Plan chooses the kernel that computes p on a chip, and says how to launch it.
// It depends on nothing else, allocates nothing, and never changes a forward's
// bits: all kernels that it chooses from give the same.
func (p *Product) Plan(c Chip) (Launch, error) {
	if err := p.check(); err != nil {
		return Launch{}, err
	}
	if p.Factors == F32 {
		return p.planF32(), nil
	}
	if p.Op == ForwardGated && c.Family != MMA {
		return Launch{}, fmt.Errorf("kernels: product %s: there is no such kernel of the chip's family", p.Op)
	}
	t, splits := p.choose(c)
	return p.launch(t, splits, c.SMs*t.resident(c.Arch)), nil
}

// Candidates returns a launch for every kernel that Plan may choose for p on any
// chip whose products are of a family, with K cut into a number of parts (1 for all
// but GradWeight with an F32 result). It is for tests and for measurements.
func (p *Product) Candidates(f Family, splits int) ([]Launch, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.Factors == F32 {
		return []Launch{p.planF32()}, nil
	}
	var all []Launch
	for i := range products().tiles[p.Op] {
		if t := &products().tiles[p.Op][i]; p.fits(t, f) {
			all = append(all, p.launch(t, splits, fewBlocks))
		}
	}
	return all, nil
}

// fewBlocks is how many blocks Candidates lets a device hold at once: so few that
// those of persistent kernels go on to further tiles.
const fewBlocks = 2

// launch says how to launch a kernel on a device that holds a number of its blocks at
// once.
func (p *Product) launch(t *tile, splits, resident int) Launch {
	if t.Family == WGMMA {
		return p.launchWGMMA(t, splits, resident)
	}
	l := Launch{Spec: &t.Spec, Grid: t.blocks(p.M, p.N) * splits}
	flag := uint64(p.Result) // F32 is 0, BF16 is 1
	m, n, k := uint64(p.M), uint64(p.N), uint64(p.K)
	lda, ldb, ldc, ldr := uint64(p.A.Stride), uint64(p.B.Stride), uint64(p.C.Stride), uint64(p.R.Stride)
	switch p.Op {
	case Forward:
		l.args(p.C.Addr, p.A.Addr, p.B.Addr, p.Bias, p.R.Addr, m, n, k, ldc, lda, ldb, ldr, flag)
	case ForwardGated:
		l.args(p.C.Addr, p.Y.Addr, p.A.Addr, p.B.Addr, m, n/2, k, ldc, uint64(p.Y.Stride), lda, ldb)
	default:
		l.args(p.C.Addr, p.A.Addr, p.B.Addr, p.R.Addr, p.Counters, m, n, k, ldc, lda, ldb, ldr, flag, uint64(splits))
	}
	return l
}

func (p *Product) planF32() Launch {
	l := Launch{Spec: &products().f32[p.Op], Grid: tiles(p.M, f32Tile) * tiles(p.N, f32Tile)}
	l.args(p.C.Addr, p.A.Addr, p.B.Addr, p.Bias, p.R.Addr, uint64(p.M), uint64(p.N), uint64(p.K),
		uint64(p.C.Stride), uint64(p.A.Stride), uint64(p.B.Stride), uint64(p.R.Stride))
	return l
}

// BiasGrad is DB[n] += Σ_t DY[t][n]; see bias_grad.cu.
type BiasGrad struct {
	Type Type // of DY
	T, N int  // at least 1
	DB   uint64
	DY   Matrix
	// Counters is the address of NumCounters() u32, all zero; they are so afterwards.
	Counters uint64
}

// NumCounters returns how many counters a launch uses.
func (g *BiasGrad) NumCounters() int { return tiles(g.N, biasColumns) }

// Plan says how to launch it.
func (g *BiasGrad) Plan() (Launch, error) {
	if g.T < 1 || g.N < 1 || g.DY.Stride < g.N || max(g.T, g.DY.Stride) > math.MaxInt32-biasRows {
		return Launch{}, fmt.Errorf("kernels: bias gradient: T = %d, N = %d, stride %d: T and N must be at least 1, the stride at least N",
			g.T, g.N, g.DY.Stride)
	}
	l := Launch{Spec: &products().bias[g.Type], Grid: tiles(g.N, biasColumns) * tiles(g.T, biasRows)}
	l.args(g.DB, g.DY.Addr, g.Counters, uint64(g.T), uint64(g.N), uint64(g.DY.Stride))
	return l, nil
}
