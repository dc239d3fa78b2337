// Command gpu checks and times Updraft's GPU kernels on the machine that it runs
// on: the heart of what `make gpu-bundle` makes. It needs an NVIDIA driver, and
// neither Go nor any CUDA toolkit.
//
// Correctness comes first: where a check fails nothing is timed and the exit
// status is 1. Without a usable GPU it says why and exits with 2. What it
// measures is written as JSON and as Markdown.
//
// Start reading at run; checks are in check.go, timings in timing.go.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/updraft-ml/updraft/cuda"
)

type options struct {
	device      int
	out         string
	peer        string
	quick       bool
	checkOnly   bool
	printShapes bool
	noSM90a     bool
}

func main() {
	var o options
	flag.IntVar(&o.device, "device", 0, "the device's number")
	flag.StringVar(&o.out, "out", "results", "directory for results.json and results.md")
	flag.StringVar(&o.peer, "peer", "", "the peer's timings, as peer.py writes them")
	flag.BoolVar(&o.quick, "quick", false, "small shapes only")
	flag.BoolVar(&o.checkOnly, "check", false, "check, time nothing")
	flag.BoolVar(&o.noSM90a, "no-sm90a", false, "use the kernels for sm_80 on a Hopper GPU too")
	flag.BoolVar(&o.printShapes, "print-shapes", false, "print the timed shapes as JSON, for peer.py, and end")
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
	if o.printShapes {
		return json.NewEncoder(w).Encode(timedShapes(o.quick))
	}
	peer, err := readPeer(o.peer)
	if err != nil {
		return err
	}
	drv, err := cuda.Open(cuda.WithLeakTracing())
	if err != nil {
		return err
	}
	dev, err := drv.OpenDevice(o.device)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, dev.Close())
		for _, l := range drv.Leaks() {
			err = errors.Join(err, fmt.Errorf("leaked: %v", l))
		}
	}()
	fmt.Fprintln(w, dev.Info())
	r := &report{Date: time.Now().UTC().Format(time.RFC3339), Device: dev.Info(), Peer: peer.Peer}
	b, err := newBench(dev, o.noSM90a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	r.Functions = b.reportFunctions()

	failed := b.checkAll(o.quick, r, w)
	if failed == nil && !o.checkOnly {
		failed = b.timeAll(o.quick, peer, r, w)
	}
	if err := r.write(o.out); err != nil {
		return err
	}
	fmt.Fprintln(w, "written:", filepath.Join(o.out, "results.json"), filepath.Join(o.out, "results.md"))
	return failed
}
