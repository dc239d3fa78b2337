package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

func TestLinearAgainstLoops(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {5, 17, 33}, {97, 40, 130}, {200, 130, 7}} {
		T, N, K := s[0], s[1], s[2]
		r := newRig(t, 2, 1)
		x, w, bias, y := r.random(T, K, 1), r.weight(N, K, 1), r.random(1, N, 1), r.random(T, N, 1)
		before := r.floats(y)
		r.Linear(engine.LinearArgs{Y: y, X: x, W: w, Bias: bias, Residual: y})
		xs, ws, bs, ys := r.floats(x), r.floats(w.Tensor), r.floats(bias), r.floats(y)
		for i := range T {
			for j := range N {
				want, mag := float64(bs[j])+float64(before[i*N+j]), math.Abs(float64(bs[j]))+math.Abs(float64(before[i*N+j]))
				for k := range K {
					p := float64(xs[i*K+k]) * float64(ws[j*K+k])
					want += p
					mag += math.Abs(p)
				}
				near(t, "y", i*N+j, ys[i*N+j], want, mag, float64(K)+3)
			}
		}

		dx, dw, db := r.random(T, K, 1), r.random(N, K, 1), r.random(1, N, 1)
		dx0, dw0, db0 := r.floats(dx), r.floats(dw), r.floats(db)
		r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx, DY: y, W: w, Accumulate: true})
		r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw, DBias: db, DY: y, X: x})
		dxs, dws, dbs := r.floats(dx), r.floats(dw), r.floats(db)
		for i := range T {
			for k := range K {
				want, mag := float64(dx0[i*K+k]), math.Abs(float64(dx0[i*K+k]))
				for j := range N {
					p := float64(ys[i*N+j]) * float64(ws[j*K+k])
					want += p
					mag += math.Abs(p)
				}
				near(t, "dx", i*K+k, dxs[i*K+k], want, mag, float64(N)+2)
			}
		}
		for j := range N {
			want, mag := float64(db0[j]), math.Abs(float64(db0[j]))
			for i := range T {
				want += float64(ys[i*N+j])
				mag += math.Abs(float64(ys[i*N+j]))
			}
			near(t, "dbias", j, dbs[j], want, mag, float64(T)+1)
			for k := range K {
				want, mag := float64(dw0[j*K+k]), math.Abs(float64(dw0[j*K+k]))
				for i := range T {
					p := float64(ys[i*N+j]) * float64(xs[i*K+k])
					want += p
					mag += math.Abs(p)
				}
				near(t, "dw", j*K+k, dws[j*K+k], want, mag, float64(T)+2)
			}
		}
	}
}

// attentionLoops computes one head of one row in float64: output, log-sum-exp,
// weights.
func attentionLoops(q, k, v []float32, keys []int, qAt, kvAt, kvCols, d int, scale float64) (o []float64, lse float64, p []float64) {
	p = make([]float64, len(keys))
	m := math.Inf(-1)
	for i, row := range keys {
		for c := range d {
			p[i] += scale * float64(q[qAt+c]) * float64(k[row*kvCols+kvAt+c])
		}
		m = max(m, p[i])
	}
	var sum float64
	for i := range p {
		p[i] = math.Exp(p[i] - m)
		sum += p[i]
	}
	o = make([]float64, d)
	for i, row := range keys {
		p[i] /= sum
		for c := range d {
			o[c] += p[i] * float64(v[row*kvCols+kvAt+c])
		}
	}
	return o, m + math.Log(sum), p
}

