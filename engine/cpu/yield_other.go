//go:build !linux

package cpu

// yieldCore would let another thread run on this core; elsewhere than on Linux
// yielding to other goroutines has to do.
func yieldCore() {}
