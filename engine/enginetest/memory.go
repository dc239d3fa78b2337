package enginetest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/testx"
)

func memoryChecks() (checks list) {
	checks.one("Memory", "alloc gives zeros", allocZeros)
	checks.one("Memory", "float32 bits survive a round trip", roundTripF32)
	checks.one("Memory", "int32 survives a round trip", roundTripI32)
	checks.one("Memory", "8-bit codes survive a round trip", roundTripU8)
	checks.one("Memory", "upload source may be reused at once", uploadReuse)
	checks.one("Memory", "download in stream order", downloadOrder)
	checks.one("Memory", "part of a buffer", partOfBuffer)
	checks.one("Memory", "an impossible size is an error", impossibleSize)
	checks.one("Memory", "freed memory comes back zeroed", freeAlloc)
	checks.one("Precision", "F32 always, others or a refusal", precisions)
	checks.one("Fill", "every type, any view", fill)
	checks.one("Copy", "any strides", copyStrides)
	checks.one("Copy", "between F32 and BF16", conversions)
	return checks
}

// precisions: F32 goes with F32; a type that a device cannot compute with is
// refused with errors.ErrUnsupported.
func precisions(e *env) error {
	for _, w := range []engine.DType{engine.F32, engine.BF16, engine.I32, engine.U8} {
		a, err := e.Precision(w)
		switch {
		case w == engine.F32 && (err != nil || a != engine.F32):
			return fmt.Errorf("%v weights: activations of %v (%v)", w, a, err)
		case (w == engine.I32 || w == engine.U8) && err == nil:
			return fmt.Errorf("weights of %v are not refused", w)
		case err != nil && !errors.Is(err, errors.ErrUnsupported):
			return fmt.Errorf("%v weights: the error does not wrap errors.ErrUnsupported: %w", w, err)
		case err == nil && a != engine.F32 && a != engine.BF16:
			return fmt.Errorf("%v weights: activations of %v", w, a)
		}
	}
	return nil
}

func (e *env) alloc(d engine.DType, n int) engine.Buffer {
	b, err := e.Alloc(d, n)
	if err != nil {
		panic(err)
	}
	e.loose = append(e.loose, b)
	return b
}

func allocZeros(e *env) error {
	for _, n := range []int{1, 7, 4096, 100001} {
		for _, d := range []engine.DType{engine.BF16, engine.U8} {
			if b := e.alloc(d, n); b.Len() != n || b.DType() != d {
				return fmt.Errorf("asked for %d elements of %v, got %d of %v", n, d, b.Len(), b.DType())
			}
		}
		f, i := e.alloc(engine.F32, n), e.alloc(engine.I32, n)
		if f.Len() != n || i.Len() != n || f.DType() != engine.F32 || i.DType() != engine.I32 {
			return fmt.Errorf("asked for %d elements of F32 and I32, got %d of %v and %d of %v", n, f.Len(), f.DType(), i.Len(), i.DType())
		}
		fs, is := make([]float32, n), make([]int32, n)
		e.DownloadF32(fs, engine.Vector(f, 0, n))
		e.DownloadI32(is, engine.Vector(i, 0, n))
		if err := e.Sync(); err != nil {
			return err
		}
		if err := testx.Identical(fs, make([]float32, n)); err != nil {
			return err
		}
		if slices.Max(is) != 0 || slices.Min(is) != 0 {
			return fmt.Errorf("%d I32 elements are not all zero", n)
		}
	}
	return nil
}

// impossibleSize: no machine has 2⁵² bytes; the error says how many were asked
// for.
func impossibleSize(e *env) error {
	b, err := e.Alloc(engine.F32, 1<<50)
	if err == nil {
		e.loose = append(e.loose, b)
		return errors.New("no error")
	}
	digits := strings.NewReplacer(",", "", "_", "", " ", "").Replace(err.Error())
	if !strings.Contains(digits, strconv.Itoa(4<<50)) {
		return fmt.Errorf("the error does not name the %d bytes: %w", 4<<50, err)
	}
	return nil
}

func roundTripF32(e *env) error {
	v := []float32{0, float32(math.Copysign(0, -1)), 1, -1.5, math.MaxFloat32, math.SmallestNonzeroFloat32, -1e-42,
		float32(math.Inf(1)), float32(math.Inf(-1)), math.Float32frombits(0x7fc12345)}
	b := e.data("b", 1, len(v), v)
	if err := e.fetch(); err != nil {
		return err
	}
	return b.same("round trip", v)
}

func roundTripI32(e *env) error {
	v := []int32{0, 1, -1, math.MaxInt32, math.MinInt32, 1<<24 + 1, -(1<<24 + 1), 123456789}
	b := e.ints("b", v)
	if err := e.fetch(); err != nil {
		return err
	}
	if !slices.Equal(b.intsAfter(), v) {
		return fmt.Errorf("got %v, want %v", b.intsAfter(), v)
	}
	return nil
}

func roundTripU8(e *env) error {
	v := make([]int32, 256)
	for i := range v {
		v[i] = int32(i)
	}
	b, other := e.codes("b", v), e.codes("copy", make([]int32, 256))
	other.role = inplace
	e.Copy(other.ColRange(3, 200), b.ColRange(3, 200))
	e.Fill(other.ColRange(0, 3), 255)
	if err := e.fetch(); err != nil {
		return err
	}
	if !slices.Equal(b.intsAfter(), v) {
		return fmt.Errorf("got %v, want %v", b.intsAfter(), v)
	}
	want := slices.Concat([]int32{255, 255, 255}, v[3:200], make([]int32, 56))
	if !slices.Equal(other.intsAfter(), want) {
		return fmt.Errorf("copied and filled: got %v, want %v", other.intsAfter(), want)
	}
	return nil
}

