package ref

// Rounding is what a lower precision does to an intermediate result. Its methods
// are the operations that name one; nil rounds nothing.
type Rounding func(float64) float64

func (r Rounding) round(v float64) float64 {
	if r == nil {
		return v
	}
	return r(v)
}

// Mat is a dense row-major matrix. The zero Mat means "absent" where an
// operation has optional arguments.
type Mat struct {
	Rows, Cols int
	V          []float64
}

// New returns a zero matrix.
func New(rows, cols int) Mat {
	return Mat{rows, cols, make([]float64, rows*cols)}
}

// Of wraps v, row-major, as a matrix of rows rows.
func Of(rows int, v ...float64) Mat {
	if rows == 0 || len(v)%rows != 0 {
		panic("ref: elements do not fill the rows")
	}
	return Mat{rows, len(v) / rows, v}
}

// Row returns row r, sharing its memory.
func (m Mat) Row(r int) []float64 { return m.V[r*m.Cols : (r+1)*m.Cols] }

// At returns element (r, c).
func (m Mat) At(r, c int) float64 { return m.V[r*m.Cols+c] }

// Valid reports whether m is present.
func (m Mat) Valid() bool { return m.V != nil }

// Clone copies m.
func (m Mat) Clone() Mat {
	out := New(m.Rows, m.Cols)
	copy(out.V, m.V)
	return out
}

// Map returns f of every element.
func (m Mat) Map(f func(float64) float64) Mat {
	out := New(m.Rows, m.Cols)
	for i, v := range m.V {
		out.V[i] = f(v)
	}
	return out
}

// Add returns a + b.
func Add(a, b Mat) Mat {
	if a.Rows != b.Rows || a.Cols != b.Cols {
		panic("ref: shapes differ")
	}
	out := a.Clone()
	for i, v := range b.V {
		out.V[i] += v
	}
	return out
}
