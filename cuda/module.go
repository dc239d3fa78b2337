package cuda

import (
	"errors"
	"fmt"
	"math"
	"sync"
)

// Module is a PTX text compiled and loaded for a device.
type Module struct {
	dev    *Device
	handle handle
	name   string
}

// LoadModule has the driver compile ptx for the device. The name appears in
// errors only. The error is a *LoadError.
func (g *Device) LoadModule(name, ptx string) (*Module, error) {
	m, log, code := g.drv.api.cuModuleLoadDataEx(g.ctx, append([]byte(ptx), 0))
	if err := g.check("cuModuleLoadDataEx", code); err != nil {
		return nil, &LoadError{Module: name, Log: log, Err: err}
	}
	mod := &Module{dev: g, handle: m, name: name}
	g.drv.leaks.add(mod, "module "+name, 0)
	return mod, nil
}

// moduleCache holds the modules that a device has loaded by Device.Module.
type moduleCache struct {
	mu   sync.Mutex
	mods map[moduleKey]*Module
	list []*Module // in the order of loading
}

type moduleKey struct{ name, ptx string }

// Module returns the module of a PTX text, which the driver compiles at the
// first call only. The device keeps it until Close; nobody else may close it.
func (g *Device) Module(name, ptx string) (*Module, error) {
	g.mods.mu.Lock()
	defer g.mods.mu.Unlock()
	key := moduleKey{name, ptx}
	if m := g.mods.mods[key]; m != nil {
		return m, nil
	}
	m, err := g.LoadModule(name, ptx)
	if err != nil {
		return nil, err
	}
	if g.mods.mods == nil {
		g.mods.mods = map[moduleKey]*Module{}
	}
	g.mods.mods[key] = m
	g.mods.list = append(g.mods.list, m)
	return m, nil
}

func (c *moduleCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, m := range c.list {
		errs = append(errs, m.Close())
	}
	c.mods, c.list = nil, nil
	return errors.Join(errs...)
}

// Close unloads the module; its functions must not be used again. A second Close
// does nothing.
func (m *Module) Close() error {
	if m.handle == 0 {
		return nil
	}
	h := m.handle
	m.handle = 0
	m.dev.drv.leaks.remove(m)
	return m.dev.check("cuModuleUnload", m.dev.drv.api.cuModuleUnload(m.dev.ctx, h))
}

// Function is an entry point of a module.
type Function struct {
	dev    *Device
	handle handle
	name   string
	params string
	shared int // the dynamic shared memory that launches may ask for
}

// Function finds entry point name, whose parameters are described by a letter
// each: p for a device pointer, i for a 32-bit integer, l for a 64-bit one, f
// for a float, t for a TensorMap. The driver cannot check a launch against the kernel; this can.
func (m *Module) Function(name, params string) (*Function, error) {
	if m.handle == 0 {
		panic("cuda: use of a closed module")
	}
	if len(params) > maxArgs {
		panic("cuda: a kernel with too many parameters")
	}
	f, code := m.dev.drv.api.cuModuleGetFunction(m.dev.ctx, m.handle, name)
	if err := m.dev.check("cuModuleGetFunction", code); err != nil {
		return nil, fmt.Errorf("cuda: module %s, function %s: %w", m.name, name, err)
	}
	return &Function{dev: m.dev, handle: f, name: name, params: params, shared: defaultShared}, nil
}

// defaultShared is the shared memory of a block that needs no opting in.
const defaultShared = 48 << 10

// AllowShared lets launches of f ask for n bytes of dynamic shared memory, which
// is needed above 48 KB.
func (f *Function) AllowShared(n int) error {
	if n <= f.shared {
		return nil
	}
	code := f.dev.drv.api.cuFuncSetAttribute(f.dev.ctx, f.handle, funcAttrMaxDynShared, n)
	if err := f.dev.check("cuFuncSetAttribute", code); err != nil {
		return fmt.Errorf("cuda: %s: %d bytes of shared memory, and the device allows %d: %w",
			f.name, n, f.dev.info.SharedPerBlock, err)
	}
	f.shared = n
	return nil
}

// FunctionInfo is what the driver's compiler made of a function.
type FunctionInfo struct {
	Registers int `json:"registers"`           // per thread
	Local     int `json:"local_bytes"`         // per thread; above 0 where registers spilled
	Static    int `json:"static_shared_bytes"` // per block
}

