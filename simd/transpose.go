package simd

// Transpose writes dst = srcᵀ: dst is rows×cols with element (i,j) at
// dst[i*ldd+j] = src[j*lds+i], so src is cols×rows. dst must not overlap src.
func Transpose(rows, cols int, dst []float32, ldd int, src []float32, lds int) {
	if rows < 0 || cols < 0 {
		panic("simd: transpose: negative dimension")
	}
	if (rows > 1 && ldd < cols) || (cols > 1 && lds < rows) {
		panic("simd: transpose: bad leading dimension")
	}
	if rows == 0 || cols == 0 {
		return
	}
	if len(dst) < (rows-1)*ldd+cols {
		panic("simd: transpose: destination too short")
	}
	if len(src) < (cols-1)*lds+rows {
		panic("simd: transpose: source too short")
	}
	transpose(rows, cols, dst, ldd, src, lds)
}

// transposeGeneric moves blocks of 8×8, so that both sides stay in a few cache
// lines.
func transposeGeneric(rows, cols int, dst []float32, ldd int, src []float32, lds int) {
	const tile = 8
	for i0 := 0; i0 < rows; i0 += tile {
		i1 := min(i0+tile, rows)
		for j0 := 0; j0 < cols; j0 += tile {
			j1 := min(j0+tile, cols)
			for i := i0; i < i1; i++ {
				d := dst[i*ldd:]
				for j := j0; j < j1; j++ {
					d[j] = src[j*lds+i]
				}
			}
		}
	}
}
