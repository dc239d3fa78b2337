package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// Sample draws one token for each row; a tile is a row.
func (b *Backend) Sample(a engine.SampleArgs) {
	op := next(b, &b.ops.sample)
	*op = sampleOp{logits: b.f32(a.Logits), marker: a.Marker}
	n := op.logits.rows
	if b.recording != nil {
		op.marker = append([]int32(nil), a.Marker...)
	}
	op.params = b.shaped(a.Params, n, engine.NumParams)
	op.keys = b.i32(a.Keys, n, engine.NumKeys)
	if len(op.marker) > 0 {
		op.markerAfter = b.vec(a.MarkerAfter, op.logits.cols)
		for _, id := range op.marker {
			if id < 0 || int(id) >= op.logits.cols {
				panic("cpu: sample: marker token out of range")
			}
		}
	}
	op.forced, op.tokens, op.positions = b.ints(a.Forced, n), b.ints(a.Tokens, n), b.ints(a.Positions, n)
	op.logProb, op.samplingLogProb, op.entropy = b.vec(a.LogProb, n), b.vec(a.SamplingLogProb, n), b.vec(a.Entropy, n)
	if n > 0 && op.logits.cols == 0 {
		panic("cpu: sample: empty vocabulary")
	}
	b.submit(op)
}

type sampleOp struct {
	logits                            mat
	params                            mat
	keys                              imat
	marker                            []int32
	markerAfter                       []float32
	forced, tokens, positions         []int32
	logProb, samplingLogProb, entropy []float32
}

func (o *sampleOp) run(b *Backend) {
	b.reserve(2 * scratchLen(o.logits.cols))
	b.parallel(o, o.logits.rows)
}

func (o *sampleOp) tile(w *worker, r int) {
	if o.positions[r] < 0 {
		return
	}
	z, params := o.logits.row(r), o.params.row(r)
	stats := newSoftStats()
	for v := 0; v < len(z); v += engine.VocabChunk {
		stats.add(z[v:min(v+engine.VocabChunk, len(z))])
	}

	var token int
	var raw float32 // the token's logit without the bias
	if f := int(o.forced[r]); f > 0 && f < len(o.marker) {
		token = int(o.marker[f])
		raw = z[token]
		o.samplingLogProb[r] = 0
		o.forced[r] = int32((f + 1) % len(o.marker))
	} else {
		o.forced[r] = 0
		bias, biased := params[engine.ParamHelpBias], false
		var unbiased float32
		if len(o.marker) > 0 && bias != 0 && o.mayAsk(r) {
			biased = true
			unbiased = z[o.marker[0]]
			z[o.marker[0]] += bias
		}
		d := drawer{z: z, params: params, topK: int(o.keys.row(r)[engine.KeyTopK])}
		var lp float32
		token, lp = d.draw(w, o.uniform(r))
		raw = z[token]
		if biased && token == int(o.marker[0]) {
			raw = unbiased
			o.forced[r] = int32(1 % len(o.marker))
		}
		o.samplingLogProb[r] = lp
		if d.plain && !biased {
			o.samplingLogProb[r] = stats.logProb(raw)
		}
	}
	o.logProb[r] = stats.logProb(raw)
	o.entropy[r] = stats.entropy()
	o.tokens[r] = int32(token)
	o.positions[r]++
}

// mayAsk reports whether the marker may follow row r's current token.
func (o *sampleOp) mayAsk(r int) bool {
	t := int(o.tokens[r])
	return t >= 0 && t < len(o.markerAfter) && o.markerAfter[t] == 1
}

// uniform returns the row's random number for its position.
func (o *sampleOp) uniform(r int) float32 {
	k := o.keys.row(r)
	x := engine.Philox(
		[4]uint32{uint32(o.positions[r]), uint32(k[engine.KeySample]), uint32(k[engine.KeyPrompt]), uint32(k[engine.KeyStep])},
		[2]uint32{uint32(k[engine.KeySeedLo]), uint32(k[engine.KeySeedHi])})
	return engine.Uniform(x[0])
}

