package bench

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model"
)

// blink are the options of a run that takes a blink.
func blink(o Options) Options {
	o.Miniature, o.Threads = true, 2
	if o.Pairs == 0 {
		o.Pairs = 2
	}
	return o
}

// Every workload of both sets runs, is checked and has all its samples.
func TestEveryWorkload(t *testing.T) {
	for name, full := range map[string]bool{"quick": false, "full": true} {
		t.Run(name, func(t *testing.T) {
			if full && testing.Short() {
				t.Skip("the quick set is enough")
			}
			dir := t.TempDir()
			res, err := Run(t.Context(), blink(Options{Full: full, OutputDir: dir}))
			require.NoError(t, err)
			groups, seen := map[string]bool{}, map[string]bool{}
			for _, x := range res.Results {
				if x.Group == "memory" && x.Error != "" { // not every system tells
					require.Contains(t, x.Error, "not measured")
					continue
				}
				require.Empty(t, x.Error, "%s %s %s", x.Group, x.Shape, x.Name)
				groups[x.Group] = true
				require.False(t, seen[x.Group+x.Shape+x.Name], "%s %s %s twice", x.Group, x.Shape, x.Name)
				seen[x.Group+x.Shape+x.Name] = true
				if x.Group != "scaling" || !strings.HasPrefix(x.Name, "tokens") {
					require.NotEmpty(t, x.Checked, x.Name)
				}
				for _, row := range x.Rows {
					require.Len(t, row.Samples, 2, x.Name)
					require.Positive(t, row.Seconds.Median)
					require.LessOrEqual(t, row.Seconds.Q1, row.Seconds.Q3)
					require.True(t, row.OfFloor.Median > 0 || row.Threads != 2, x.Name)
				}
			}
			for _, g := range Groups() {
				require.True(t, groups[g] || g == "memory", g)
			}
			again, err := ReadResults(dir)
			require.NoError(t, err)
			a, err := json.Marshal(res)
			require.NoError(t, err)
			b, err := json.Marshal(again)
			require.NoError(t, err)
			require.JSONEq(t, string(a), string(b), "results.json holds the run")
			for _, file := range []string{MarkdownFile, HTMLFile} {
				text, err := os.ReadFile(filepath.Join(dir, file))
				require.NoError(t, err)
				for _, x := range res.Results {
					if x.Error == "" {
						require.Contains(t, strings.ReplaceAll(string(text), "&#43;", "+"), x.Name, file)
					}
				}
				require.NotContains(t, string(text), "NaN")
			}
		})
	}
}

// A workload that fails says so, and those after it run.
func TestFailureEndsNothing(t *testing.T) {
	o := blink(Options{Groups: []string{"decode", "train", "gapg"}, Shapes: []string{Tiny}})
	o.Available = func() (uint64, uint64, bool) { return 1, 1 << 30, true }
	res, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, res.Results, 5)
	require.Equal(t, 5, res.Failed())
	for _, x := range res.Results {
		require.Regexp(t, `^needs \d+\.\d GB of memory, of which 0\.0 GB are available$`, x.Error)
	}
	require.Contains(t, res.Markdown(), "**failed: needs")
	require.Contains(t, strings.Join(res.Warnings(), "\n"), "5 workloads failed.")
}

// A run that is cancelled keeps what it has; the resumed one measures the rest.
func TestResume(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := blink(Options{Groups: []string{"decode"}, OutputDir: t.TempDir()})
	o.Progress = func(p Progress) {
		if p.Done == 2 {
			cancel()
		}
	}
	_, err := Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	kept, err := ReadResults(o.OutputDir)
	require.NoError(t, err)
	require.Len(t, kept.Results, 2)

	o.Progress = nil
	_, err = Run(t.Context(), o)
	require.ErrorContains(t, err, "holds results already")
	o.Resume = true
	other := o
	other.Pairs = 7
	_, err = Run(t.Context(), other)
	require.ErrorContains(t, err, "other settings")

	var begun []string
	o.Progress = func(p Progress) {
		if p.Result == nil {
			begun = append(begun, p.Begins)
		}
	}
	res, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, res.Results, 6)
	require.Len(t, begun, 4)
	require.Equal(t, kept.Results[0].Rows, res.Results[0].Rows, "measured before")
	require.Len(t, res.Sessions, 2)
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		`group "kernel": there are kernels, prefill`: {Groups: []string{"kernel"}},
		`shape "huge": there are tiny, gpt2`:         {Shapes: []string{"huge"}},
		`peer "mkl": there are openblas, onednn`:     {Peers: []string{"mkl"}},
		"pairs -1":                                   {Pairs: -1},
		"resume: ":                                   {Resume: true},
		"threads":                                    {Threads: -1},
	} {
		_, err := Run(t.Context(), o)
		var bad *OptionError
		require.ErrorAs(t, err, &bad)
		require.ErrorContains(t, err, want)
	}
}

