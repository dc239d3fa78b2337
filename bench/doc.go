// Package bench measures how near the CPU engine comes to what the machine can
// do, beside other software on the same machine in the same run: what stands
// behind `updraft bench`. docs/bench.md tells a user how to read its results.
//
// What it is not: it changes nothing in the engine and has no figure of its own
// for any machine. The limits that results are held against, multiply-adds per
// second and bytes per second, are measured between the samples
// (bench/roofline).
//
// A workload is set up, computed once and checked; what computes a wrong result
// is not timed. Then rounds follow: the limits, each of our variants, each peer,
// and from the start again, so that whatever disturbs the machine disturbs all of
// them alike. A figure is a median over rounds, a comparison the median of the
// rounds' ratios, and all samples are kept. A peer is a process of its own that
// is driven by lines of JSON (peer.go); one that is missing or computes something
// else is reported as such and is in no comparison.
//
// Start reading at run.go, then workload.go; what is measured is in shapes.go,
// gemm.go, kernels.go, generate.go, train.go, sharing.go, scaling.go and
// memory.go, what is written in results.go, markdown.go and html.go.
package bench