func TestAttentionAgainstLoops(t *testing.T) {
	// Prompts end before, within and at the end of a split.
	for _, s := range []struct{ h, kv, d, prompt1, prompt2 int }{{4, 2, 8, 45, 64}, {3, 3, 32, 20, 32}, {6, 1, 20, 70, 1}} {
		r := newRig(t, 2, 2)
		p := sharedPacking(s.prompt1, []int{3, 40, 70}, s.prompt2, 33, 1)
		T, qc, kc := p.Rows, s.h*s.d, s.kv*s.d
		scale := float32(1 / math.Sqrt(float64(s.d)))
		q, k, v := r.random(T, qc, 1), r.random(T, kc, 1), r.random(T, kc, 1)
		o, lse, do := r.zeros(T, qc), r.zeros(T, s.h), r.random(T, qc, 1)
		dq, dk, dv := r.random(T, qc, 1), r.random(T, kc, 1), r.random(T, kc, 1)
		r.Attention(engine.AttentionArgs{O: o, Q: q, K: k, V: v, LSE: lse, HeadDim: s.d, Scale: scale, Packing: p})
		r.AttentionBackward(engine.AttentionBackwardArgs{DQ: dq, DK: dk, DV: dv, DO: do, Q: q, O: o, K: k, V: v, LSE: lse, HeadDim: s.d, Scale: scale, Packing: p})

		qs, ks, vs, dos := r.floats(q), r.floats(k), r.floats(v), r.floats(do)
		os, lses := r.floats(o), r.floats(lse)
		wantQ, wantK, wantV := make([]float64, T*qc), make([]float64, T*kc), make([]float64, T*kc)
		magK, magV := make([]float64, T*kc), make([]float64, T*kc)
		for row := range T {
			keys := history(p, row)
			for h := range s.h {
				at, kat := row*qc+h*s.d, h/(s.h/s.kv)*s.d
				want, l, w := attentionLoops(qs, ks, vs, keys, at, kat, kc, s.d, float64(scale))
				near(t, "lse", row, lses[row*s.h+h], l, 10, 40)
				var dotDO float64
				for c := range s.d {
					near(t, "o", at+c, os[at+c], want[c], 5, 60)
					dotDO += want[c] * float64(dos[at+c])
				}
				for i, key := range keys {
					var dp float64
					for c := range s.d {
						dp += float64(dos[at+c]) * float64(vs[key*kc+kat+c])
						wantV[key*kc+kat+c] += w[i] * float64(dos[at+c])
						magV[key*kc+kat+c] += math.Abs(w[i] * float64(dos[at+c]))
					}
					ds := w[i] * (dp - dotDO) * float64(scale)
					for c := range s.d {
						wantQ[at+c] += ds * float64(ks[key*kc+kat+c])
						wantK[key*kc+kat+c] += ds * float64(qs[at+c])
						magK[key*kc+kat+c] += math.Abs(w[i]) * 5 * math.Abs(float64(qs[at+c]))
					}
				}
			}
		}
		for i, g := range r.floats(dq) {
			near(t, "dq", i, g, wantQ[i], 10, 60)
		}
		gk, gv := r.floats(dk), r.floats(dv)
		for i := range gk {
			near(t, "dk", i, gk[i], wantK[i], magK[i]+1, 60)
			near(t, "dv", i, gv[i], wantV[i], magV[i], 60)
		}
	}
}

func TestLogProbAgainstLoops(t *testing.T) {
	for _, s := range [][3]int{{3, 40, 16}, {70, 5, 8}, {5, 2*engine.VocabChunk + 77, 12}} {
		T, V, C := s[0], s[1], s[2]
		for _, scale := range []float32{1, 0.7} {
			r := newRig(t, 2, 3)
			x, w, targets := r.random(T, C, 1), r.weight(V, C, 0.5), r.randomInts(T, V)
			lp, ent, lse := r.zeros(1, T), r.zeros(1, T), r.zeros(1, T)
			r.LogProb(engine.LogProbArgs{X: x, W: w, Targets: targets, LogProb: lp, Entropy: ent, LSE: lse, Scale: scale})
			dlp, dent := r.random(1, T, 1), r.random(1, T, 1)
			dx, dw := r.random(T, C, 1), r.zeros(V, C)
			r.LogProbBackward(engine.LogProbBackwardArgs{DX: dx, DW: dw, X: x, W: w, Targets: targets, LSE: lse, Entropy: ent,
				DLogProb: dlp, DEntropy: dent, Scale: scale})

			xs, ws, ids := r.floats(x), r.floats(w.Tensor), r.readInts(targets)
			lps, ents, lses, dlps, dents := r.floats(lp), r.floats(ent), r.floats(lse), r.floats(dlp), r.floats(dent)
			dxs := r.floats(dx)
			wantW, magW := make([]float64, V*C), make([]float64, V*C)
			for i := range T {
				z := make([]float64, V)
				m := math.Inf(-1)
				for v := range V {
					for c := range C {
						z[v] += float64(scale) * float64(xs[i*C+c]) * float64(ws[v*C+c])
					}
					m = max(m, z[v])
				}
				var sum, h float64
				for v := range V {
					sum += math.Exp(z[v] - m)
				}
				l := m + math.Log(sum)
				for v := range V {
					h -= math.Exp(z[v]-l) * (z[v] - l)
				}
				near(t, "lse", i, lses[i], l, 20, 40)
				near(t, "logprob", i, lps[i], z[ids[i]]-l, 20, 40)
				near(t, "entropy", i, ents[i], h, 20, 40)
				wantX, magX := make([]float64, C), make([]float64, C)
				for v := range V {
					p := math.Exp(z[v] - l)
					dz := -float64(dlps[i])*p - float64(dents[i])*p*(z[v]-l+h)
					mag := math.Abs(float64(dlps[i])*p) + 20*math.Abs(float64(dents[i]))*p
					if v == int(ids[i]) {
						dz += float64(dlps[i])
						mag += math.Abs(float64(dlps[i]))
					}
					for c := range C {
						wantX[c] += float64(scale) * dz * float64(ws[v*C+c])
						magX[c] += mag * math.Abs(float64(ws[v*C+c]))
						wantW[v*C+c] += float64(scale) * dz * float64(xs[i*C+c])
						magW[v*C+c] += mag * math.Abs(float64(xs[i*C+c]))
					}
				}
				for c := range C {
					near(t, "dx", i*C+c, dxs[i*C+c], wantX[c], magX[c], 60)
				}
			}
			for i, g := range r.floats(dw) {
				near(t, "dw", i, g, wantW[i], magW[i], 60+float64(T))
			}
		}
	}
}