// The shapes have the sizes of the models that they are named after.
func TestShapes(t *testing.T) {
	parameters := map[string]int64{}
	for _, s := range Shapes() {
		require.NoError(t, s.Config.Validate())
		parameters[s.Name] = s.Config.NumParameters()
		require.InDelta(t, s.body()+s.head(), float64(parameters[s.Name]), 0.01*float64(parameters[s.Name]), "matrices are nearly all")
	}
	require.Equal(t, int64(134515008), parameters[SmolLM2])
	require.Equal(t, int64(494032768), parameters[Qwen25])
	require.InEpsilon(t, 124439808, parameters[GPT2], 0.01)
	s := Shape{Config: model.Config{HiddenSize: 3, IntermediateSize: 5, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 1, HeadDim: 4, VocabSize: 7}}
	require.Equal(t, float64(2*(16*3+3*8+10*3+3*5)), s.body())
	// Two rows, one target, and 3 pairs through 8 columns of queries in 2 layers.
	require.Equal(t, 2*2*s.body()+2*7*3+4*3*8*2, s.forwardFLOP(2, 1, causalPairs(0, 2)))
	require.Equal(t, float64(2*10+3), causalPairs(10, 2))
	require.Equal(t, float64(2*4*2*1*4), s.cacheBytes())
}

func TestStatistics(t *testing.T) {
	require.Equal(t, Spread{2, 3, 4}, spreadOf([]float64{5, 1, 3, 2, 4}))
	require.Equal(t, Spread{1.25, 1.5, 1.75}, spreadOf([]float64{2, 1}))
	require.Equal(t, Spread{7, 7, 7}, spreadOf([]float64{7}))
	require.Zero(t, spreadOf(nil))
	require.InDelta(t, 4, geometricMean([]float64{2, 8}), 1e-12)
	a, b, r2 := linearFit([]float64{1, 2, 3, 4}, []float64{3, 5, 7, 9})
	require.InDeltaSlice(t, []float64{1, 2, 1}, []float64{a, b, r2}, 1e-12)
	_, _, r2 = linearFit([]float64{1, 2, 3, 4}, []float64{1, 2, 1, 2})
	require.InDelta(t, 0.2, r2, 1e-12)
	for want, v := range map[string]float64{"0": 0, "0.00123": 0.001234, "0.500": 0.5, "1.23": 1.234, "12.3": 12.34, "123": 123.4, "12346": 12345.6} {
		require.Equal(t, want, digits(v))
	}
	require.Equal(t, "1.50 (1.00–2.00) ms", Spread{1e-3, 1.5e-3, 2e-3}.times())
	require.Equal(t, "15.0 (9.00–20.0) µs", Spread{9e-6, 15e-6, 20e-6}.times())
}

