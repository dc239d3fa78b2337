package enginetest

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// scores are one query's scaled products with its keys, their errors in units
// of u (a chain of D products, the scaling, and the subtraction of a maximum
// before exponentiation) and the probabilities.
type scores struct {
	s, err, p []float64
	lse, mean float64 // log-sum-exp; Σ p·err
}

func scoresOf(q []float64, keys [][]float64, scale float64) scores {
	out := scores{s: make([]float64, len(keys)), err: make([]float64, len(keys)), p: make([]float64, len(keys))}
	top := math.Inf(-1)
	for j, k := range keys {
		mag := 0.0
		for i := range q {
			out.s[j] += scale * q[i] * k[i]
			mag += math.Abs(scale * q[i] * k[i])
		}
		out.err[j] = testx.ChainC(len(q))*mag + 2*math.Abs(out.s[j])
		top = math.Max(top, out.s[j])
	}
	out.lse = ref.LogSumExp(out.s)
	for j, s := range out.s {
		out.err[j] += math.Abs(s-top) + math.Abs(top)
		out.p[j] = math.Exp(s - out.lse)
		out.mean += out.p[j] * out.err[j]
	}
	return out
}

// softmaxC is the relative error of a probability beyond that of its score: an
// exponential, a sum of n of them, a division, and the rescaling at each merge
// of splits.
func softmaxC(n int) float64 {
	return 2*elemC + testx.ChainC(n) + elemC*math.Sqrt(float64(n/engine.PageSize))
}

// keysOf lists the head g columns of the given rows.
func keysOf(m ref.Mat, rows []int, g, d int) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		out[i] = m.Row(r)[g*d : (g+1)*d]
	}
	return out
}

// expectAttention: an output is Σ p·v, so its error is Σ p·|v| times the
// relative errors of p and of the sum.
func expectAttention(q, k, v ref.Mat, d int, scale float64, p *engine.Packing) (o, lse expected) {
	wo, wl := ref.Attention(q, k, v, d, scale, p)
	eo, el := ref.New(wo.Rows, wo.Cols), ref.New(wl.Rows, wl.Cols)
	heads, kv := q.Cols/d, k.Cols/d
	for t := range q.Rows {
		rows := ref.Visible(p, t)
		for h := range heads {
			g := h / (heads / kv)
			s := scoresOf(q.Row(t)[h*d:(h+1)*d], keysOf(k, rows, g, d), scale)
			for j, val := range keysOf(v, rows, g, d) {
				for i := range d {
					eo.Row(t)[h*d+i] += s.p[j] * math.Abs(val[i]) * (s.err[j] + s.mean + softmaxC(len(rows)))
				}
			}
			el.Row(t)[h] = s.mean + softmaxC(len(rows)) + 2*math.Abs(s.lse)
		}
	}
	return expected{wo.V, eo.V}, expected{wl.V, el.V}
}

// expectAttentionBackward: p comes from the score and the given LSE; ds is p
// times a difference of two products of D elements; every gradient is then a
// sum of such terms, over the keys that a row sees (DQ) or over all the rows
// and heads that see a key (DK, DV).
func expectAttentionBackward(do, q, k, v, o, lse ref.Mat, d int, scale float64, p *engine.Packing) (dq, dk, dv expected) {
	wq, wk, wv := ref.AttentionBackward(do, q, k, v, o, lse, d, scale, p)
	eq, ek, ev := ref.New(wq.Rows, wq.Cols), ref.New(wk.Rows, wk.Cols), ref.New(wv.Rows, wv.Cols)
	heads, kv := q.Cols/d, k.Cols/d
	chainD, chainT := testx.ChainC(d), testx.ChainC(q.Rows*heads/kv)
	for t := range q.Rows {
		rows := ref.Visible(p, t)
		for h := range heads {
			g := h / (heads / kv)
			qh, doh, oh := q.Row(t)[h*d:(h+1)*d], do.Row(t)[h*d:(h+1)*d], o.Row(t)[h*d:(h+1)*d]
			keys, values := keysOf(k, rows, g, d), keysOf(v, rows, g, d)
			s := scoresOf(qh, keys, scale)
			delta, magDelta := 0.0, 0.0
			for i := range d {
				delta += doh[i] * oh[i]
				magDelta += math.Abs(doh[i] * oh[i])
			}
			for j, r := range rows {
				dp, magDP := 0.0, 0.0
				for i := range d {
					dp += doh[i] * values[j][i]
					magDP += math.Abs(doh[i] * values[j][i])
				}
				prob := math.Exp(s.s[j] - lse.At(t, h))
				relP := s.err[j] + math.Abs(lse.At(t, h)) + elemC
				ds := math.Abs(prob * (dp - delta))
				errDS := ds*relP + prob*(chainD+2)*(magDP+magDelta)
				for i := range d {
					ev.Row(r)[g*d+i] += prob * math.Abs(doh[i]) * (relP + chainT)
					eq.Row(t)[h*d+i] += scale * math.Abs(keys[j][i]) * (errDS + ds*(testx.ChainC(len(rows))+4))
					ek.Row(r)[g*d+i] += scale * math.Abs(qh[i]) * (errDS + ds*(chainT+4))
				}
			}
		}
	}
	return expected{wq.V, eq.V}, expected{wk.V, ek.V}, expected{wv.V, ev.V}
}

