//go:build !noasm

package simd

import "unsafe"

func data(x []float32) *float32 { return unsafe.SliceData(x) }

func transpose(rows, cols int, dst []float32, ldd int, src []float32, lds int) {
	if !use.neon {
		transposeGeneric(rows, cols, dst, ldd, src, lds)
		return
	}
	// Strips of eight columns in blocks of four rows, then the two edges.
	blocks, strips := rows/4, cols/8
	if blocks == 0 {
		strips = 0
	}
	for j := 0; j < 8*strips; j += 8 {
		transpose8NEON(&dst[j], uintptr(4*ldd), &src[j*lds], uintptr(4*lds), blocks)
	}
	if i := 4 * blocks; strips > 0 && i < rows {
		transposeGeneric(rows-i, 8*strips, dst[i*ldd:], ldd, src[i:], lds)
	}
	if j := 8 * strips; j < cols {
		transposeGeneric(rows, cols-j, dst[j:], ldd, src[j*lds:], lds)
	}
}

func add(dst, a, b []float32) {
	if use.neon {
		addNEON(data(dst), data(a), data(b), len(dst))
		return
	}
	addGeneric(dst, a, b)
}

func mul(dst, a, b []float32) {
	if use.neon {
		mulNEON(data(dst), data(a), data(b), len(dst))
		return
	}
	mulGeneric(dst, a, b)
}

func scale(dst []float32, alpha float32, x []float32) {
	if use.neon {
		scaleNEON(data(dst), data(x), len(dst), alpha)
		return
	}
	scaleGeneric(dst, alpha, x)
}

func axpy(dst []float32, alpha float32, x []float32) {
	if use.neon {
		axpyNEON(data(dst), data(x), len(dst), alpha)
		return
	}
	axpyGeneric(dst, alpha, x)
}

func scaleMul(dst []float32, alpha float32, x, w []float32) {
	if use.neon {
		scaleMulNEON(data(dst), data(x), data(w), len(dst), alpha)
		return
	}
	scaleMulGeneric(dst, alpha, x, w)
}

func dot(a, b []float32) float32 {
	if use.neon {
		return dotNEON(data(a), data(b), len(a))
	}
	return dotGeneric(a, b)
}

func sum(x []float32) float64 {
	if use.neon {
		return sumNEON(data(x), len(x))
	}
	return sumGeneric(x)
}

func sumSq(x []float32) float64 {
	if use.neon {
		return sumSqNEON(data(x), len(x))
	}
	return sumSqGeneric(x)
}

func sumAbove(x []float32, t float32) (sum float64, count int) {
	if use.neon {
		return sumAboveNEON(data(x), len(x), t)
	}
	return sumAboveGeneric(x, t)
}

func zeroBelow(dst []float32, t float32, x []float32) {
	if use.neon {
		zeroBelowNEON(data(dst), data(x), len(dst), t)
		return
	}
	zeroBelowGeneric(dst, t, x)
}

func maxOf(x []float32) float32 {
	if use.neon {
		return maxNEON(data(x), len(x))
	}
	return maxGeneric(x)
}

func exp(dst, x []float32) {
	if use.neon {
		expNEON(data(dst), data(x), len(dst))
		return
	}
	expGeneric(dst, x)
}

func expSub(dst, x []float32, m float32) float32 {
	if use.neon {
		return expSubNEON(data(dst), data(x), len(dst), m)
	}
	return expSubGeneric(dst, x, m)
}

func sumExp(x []float32, m float32) (s, t float32) {
	if use.neon {
		return sumExpNEON(data(x), len(x), m)
	}
	return sumExpGeneric(x, m)
}

func sigmoid(dst, x []float32) {
	if use.neon {
		sigmoidNEON(data(dst), data(x), len(dst))
		return
	}
	sigmoidGeneric(dst, x)
}

func swiGLU(dst, g, u []float32) {
	if use.neon {
		swiGLUNEON(data(dst), data(g), data(u), len(dst))
		return
	}
	swiGLUGeneric(dst, g, u)
}

func swiGLUBackward(dg, du, dy, g, u []float32) {
	if use.neon {
		swiGLUBackwardNEON(data(dg), data(du), data(dy), data(g), data(u), len(dg))
		return
	}
	swiGLUBackwardGeneric(dg, du, dy, g, u)
}

func dot3(a, b, c []float32) float64 {
	if use.neon {
		return dot3NEON(data(a), data(b), data(c), len(a))
	}
	return dot3Generic(a, b, c)
}

func mulAxpy(dst []float32, alpha float32, a, b []float32) {
	if use.neon {
		mulAxpyNEON(data(dst), data(a), data(b), len(dst), alpha)
		return
	}
	mulAxpyGeneric(dst, alpha, a, b)
}

func rmsNormDX(dx, dy, x, w []float32, rstd, c float32) {
	if use.neon {
		rmsNormDXNEON(data(dx), data(dy), data(x), data(w), len(dx), rstd, c)
		return
	}
	rmsNormDXGeneric(dx, dy, x, w, rstd, c)
}

func rmsNormDXAcc(dx, dy, x, w []float32, rstd, c float32) {
	if use.neon {
		rmsNormDXAccNEON(data(dx), data(dy), data(x), data(w), len(dx), rstd, c)
		return
	}
	rmsNormDXAccGeneric(dx, dy, x, w, rstd, c)
}

func rotate(x, y, cos, sin []float32, sign float32) {
	if use.neon {
		rotateNEON(data(x), data(y), data(cos), data(sin), len(x), sign)
		return
	}
	rotateGeneric(x, y, cos, sin, sign)
}

func adamw(p, g, m, v []float32, c *adamwConsts) {
	if use.neon {
		adamwNEON(data(p), data(g), data(m), data(v), len(p), &c.gradScale)
		return
	}
	adamwGeneric(p, g, m, v, c)
}

func softmaxRows(s []float32, scale float32, seen, step int, m, sum []float32) {
	if use.neon {
		softmaxRowsNEON(data(s), len(m), scale, seen, step, data(m), data(sum))
		return
	}
	softmaxRowsGeneric(s, scale, seen, step, m, sum)
}

func softmaxGradRows(p, ds []float32, scale float32, seen, step int, lse, delta []float32) {
	if use.neon {
		softmaxGradRowsNEON(data(p), data(ds), len(lse), scale, seen, step, data(lse), data(delta))
		return
	}
	softmaxGradRowsGeneric(p, ds, scale, seen, step, lse, delta)
}

func softmaxMerge(m, sum, ms, sums, a, b []float32) {
	if use.neon {
		softmaxMergeNEON(data(m), data(sum), data(ms), data(sums), len(m), data(a), data(b))
		return
	}
	softmaxMergeGeneric(m, sum, ms, sums, a, b)
}

func mergeRows(o, part []float32, d int, a, b []float32) {
	if use.neon {
		mergeRowsNEON(data(o), data(part), len(a), d, data(a), data(b))
		return
	}
	mergeRowsGeneric(o, part, d, a, b)
}