// The comparators reject what is wrong, NaN included.
func TestChecksHaveTeeth(t *testing.T) {
	nan := math.NaN()
	a := operand{v: []float32{1, 2, 3, 4}}
	a.Rows, a.Cols = 2, 2
	same := sameProduct(2, 2, 2, a, a, []float32{5, 11, 11, 25})
	require.NoError(t, same([]float32{5, 11, 11, 25.000002}))
	require.Error(t, same([]float32{5, 11, 11, 25.001}))
	require.Error(t, same([]float32{5, float32(nan), 11, 25}))
	require.Error(t, guard(func() { new(compared).element("x", nan, 1, 10) }))
	require.Error(t, guard(func() { new(compared).element("x", 1.2, 1, 0.1) }))
	require.NoError(t, guard(func() { new(compared).element("x", 1.05, 1, 0.1) }))
	require.Error(t, guard(func() { finite([]float32{1, float32(math.Inf(1))}) }))
	require.Error(t, guard(func() { finite([]float32{0, 0}) }))
	require.False(t, sameBits([]float32{0}, []float32{float32(math.Copysign(0, -1))}))
	require.False(t, sameBits([]float32{0}, nil))

	logits := []float32{0, 1, 2}
	lse := math.Log(1 + math.E + math.E*math.E)
	entropy := lse - (math.E+2*math.E*math.E)/(1+math.E+math.E*math.E)
	require.NoError(t, sameDistribution(logits, 1, float32(1-lse), float32(entropy)))
	require.Error(t, sameDistribution(logits, 2, float32(1-lse), float32(entropy)))
	require.Error(t, sameDistribution(logits, 1, float32(1-lse), float32(entropy)+0.01))
	require.Error(t, sameDistribution([]float32{0, 1, float32(nan)}, 1, float32(1-lse), float32(entropy)))

	training := sameTraining(4, 2, 3.9)
	require.NoError(t, training([]float32{4.001, 2, 3.9, 1}))
	require.Error(t, training([]float32{4.01, 2, 3.9}))
	require.Error(t, training([]float32{4, 2, float32(nan)}))
	require.Error(t, training([]float32{4}))
}

// sampleResults are what a run may have left.
func sampleResults() *Results {
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	ours := func(variant string, flop float64, seconds ...float64) Row {
		return Row{Who: Ours, Variant: variant, Threads: 2, FLOP: flop, Bytes: 1e6, Samples: seconds}
	}
	gemm := Result{Group: "kernels", Shape: "s", Name: "linear qkv M=512", Class: "linear, M ≥ 512", Set: 1e6, Peak: []float64{2e11, 1e11, 2e11}, Bandwidth: []float64{1e10, 1e10, 1e10},
		Rows: []Row{ours("gemm", 1e9, 0.01, 0.02, 0.01), ours("packed", 1e9, 0.008, 0.016, 0.008),
			{Who: "openblas", Variant: "gemm", Threads: 2, FLOP: 1e9, Bytes: 1e6, Samples: []float64{0.012, 0.020, 0.011}},
			{Who: "onednn", Variant: "packed", Wrong: "C[0,0] is 1|2"}, {Who: "gonum", Missing: "has no program run"}}}
	decode := Result{Group: "decode", Shape: Tiny, Name: "B=8, 16 + 16 tokens", Set: 1e6, Peak: []float64{1e11}, Bandwidth: []float64{1e10}, Figures: []Figure{{batchFigure, 8, ""}},
		Rows: []Row{{Who: Ours, Threads: 2, FLOP: 1e9, Bytes: 2e8, Tokens: 128, Samples: []float64{0.04}, Phases: []string{"step"}, Laps: map[string][]float64{"step": {0.03}}}}}
	broken := Result{Group: "train", Shape: Tiny, Name: "step", Error: "<no> memory"}
	r := &Results{Machine: Machine{CPU: "a CPU", Threads: 2, Limits: "AVX2", OS: "linux/amd64", Engine: "cpu (avx2, 2 threads)"}, Command: "updraft bench", Version: "v1",
		Settings: Settings{Pairs: 3, Threads: 2, DType: "F32"}, Sessions: []Session{{at, at.Add(time.Hour), 3, 2}},
		Peers: []PeerInfo{{Name: "openblas", Version: "0.3.30"}, {Name: "gonum", Missing: "has no program run"}}, Results: []Result{gemm, decode, broken}}
	for i := range r.Results {
		x := &r.Results[i]
		for j := range x.Rows {
			x.Rows[j].summarise(x, 2)
		}
		x.compare(nil)
	}
	return r
}

