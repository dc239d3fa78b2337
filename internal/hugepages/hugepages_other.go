//go:build !linux

package hugepages

// Advise does nothing: other systems choose themselves.
func Advise([]byte) {}
