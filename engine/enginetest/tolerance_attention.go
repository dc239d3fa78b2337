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

func (a arith) scoresOf(q []float64, keys [][]float64, scale float64) scores {
	out := scores{s: make([]float64, len(keys)), err: make([]float64, len(keys)), p: make([]float64, len(keys))}
	top := math.Inf(-1)
	for j, k := range keys {
		mag := 0.0
		for i := range q {
			out.s[j] += scale * q[i] * k[i]
			mag += math.Abs(scale * q[i] * k[i])
		}
		out.err[j] = a.chain(len(q))*mag + 2*math.Abs(out.s[j])
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

// softmaxC is the relative error of a probability beyond that of its score and,
// where probabilities are rounded, of that: an exponential, a sum of n of them,
// a division, and the rescaling at each merge of splits.
func (a arith) softmaxC(n int) float64 {
	return 2*elemC + a.chain(n) + elemC*math.Sqrt(float64(n/engine.PageSize))
}

// weighted adds what attention over one query's keys gives, and its error: an
// output is Σ p·v, so its error is Σ p·|v| times the relative errors of p and of
// the sum, and that of rounding p.
func (a arith) weighted(s *scores, values [][]float64, v, err []float64) {
	for i := range v {
		sum, squares := 0.0, 0.0
		for j, val := range values {
			term := s.p[j] * math.Abs(val[i])
			v[i] += s.p[j] * val[i]
			err[i] += term * (s.err[j] + s.mean + a.softmaxC(len(values)))
			sum, squares = sum+term, squares+term*term
		}
		err[i] += a.roundings(sum, squares)
	}
}

// keysOf lists the head g columns of the given rows.
func keysOf(m ref.Mat, rows []int, g, d int) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		out[i] = m.Row(r)[g*d : (g+1)*d]
	}
	return out
}

// expectAttention: see weighted.
func (a arith) expectAttention(q, k, v ref.Mat, d int, scale float64, p *engine.Packing) (o, lse expected) {
	wo, wl := ref.Attention(q, k, v, d, scale, p)
	eo, el := ref.New(wo.Rows, wo.Cols), ref.New(wl.Rows, wl.Cols)
	sums := make([]float64, d)
	heads, kv := q.Cols/d, k.Cols/d
	for t := range q.Rows {
		rows := ref.Visible(p, t)
		for h := range heads {
			g := h / (heads / kv)
			s := a.scoresOf(q.Row(t)[h*d:(h+1)*d], keysOf(k, rows, g, d), scale)
			a.weighted(&s, keysOf(v, rows, g, d), sums, eo.Row(t)[h*d:(h+1)*d])
			el.Row(t)[h] = s.mean + a.softmaxC(len(rows)) + 2*math.Abs(s.lse)
		}
	}
	return expected{wo.V, eo.V}, expected{wl.V, el.V}
}

// expectAttentionBackward: p comes from the score and the given LSE; ds is p
// times a difference of two products of D elements; every gradient is then a
// sum of such terms, over the keys that a row sees (DQ) or over all the rows
// and heads that see a key (DK, DV), with p and ds rounded before.
func (a arith) expectAttentionBackward(do, q, k, v, o, lse ref.Mat, d int, scale float64, p *engine.Packing) (dq, dk, dv expected) {
	wq, wk, wv := ref.AttentionBackward(do, q, k, v, o, lse, d, scale, p)
	eq, ek, ev := ref.New(wq.Rows, wq.Cols), ref.New(wk.Rows, wk.Cols), ref.New(wv.Rows, wv.Cols)
	sq, sk, sv := newSums(wq), newSums(wk), newSums(wv)
	heads, kv := q.Cols/d, k.Cols/d
	chainD, chainT := a.chain(d), a.chain(q.Rows*heads/kv)
	for t := range q.Rows {
		rows := ref.Visible(p, t)
		for h := range heads {
			g := h / (heads / kv)
			qh, doh, oh := q.Row(t)[h*d:(h+1)*d], do.Row(t)[h*d:(h+1)*d], o.Row(t)[h*d:(h+1)*d]
			keys, values := keysOf(k, rows, g, d), keysOf(v, rows, g, d)
			s := a.scoresOf(qh, keys, scale)
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
					eq.Row(t)[h*d+i] += scale * math.Abs(keys[j][i]) * (errDS + ds*(a.chain(len(rows))+4))
					ek.Row(r)[g*d+i] += scale * math.Abs(qh[i]) * (errDS + ds*(chainT+4))
					sv.add(r, g*d+i, prob*doh[i])
					sq.add(t, h*d+i, scale*ds*keys[j][i])
					sk.add(r, g*d+i, scale*ds*qh[i])
				}
			}
		}
	}
	sq.round(a, eq)
	sk.round(a, ek)
	sv.round(a, ev)
	return expected{wq.V, eq.V}, expected{wk.V, ek.V}, expected{wv.V, ev.V}
}

// sums are the absolute values and the squares of the terms of each element.
type sums struct{ abs, squares ref.Mat }

func newSums(like ref.Mat) sums {
	return sums{ref.New(like.Rows, like.Cols), ref.New(like.Rows, like.Cols)}
}

func (s sums) add(row, col int, term float64) {
	s.abs.Row(row)[col] += math.Abs(term)
	s.squares.Row(row)[col] += term * term
}

// round adds to err what rounding each term adds.
func (s sums) round(a arith, err ref.Mat) {
	for i := range err.V {
		err.V[i] += a.roundings(s.abs.V[i], s.squares.V[i])
	}
}

// logits are one row of scale·x·wᵀ with errors as in scores.
func (a arith) logitsOf(x []float64, w ref.Mat, scale float64) scores {
	rows := make([][]float64, w.Rows)
	for v := range rows {
		rows[v] = w.Row(v)
	}
	return a.scoresOf(x, rows, scale)
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
func (a arith) expectLogProb(x, w ref.Mat, targets []int32, scale float64) (logp, entropy, lse expected) {
	for t := range x.Rows {
		s := a.logitsOf(x.Row(t), w, scale)
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

// expectLogProbBackward: p from the logit and the given LSE, then dz, rounded,
// then one sum of V (DX) or T (DW) products.
func (a arith) expectLogProbBackward(x, w ref.Mat, targets []int32, lse, entropy, dlogp, dentropy []float64, scale float64) (dx, dw expected) {
	wx, ww := ref.LogProbBackward(x, w, targets, lse, entropy, dlogp, dentropy, scale)
	ex, ew := ref.New(wx.Rows, wx.Cols), ref.New(ww.Rows, ww.Cols)
	sx, sw := newSums(wx), newSums(ww)
	chainV, chainT := a.chain(w.Rows), a.chain(x.Rows)
	for t := range x.Rows {
		s := a.logitsOf(x.Row(t), w, scale)
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
				sx.add(t, c, scale*dz[v]*w.At(v, c))
				sw.add(v, c, scale*dz[v]*x.At(t, c))
			}
		}
	}
	sx.round(a, ex)
	sw.round(a, ew)
	return expected{wx.V, ex.V}, expected{ww.V, ew.V}
}
