package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/bench"
	"github.com/updraft-ml/updraft/engine"
)

// benchFlags are the settings of updraft bench.
type benchFlags struct {
	groups, shapes, peers []string
	peersDir, outputDir   string
	dtype                 string
	threads, pairs        int
	workloadTime          time.Duration
	full, resume, mini    bool
}

// peersAll stands for every peer in --peers.
const peersAll = "all"

func (a *app) bench() *cobra.Command {
	var f benchFlags
	var shapes []string
	for _, s := range bench.Shapes() {
		shapes = append(shapes, s.Name)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the CPU engine against the machine's limits and against peers",
		Long: `Bench measures kernels, prefill, batched decoding, training steps and whole steps of
the method on the CPU, for models of known shapes with random weights: each beside
what the machine's multiply-add units and memory gave at the same time, and, with
--peers, beside other software that does the same work in turns with ours. Results
are checked before they are timed; all samples are kept.

The default is a quick set, a few minutes on two cores. --full measures every shape
and size, in half an hour. Run it on a machine that does nothing else; docs/bench.md
says how to read the results and how to set peers up.`,
		Example: `  updraft bench
  updraft bench --group kernels,decode --shape smollm2-135m --output-dir bench/results/today
  updraft bench --full --peers all --output-dir bench/results/today
  updraft bench --full --peers all --output-dir bench/results/today --resume`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runBench(cmd, &f) },
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&f.groups, "group", nil, "what to measure, of "+strings.Join(bench.Groups(), ", ")+"; empty: everything")
	fs.StringSliceVar(&f.shapes, "shape", nil, "models to measure, of "+strings.Join(shapes, ", ")+"; empty: all")
	fs.BoolVar(&f.full, "full", false, "every shape and size, 15 rounds each: about half an hour on two cores")
	fs.IntVar(&f.pairs, "pairs", 0, "rounds, each of one sample of everything that is compared; 0: 5, with --full 15")
	fs.DurationVar(&f.workloadTime, "workload-time", 0, "time for the rounds of one workload, after which 5 are enough; 0: 20s, with --full 3m")
	fs.IntVar(&f.threads, "threads", 0, "threads that compute; 0: one per core")
	fs.Var(newChoice(&f.dtype, dtypeF32, dtypeF32, dtypeBF16), "dtype", "type of the weights of whole models: float32 or bfloat16")
	fs.StringSliceVar(&f.peers, "peers", nil, "peers to measure beside, of "+strings.Join(bench.PeerNames(), ", ")+", or all; empty: none")
	fs.StringVar(&f.peersDir, "peers-dir", "bench/peers", "directory with a directory for each peer")
	fs.StringVar(&f.outputDir, "output-dir", "", "directory for results.json, results.md, report.html and the peers' logs; empty: standard output alone")
	fs.BoolVar(&f.resume, "resume", false, "go on with the results in --output-dir: what is finished there is not measured again")
	fs.BoolVar(&f.mini, "miniature", false, "models that compute in no time: tries everything out, peers included, and measures nothing")
	return cmd
}

func (a *app) runBench(cmd *cobra.Command, f *benchFlags) error {
	o := bench.Options{Groups: f.groups, Shapes: f.shapes, Full: f.full, Pairs: f.pairs, Threads: f.threads, WorkloadTime: f.workloadTime, Miniature: f.mini, Peers: f.peers, PeersDir: f.peersDir,
		OutputDir: f.outputDir, Resume: f.resume, Command: commandLine(cmd), Version: buildVersion().String(), Available: hostMemory}
	if f.dtype == dtypeBF16 {
		o.DType = engine.BF16
	}
	if slices.Contains(f.peers, peersAll) {
		o.Peers = bench.PeerNames()
	}
	if f.outputDir != "" {
		if err := writable("output-dir", f.outputDir); err != nil {
			return err
		}
	}
	o.Progress = func(p bench.Progress) {
		if p.Result == nil {
			a.log.Debug("bench", "begins", p.Begins, "left", p.Left)
			return
		}
		a.log.Info("bench", "done", fmt.Sprintf("%d/%d", p.Done, p.Total), "left", p.Left, "result", p.Result.String())
	}
	res, err := bench.Run(cmd.Context(), o)
	var bad *bench.OptionError
	if errors.As(err, &bad) {
		return input(err)
	}
	if res != nil {
		if werr := a.printBench(cmd, res); werr != nil {
			return errors.Join(err, werr)
		}
	}
	if err != nil {
		return err
	}
	if n := res.Failed(); n > 0 {
		return fmt.Errorf("%d of %d workloads failed; the table says why", n, len(res.Results))
	}
	return nil
}

func (a *app) printBench(cmd *cobra.Command, res *bench.Results) error {
	if a.json {
		return printJSON(cmd.OutOrStdout(), res)
	}
	return res.Text(cmd.OutOrStdout())
}
