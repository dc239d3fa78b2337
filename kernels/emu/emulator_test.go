package emu_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// probes are the entry points of testdata/probe.cu: block, and parameters.
var probes = map[string]struct {
	block  int
	params string
}{
	"reverse": {64, "pp"}, "rotate": {64, "pp"}, "tiles": {32, "ppi"}, "product": {32, "ppp"}, "warpsum": {64, "ppp"},
	"hand": {96, "p"}, "total": {32, "pppp"}, "turns": {32, "ppp"}, "vectors": {32, "ppi"},
}

// probePTX is what the driver reads of a PTX text: version, target, parameters.
func probePTX(version, target string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".version %s\n.target %s\n.address_size 64\n", version, target)
	for name, p := range probes {
		var params []string
		for i, c := range p.params {
			bits := map[rune]int{'p': 64, 'l': 64, 'i': 32, 'f': 32}[c]
			params = append(params, fmt.Sprintf("\t.param .u%d %s_param_%d", bits, name, i))
		}
		fmt.Fprintf(&b, ".visible .entry %s(\n%s\n)\n.maxntid %d, 1, 1\n{\n\tret;\n}\n", name, strings.Join(params, ",\n"), p.block)
	}
	return b.String()
}

func probe(name string) kernels.Spec {
	p := probes[name]
	return kernels.Spec{Entry: name, Module: "probe", PTX: probePTX("8.0", "sm_80"), Params: p.params, Block: p.block, Shared: 4096}
}

func probeLibrary(t testing.TB, edit func(string) string) string {
	return kerneltest.Library(t, emu.Options{Sources: "testdata", Edit: func(_, text string) string { return edit(text) }})
}

func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i%61) - 20
	}
	return x
}

func equal[T comparable](got, want []T) error {
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("element %d is %v, not %v", i, got[i], want[i])
		}
	}
	return nil
}