func TestRMSNormBackwardAgainstDifferences(t *testing.T) {
	r := newRig(t, 2, 4)
	const T, groups, d, eps = 70, 3, 10, 1e-5
	x, w, dy := r.random(T, groups*d, 1), r.random(1, d, 1), r.random(T, groups*d, 1)
	y, rstd, dx, dw := r.zeros(T, groups*d), r.zeros(T, groups), r.zeros(T, groups*d), r.zeros(1, d)
	r.RMSNorm(engine.RMSNormArgs{Y: y, X: x, W: w, Rstd: rstd, Groups: groups, Eps: eps})
	r.RMSNormBackward(engine.RMSNormBackwardArgs{DX: dx, DW: dw, DY: dy, X: x, W: w, Rstd: rstd, Groups: groups})
	xs, ws, dys, ys := r.floats(x), r.floats(w), r.floats(dy), r.floats(y)
	loss := func(x []float64, g int) float64 { // Σ dy·y of one group
		var ss, l float64
		for i := range d {
			ss += x[i] * x[i]
		}
		for i := range d {
			l += float64(dys[g*d+i]) * x[i] / math.Sqrt(ss/d+eps) * float64(ws[i])
		}
		return l
	}
	wantW, magW := make([]float64, d), make([]float64, d)
	dxs := r.floats(dx)
	for g := range T * groups {
		v := make([]float64, d)
		var ss float64
		for i := range d {
			v[i] = float64(xs[g*d+i])
			ss += v[i] * v[i]
		}
		for i := range d {
			norm := v[i] / math.Sqrt(ss/d+eps)
			near(t, "y", g*d+i, ys[g*d+i], norm*float64(ws[i]), math.Abs(norm*float64(ws[i])), 4)
			wantW[i] += norm * float64(dys[g*d+i])
			magW[i] += math.Abs(norm * float64(dys[g*d+i]))
			const h = 1e-5
			v0 := v[i]
			v[i] = v0 + h
			up := loss(v, g)
			v[i] = v0 - h
			down := loss(v, g)
			v[i] = v0
			near(t, "dx", g*d+i, dxs[g*d+i], (up-down)/(2*h), 20, 40)
		}
	}
	for i, g := range r.floats(dw) {
		near(t, "dw", i, g, wantW[i], magW[i], 40)
	}
}

func TestScatterAddSumsInOrder(t *testing.T) {
	r := newRig(t, 2, 5)
	const T, V, C = 50, 7, 130
	src, table := r.random(T, C, 1), r.random(V, C, 1)
	want := r.floats(table)
	ids := make([]int32, T)
	for i := range ids {
		ids[i] = int32(r.rng.IntN(V+1)) - 1
	}
	r.ScatterAdd(engine.ScatterAddArgs{Table: table, Src: src, IDs: r.ints(ids)})
	s := r.floats(src)
	for i, id := range ids {
		for c := range C {
			if id >= 0 {
				want[int(id)*C+c] += s[i*C+c]
			}
		}
	}
	sameBits(t, want, r.floats(table), "table")

	dst := r.random(T, C, 1)
	r.Gather(engine.GatherArgs{Dst: dst, Table: table, IDs: r.ints(ids)})
	got, tab := r.floats(dst), r.floats(table)
	for i, id := range ids {
		for c := range C {
			if id < 0 {
				require.Zero(t, got[i*C+c])
			} else {
				require.Equal(t, tab[int(id)*C+c], got[i*C+c])
			}
		}
	}
}

