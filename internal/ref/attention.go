package ref

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// Visible returns, in logical order, the rows whose keys row t of a packed
// batch sees: its segment's prefix, then its segment up to itself.
func Visible(p *engine.Packing, t int) []int {
	for _, s := range p.Segments {
		if t < s.Start || t >= s.Start+s.Len {
			continue
		}
		rows := make([]int, 0, s.PrefixLen+t-s.Start+1)
		for i := range s.PrefixLen {
			rows = append(rows, s.PrefixStart+i)
		}
		for r := s.Start; r <= t; r++ {
			rows = append(rows, r)
		}
		return rows
	}
	panic("ref: row outside all segments")
}

// attend returns softmax(scale·q·kᵀ)·v over the given keys and values and the
// logarithm of the sum of exponentials. Exponentials are relative to the largest
// score, and rounded before they multiply v.
func (r Rounding) attend(o, q []float64, keys, values [][]float64, scale float64) (lse float64) {
	s, top := make([]float64, len(keys)), math.Inf(-1)
	for j, k := range keys {
		s[j] = scale * dot(q, k)
		top = math.Max(top, s[j])
	}
	sum := 0.0
	clear(o)
	for j, v := range values {
		p := math.Exp(s[j] - top)
		sum += p
		p = r.round(p)
		for i := range o {
			o[i] += p * v[i]
		}
	}
	for i := range o {
		o[i] /= sum
	}
	return top + math.Log(sum)
}

// Attention returns causal softmax attention over packed segments,
// o [T, H*D], and its log-sum-exp lse [T, H], for q [T, H*D] and
// k, v [T, KV*D]. Query head h reads key-value head h/(H/KV).
func Attention(q, k, v Mat, headDim int, scale float64, p *engine.Packing) (o, lse Mat) {
	return Rounding(nil).Attention(q, k, v, headDim, scale, p)
}

// Attention is the function Attention with rounded exponentials.
func (r Rounding) Attention(q, k, v Mat, headDim int, scale float64, p *engine.Packing) (o, lse Mat) {
	heads, kv := q.Cols/headDim, k.Cols/headDim
	o, lse = New(q.Rows, q.Cols), New(q.Rows, heads)
	for t := range q.Rows {
		rows := Visible(p, t)
		for h := range heads {
			g := h / (heads / kv)
			lse.Row(t)[h] = r.attend(head(o, t, h, headDim), head(q, t, h, headDim),
				headRows(k, rows, g, headDim), headRows(v, rows, g, headDim), scale)
		}
	}
	return o, lse
}

// AttentionBackward returns the gradients of Attention with respect to q, k
// and v. With p_j = e^(scale·q·k_j − lse),
//
//	dv_j += p_j·do,  ds_j = p_j·(do·v_j − do·o),
//	dq += scale·ds_j·k_j,  dk_j += scale·ds_j·q.
func AttentionBackward(do, q, k, v, o, lse Mat, headDim int, scale float64, p *engine.Packing) (dq, dk, dv Mat) {
	return Rounding(nil).AttentionBackward(do, q, k, v, o, lse, headDim, scale, p)
}

// AttentionBackward is the function AttentionBackward with p and ds rounded
// before their products.
func (r Rounding) AttentionBackward(do, q, k, v, o, lse Mat, headDim int, scale float64, p *engine.Packing) (dq, dk, dv Mat) {
	heads, kv := q.Cols/headDim, k.Cols/headDim
	dq, dk, dv = New(q.Rows, q.Cols), New(k.Rows, k.Cols), New(v.Rows, v.Cols)
	for t := range q.Rows {
		for h := range heads {
			g := h / (heads / kv)
			qh, doh := head(q, t, h, headDim), head(do, t, h, headDim)
			delta := dot(doh, head(o, t, h, headDim))
			for _, row := range Visible(p, t) {
				kr, vr := head(k, row, g, headDim), head(v, row, g, headDim)
				prob := math.Exp(scale*dot(qh, kr) - lse.At(t, h))
				ds := r.round(prob * (dot(doh, vr) - delta))
				prob = r.round(prob)
				for i := range headDim {
					head(dv, row, g, headDim)[i] += prob * doh[i]
					head(dq, t, h, headDim)[i] += scale * ds * kr[i]
					head(dk, row, g, headDim)[i] += scale * ds * qh[i]
				}
			}
		}
	}
	return dq, dk, dv
}

// Cache is one layer's paged keys and values: row slot of K and V is
// page*engine.PageSize + offset and holds KV*D columns.
type Cache struct {
	K, V Mat
}

// NewCache returns a cache of pages pages.
func NewCache(pages, kvHeads, headDim int) Cache {
	return Cache{New(pages*engine.PageSize, kvHeads*headDim), New(pages*engine.PageSize, kvHeads*headDim)}
}

// Write stores row rows[i] of k and v at slots[i]; negative slots are left out.
func (c Cache) Write(k, v Mat, rows, slots []int32) {
	for i, slot := range slots {
		if slot >= 0 {
			copy(c.K.Row(int(slot)), k.Row(int(rows[i])))
			copy(c.V.Row(int(slot)), v.Row(int(rows[i])))
		}
	}
}

// DecodeAttention stores row b of k and v at positions[b] of sequence b and
// returns the attention of q over positions 0..positions[b] [B, H*D]. Position
// p of sequence b lies in page table[b][p/PageSize]. Rows at a negative
// position store nothing and give zeros.
func DecodeAttention(q, k, v Mat, c Cache, table [][]int32, positions []int32, headDim int, scale float64) Mat {
	return Rounding(nil).DecodeAttention(q, k, v, c, table, positions, headDim, scale)
}

// DecodeAttention is the function DecodeAttention with rounded exponentials.
func (r Rounding) DecodeAttention(q, k, v Mat, c Cache, table [][]int32, positions []int32, headDim int, scale float64) Mat {
	heads, kv := q.Cols/headDim, k.Cols/headDim
	o := New(q.Rows, q.Cols)
	for b := range q.Rows {
		var slots []int
		for p := range int(positions[b]) + 1 {
			slots = append(slots, int(table[b][p/engine.PageSize])*engine.PageSize+p%engine.PageSize)
		}
		if len(slots) == 0 {
			continue
		}
		last := slots[len(slots)-1]
		copy(c.K.Row(last), k.Row(b))
		copy(c.V.Row(last), v.Row(b))
		for h := range heads {
			g := h / (heads / kv)
			r.attend(head(o, b, h, headDim), head(q, b, h, headDim),
				headRows(c.K, slots, g, headDim), headRows(c.V, slots, g, headDim), scale)
		}
	}
	return o
}

func head(m Mat, r, h, d int) []float64 { return m.Row(r)[h*d : (h+1)*d] }

func headRows(m Mat, rows []int, h, d int) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		out[i] = head(m, r, h, d)
	}
	return out
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}
