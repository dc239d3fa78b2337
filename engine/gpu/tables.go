package gpu

import (
	"slices"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
)

// tables holds what operations need on the device besides their tensors: the
// segments and work lists of a packing, the tokens of a marker. A table is
// uploaded once and found again by its contents, so that the layers of a model
// share it and a batch that comes again costs nothing.
type tables struct {
	packings []*packingTable // the one used last first
	lists    []*listTable
}

// keepTables is how many tables of a kind stay for later use.
const keepTables = 8

// deviceInts is a run of int32 on the device.
type deviceInts struct {
	mem    *cuda.Buffer
	n      int
	pinned bool // a program was recorded with it
}

// ptr returns the address of element i.
func (d *deviceInts) ptr(i int) uint64 { return d.mem.Ptr(4 * i) }

// sendInts makes a run of int32 on the device. It returns nil where that failed,
// which Sync and Wait then say.
func (b *Backend) sendInts(op string, v []int32) *deviceInts {
	mem, err := b.pool.Alloc(max(4*len(v), 4))
	if err != nil {
		b.fail(op, b.memoryError("tables", 4*len(v), err))
		return nil
	}
	b.send(op, mem, 0, len(v), 4, func(to []byte, from, n int) { copy(elements[int32](to), v[from:from+n]) })
	return &deviceInts{mem: mem, n: len(v)}
}

// packingTable is a packing with the tables made of it, by the names of those
// that make them.
type packingTable struct {
	packing engine.Packing // a copy
	made    []madeTable
}

type madeTable struct {
	kind any // comparable: what the table was made for
	host any // what the launch needs to know of it
	ints *deviceInts
}

// packingInts returns the table of a packing of one kind, and what build said of
// it. build is called where there is none yet.
func (b *Backend) packingInts(op string, p *engine.Packing, kind any, build func() (host any, ints []int32)) (any, *deviceInts) {
	if p == nil {
		panic("gpu: attention: packing is absent")
	}
	t := b.packingTable(p)
	for i := range t.made {
		if t.made[i].kind == kind {
			m := &t.made[i]
			m.ints.pinned = m.ints.pinned || b.recording != nil
			return m.host, m.ints
		}
	}
	host, ints := build()
	d := b.sendInts(op, ints)
	if d != nil {
		d.pinned = b.recording != nil
		t.made = append(t.made, madeTable{kind, host, d})
	}
	return host, d
}

// packingTable finds p or checks and enters it.
func (b *Backend) packingTable(p *engine.Packing) *packingTable {
	list := b.tables.packings
	i := slices.IndexFunc(list, func(t *packingTable) bool {
		return t.packing.Rows == p.Rows && slices.Equal(t.packing.Segments, p.Segments)
	})
	if i < 0 {
		p.Check()
		b.tables.packings = append(list, &packingTable{
			packing: engine.Packing{Rows: p.Rows, Segments: slices.Clone(p.Segments)},
		})
		i = len(b.tables.packings) - 1
	}
	t := toFront(b.tables.packings, i)
	b.tables.packings = evict(b.tables.packings, func(t *packingTable) bool {
		return slices.ContainsFunc(t.made, func(m madeTable) bool { return m.ints.pinned })
	}, func(t *packingTable) { t.free(b.pool) })
	return t
}

func (t *packingTable) free(p *cuda.Pool) {
	for _, m := range t.made {
		p.Free(m.ints.mem)
	}
}

// listTable is a list with its copy on the device.
type listTable struct {
	list []int32
	ints *deviceInts
}

// list returns the device's copy of v.
func (b *Backend) list(op string, v []int32) *deviceInts {
	l := b.tables.lists
	i := slices.IndexFunc(l, func(t *listTable) bool { return slices.Equal(t.list, v) })
	if i < 0 {
		ints := b.sendInts(op, v)
		if ints == nil {
			return nil
		}
		b.tables.lists = append(l, &listTable{slices.Clone(v), ints})
		i = len(b.tables.lists) - 1
	}
	t := toFront(b.tables.lists, i)
	t.ints.pinned = t.ints.pinned || b.recording != nil
	b.tables.lists = evict(b.tables.lists, func(t *listTable) bool { return t.ints.pinned },
		func(t *listTable) { b.pool.Free(t.ints.mem) })
	return t.ints
}

// toFront moves element i to the front and returns it.
func toFront[T any](l []T, i int) T {
	t := l[i]
	copy(l[1:i+1], l[:i])
	l[0] = t
	return t
}

// evict frees the element used longest ago that is not pinned, if there are more
// than keepTables; what is still to run was issued before what takes the memory.
func evict[T any](l []T, pinned func(T) bool, free func(T)) []T {
	for i := len(l) - 1; len(l) > keepTables && i > 0; i-- {
		if !pinned(l[i]) {
			free(l[i])
			l = slices.Delete(l, i, i+1)
		}
	}
	return l
}

// unpin says that no program is left.
func (t *tables) unpin() {
	for _, p := range t.packings {
		for _, m := range p.made {
			m.ints.pinned = false
		}
	}
	for _, l := range t.lists {
		l.ints.pinned = false
	}
}

func (t *tables) free(p *cuda.Pool) {
	for _, x := range t.packings {
		x.free(p)
	}
	for _, l := range t.lists {
		p.Free(l.ints.mem)
	}
	*t = tables{}
}
