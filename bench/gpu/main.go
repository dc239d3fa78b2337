// Command gpu times what Updraft does on the GPU of the machine that it runs on,
// beside its peers where they are there: the heart of what `make gpu-bundle`
// makes. It needs an NVIDIA driver, and neither Go nor any CUDA toolkit.
//
// Every workload is computed once and compared with float64 before it is timed; a
// wrong result is a failure and is not timed. Times are the device's, by events,
// of recorded programs (CUDA graphs) that walk through copies of the operands that
// together exceed the L2 cache several times over; whole steps are timed by the
// clock. A peer's rounds alternate with ours.
//
// Each result is written as soon as it is there, so that a run that is killed
// keeps what it has. Without a usable GPU it says why and exits with 2; where
// something fails, with 1.
//
// Start reading at run; timing.go measures, workloads are in gemm.go, attention.go,
// decode.go, head.go, memory.go and steps.go, peers in peer.go and peer/.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/cuda"
)

type options struct {
	device int
	out    string
	groups string
	peer   string
	quick  bool
	report bool
	list   bool
}

func main() {
	var o options
	flag.IntVar(&o.device, "device", 0, "the device's number")
	flag.StringVar(&o.out, "out", "results", "directory for results.jsonl, results.json and results.md")
	flag.StringVar(&o.groups, "groups", "", "the groups to time, separated by commas; empty: all of them")
	flag.StringVar(&o.peer, "peer", "", "the command that runs the peers, split at spaces, such as `python3 peer.py`; empty: no peers")
	flag.BoolVar(&o.quick, "quick", false, "tiny shapes and few rounds: a test of this program")
	flag.BoolVar(&o.report, "report", false, "write results.json and results.md from what is in the directory, and end")
	flag.BoolVar(&o.list, "list", false, "list groups and workloads, and end")
	flag.Parse()
	err := run(o, os.Stdout)
	var none *cuda.UnavailableError
	switch {
	case errors.As(err, &none):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(o options, w io.Writer) (err error) {
	if o.report {
		return writeReport(o.out)
	}
	chosen, err := choose(workloads(o.quick), o.groups)
	if err != nil {
		return err
	}
	if o.list {
		for _, x := range chosen {
			fmt.Fprintf(w, "%-12s %s\n", x.group, x.name)
		}
		return nil
	}
	r, err := open(o, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for _, x := range chosen {
		err = errors.Join(err, r.workload(x))
	}
	return err
}

// workloads lists everything, in the order in which it is timed: what takes long
// comes last.
func workloads(quick bool) []*workload {
	return slices.Concat(copyWorkloads(quick), gemmWorkloads(quick), attentionWorkloads(quick), decodeWorkloads(quick),
		headWorkloads(quick), memoryWorkloads(quick), stepWorkloads(quick))
}

// choose returns the workloads of the named groups.
func choose(all []*workload, names string) ([]*workload, error) {
	if names == "" {
		return all, nil
	}
	var groups []string
	for _, x := range all {
		if !slices.Contains(groups, x.group) {
			groups = append(groups, x.group)
		}
	}
	want := strings.Split(names, ",")
	for _, n := range want {
		if !slices.Contains(groups, n) {
			return nil, fmt.Errorf("group %q: there are %s", n, strings.Join(groups, ", "))
		}
	}
	return slices.DeleteFunc(all, func(x *workload) bool { return !slices.Contains(want, x.group) }), nil
}