func uploadReuse(e *env) error {
	f, i := e.alloc(engine.F32, 100), e.alloc(engine.I32, 100)
	fs, is := e.normal(100, 1), make([]int32, 100)
	for j := range is {
		is[j] = int32(j * j)
	}
	wantF, wantI := slices.Clone(fs), slices.Clone(is)
	e.UploadF32(engine.Vector(f, 0, 100), fs)
	e.UploadI32(engine.Vector(i, 0, 100), is)
	clear(fs)
	clear(is)
	e.DownloadF32(fs, engine.Vector(f, 0, 100))
	t := e.DownloadI32(is, engine.Vector(i, 0, 100))
	if err := e.Wait(t); err != nil {
		return err
	}
	if !slices.Equal(is, wantI) {
		return fmt.Errorf("the I32 upload saw a change made after the call")
	}
	return testx.Identical(fs, wantF)
}

// downloadOrder: a download gives what the stream held when it was called, and
// is there after Wait on its ticket.
func downloadOrder(e *env) error {
	const n = 50
	b := e.alloc(engine.F32, n)
	v := engine.Vector(b, 0, n)
	var got [3][]float32
	var tickets [3]engine.Ticket
	for i := range got {
		got[i] = make([]float32, n)
		e.Fill(v, float32(i+1))
		tickets[i] = e.DownloadF32(got[i], v)
	}
	e.Fill(v, 9)
	for _, i := range []int{1, 0, 2} {
		if err := e.Wait(tickets[i]); err != nil {
			return err
		}
		if err := testx.Identical(got[i], slices.Repeat([]float32{float32(i + 1)}, n)); err != nil {
			return fmt.Errorf("download %d: %w", i, err)
		}
	}
	if err := e.Wait(tickets[0]); err != nil {
		return fmt.Errorf("waiting again: %w", err)
	}
	return e.Sync()
}

func partOfBuffer(e *env) error {
	const n = 40
	all := e.floats("all", inplace, dense, 5, 8, make([]float32, n))
	part := e.normal(16, 1)
	e.UploadF32(all.RowRange(1, 3), part)
	got := make([]float32, 11)
	e.DownloadF32(got, engine.Vector(all.buf, 10, 11))
	if err := e.fetch(); err != nil {
		return err
	}
	want := make([]float32, n)
	copy(want[8:], part)
	if err := all.same("after an upload into rows 1 and 2", want); err != nil {
		return err
	}
	return testx.Identical(got, want[10:21])
}

func freeAlloc(e *env) error {
	const n = 1000
	for range 5 {
		b, err := e.Alloc(engine.F32, n)
		if err != nil {
			return err
		}
		got := make([]float32, n)
		e.DownloadF32(got, engine.Vector(b, 0, n))
		e.Fill(engine.Vector(b, 0, n), 3)
		e.Free(b)
		if err := e.Sync(); err != nil {
			return err
		}
		if err := testx.Identical(got, make([]float32, n)); err != nil {
			return err
		}
	}
	return nil
}

func fill(e *env) error {
	for _, s := range [][2]int{{1, 1}, {3, 7}, {5, 33}, {1, 10000}} {
		for _, l := range layouts {
			e.layout = l
			b, h := e.outF32("Dst", s[0], s[1]), e.outAs(engine.BF16, "BF16", s[0], s[1])
			e.Fill(b.Tensor, -1.25)
			e.Fill(h.Tensor, -1.25)
			i := e.intMatrix("ints", inplace, 1, s[1], make([]int32, s[1]))
			e.Fill(i.Tensor, -3)
			if err := e.fetch(); err != nil {
				return err
			}
			if err := b.same("fill", slices.Repeat([]float32{-1.25}, b.Len())); err != nil {
				return err
			}
			if err := h.same("fill", slices.Repeat([]float32{-1.25}, h.Len())); err != nil {
				return err
			}
			if !slices.Equal(i.intsAfter(), slices.Repeat([]int32{-3}, s[1])) {
				return fmt.Errorf("I32: got %v", i.intsAfter())
			}
			e.free()
			e.blocks, e.loose = nil, nil
		}
	}
	return nil
}

func copyStrides(e *env) error {
	for _, s := range [][2]int{{0, 3}, {1, 1}, {3, 7}, {5, 33}, {40, 65}} {
		for i := range 9 {
			e.layout = layouts[i%3]
			src := e.in("Src", s[0], s[1])
			is := e.ints("ints", make([]int32, s[1]))
			id := e.intMatrix("ints out", inplace, 1, s[1], slices.Repeat([]int32{5}, s[1]))
			e.layout = layouts[i/3]
			dst := e.out("Dst", s[0], s[1])
			e.Copy(dst.Tensor, src.Tensor)
			e.Copy(id.Tensor, is.Tensor)
			if err := e.fetch(); err != nil {
				return err
			}
			if err := dst.same("copy", src.before()); err != nil {
				return err
			}
			if !slices.Equal(id.intsAfter(), is.intsBefore()) {
				return fmt.Errorf("I32 copy: got %v", id.intsAfter())
			}
		}
	}
	return nil
}
