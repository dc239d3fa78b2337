package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// softmaxC allows the sum of a chunk, a chain of 16 and a tree of 8 levels, and for
// each level and each chunk an exponential of 3 ulp with its scaling.
func softmaxC(vocab int) float64 { return testx.ChainC(16) + 8*8 + 8*float64(vocab/kernels.VocabChunk) }

// headStats runs the forward over products of rows × vocab, chunk by chunk.
func headStats(d *kerneltest.Device, z []float32, l placing, targets []int32, vocab int, scale float32) (logp, entropy, lse []float32, err error) {
	rows := len(targets)
	state, ids := d.Out(16*rows), ints(d, targets)
	out := [3]*mat{}
	for i := range out {
		out[i] = matOut(d, kernels.F32, placing{off: l.off}, 1, rows)
	}
	for from := 0; from < vocab; from += kernels.VocabChunk {
		cols := min(kernels.VocabChunk, vocab-from)
		chunk := make([]float32, 0, rows*cols)
		for r := range rows {
			chunk = append(chunk, z[r*vocab+from:][:cols]...)
		}
		products := matIn(d, kernels.F32, l, rows, cols, chunk)
		if err := d.Launch(kernels.HeadStats(), [3]int{rows}, state, out[0].p(), out[1].p(), out[2].p(), products.p(), ids,
			cols, from, vocab, products.stride, scale); err != nil {
			return nil, nil, nil, err
		}
	}
	var v [3][]float32
	for i := range out {
		if v[i], err = out[i].after(); err != nil {
			return nil, nil, nil, err
		}
	}
	return v[0], v[1], v[2], nil
}

// headLogits are rows of products; some are −Inf, one row is peaked, one all equal.
func headLogits(r *rand.Rand, rows, vocab int) []float32 {
	z := normal(r, rows*vocab)
	for row := range rows {
		for v := range vocab {
			at := row*vocab + v
			switch {
			case row%4 == 1 && v%3 == 0 && v < vocab-1:
				z[at] = float32(math.Inf(-1))
			case row%4 == 2:
				z[at] *= 12
			case row%4 == 3:
				z[at] = 2.5
			}
		}
	}
	return z
}