// logits are one row of scale·x·wᵀ with errors as in scores.
func logitsOf(x []float64, w ref.Mat, scale float64) scores {
	rows := make([][]float64, w.Rows)
	for v := range rows {
		rows[v] = w.Row(v)
	}
	return scoresOf(x, rows, scale)
}

// vocabC is the relative error of a sum of positive exponentials over chunks
// of the vocabulary: within a chunk a chain, then one rescaling a chunk.
func vocabC(v int) float64 {
	chunks := float64(v/engine.VocabChunk + 1)
	return testx.ChainC(min(v, engine.VocabChunk)) + 2*elemC*math.Sqrt(chunks)
}

// expectLogProb: LSE carries the mean error of the logits and that of the sum;
// the entropy is a difference of LSE and Σ p·z, whose terms count each at its
// own size.
func expectLogProb(x, w ref.Mat, targets []int32, scale float64) (logp, entropy, lse expected) {
	for t := range x.Rows {
		s := logitsOf(x.Row(t), w, scale)
		wl, wh := ref.LogitStats(s.s)
		target := int(targets[t])
		el := s.mean + vocabC(w.Rows) + 2*math.Abs(wl)
		lse.v, lse.err = append(lse.v, wl), append(lse.err, el)
		logp.v = append(logp.v, s.s[target]-wl)
		logp.err = append(logp.err, s.err[target]+el)
		eh := el
		for v, z := range s.s {
			eh += s.p[v] * (s.err[v] + math.Abs(z)*(vocabC(w.Rows)+1) + math.Abs(z-wl)*(s.err[v]+s.mean+elemC))
		}
		entropy.v, entropy.err = append(entropy.v, wh), append(entropy.err, eh)
	}
	return logp, entropy, lse
}

// expectLogProbBackward: p from the logit and the given LSE, then dz, then one
// sum of V (DX) or T (DW) products.
func expectLogProbBackward(x, w ref.Mat, targets []int32, lse, entropy, dlogp, dentropy []float64, scale float64) (dx, dw expected) {
	wx, ww := ref.LogProbBackward(x, w, targets, lse, entropy, dlogp, dentropy, scale)
	ex, ew := ref.New(wx.Rows, wx.Cols), ref.New(ww.Rows, ww.Cols)
	chainV, chainT := testx.ChainC(w.Rows), testx.ChainC(x.Rows)
	for t := range x.Rows {
		s := logitsOf(x.Row(t), w, scale)
		h, dh := 0.0, 0.0
		if dentropy != nil {
			h, dh = entropy[t], dentropy[t]
		}
		dz := ref.LogitGradient(s.s, int(targets[t]), lse[t], h, dlogp[t], dh)
		for v, z := range s.s {
			logq := z - lse[t]
			p := math.Exp(logq)
			abslog := s.err[v] + math.Abs(lse[t]) + math.Abs(z) // absolute error of log p
			relP := abslog + elemC
			err := math.Abs(dlogp[t])*p*relP + 2*math.Abs(dz[v]) +
				math.Abs(dh)*p*(math.Abs(logq+h)*relP+abslog+math.Abs(logq)+math.Abs(h))
			if v == int(targets[t]) {
				err += 2 * math.Abs(dlogp[t])
			}
			for c := range x.Cols {
				ex.Row(t)[c] += scale * math.Abs(w.At(v, c)) * (err + math.Abs(dz[v])*(chainV+2))
				ew.Row(v)[c] += scale * math.Abs(x.At(t, c)) * (err + math.Abs(dz[v])*(chainT+2))
			}
		}
	}
	return expected{wx.V, ex.V}, expected{ww.V, ew.V}
}
