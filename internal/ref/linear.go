package ref

// Gather returns the rows of table that ids name; a negative id gives zeros.
func Gather(table Mat, ids []int32) Mat {
	out := New(len(ids), table.Cols)
	for t, id := range ids {
		if id >= 0 {
			copy(out.Row(t), table.Row(int(id)))
		}
	}
	return out
}

// ScatterAdd returns what is added to a table of the given rows: the sum of
// the rows of src whose id is the table's row. Negative ids are left out.
func ScatterAdd(rows int, src Mat, ids []int32) Mat {
	out := New(rows, src.Cols)
	for t, id := range ids {
		if id < 0 {
			continue
		}
		for c, v := range src.Row(t) {
			out.Row(int(id))[c] += v
		}
	}
	return out
}

// Linear returns x·wᵀ + bias + residual for x [T, K], w [N, K], bias [1, N] and
// residual [T, N]; bias and residual may be absent.
func Linear(x, w, bias, residual Mat) Mat {
	y := New(x.Rows, w.Rows)
	for t := range x.Rows {
		for n := range w.Rows {
			sum := 0.0
			for k := range x.Cols {
				sum += x.At(t, k) * w.At(n, k)
			}
			if bias.Valid() {
				sum += bias.At(0, n)
			}
			if residual.Valid() {
				sum += residual.At(t, n)
			}
			y.Row(t)[n] = sum
		}
	}
	return y
}

// LinearBackwardInput returns dx = dy·w for dy [T, N], w [N, K].
func LinearBackwardInput(dy, w Mat) Mat {
	dx := New(dy.Rows, w.Cols)
	for t := range dy.Rows {
		for n := range w.Rows {
			for k := range w.Cols {
				dx.Row(t)[k] += dy.At(t, n) * w.At(n, k)
			}
		}
	}
	return dx
}

// LinearBackwardWeight returns dw = dyᵀ·x [N, K] and dbias = Σ_t dy [1, N].
func LinearBackwardWeight(dy, x Mat) (dw, dbias Mat) {
	dw, dbias = New(dy.Cols, x.Cols), New(1, dy.Cols)
	for t := range dy.Rows {
		for n := range dy.Cols {
			dbias.V[n] += dy.At(t, n)
			for k := range x.Cols {
				dw.Row(n)[k] += dy.At(t, n) * x.At(t, k)
			}
		}
	}
	return dw, dbias
}