func checkHeadStats(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(31, 32))
	for i, s := range [][2]int{{1, 1}, {4, 7}, {3, 64}, {4, 1001}, {4, 4096}, {3, 4097}, {4, 9001}} {
		rows, vocab, l := s[0], s[1], placings[i%3]
		scale := []float32{1, 1 / 0.7}[i%2]
		z := headLogits(r, rows, vocab)
		targets := make([]int32, rows)
		for t := range targets {
			targets[t] = []int32{int32(vocab - 1), int32(r.IntN(vocab)), 0}[t%3]
		}
		if rows > 3 {
			targets[3] = int32(vocab) // not there
		}
		logp, entropy, lse, err := headStats(d, z, l, targets, vocab, scale)
		if err != nil {
			return err
		}
		for t := range rows {
			row := make([]float64, vocab)
			for v := range row {
				row[v] = float64(z[t*vocab+v] * scale)
			}
			wl, wh := ref.LogitStats(row)
			c := softmaxC(vocab)
			el, eh := c+2*math.Abs(wl), c+4*math.Abs(wl)
			for _, v := range row {
				if p := math.Exp(v - wl); p > 0 {
					eh += p * (math.Abs(v)*2 + math.Abs(v-wl)*c)
				}
			}
			near := func(name string, got float32, want, err float64) error {
				if _, e := testx.Close([]float32{got}, []float64{want}, tolerance(1, []float64{err}, []float64{want})); e != nil {
					return fmt.Errorf("%v, row %d, %s: %w", s, t, name, e)
				}
				return nil
			}
			if err := near("lse", lse[t], wl, el); err != nil {
				return err
			}
			if err := near("entropy", entropy[t], wh, eh); err != nil {
				return err
			}
			if int(targets[t]) == vocab {
				if logp[t] == logp[t] {
					return fmt.Errorf("a target outside of the vocabulary has log-prob %v", logp[t])
				}
				continue
			}
			target := row[targets[t]]
			if math.IsInf(target, -1) {
				if !math.IsInf(float64(logp[t]), -1) {
					return fmt.Errorf("a token of logit −Inf has log-prob %v", logp[t])
				}
				continue
			}
			if err := near("log-prob", logp[t], target-wl, el+2*math.Abs(target)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkHeadGradient(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(33, 34))
	for i, s := range [][2]int{{1, 1}, {4, 7}, {3, 300}, {3, 4096}, {4, 4103}} {
		rows, vocab := s[0], s[1]
		for _, ty := range []kernels.Type{kernels.F32, kernels.BF16} {
			for _, mode := range []string{"apart", "in place", "without entropy"} {
				l := placings[i%3]
				const scale = 0.5
				z := headLogits(r, rows, vocab)
				targets := make([]int32, rows)
				var lse, entropy []float32
				row := make([][]float64, rows)
				for t := range rows {
					targets[t] = int32(vocab-1) * int32(t%2)
					row[t] = make([]float64, vocab)
					for v := range row[t] {
						row[t][v] = float64(z[t*vocab+v] * scale)
					}
					a, b := ref.LogitStats(row[t])
					lse, entropy = append(lse, float32(a)), append(entropy, float32(b))
				}
				dl, dh := normal(r, rows), normal(r, rows)
				from := (vocab - 1) / kernels.VocabChunk * kernels.VocabChunk // the last chunk
				cols := vocab - from
				chunk := make([]float32, 0, rows*cols)
				for t := range rows {
					chunk = append(chunk, z[t*vocab+from:][:cols]...)
				}
				products := matInOut(d, kernels.F32, l, rows, cols, chunk)
				dz := matOut(d, ty, placings[(i+1)%3], rows, cols)
				to, stride := dz.p(), dz.stride
				if mode == "in place" {
					to, stride = products.p(), products.stride*[2]int{1, 2}[ty]
				}
				var h, dent *kerneltest.Buffer
				if mode != "without entropy" {
					h, dent = kerneltest.In(d, entropy), kerneltest.In(d, dh)
				}
				err := d.Launch(kernels.HeadGradient(ty), [3]int{rows}, to, products.p(), ints(d, targets), kerneltest.In(d, lse), h,
					kerneltest.In(d, dl), dent, cols, from, stride, products.stride, scale)
				if err != nil {
					return err
				}
				var got []float32
				switch {
				case mode != "in place":
					got, err = dz.after()
				case ty == kernels.F32:
					got, err = products.after()
				default:
					all := kerneltest.Values[uint16](d, products.buf)
					for t := range rows {
						for c := range cols {
							got = append(got, math.Float32frombits(uint32(all[2*products.off+t*stride+c])<<16))
						}
					}
				}
				if err != nil {
					return err
				}
				var want, tol []float64
				for t := range rows {
					eh, dhh := float64(entropy[t]), float64(dh[t])
					if mode == "without entropy" {
						dhh = 0
					}
					g := ref.LogitGradient(row[t], int(targets[t]), float64(lse[t]), eh, float64(dl[t]), dhh)
					for v := from; v < vocab; v++ {
						w := scale * g[v]
						logp := row[t][v] - float64(lse[t])
						p, mag := math.Exp(logp), 0.0
						if p > 0 {
							// p: an exponential, and the rounding of its argument.
							rel := 12 + math.Abs(logp) + math.Abs(row[t][v]) + math.Abs(float64(lse[t]))
							mag = p * scale * (rel*(math.Abs(float64(dl[t]))+math.Abs(dhh*(logp+eh))) + math.Abs(dhh)*(math.Abs(logp)+math.Abs(eh))*4)
						}
						e := tolerance(1, []float64{mag + 2*math.Abs(w)}, []float64{w})[0] + 1e-36
						if ty == kernels.BF16 {
							e += testx.EpsBF16 * (math.Abs(w) + e)
						}
						want, tol = append(want, w), append(tol, e)
					}
				}
				if _, err := testx.Close(got, want, tol); err != nil {
					return fmt.Errorf("%s, %v, %s: %w", typeName(ty), s, mode, err)
				}
			}
		}
	}
	return nil
}

func checkHead(d *kerneltest.Device) error {
	if err := checkHeadStats(d); err != nil {
		return err
	}
	return checkHeadGradient(d)
}

func TestHeadEmulated(t *testing.T) { kerneltest.EachMode(t, checkHead) }

// A row's results do not depend on the rows beside it, nor on where they lie.
func TestHeadEmulatedInvariance(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		r := rand.New(rand.NewPCG(35, 36))
		const rows, vocab = 3, 5000
		z := normal(r, rows*vocab)
		a, b, c, err := headStats(d, z, placings[0], []int32{1, 4999, 7}, vocab, 1.5)
		if err != nil {
			return err
		}
		p, q, s, err := headStats(d, z[vocab:2*vocab], placings[1], []int32{4999}, vocab, 1.5)
		if err != nil {
			return err
		}
		return testx.Identical([]float32{p[0], q[0], s[0]}, []float32{a[1], b[1], c[1]})
	})
}

func TestHeadEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "head", []kerneltest.Defect{
		{Name: "no barrier before the chunk is merged", Old: "  block_sync();  // shows the warps' sums to the first warp\n", New: ""},
		{Name: "a warp's sums twice", Old: "(lane() & 7) * 16);", New: "(lane() & 6) * 16);"},
		{Name: "chunks before are forgotten", Old: "if (from > 0) {", New: "if (from > vocab) {"},
		{Name: "target of the first chunk only", Old: "id >= from && id < from + cols", New: "id >= 0 && id < cols"},
		{Name: "target without scale", Old: "target = z[id - from] * scale;", New: "target = z[id - from];"},
		{Name: "results before the last chunk", Old: "if (from + cols < vocab) return;", New: "if (from > 0 && vocab > 0) return;"},
		{Name: "columns beyond the chunk", Old: "load_quad(v, z + segment, cols - segment);", New: "load_quad(v, z + segment, cols + 1 - segment);"},
		{Name: "no barrier before dz is written in place", Old: "  block_sync();  // the whole row has been read: dz may lie in its place\n", New: ""},
		{Name: "entropy's sign", Old: "fma(dh, log_p + h, dl)", New: "fma(dh, log_p - h, dl)"},
		{Name: "gradient without scale", Old: "v[r][i] = g * scale;", New: "v[r][i] = g;"},
		{Name: "no gradient of the target", Old: "if (c + i == target) g += dl;", New: "if (c + i == target + cols) g += dl;"},
		{Name: "minus infinity", Old: "float g = p == 0 ? 0.0f : -p", New: "float g = p == 2 ? 0.0f : -p"},
	}, checkHead)
}

func TestHeadPlan(t *testing.T) {
	for _, c := range []struct{ t, v, c int }{{1, 1, 1}, {5, 40, 8}, {2047, 4096, 896}, {2049, 4097, 896}, {16384, 151936, 1536}, {16384, 151936, 3584}, {5000, 9001, 40000}} {
		for _, backward := range []bool{false, true} {
			p := kernels.PlanHead(c.t, c.v, c.c, backward)
			if c.t == 16384 {
				require.LessOrEqual(t, p.ProductBytes()+p.StateBytes(), 33<<20)
				if backward {
					require.LessOrEqual(t, p.ProductBytes()+p.StateBytes()+p.SumBytes(), 256<<20)
				}
			}
			next := make([]int, c.t) // for each row, the first logit not yet seen
			for s := range p.Steps() {
				require.LessOrEqual(t, s.Rows, p.Rows)
				require.LessOrEqual(t, s.Cols, p.Stride)
				require.LessOrEqual(t, s.SumRow+s.Rows, min(p.T, p.Part))
				for r := s.Row; r < s.Row+s.Rows; r++ {
					require.Equal(t, next[r], s.From)
					next[r] += s.Cols
					require.Equal(t, s.Last, next[r] == c.v)
				}
				require.Equal(t, s.First, s.From == 0)
			}
			for _, n := range next {
				require.Equal(t, c.v, n)
			}
		}
	}
	for range kernels.PlanHead(0, 100, 8, true).Steps() {
		t.Fatal("a step without rows")
	}
}
