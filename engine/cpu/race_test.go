//go:build race

package cpu

// The race detector makes sync.Pool drop values at random.
const raceEnabled = true