func TestCopyAndFillStridedOfEachDType(t *testing.T) {
	r := newRig(t, 2, 6)
	up := map[bool]func(engine.Tensor, []float32){
		true: r.UploadF32,
		false: func(dst engine.Tensor, v []float32) {
			ints := make([]int32, len(v))
			for i, x := range v {
				ints[i] = int32(x)
			}
			r.UploadI32(dst, ints)
		},
	}
	down := func(src engine.Tensor) []float32 {
		v := make([]float32, src.Len())
		if d := src.Buf.DType(); d == engine.F32 || d == engine.BF16 {
			r.DownloadF32(v, src)
			return v
		}
		ints := make([]int32, src.Len())
		r.DownloadI32(ints, src)
		for i, x := range ints {
			v[i] = float32(x)
		}
		return v
	}
	counting := make([]float32, 60)
	for i := range counting {
		counting[i] = float32(i + 1)
	}
	for _, d := range []engine.DType{engine.F32, engine.I32, engine.BF16, engine.U8} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			src := engine.Matrix(r.buf(d, 60), 0, 6, 10)
			dst := engine.Matrix(r.buf(d, 60), 0, 6, 10)
			up[d == engine.F32 || d == engine.BF16](src, counting)
			require.Equal(t, counting, down(src))
			r.Copy(dst.ColRange(3, 7).RowRange(1, 4), src.ColRange(5, 9).RowRange(2, 5))
			want := make([]float32, 60)
			for row := 1; row < 4; row++ {
				for col := 3; col < 7; col++ {
					want[row*10+col] = float32((row+1)*10 + col + 2 + 1)
				}
			}
			require.Equal(t, want, down(dst))
			r.Fill(dst.ColRange(9, 10), 5)
			for row := range 6 {
				want[row*10+9] = 5
			}
			require.Equal(t, want, down(dst))
		})
	}
	f, h, i := r.zeros(2, 2), engine.Matrix(r.buf(engine.BF16, 4), 0, 2, 2), engine.Matrix(r.buf(engine.I32, 4), 0, 2, 2)
	r.UploadF32(f, []float32{1, 1 + 1.0/256, 1 + 3.0/256, -1.0 / 3})
	r.Copy(h, f) // to even twice, to nearest
	require.Equal(t, []float32{1, 1, 1 + 4.0/256, -171.0 / 512}, down(h))
	r.Fill(f, 0)
	r.Copy(f, h)
	require.Equal(t, down(h), down(f))
	require.PanicsWithValue(t, "cpu: copy: dtypes differ", func() { r.Copy(i, f) })
	require.PanicsWithValue(t, "cpu: unsupported dtype: only weights may be BF16", func() { r.RMSNorm(engine.RMSNormArgs{Y: f, X: h, W: f, Groups: 1}) })
}

// 8-bit moments of many blocks: the codes are the nearest ones, found by the
// plainest search, and the copy is P rounded.
func TestMomentCodesAreNearest(t *testing.T) {
	var maps momentMaps
	maps[0].set(engine.SignedMomentMap())
	maps[1].set(engine.UnsignedMomentMap())
	rng := rand.New(rand.NewPCG(1, 9))
	for k := range maps {
		m := &maps[k]
		var src []float32
		for range 40 * engine.MomentBlock {
			x := float32(rng.NormFloat64() * math.Pow(10, -7*rng.Float64()))
			if k == 1 {
				x *= x
			}
			src = append(src, x)
		}
		for c := range 255 { // the boundaries and what lies beside them
			for _, x := range []float32{m.upTo[c], math.Nextafter32(m.upTo[c], 2), m.values[c]} {
				src = append(src, x, 1) // one for the scale
			}
		}
		src = append(src, 0, 1e-38)
		codes, scales := make([]uint8, len(src)), make([]float32, len(src)/engine.MomentBlock+1)
		m.encode(codes, scales, src)
		back := make([]float32, len(src))
		m.decode(back, codes, scales)
		for i, x := range src {
			scale := scales[i/engine.MomentBlock]
			x /= scale
			got := math.Abs(float64(x - m.values[codes[i]]))
			for c, v := range m.values {
				if k == 1 && c == 0 && x > 0 {
					continue
				}
				// A boundary is rounded, as are the differences here.
				if d := math.Abs(float64(x - v)); d < got-math.Abs(float64(x))/(1<<22) {
					t.Fatalf("map %d: %g of scale %g became code %d (%g), code %d (%g) is nearer", k, x, scale, codes[i], m.values[codes[i]], c, v)
				}
			}
			require.Equal(t, m.values[codes[i]]*scale, back[i])
			if k == 1 && x > 0 {
				require.Positive(t, back[i])
			}
		}
	}
}

func BenchmarkAdamW8(b *testing.B) {
	const n = 1 << 20
	r := newRig(b, 1, 3)
	p, g, s := r.random(1, n, 1), r.random(1, n, 1), r.zeros(2, n/engine.MomentBlock)
	m, v := engine.Vector(r.buf(engine.U8, n), 0, n), engine.Vector(r.buf(engine.U8, n), 0, n)
	b.SetBytes(n)
	for step := 1; b.Loop(); step++ {
		r.AdamW(engine.AdamWArgs{P: p, G: g, M: m, V: v, MScale: s.RowRange(0, 1), VScale: s.RowRange(1, 2),
			LR: 1e-6, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: step})
	}
}
