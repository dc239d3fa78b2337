package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/half"
)

// checkShape is a product to check. Pad adds to the row strides: pad elements to
// C's, 8·pad to A's and 16·pad to B's.
type checkShape struct{ m, n, k, pad int }

func checkShapes(quick bool) []checkShape {
	s := []checkShape{
		{1, 1, 0, 0}, {1, 1, 1, 0}, {5, 3, 7, 1}, {16, 8, 16, 0}, {1, 300, 896, 0}, {127, 129, 33, 3},
		{128, 128, 128, 0}, {131, 257, 250, 2},
	}
	if !quick {
		s = append(s, checkShape{600, 1152, 896, 0}, checkShape{1100, 1300, 640, 1},
			checkShape{4096, 4096, 4096, 0}, checkShape{8192, 9728, 896, 0}, checkShape{256, 151936, 896, 0})
	}
	return s
}

// exhaustive is the number of multiplications up to which every element is
// compared with the host's; of larger products a random sample is.
const (
	exhaustive = 1 << 30
	sampled    = 20_000
	guard      = 4096 // bytes before and after C that must stay as they are
	guardByte  = 0xa5
)

// checkAll runs every check, reports each and returns an error if any failed.
func (b *bench) checkAll(quick bool, r *report, w io.Writer) error {
	var failed error
	for _, k := range b.kernels {
		for _, s := range checkShapes(quick) {
			c := b.check(k, s)
			r.Checks = append(r.Checks, c)
			verdict := fmt.Sprintf("ok, %d elements, at most %.0f %% of the tolerance", c.Compared, 100*c.Worst)
			if c.Error != "" {
				verdict = "FAILED: " + c.Error
				failed = errors.Join(failed, fmt.Errorf("%s %dx%dx%d: %s", c.Entry, s.m, s.n, s.k, c.Error))
			}
			fmt.Fprintf(w, "check %-15s %5d x %6d x %4d  %s\n", c.Entry, s.m, s.n, s.k, verdict)
		}
	}
	return failed
}

func (b *bench) check(k kernel, s checkShape) checkReport {
	c := checkReport{Entry: k.name, M: s.m, N: s.n, K: s.k, Pad: s.pad}
	var err error
	if c.Compared, c.Worst, err = b.compare(k, s); err != nil {
		c.Error = err.Error()
	}
	return c
}

// compare computes one product on the device: against float64 on the host, for
// stray writes, twice for the same bits, and once more for a single row alone.
func (b *bench) compare(k kernel, s checkShape) (compared int, worst float64, err error) {
	ldc, lda, ldb := s.n+s.pad, (s.k+7)/8*8+8*s.pad, (s.k+7)/8*8+16*s.pad
	r := rand.New(rand.NewPCG(uint64(s.m)<<32|uint64(s.n), uint64(s.k)))
	x, y := randomMatrix(r, s.m, s.k, lda), randomMatrix(r, s.n, s.k, ldb)
	free := func(buf *cuda.Buffer) { err = errors.Join(err, buf.Free()) }
	dx, err := b.upload(x)
	if err != nil {
		return 0, 0, err
	}
	defer free(dx)
	dy, err := b.upload(y)
	if err != nil {
		return 0, 0, err
	}
	defer free(dy)
	size := k.size
	dc, err := b.dev.Alloc(2*guard + s.m*ldc*size)
	if err != nil {
		return 0, 0, err
	}
	defer free(dc)

	var args cuda.Args
	product := func(m int, x *cuda.Buffer) ([]byte, error) {
		n := 2*guard + m*ldc*size
		out := make([]byte, n)
		return out, errors.Join(
			b.stream.Fill(dc, 0, n, guardByte),
			b.launch(k, &args, dc, x, dy, guard, m, s.n, s.k, ldc, lda, ldb),
			b.stream.Download(out, dc, 0))
	}
	out, err := product(s.m, dx)
	if err != nil {
		return 0, 0, err
	}
	c := out[guard : len(out)-guard]
	untouched := func(p []byte) bool { return len(bytes.Trim(p, string([]byte{guardByte}))) == 0 }
	if !untouched(out[:guard]) || !untouched(out[len(out)-guard:]) {
		return 0, 0, errors.New("memory beside C was written")
	}
	for i := range s.m {
		if !untouched(c[(i*ldc+s.n)*size : (i+1)*ldc*size]) {
			return 0, 0, fmt.Errorf("row %d was written beyond N", i)
		}
	}

	element := func(i, j int) error {
		// A tensor core adds the 16 products of a step and the sum so far after
		// shifting all to the exponent of the largest and cutting them off there:
		// each of the 17 errs by at most a last place of the largest, and so does
		// the result. bf16 output adds half of its own last place.
		var sum, largest, tol float64
		for l := range s.k {
			if l%16 == 0 {
				largest = math.Abs(sum)
			}
			p := float64(half.FromBF16(x[i*lda+l])) * float64(half.FromBF16(y[j*ldb+l]))
			sum += p
			largest = max(largest, math.Abs(p), math.Abs(sum))
			if l%16 == 15 || l == s.k-1 {
				tol += 18 * 0x1p-23 * largest
			}
		}
		var got float64
		at := c[(i*ldc+j)*size:]
		if size == 2 {
			got = float64(half.FromBF16(binary.LittleEndian.Uint16(at)))
			tol += 0x1p-8 * (math.Abs(sum) + tol)
		} else {
			got = float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
		}
		d := math.Abs(got - sum)
		if !(d <= tol) {
			return fmt.Errorf("C[%d][%d] = %v, want %v within %v", i, j, got, sum, tol)
		}
		if tol > 0 {
			worst = max(worst, d/tol)
		}
		compared++
		return nil
	}
	if s.m*s.n*max(s.k, 1) <= exhaustive {
		for i := range s.m {
			for j := range s.n {
				if err := element(i, j); err != nil {
					return compared, worst, err
				}
			}
		}
	} else {
		for range sampled {
			if err := element(r.IntN(s.m), r.IntN(s.n)); err != nil {
				return compared, worst, err
			}
		}
	}

	again, err := product(s.m, dx)
	if err != nil {
		return compared, worst, err
	}
	if !bytes.Equal(out, again) {
		return compared, worst, errors.New("a second run gave other bits")
	}
	row := r.IntN(s.m)
	one, err := b.upload(x[row*lda : (row+1)*lda])
	if err != nil {
		return compared, worst, err
	}
	defer free(one)
	alone, err := product(1, one)
	if err != nil {
		return compared, worst, err
	}
	if !bytes.Equal(c[row*ldc*size:(row+1)*ldc*size], alone[guard:len(alone)-guard]) {
		return compared, worst, fmt.Errorf("row %d computed alone has other bits than among %d", row, s.m)
	}
	return compared, worst, nil
}
