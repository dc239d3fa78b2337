package kernels

import "fmt"

// Arch is a compute capability, for example {8, 0}.
type Arch struct {
	Major, Minor int
}

// String gives the name that compilers use, for example sm_80.
func (a Arch) String() string { return fmt.Sprintf("sm_%d%d", a.Major, a.Minor) }

// AtLeast reports whether a chip of capability a runs code made for b.
func (a Arch) AtLeast(b Arch) bool {
	return a.Major > b.Major || a.Major == b.Major && a.Minor >= b.Minor
}

// Spec says how an entry point is launched.
type Spec struct {
	// Entry is the name of the entry point in Module.
	Entry string
	// Module names the PTX file without its suffix; PTX is its text.
	Module, PTX string
	// Arch is the least compute capability that runs it.
	Arch Arch
	// Params has a letter for each parameter in order: p for a device pointer,
	// i for a 32-bit integer, l for a 64-bit one, f for a float, t for a tensor map.
	Params string
	// Block is the number of threads of a block, in x.
	Block int
	// Shared is the dynamic shared memory of a block in bytes. Above 48 KB the
	// launcher has to raise the function's limit first.
	Shared int
}

// Type is an element type of a kernel's tensors.
type Type uint8

// The element types.
const (
	F32 Type = iota
	BF16
)

// String gives the type's part of the entry points' names.
func (t Type) String() string { return [...]string{"f32", "bf16"}[t] }

func tiles(n, tile int) int { return (n + tile - 1) / tile }
