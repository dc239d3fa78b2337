// Command _gen writes the AVX2 and AVX-512 assembly of package simd and the Go declarations
// for it. Run it by go generate in simd; it is a module of its own so that the
// product does not depend on the generator.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/buildtags"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	log.SetFlags(0)
	out := flag.String("dir", "..", "directory of package simd")
	flag.Parse()
	for _, f := range []struct {
		name, header string
		fill         func(*gen)
	}{
		{"gemm_avx2_amd64", gemmHeader, gemmFile},
		{"gemm_avx512_amd64", gemm512Header, gemm512File},
		{"gemm_bf16_avx2_amd64", gemmBF16Header, gemmBF16File(avx2, gemmShapes)},
		{"gemm_bf16_avx512_amd64", gemmBF16Header, gemmBF16File(avx512, gemmShapes512())},
		{"vec_avx2_amd64", vecHeader, vecFile},
		{"exp_avx2_amd64", expHeader, expFile(avx2)},
		{"exp_avx512_amd64", expHeader, expFile(avx512)},
		{"softmax_avx2_amd64", softmaxHeader, softmaxFile(avx2)},
		{"softmax_avx512_amd64", softmaxHeader, softmaxFile(avx512)},
		{"rowproducts_avx2_amd64", rowProductsHeader, rowProductsFile(avx2)},
		{"rowproducts_avx512_amd64", rowProductsHeader, rowProductsFile(avx512)},
	} {
		if err := write(*out, f.name, f.header, f.fill); err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
	}
}

// write compiles one file's kernels and writes name.s and name.go.
func write(dir, name, header string, fill func(*gen)) error {
	g := &gen{Context: build.NewContext(), consts: map[string]operand.Mem{}}
	c, err := buildtags.ParseConstraint("!noasm")
	if err != nil {
		return err
	}
	g.Constraint(c)
	fill(g)
	file, err := g.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	cfg := printer.Config{Name: "simd/_gen", Pkg: "simd"}
	asm, err := printer.NewGoAsm(cfg).Print(file)
	if err != nil {
		return err
	}
	stub, err := printer.NewStubs(cfg).Print(file)
	if err != nil {
		return err
	}
	// The header goes after the line that marks the file as generated.
	first, rest, _ := bytes.Cut(asm, []byte("\n"))
	var s bytes.Buffer
	fmt.Fprintf(&s, "%s\n\n", first)
	for line := range strings.SplitSeq(strings.TrimSpace(header), "\n") {
		fmt.Fprintln(&s, strings.TrimRight("// "+line, " "))
	}
	s.Write(rest)
	if err := os.WriteFile(filepath.Join(dir, name+".s"), s.Bytes(), 0o644); err != nil {
		return err
	}
	if stub, err = format.Source(stub); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".go"), stub, 0o644)
}

// isa is an instruction set's vectors.
type isa struct {
	suffix string
	bytes  int // of a vector
}

var (
	avx2   = isa{"AVX2", 32}
	avx512 = isa{"AVX512", 64}
)

func (s isa) vector(g *gen) reg.VecVirtual {
	if s == avx512 {
		return g.ZMM()
	}
	return g.YMM()
}

// gen is avo's context with the constants and idioms that the kernels share.
type gen struct {
	*build.Context
	consts map[string]operand.Mem
	name   string
}

// ptr returns *p displaced by off bytes.
func ptr(p reg.Register, off int) operand.Mem { return operand.Mem{Base: p, Disp: off} }

// at returns p[i] displaced by off bytes, for float32.
func at(p, i reg.Register, off int) operand.Mem {
	return operand.Mem{Base: p, Index: i, Scale: 4, Disp: off}
}

// kernel starts a function that is split from nothing and lets no pointer
// escape.
func (g *gen) kernel(name, sig string, doc ...string) {
	g.name = name
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.Pragma("noescape")
	g.SignatureExpr(sig)
	g.Doc(doc...)
}

// load puts the argument into a new register.
func (g *gen) load(arg string) reg.Register { return g.Load(g.Param(arg), g.GP64()) }

// broadcast puts a float32 argument into all lanes of a new register.
func (g *gen) broadcast(s isa, arg string) reg.VecVirtual {
	b, err := g.Param(arg).Resolve()
	if err != nil {
		log.Fatal(err)
	}
	v := s.vector(g)
	g.VBROADCASTSS(b.Addr, v)
	return v
}

// fetch loads a vector; lanes outside the mask, unless it is nil, become 0 and
// their memory is not touched.
func (g *gen) fetch(s isa, from operand.Mem, mask reg.Register) reg.VecVirtual {
	v := s.vector(g)
	switch {
	case mask == nil:
		g.VMOVUPS(from, v)
	case s == avx512:
		g.VMOVUPS_Z(from, mask, v)
	default:
		g.VMASKMOVPS(from, mask, v)
	}
	return v
}

// store stores the lanes of v in the mask, or all if it is nil.
func (g *gen) store(s isa, v reg.VecVirtual, to operand.Mem, mask reg.Register) {
	switch {
	case mask == nil:
		g.VMOVUPS(v, to)
	case s == avx512:
		g.VMOVUPS(v, mask, to)
	default:
		g.VMASKMOVPS(v, mask, to)
	}
}

// keep puts zeros into the lanes of v outside the mask.
func (g *gen) keep(s isa, mask reg.Register, v reg.VecVirtual) {
	if s == avx512 {
		g.VMOVAPS_Z(v, mask, v)
	} else {
		g.VANDPS(mask, v, v)
	}
}

func (g *gen) zero(s isa) reg.VecVirtual {
	v := s.vector(g)
	if s == avx512 {
		g.VPXORD(v, v, v)
	} else {
		g.VXORPS(v, v, v)
	}
	return v
}

func (g *gen) finish() {
	g.VZEROUPPER()
	g.RET()
}

// words returns read-only memory holding the 32-bit words.
func (g *gen) words(name string, w ...uint32) operand.Mem {
	if m, ok := g.consts[name]; ok {
		return m
	}
	m := g.StaticGlobal(name)
	for i, v := range w {
		g.AddDatum(4*i, operand.U32(v))
	}
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	g.consts[name] = m
	return m
}

// copies returns read-only memory holding a vector of copies of one word.
func (g *gen) copies(s isa, name string, w uint32) operand.Mem {
	words := make([]uint32, s.bytes/4)
	for i := range words {
		words[i] = w
	}
	return g.words(name, words...)
}

// masks returns a table of eight words of ones and eight of zeros.
func (g *gen) masks() operand.Mem {
	const m = ^uint32(0)
	return g.words("tailmask", m, m, m, m, m, m, m, m, 0, 0, 0, 0, 0, 0, 0, 0)
}

// mask returns the mask whose lanes below left are ones: a vector, or with
// AVX-512 a K register. left, from 0 to the lanes of a vector, is destroyed.
func (g *gen) mask(s isa, left reg.Register) reg.Register {
	if s == avx512 {
		bits, k := g.GP64(), g.K()
		g.MOVQ(operand.I32(-1), bits)
		g.SHLXQ(left, bits, bits)
		g.NOTQ(bits)
		g.KMOVW(bits.As32(), k)
		return k
	}
	base, v := g.GP64(), g.YMM()
	g.LEAQ(g.masks().Offset(32), base)
	g.NEGQ(left)
	g.VMOVUPS(at(base, left, 0), v)
	return v
}
