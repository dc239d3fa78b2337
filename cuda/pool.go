package cuda

import (
	"errors"
	"slices"
)

// Pool hands out device memory and takes it back in the order of one stream: a
// freed block may be handed out again at once, while work that uses it is still
// to run, because whatever uses it next is issued behind that work. So a Pool
// never waits and, once it holds enough, never calls the driver. All users of a
// Pool's buffers issue to one stream. A Pool is not safe for concurrent use.
//
// Free blocks wait in lists by their exact rounded size, the newest first: the
// same calls give the same addresses. (cuMemAllocAsync would do as well but for
// that: which block it takes depends on what has finished.)
type Pool struct {
	dev    *Device
	free   map[int][]devicePtr // by size
	cached int                 // bytes in free
	used   int                 // bytes handed out
}

// NewPool returns an empty pool.
func (g *Device) NewPool() *Pool { return &Pool{dev: g, free: map[int][]devicePtr{}} }

// Block sizes are multiples of poolSmall, and from poolLarge on of that, which is
// the driver's own granularity.
const (
	poolSmall = 512
	poolLarge = 2 << 20
)

func poolSize(n int) int {
	step := poolSmall
	if n > poolLarge/2 {
		step = poolLarge
	}
	return (n + step - 1) / step * step
}

// Alloc returns a buffer of size bytes, at least 1, with undefined contents. When
// the device has too little left the pool gives its free blocks back and tries
// again, before it returns OutOfMemory (errors.Is).
func (p *Pool) Alloc(size int) (*Buffer, error) {
	if size < 1 {
		panic("cuda: alloc: size below 1")
	}
	if size > 1<<62 {
		return nil, &Error{Call: "cuMemAlloc_v2", Code: OutOfMemory}
	}
	block := poolSize(size)
	var ptr devicePtr
	if list := p.free[block]; len(list) > 0 {
		ptr = list[len(list)-1]
		p.free[block] = list[:len(list)-1]
		p.cached -= block
	} else {
		var code Code
		ptr, code = p.dev.drv.api.cuMemAlloc(p.dev.ctx, uint64(block))
		if code == OutOfMemory && p.cached > 0 {
			if err := p.Trim(); err != nil {
				return nil, err
			}
			ptr, code = p.dev.drv.api.cuMemAlloc(p.dev.ctx, uint64(block))
		}
		if err := p.dev.check("cuMemAlloc_v2", code); err != nil {
			return nil, err
		}
	}
	p.used += block
	b := &Buffer{dev: p.dev, ptr: ptr, size: size, pooled: true}
	p.dev.drv.leaks.add(b, "buffer", size)
	return b, nil
}

// Free takes b back; it must not be used in work that is issued later. It must be
// a buffer of this pool and not freed before.
func (p *Pool) Free(b *Buffer) {
	if b.ptr == 0 {
		panic("cuda: use of a freed buffer")
	}
	if !b.pooled || b.dev != p.dev {
		panic("cuda: free: not a buffer of this pool")
	}
	block := poolSize(b.size)
	p.free[block] = append(p.free[block], b.ptr)
	p.cached += block
	p.used -= block
	b.ptr = 0
	p.dev.drv.leaks.remove(b)
}

// Used and Cached return the bytes handed out and the bytes kept for later.
func (p *Pool) Used() int   { return p.used }
func (p *Pool) Cached() int { return p.cached }

// Trim gives all free blocks back to the driver, which waits for work that uses
// them.
func (p *Pool) Trim() error {
	sizes := make([]int, 0, len(p.free))
	for size := range p.free {
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	var errs []error
	for _, size := range sizes {
		for _, ptr := range p.free[size] {
			errs = append(errs, p.dev.check("cuMemFree_v2", p.dev.drv.api.cuMemFree(p.dev.ctx, ptr)))
		}
		delete(p.free, size)
	}
	p.cached = 0
	return errors.Join(errs...)
}
