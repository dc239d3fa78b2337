package cuda

import (
	"cmp"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
)

// Leak is something that was made and not yet freed.
type Leak struct {
	Kind  string // "buffer", "stream", "module gemm_bf16", ...
	Size  int    // in bytes, for memory
	Stack string // where it was made

	order int
}

func (l Leak) String() string {
	if l.Size > 0 {
		return fmt.Sprintf("%s of %d bytes, made at\n%s", l.Kind, l.Size, l.Stack)
	}
	return fmt.Sprintf("%s, made at\n%s", l.Kind, l.Stack)
}

// Leaks lists what was made and not yet freed, oldest first, if the driver was
// opened with WithLeakTracing; otherwise it returns nil.
func (d *Driver) Leaks() []Leak { return d.leaks.list() }

// tracker remembers live objects. A nil tracker remembers nothing.
type tracker struct {
	mu   sync.Mutex
	next int
	live map[any]Leak
}

func newTracker(on bool) *tracker {
	if !on {
		return nil
	}
	return &tracker{live: map[any]Leak{}}
}

func (t *tracker) add(object any, kind string, size int) {
	if t == nil {
		return
	}
	stack := string(debug.Stack())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.live[object] = Leak{Kind: kind, Size: size, Stack: stack, order: t.next}
}

func (t *tracker) remove(object any) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, object)
}

func (t *tracker) list() []Leak {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var l []Leak
	for _, x := range t.live {
		l = append(l, x)
	}
	slices.SortFunc(l, func(a, b Leak) int { return cmp.Compare(a.order, b.order) })
	return l
}

// CallCounts returns, if the driver was opened with WithCallCounts, how often
// each of the driver's functions has been called on behalf of what stands above:
// the difference of two shows what a step does.
func (d *Driver) CallCounts() map[string]int { return d.calls.copy() }

// callCounts counts calls by name. A nil one counts nothing.
type callCounts struct {
	mu sync.Mutex
	n  map[string]int
}

func newCallCounts(on bool) *callCounts {
	if !on {
		return nil
	}
	return &callCounts{n: map[string]int{}}
}

func (c *callCounts) add(call string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[call]++
}

func (c *callCounts) copy() map[string]int {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