// Figures follow from the samples: a share is the median of each round's own.
func TestSummarise(t *testing.T) {
	r := sampleResults()
	gemm := r.Results[0].Rows[0]
	require.InDelta(t, 0.01, gemm.Seconds.Median, 1e-15)
	require.InDelta(t, 1e11, gemm.FLOPS, 1)
	require.InDelta(t, 0.5, gemm.OfPeak.Median, 1e-12, "half the peak in each round, the slow one too")
	require.InDelta(t, 0.5, gemm.OfPeak.Q1, 1e-12)
	require.InDelta(t, 0.5, gemm.OfFloor.Median, 1e-12)
	decode := r.Results[1].Rows[0]
	require.InDelta(t, 0.25, decode.OfPeak.Median, 1e-12)
	require.InDelta(t, 0.5, decode.OfFloor.Median, 1e-12, "bound by the bytes")
	require.InDelta(t, 3200, decode.TokensPerSecond, 1e-9)

	require.Len(t, r.Results[0].Compared, 2, "neither the wrong nor the missing")
	c := r.Results[0].Compared[0]
	require.Equal(t, [4]any{"gemm", "openblas", "gemm", 3}, [4]any{c.Ours, c.Who, c.Variant, c.Pairs})
	require.InDelta(t, 1.1, c.Ratio.Median, 1e-12, "of 1.2, 1.0 and 1.1")

	var lines []string
	for _, l := range r.Summary() {
		lines = append(lines, strings.Join([]string{l.What, l.Variant, l.Against, ratioText(l.Ratio), percent(l.OfFloor)}, "|"))
	}
	require.Equal(t, []string{"linear, M ≥ 512|gemm|openblas gemm|1.10|50 %", "linear, M ≥ 512|packed|openblas gemm|1.38|62 %", "tiny: decode, B=8, 16 + 16 tokens|||0.00|50 %"}, lines)
}

func TestMarkdown(t *testing.T) {
	text := sampleResults().Markdown()
	for _, want := range []string{
		"| s, linear qkv M=512 | updraft gemm | 10.0 (10.0–15.0) ms | 3 | 100 GFLOP/s | 50 % | 1 % | 50 % |  |\n",
		"|  | openblas gemm | 12.0 (11.5–16.0) ms | 3 | 83.3 GFLOP/s | 45 % | 1 % | 45 % | gemm 1.10 (1.05–1.15)×; packed 1.38 (1.31–1.44)× |\n",
		`wrong result: C[0,0] is 1\|2`,
		"| missing: has no program run |\n",
		"| tiny, step | **failed: <no> memory** |",
		"| | step | 30.0 ms, 75 % |",
		"- processor: a CPU, 2 threads, 2 of them used\n",
		"- measured: 2026-01-02 03:04 to 04:04 UTC, load average 3.00 at the start, 2.00 at the end\n",
		"**The machine was busy: its load average was 3.0",
		"**gonum is missing, not beaten: has no program run.**",
		"Limits measured between the samples: 150 (100–200) GFLOP/s of multiply-adds (AVX2, 2 threads).",
	} {
		require.Contains(t, text, want)
	}
}

func TestHTML(t *testing.T) {
	b, err := sampleResults().HTML()
	require.NoError(t, err)
	text := string(b)
	require.Contains(t, text, "failed: &lt;no&gt; memory")
	// 8 ms against 12 ms.
	require.Contains(t, text, "<h1>56 % of this machine’s limits over 2 workloads; 1.50 times the speed of the fastest peer over 1</h1>")
	require.NotContains(t, text, "http:", "needs no network")
	require.NotContains(t, text, "ZgotmplZ", "nothing that the template refused")
	require.Equal(t, 2, strings.Count(text, `<svg class="chart"`), "the roofline and one decode chart")
	require.Contains(t, text, `<span>gonum</span><span>missing: has no program run</span>`)
	empty, err := new(Results).HTML()
	require.NoError(t, err)
	require.Contains(t, string(empty), "Nothing was measured")
}

// Five rounds are enough where the time runs out, and no fewer are.
func TestWorkloadTime(t *testing.T) {
	res, err := Run(t.Context(), blink(Options{Groups: []string{"train"}, Shapes: []string{Tiny}, Pairs: 9, WorkloadTime: 1}))
	require.NoError(t, err)
	require.Len(t, res.Results[0].Rows[0].Samples, leastPairs)
}

// The time that is left falls to nothing, and learns from what was slow.
func TestEstimate(t *testing.T) {
	e := estimate{guess: []float64{100, 100, 100}}
	require.Equal(t, 300*time.Second, e.left(0))
	e.done(0, 200)
	require.Greater(t, e.left(1), 250*time.Second)
	require.Zero(t, e.left(3))
}

// Every group has workloads, and nothing is in a group that Groups does not name.
func TestGroups(t *testing.T) {
	r := &runner{o: Options{Full: true, Threads: 2}}
	var seen []string
	for _, w := range r.workloads() {
		if !slices.Contains(seen, w.group) {
			seen = append(seen, w.group)
		}
		require.Positive(t, w.flop+w.bytes, w.String())
	}
	require.Equal(t, Groups(), seen)
}