// checks runs a probe and compares.
var checks = map[string]func(d *kerneltest.Device) error{
	"reverse": func(d *kerneltest.Device) error {
		x, y := ramp(64), d.Out(4*64)
		if err := d.Launch(probe("reverse"), [3]int{1}, y, kerneltest.In(d, x)); err != nil {
			return err
		}
		want := make([]float32, 64)
		for i := range want {
			want[i] = x[63-i]
		}
		return equal(kerneltest.Values[float32](d, y), want)
	},
	"rotate": func(d *kerneltest.Device) error {
		x, y := make([]uint32, 64), d.Out(4*64)
		want := make([]uint32, 64)
		for i := range x {
			x[i] = uint32(i * i)
		}
		for i := range x {
			want[i] = x[i/32*32+(i+1)%32]
		}
		if err := d.Launch(probe("rotate"), [3]int{1}, y, kerneltest.In(d, x)); err != nil {
			return err
		}
		return equal(kerneltest.Values[uint32](d, y), want)
	},
	"tiles": func(d *kerneltest.Device) error {
		for _, n := range []int{512, 301} {
			x, y := ramp(n), d.Out(4*n)
			if err := d.Launch(probe("tiles"), [3]int{(n + 255) / 256}, y, kerneltest.In(d, x), n); err != nil {
				return err
			}
			if err := equal(kerneltest.Values[float32](d, y), x); err != nil {
				return err
			}
		}
		return nil
	},
	"product": func(d *kerneltest.Device) error {
		a, b := make([]uint16, 16*16), make([]uint16, 16*8)
		for i := range a {
			a[i] = half.BF16(float32(i%23) - 9)
		}
		for i := range b {
			b[i] = half.BF16(float32(i%17) - 5)
		}
		want := make([]float32, 16*8)
		for i := range want {
			for k := range 16 {
				want[i] += half.FromBF16(a[i/8*16+k]) * half.FromBF16(b[k*8+i%8])
			}
		}
		out := d.Out(4 * len(want))
		if err := d.Launch(probe("product"), [3]int{1}, out, kerneltest.In(d, a), kerneltest.In(d, b)); err != nil {
			return err
		}
		return equal(kerneltest.Values[float32](d, out), want)
	},
	"warpsum": func(d *kerneltest.Device) error {
		x := make([]uint32, 64)
		want, odd := make([]uint32, 2), make([]uint32, 2)
		for i := range x {
			x[i] = uint32(i*7) % 13
			want[i/32] += x[i]
			odd[i/32] |= x[i] & 1 << (i % 32)
		}
		y, ones := d.Out(8), d.Out(8)
		if err := d.Launch(probe("warpsum"), [3]int{1}, y, ones, kerneltest.In(d, x)); err != nil {
			return err
		}
		return errors.Join(equal(kerneltest.Values[uint32](d, y), want), equal(kerneltest.Values[uint32](d, ones), odd))
	},
	"hand": func(d *kerneltest.Device) error {
		want, y := make([]uint32, 128), d.Out(4*128)
		for i := range want {
			want[i] = uint32(i)
		}
		if err := d.Launch(probe("hand"), [3]int{1}, y); err != nil {
			return err
		}
		return equal(kerneltest.Values[uint32](d, y), want)
	},
	"total": func(d *kerneltest.Device) error {
		const blocks = 7
		x := ramp(32 * blocks)
		var sum float32
		for _, v := range x {
			sum += v
		}
		y, partial, count := d.Out(4), d.Out(4*blocks), kerneltest.InOut(d, []uint32{0})
		for range 2 {
			if err := d.Launch(probe("total"), [3]int{blocks}, y, partial, count, kerneltest.In(d, x)); err != nil {
				return err
			}
			if err := equal(kerneltest.Values[float32](d, y), []float32{sum}); err != nil {
				return err
			}
		}
		return nil
	},
	"turns": func(d *kerneltest.Device) error {
		const blocks = 5
		x, want := ramp(32*blocks), make([]float32, 32)
		for i, v := range x {
			want[i%32] += v
		}
		y, turn := kerneltest.InOut(d, make([]float32, 32)), kerneltest.InOut(d, []uint32{0})
		if err := d.Launch(probe("turns"), [3]int{blocks}, y, turn, kerneltest.In(d, x)); err != nil {
			return err
		}
		return equal(kerneltest.Values[float32](d, y), want)
	},
	"vectors": func(d *kerneltest.Device) error {
		const n = 100
		x, y := ramp(n), d.Out(4*n)
		if err := d.Launch(probe("vectors"), [3]int{1}, y, kerneltest.In(d, x), n); err != nil {
			return err
		}
		return equal(kerneltest.Values[float32](d, y), x)
	},
}

// What is right passes in every mode, and so in every order of threads that is tried.
func TestProbes(t *testing.T) {
	library := probeLibrary(t, func(s string) string { return s })
	modes := emu.Modes()
	for seed := range uint32(10) {
		modes = append(modes, emu.Mode{Landing: emu.Randomly, Seed: 10 + seed, Resident: int(1 + seed%8)})
	}
	for name := range probes {
		require.Contains(t, checks, name)
		for _, m := range modes {
			d := kerneltest.Open(t, library, m)
			require.NoError(t, checks[name](d), "%s in mode %q", name, m)
			d.Close()
		}
	}
}

