package emu

import (
	"fmt"
	"strings"
)

// Variable is the environment variable that the emulated driver reads.
const Variable = "UPDRAFT_EMULATOR"

// Landing is when asynchronous copies land.
type Landing string

// The moments at which an asynchronous copy may land; the zero value is Late.
const (
	Late     Landing = "late"    // as late as a wait permits
	AtOnce   Landing = "at-once" // when it is issued
	Randomly Landing = "random"  // one or the other
)

// Mode is a setting of the emulated driver. The zero value is the default.
type Mode struct {
	Landing Landing
	// Seed, above 0, makes threads run in an order drawn from it.
	Seed uint32
	// Resident is the number of blocks that run at once, 1 when 0.
	Resident int
	// Capability is the compute capability, "8.0" when empty.
	Capability string
	// Memory is the device's, in bytes; 4 GiB when 0.
	Memory int
	// CutSums makes mma lose what a tensor core may lose, instead of rounding once.
	CutSums bool
	// FailOnConflicts makes a bank conflict of ldmatrix an error.
	FailOnConflicts bool
	// Extra has further settings, as in the variable.
	Extra string
}

// Modes are those in which a kernel should be tested: each shows other mistakes.
func Modes() []Mode {
	return []Mode{{Landing: Late}, {Landing: AtOnce, Seed: 1}, {Landing: Randomly, Seed: 2, Resident: 3, CutSums: true}}
}

// String returns the value of Variable.
func (m Mode) String() string {
	var s []string
	add := func(name string, value any) { s = append(s, fmt.Sprintf("%s=%v", name, value)) }
	if m.Landing != "" {
		add("landing", m.Landing)
	}
	if m.Seed != 0 {
		add("seed", m.Seed)
	}
	if m.Resident != 0 {
		add("resident", m.Resident)
	}
	if m.Capability != "" {
		add("capability", m.Capability)
	}
	if m.Memory != 0 {
		add("memory", m.Memory)
	}
	if m.CutSums {
		add("mma", "cut")
	}
	if m.FailOnConflicts {
		add("bank-conflicts", "fail")
	}
	if m.Extra != "" {
		s = append(s, m.Extra)
	}
	return strings.Join(s, ",")
}