// drawer draws from one row of logits, which it leaves as they are.
type drawer struct {
	z      []float32
	params []float32
	topK   int
	plain  bool // set by draw: the distribution is softmax(z)
}

// draw returns a token and its log-prob under the distribution that remains
// after temperature and filters.
func (d *drawer) draw(w *worker, u float32) (token int, logProb float32) {
	temperature := d.params[engine.ParamTemperature]
	if temperature == 0 {
		return simd.ArgMax(d.z), 0
	}
	topP, minP := d.params[engine.ParamTopP], d.params[engine.ParamMinP]
	withK := d.topK > 0 && d.topK < len(d.z)
	d.plain = temperature == 1 && !withK && topP >= 1 && minP <= 0

	p := w.floats(len(d.z))
	inv := 1 / temperature
	simd.Scale(p, inv, d.z)
	m := simd.Max(p)
	if m-m != 0 { // NaN or infinite: there is no distribution
		return simd.ArgMax(d.z), m - m
	}
	var scratch []float32
	if withK || topP < 1 {
		scratch = w.floats(len(d.z))
	}
	if withK {
		keepLargest(p, d.topK, scratch)
	}
	simd.ExpSub(p, p, m)
	if topP < 1 {
		keepMass(p, float64(topP), scratch)
	}
	if minP > 0 { // the largest weight is 1
		simd.ZeroBelow(p, minP, p)
	}
	token, total := pick(p, float64(u))
	return token, float32(float64(inv*d.z[token]-m) - math.Log(total))
}

// pickBlock is the number of weights that pick adds up at once.
const pickBlock = 256

// pick returns the first index at which the running sum of the weights exceeds
// u times their total, and the total.
func pick(p []float32, u float64) (index int, total float64) {
	for from := 0; from < len(p); from += pickBlock {
		total += simd.Sum(p[from:min(from+pickBlock, len(p))])
	}
	target := u * total
	var sum float64
	last := 0 // index with a weight, if rounding lets the sum end below target
	for from := 0; from < len(p); from += pickBlock {
		block := p[from:min(from+pickBlock, len(p))]
		s := simd.Sum(block)
		if sum+s <= target {
			sum += s
			if s > 0 {
				last = from
			}
			continue
		}
		for i, v := range block {
			sum += float64(v)
			if v > 0 {
				last = from + i
				if sum > target {
					return last, total
				}
			}
		}
	}
	for i := last; i < len(p) && i < last+pickBlock; i++ {
		if p[i] > 0 {
			last = i
		}
	}
	return last, total
}

// keepLargest sets all but the k largest elements of z to −Inf; of equal ones
// the lower index stays. scratch has len(z) elements; z has no NaN.
func keepLargest(z []float32, k int, scratch []float32) {
	kth := selectLargest(candidates(z, k, scratch), k)
	more := k
	for _, v := range z {
		if v > kth {
			more--
		}
	}
	for i, v := range z {
		switch {
		case v > kth:
		case v == kth && more > 0:
			more--
		default:
			z[i] = negInf
		}
	}
}

// candidates returns elements of z, the k largest among them, in scratch. Where
// there are k blocks or more, k of their maxima are not below the k-th largest
// maximum, so neither is the k-th largest element: blocks below it are left out.
func candidates(z []float32, k int, scratch []float32) []float32 {
	const block = 64
	blocks := (len(z) + block - 1) / block
	if k > blocks {
		return scratch[:copy(scratch, z)]
	}
	for i := range blocks {
		scratch[i] = simd.Max(z[i*block : min((i+1)*block, len(z))])
	}
	bound := selectLargest(scratch[:blocks], k)
	n := 0
	for i := range blocks {
		b := z[i*block : min((i+1)*block, len(z))]
		if simd.Max(b) < bound {
			continue
		}
		for _, v := range b {
			if v >= bound {
				scratch[n] = v
				n++
			}
		}
	}
	return scratch[:n]
}