// Every defect is found, in every mode where says has an error's text, and what the
// error says is what was done; value means that the result is wrong, or an error comes, in some mode.
func TestDefects(t *testing.T) {
	const value = ""
	defects := []struct{ name, probe, old, new, says string }{
		{"missing barrier", "reverse", "block_sync();  // reverse", "", "race: it"},
		{"uninitialised shared memory", "reverse", "st_shared(shared_base() + 4 * i, x[i]);", "if (i != 5) st_shared(shared_base() + 4 * i, x[i]);", value},
		{"beyond shared memory", "reverse", "ld_shared<float>(shared_base() + 4 * (63 - i))", "ld_shared<float>(shared_base() + 4032 + 4 * (63 - i))", "of a shared memory of 4096"},
		{"below shared memory", "reverse", "ld_shared<float>(shared_base() + 4 * (63 - i))", "ld_shared<float>(4 * (63 - i))", "of a shared memory of 4096"},
		{"misaligned shared address", "reverse", "st_shared(shared_base() + 4 * i, x[i]);", "st_shared(shared_base() + 4 * i + 2, x[i]);", "is not a multiple of 4"},
		{"divergent barrier", "reverse", "block_sync();  // reverse", "if (i == 9) return; block_sync();", "barrier 0 waits for 64 threads and only 63 come"},
		{"two threads write a word", "reverse", "st_shared(shared_base() + 4 * i, x[i]);", "st_shared(shared_base() + 4 * (i & ~1u), x[i]);", "race: it writes shared memory"},
		{"missing warp_sync", "rotate", "warp_sync();  // rotate", "", "race: it"},
		{"a shuffle is no barrier", "rotate", "warp_sync();  // rotate", "shuffle(i, 0u);", "race: it"},
		{"missing wait", "tiles", "if (step == 1) cp_async_wait<0>();", "", "which an asynchronous copy that is not waited for will write"},
		{"wait one group short", "tiles", "if (step == 0) cp_async_wait<1>();", "if (step == 0) cp_async_wait<2>();", "which an asynchronous copy that is not waited for will write"},
		{"wait without barrier", "tiles", "block_sync();  // tiles", "", "race: it"},
		{"missing commit", "tiles", "    cp_async_commit();\n  };", "  };", "which an asynchronous copy that is not waited for will write"},
		{"stage refilled early", "tiles", "base + (u32)step * 512 + t * 16, bytes", "base + t * 16, bytes", "which an asynchronous copy that is not waited for will write"},
		{"copy beyond the edge", "tiles", "left < 4 ? 4 * (u32)left : 16", "16", "it reads 16 bytes at"},
		{"store beyond the edge", "tiles", "if (at < n) y[at]", "if (at <= n) y[at]", "it writes 4 bytes at"},
		{"misaligned copy", "tiles", "bytes ? x + first", "bytes ? x + 1 + first", "no multiple of 16"},
		{"copy of too much", "tiles", "u32 bytes = left <= 0 ? 0", "u32 bytes = left < 0 ? 20", "an asynchronous copy of"},
		{"not waited for at the end", "product", "cp_async_wait<0>();\n  block_sync();\n  u32 a[4], b[2];", "block_sync(); if (l < 40) return; u32 a[4], b[2];", "ends with asynchronous copies that were not waited for"},
		{"not committed at the end", "product", "cp_async_commit();\n  cp_async_wait<0>();", "return;", "ends with asynchronous copies that were not committed"},
		{"swapped fragments", "product", "mma_bf16_16816(d, a, b);", "{ u32 x[4] = {a[0], a[2], a[1], a[3]}; mma_bf16_16816(d, x, b); }", value},
		{"wrong lane mapping", "product", "u32 g = l / 4, t = l % 4;", "u32 g = l % 8, t = l / 8;", value},
		{"B not transposed", "product", "ldmatrix_x2_trans(b", "ldmatrix_x2(b", value},
		{"misaligned ldmatrix", "product", "ldmatrix_x4(a, base +", "ldmatrix_x4(a, base + 8 +", "is not a multiple of 16"},
		{"lanes leave a shuffle", "warpsum", "for (u32 m = 16; m > 0; m /= 2) v += shuffle_xor(v, m);\n  v = shuffle", "for (u32 m = 16; m > 0 && lane() < 31; m /= 2) v += shuffle_xor(v, m);\n  v = shuffle", "lanes of a warp meet in different instructions: shuffle"},
		{"half a warp shuffles", "warpsum", "v = shuffle(v, 31u);", "if (lane() < 16) v = shuffle(v, 31u);", "16 lanes of warp"},
		{"barrier with a wrong count", "hand", "barrier_arrive(1, 64);  // full", "barrier_arrive(1, 96);", "is met by a thread that counts"},
		{"barrier with no multiple of 32", "hand", "barrier_arrive(1, 64);  // full", "barrier_arrive(1, 63);", "not a multiple of 32"},
		{"nobody arrives", "hand", "barrier_arrive(1, 64);  // full", "", "waits for 64 threads and only 32 come"},
		{"overwritten before it was read", "hand", "kStages = 1", "kStages = 2", value},
		{"read before it was written", "hand", "      barrier_sync(1, 64);\n", "      barrier_arrive(1, 64);\n", "race: it"},
		{"no fence before the atomic", "total", "fence();  // release", "", "race: it reads global memory"},
		{"no fence after the atomic", "total", "fence();  // acquire", "", "race: it reads global memory"},
		{"no barrier after the fence", "total", "block_sync();  // seen", "", "race: it reads global memory"},
		{"arrives before it has written", "total", "if (thread_x() == 0) partial[block_x()] = v;\n  block_sync();  // written", "if (thread_x() == 9) partial[block_x()] = v;", "race: it reads global memory"},
		{"no turn is waited for", "turns", "while (ld_acquire(turn) != block_x()) {\n    }", "", "race: it reads global memory"},
		{"the turn is given too early", "turns", "block_sync();  // done", "", "race: it reads global memory"},
		{"the turn is for one thread", "turns", "block_sync();  // my turn", "", "race: it reads global memory"},
		{"the turn never comes", "turns", "!= block_x())", "!= block_x() + 1)", "waits in a loop for memory that no thread will write"},
		{"two blocks write a word", "turns", "y[thread_x()] +=", "y[thread_x() == 3 ? 4 : thread_x()] =", "race: it writes global memory"},
		{"global read beyond the end", "vectors", "if (i < n)", "if (i <= n)", "it reads"},
		{"global write beyond the end", "vectors", "if (i < n) *(float4*)(y + i)", "if (i < n) *(float4*)(y + i + 4)", "it writes 16 bytes at"},
		{"misaligned global access", "vectors", "*(float4*)(y + i)", "*(float4*)(y + i + 1)", "which is no multiple of 16"},
		{"ld_nc of what is written", "vectors", "if (i < n) *", "if (i < n) *(float*)(x + i) = 1; if (i < n) *", "ld_nc reads global memory"},
		{"index beyond an array", "product", "D[g * 8 + 2 * t] = d[0];", "D[g * 8 + 2 * t] = d[4 * (t + 1)];", "is outside of the array"},
		{"shift by too much", "warpsum", "x[thread_x()];", "x[thread_x()] << thread_x();", "a shift by more"},
		{"null pointer", "vectors", "ld_nc((const float4*)(x + i))", "ld_nc((const float4*)(y == x ? x : 0))", "outside of device memory"},
	}
	source, err := os.ReadFile("testdata/probe.cu")
	require.NoError(t, err)
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(string(source), d.old), "the defect does not apply")
			library := probeLibrary(t, func(s string) string { return strings.Replace(s, d.old, d.new, 1) })
			caught := false
			for _, m := range emu.Modes() {
				device := kerneltest.Open(t, library, m)
				err := checks[d.probe](device)
				device.Close()
				if d.says != value {
					require.ErrorContains(t, err, d.says, "mode %q", m)
					require.ErrorContains(t, err, "kernel "+d.probe+", block (")
				}
				caught = caught || err != nil
			}
			require.True(t, caught)
		})
	}
}

// Fifteen products of 2^-25 beside one of 1: rounded once, their sum counts; a tensor
// core that cuts loses them.
func TestCutSums(t *testing.T) {
	a, b := make([]uint16, 16*16), make([]uint16, 16*8)
	for k := range 16 {
		a[k], b[k*8] = half.BF16(0x1p-13), half.BF16(0x1p-12)
	}
	a[0], b[0] = half.BF16(1), half.BF16(1)
	library := probeLibrary(t, func(s string) string { return s })
	for cut, want := range map[bool]float32{false: 1 + 0x4p-23, true: 1} {
		d := kerneltest.Open(t, library, emu.Mode{CutSums: cut})
		out := d.Out(4 * 16 * 8)
		require.NoError(t, d.Launch(probe("product"), [3]int{1}, out, kerneltest.In(d, a), kerneltest.In(d, b)))
		require.Equal(t, want, kerneltest.Values[float32](d, out)[0], "cut=%v", cut)
		d.Close()
	}
}
