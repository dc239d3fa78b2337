// Package roofline measures what a machine's cores and memory can do at most:
// single-precision multiply-adds in registers, and bytes read from memory. The
// loops are assembly that does nothing else, so that a kernel's share of them is
// a share of the hardware's limit and not of another kernel's.
//
// What it is not: it knows no workloads. Package bench runs its bursts between
// the samples of what it times, so that both see the same machine.
//
// Start reading at roofline.go.
package roofline