// selectLargest returns the k-th largest element of s, 1 ≤ k ≤ len(s), and
// reorders s (Hoare's selection with a three-way partition).
func selectLargest(s []float32, k int) float32 {
	for {
		pivot := median(s)
		greater, equal := partition(s, pivot)
		switch {
		case k <= greater:
			s = s[:greater]
		case k <= greater+equal:
			return pivot
		default:
			k -= greater + equal
			s = s[greater+equal:]
		}
	}
}

// keepMass sets to 0 all weights but the shortest head, in descending order and
// the lower index first, whose share of the whole mass reaches share; at least
// one stays. It selects instead of sorting: it halves the range of the last
// weight that stays until few are in it, and then partitions those.
func keepMass(p []float32, share float64, scratch []float32) {
	total := simd.Sum(p)
	target := max(share*total, math.SmallestNonzeroFloat64)
	lo, hi, mass := massRange(p, total, target)
	n := 0
	for _, v := range p {
		if v > lo && v <= hi {
			scratch[n] = v
			n++
		}
	}
	s := scratch[:n]
	for len(s) > 0 {
		pivot := median(s)
		greater, equal := partition(s, pivot)
		above := simd.Sum(s[:greater])
		switch {
		case mass+above >= target:
			s = s[:greater]
			continue
		case mass+above+float64(equal)*float64(pivot) < target:
			mass += above + float64(equal)*float64(pivot)
			s = s[greater+equal:]
			continue
		}
		mass += above
		stay := 0 // of those equal to the pivot
		for ; stay < equal && mass < target; stay++ {
			mass += float64(pivot)
		}
		simd.ZeroBelow(p, pivot, p)
		for i := 0; stay < equal && i < len(p); i++ {
			if p[i] != pivot {
				continue
			}
			if stay--; stay < 0 {
				p[i] = 0
			}
		}
		return
	}
	// Rounding let the whole mass end below the target: everything stays.
}

// massFew is the number of weights that are partitioned rather than bisected.
const massFew = 1024

// massRange returns a range lo < v ≤ hi of weights in which lies the last one
// that stays, and the mass of those above hi. The range is halved in the order of
// floats, of which a float's bits are the rank.
func massRange(p []float32, total, target float64) (lo, hi float32, mass float64) {
	// All weights up to lo together are at most half of what is to go.
	lo, hi = max(0, float32((total-target)/float64(2*len(p)))), float32(math.Inf(1))
	if len(p) <= massFew {
		return lo, hi, 0
	}
	_, in := simd.SumAbove(p, lo)
	above := 0 // weights above hi
	from, to := math.Float32bits(lo), math.Float32bits(simd.Max(p))
	for in-above > massFew && to-from > 1 {
		mid := from + (to-from)/2
		if s, n := simd.SumAbove(p, math.Float32frombits(mid)); s >= target {
			from, in = mid, n
		} else {
			to, above, mass = mid, n, s
		}
	}
	return math.Float32frombits(from), math.Float32frombits(to), mass
}

// median returns the median of the first, middle and last element.
func median(s []float32) float32 {
	a, b, c := s[0], s[len(s)/2], s[len(s)-1]
	return max(min(a, b), min(max(a, b), c))
}

// partition reorders s into elements greater than, equal to and less than
// pivot, and counts the first two.
func partition(s []float32, pivot float32) (greater, equal int) {
	lo, i, hi := 0, 0, len(s)
	for i < hi {
		switch v := s[i]; {
		case v > pivot:
			s[lo], s[i] = v, s[lo]
			lo++
			i++
		case v < pivot:
			hi--
			s[i], s[hi] = s[hi], v
		default:
			i++
		}
	}
	return lo, hi - lo
}