// Info asks the driver what it made of f.
func (f *Function) Info() (FunctionInfo, error) {
	var i FunctionInfo
	for _, a := range []struct {
		attr int
		to   *int
	}{{funcAttrRegisters, &i.Registers}, {funcAttrLocal, &i.Local}, {funcAttrStaticShared, &i.Static}} {
		v, code := f.dev.drv.api.cuFuncGetAttribute(f.dev.ctx, a.attr, f.handle)
		if err := f.dev.check("cuFuncGetAttribute", code); err != nil {
			return i, err
		}
		*a.to = v
	}
	return i, nil
}

// BlocksPerSM returns how many blocks of the given threads and dynamic shared
// memory a multiprocessor holds at once.
func (f *Function) BlocksPerSM(threads, shared int) (int, error) {
	n, code := f.dev.drv.api.cuOccupancyMaxActiveBlocksPerMultiprocessor(f.dev.ctx, f.handle, threads, shared)
	return n, f.dev.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", code)
}

// maxArgs is UD_MAX_ARGS of libcuda.h.
const maxArgs = 32

// maxSlots has room for the arguments of any kernel here: two tensor maps, and
// maxArgs others.
const maxSlots = maxArgs + 2*tensorMapWords

// Args are the arguments of a launch, in the order of the kernel's parameters.
// The zero value is empty; Reset empties it for another use without allocation.
type Args struct {
	slots [maxSlots]uint64 // a value in the low bytes (all platforms here are little-endian)
	first [maxArgs]uint8   // the slot in which argument i starts
	kinds [maxArgs]byte
	n     int // arguments
	used  int // slots
}

// Reset removes all arguments.
func (a *Args) Reset() *Args { a.n, a.used = 0, 0; return a }

// Buffer adds the address of offset in b.
func (a *Args) Buffer(b *Buffer, offset int) *Args { return a.add('p', b.Ptr(offset)) }

// Pointer adds a device address; 0 is the null pointer, an argument left out.
func (a *Args) Pointer(p uint64) *Args { return a.add('p', p) }

// Int32 adds an integer.
func (a *Args) Int32(v int32) *Args { return a.add('i', uint64(uint32(v))) }

// Int64 adds an integer.
func (a *Args) Int64(v int64) *Args { return a.add('l', uint64(v)) }

// Float32 adds a float.
func (a *Args) Float32(v float32) *Args { return a.add('f', uint64(math.Float32bits(v))) }

// TensorMap adds a tensor map.
func (a *Args) TensorMap(m *TensorMap) *Args { return a.add('t', m.words[:]...) }

func (a *Args) add(kind byte, v ...uint64) *Args {
	if a.n == maxArgs || a.used+len(v) > maxSlots {
		panic("cuda: too many arguments")
	}
	copy(a.slots[a.used:], v)
	a.first[a.n], a.kinds[a.n] = uint8(a.used), kind
	a.n++
	a.used += len(v)
	return a
}

// LaunchConfig is the shape of a launch. Zeros in Grid and Block count as 1.
type LaunchConfig struct {
	Grid, Block [3]int // x, y, z
	Shared      int    // dynamic shared memory of a block in bytes
}

// Launch issues a run of f. The arguments are copied before it returns. Errors
// inside of the kernel show at a later call.
func (s *Stream) Launch(f *Function, c LaunchConfig, a *Args) error {
	if string(a.kinds[:a.n]) != f.params {
		panic("cuda: launch: the arguments do not fit the kernel's parameters")
	}
	if c.Shared < 0 || c.Shared > f.shared {
		panic("cuda: launch: more shared memory than AllowShared allowed")
	}
	for i := range 3 {
		c.Grid[i], c.Block[i] = max(c.Grid[i], 1), max(c.Block[i], 1)
	}
	if max(c.Grid[0], c.Grid[1], c.Grid[2], c.Block[0], c.Block[1], c.Block[2]) > math.MaxInt32 {
		panic("cuda: launch: a dimension is too large")
	}
	code := f.dev.drv.api.cuLaunchKernel(f.dev.ctx, f.handle, c, s.use(), a.slots[:a.used], a.first[:a.n])
	if err := f.dev.check("cuLaunchKernel", code); err != nil {
		return fmt.Errorf("cuda: launch of %s: %w", f.name, err)
	}
	return nil
}
