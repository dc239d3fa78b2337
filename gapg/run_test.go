package gapg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
)

// runner makes the same training again and again in one directory, as a program
// that is started anew each time.
type runner struct {
	dir   string
	store *cloud.Store
	cloud *toyCloud
	alg   func() Algorithm
	cfg   RunConfig
	best  map[int]float64 // the metric "score" by step
	lora  *model.LoRA
}

var errKilled = errors.New("killed")

// train runs until the step stop (with a checkpoint) or kill (without), or to
// the end where both are 0, and returns the weights that it ends with.
func (r *runner) train(t testing.TB, resume bool, stop, kill int) (map[string][]float32, error) {
	y := newToy(t, toyOptions{plain: true, store: r.store, cloud: r.cloud, types: model.Options{LoRA: r.lora}, config: func(c *Config) {
		c.Algorithm, c.MaxSteps, c.PromptsPerStep, c.Temperature = r.alg(), 12, 6, 0.9
		c.LRScheduler, c.WarmupSteps = "cosine", 2
	}})
	defer y.close()
	ctx, cancel := context.WithCancelCause(bg)
	defer cancel(nil)
	stopped := make(chan struct{})
	run := &Run{Trainer: y.tr, Config: r.cfg, Stop: stopped}
	run.Config.Dir = r.dir
	run.Evaluate = func(_ context.Context, step int) (map[string]float64, error) {
		sum := 0.0
		for _, p := range y.m.Params() {
			v, err := y.m.ReadParam(bg, model.Weights, p.Name)
			if err != nil {
				return nil, err
			}
			for _, x := range v {
				sum += float64(x)
			}
		}
		return map[string]float64{"sum": sum, "score": r.best[step]}, nil
	}
	run.OnStep = func(st *StepStats) {
		require.Zero(t, st.MaxLogpDifference)
		if st.Step == stop {
			close(stopped)
		}
		if st.Step == kill {
			cancel(errKilled)
		}
	}
	err := run.Train(ctx, resume)
	return y.params(t, model.Weights), err
}

// outcome is what must not depend on interruptions.
type outcome struct {
	files   map[string][]byte // of all checkpoints that are left
	metrics []string
	entries []cloud.Entry
	asked   map[string]int
	weights map[string][]float32
}

func (r *runner) outcome(t testing.TB, weights map[string][]float32) outcome {
	o := outcome{files: map[string][]byte{}, weights: weights, asked: r.cloud.calls}
	steps, err := checkpoints(r.dir)
	require.NoError(t, err)
	for _, s := range steps {
		dir := filepath.Join(r.dir, fmt.Sprintf("checkpoint-%d", s))
		files := []string{"model.safetensors", "config.json"}
		if r.lora != nil {
			files = []string{model.AdapterWeightsFile, model.AdapterConfigFile}
		}
		for _, f := range append(files, "optimizer.safetensors", "tokenizer.json", stateFile) {
			data, err := os.ReadFile(filepath.Join(dir, f))
			require.NoError(t, err)
			if f == stateFile { // the log's length has the digits of wall-clock times in it
				var m map[string]any
				require.NoError(t, json.Unmarshal(data, &m))
				m["metrics"].(map[string]any)["bytes"] = 0
				data, err = json.Marshal(m)
				require.NoError(t, err)
			}
			o.files[fmt.Sprintf("%d/%s", s, f)] = data
		}
	}
	data, err := os.ReadFile(filepath.Join(r.dir, report.MetricsFile))
	require.NoError(t, err)
	wallClock := (&StepStats{}).Timings()
	for line := range bytes.Lines(data) {
		var m map[string]any
		require.NoError(t, json.Unmarshal(line, &m), string(line))
		for k := range wallClock {
			delete(m, k)
		}
		again, err := json.Marshal(m)
		require.NoError(t, err)
		o.metrics = append(o.metrics, string(again))
	}
	o.entries, err = r.store.Entries("train")
	require.NoError(t, err)
	hidden, err := filepath.Glob(filepath.Join(r.dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, hidden, "nothing half-written is left")
	return o
}

func newRunner(t testing.TB, alg func() Algorithm, cfg RunConfig, best map[int]float64) *runner {
	return &runner{dir: t.TempDir(), store: cloud.NewMemory(), cloud: &toyCloud{}, alg: alg, cfg: cfg, best: best}
}

// A run that is stopped or killed, and resumed, ends as one that was not.
func TestResume(t *testing.T) {
	rising := map[int]float64{4: 0.5, 12: 0.3}
	type scenario struct {
		name string
		cfg  RunConfig
		best map[int]float64
		left []int // checkpoints at the end
		lora *model.LoRA
	}
	scenarios := []scenario{
		{"best kept and loaded", RunConfig{SaveSteps: 3, EvalSteps: 2, EvalOnStart: true, SaveTotalLimit: 1, MetricForBest: "score", LoadBest: true}, rising, []int{4, 12}, nil},
		{"early stop", RunConfig{SaveSteps: 5, EvalSteps: 2, SaveTotalLimit: 1, MetricForBest: "score", Patience: 2}, rising, []int{4, 8}, nil},
		{"last only", RunConfig{SaveTotalLimit: 1, LoggingSteps: 2}, nil, []int{12}, nil},
		{"adapters", RunConfig{SaveSteps: 3, SaveTotalLimit: 1}, nil, []int{12}, &model.LoRA{R: 3}},
	}
	algs := map[string]func() Algorithm{
		"gapg":    func() Algorithm { return GAPG{} },
		"da-grpo": func() Algorithm { return NewDAGRPO() },
	}
	type cut struct{ stop, kill int }
	cuts := map[string][]cut{
		"stop 1": {{1, 0}}, "stop 4": {{4, 0}}, "stop 7": {{7, 0}},
		"kill 1": {{0, 1}}, "kill 3": {{0, 3}}, "kill 5": {{0, 5}}, "kill 8": {{0, 8}},
		"many": {{0, 1}, {2, 0}, {0, 4}, {0, 4}, {5, 0}, {0, 7}},
	}
	for _, s := range scenarios {
		for name, alg := range algs {
			if name == "gapg" && s.name != "best kept and loaded" {
				continue // the state that differs is da-grpo's
			}
			whole := newRunner(t, alg, s.cfg, s.best)
			whole.lora = s.lora
			w, err := whole.train(t, false, 0, 0)
			require.NoError(t, err)
			want := whole.outcome(t, w)
			left, err := checkpoints(whole.dir)
			require.NoError(t, err)
			require.Equal(t, s.left, left)
			require.NotEmpty(t, want.entries)
			for id, n := range want.asked {
				require.Equal(t, 1, n, id)
			}
			if s.cfg.LoadBest {
				at4, err := model.ReadConfig(filepath.Join(whole.dir, "checkpoint-4", "config.json"))
				require.NoError(t, err)
				require.Equal(t, 16, at4.HiddenSize)
				y := newToy(t, toyOptions{plain: true})
				require.NoError(t, y.m.LoadWeights(bg, filepath.Join(whole.dir, "checkpoint-4")))
				require.True(t, sameBits(y.params(t, model.Weights), w), "the best weights are loaded")
			}
			for how, cs := range cuts {
				if testing.Short() && how != "many" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", s.name, name, how), func(t *testing.T) {
					r := newRunner(t, alg, s.cfg, s.best)
					r.lora = s.lora
					for i, c := range cs {
						_, err := r.train(t, i > 0, c.stop, c.kill)
						if c.stop > 0 {
							require.ErrorIs(t, err, ErrStopped)
						} else {
							require.ErrorIs(t, err, context.Canceled)
						}
						// What a kill inside a save and inside a line of the log leaves.
						require.NoError(t, os.MkdirAll(filepath.Join(r.dir, ".checkpoint-9.tmp-123"), 0o755))
						f, err := os.OpenFile(filepath.Join(r.dir, report.MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
						require.NoError(t, err)
						_, err = f.WriteString(`{"step": 99, "rew`)
						require.NoError(t, errors.Join(err, f.Close()))
					}
					w, err := r.train(t, true, 0, 0)
					require.NoError(t, err)
					got := r.outcome(t, w)
					require.Equal(t, strings.Join(want.metrics, "\n"), strings.Join(got.metrics, "\n"))
					for f, data := range want.files {
						require.True(t, bytes.Equal(data, got.files[f]), "%s differs:\n%.2000s\n%.2000s", f, data, got.files[f])
					}
					require.Len(t, got.files, len(want.files))
					require.Equal(t, want.entries, got.entries)
					require.Equal(t, want.asked, got.asked, "no recorded answer is asked for again")
					require.True(t, sameBits(want.weights, got.weights))

					// Resumed once more there is nothing to do.
					w, err = r.train(t, true, 0, 0)
					require.NoError(t, err)
					require.Equal(t, got.metrics, r.outcome(t, w).metrics)
				})
			}
		}
	}
}

// At a limit of the cloud's calls a run saves what it has; under raised limits it
// goes on, to the end of one that met no limit.
func TestResumeUnderRaisedLimits(t *testing.T) {
	cfg := RunConfig{SaveSteps: 5, EvalSteps: 2, SaveTotalLimit: 1, MetricForBest: "score"}
	best := map[int]float64{4: 0.5, 12: 0.3}
	alg := func() Algorithm { return NewDAGRPO() }
	whole := newRunner(t, alg, cfg, best)
	w, err := whole.train(t, false, 0, 0)
	require.NoError(t, err)
	want := whole.outcome(t, w)
	calls := whole.store.Used().Calls
	require.Greater(t, calls, 4)

	r := newRunner(t, alg, cfg, best)
	halts := 0
	for limit := 1; ; limit++ {
		r.store.SetLimits(cloud.Limits{Calls: limit})
		w, err = r.train(t, limit > 1, 0, 0)
		if err == nil {
			break
		}
		var reached *cloud.LimitError
		require.ErrorAs(t, err, &reached)
		require.LessOrEqual(t, r.store.Used().Calls, limit)
		halts++
	}
	require.Equal(t, calls-1, halts)
	got := r.outcome(t, w)
	require.Equal(t, strings.Join(want.metrics, "\n"), strings.Join(got.metrics, "\n"))
	require.Equal(t, want.entries, got.entries)
	require.Equal(t, want.asked, got.asked)
	require.True(t, sameBits(want.weights, got.weights))
	for f, data := range want.files {
		require.True(t, bytes.Equal(data, got.files[f]), "%s differs", f)
	}
}

// An evaluation that meets a limit is made after the resumption, once.
func TestResumeBeforeEvaluation(t *testing.T) {
	r := newRunner(t, func() Algorithm { return GAPG{} }, RunConfig{EvalSteps: 12, SaveTotalLimit: 1}, nil)
	fail := true
	evaluations := 0
	train := func(resume bool) error {
		y := newToy(t, toyOptions{plain: true, store: r.store, cloud: r.cloud, config: func(c *Config) { c.MaxSteps = 12 }})
		defer y.close()
		run := &Run{Trainer: y.tr, Config: r.cfg}
		run.Config.Dir = r.dir
		run.Evaluate = func(context.Context, int) (map[string]float64, error) {
			if fail {
				return nil, fmt.Errorf("evaluation: %w", &cloud.LimitError{What: "calls"})
			}
			evaluations++
			return map[string]float64{"score": 1}, nil
		}
		return run.Train(bg, resume)
	}
	var reached *cloud.LimitError
	require.ErrorAs(t, train(false), &reached)
	steps, err := checkpoints(r.dir)
	require.NoError(t, err)
	require.Equal(t, []int{12}, steps)
	fail = false
	require.NoError(t, train(true))
	require.NoError(t, train(true))
	require.Equal(t, 1, evaluations)
}

// A kill may fall between any two of the renames and removals of a save: every
// such state of the directory resumes to the same end.
func TestResumeFromEveryState(t *testing.T) {
	cfg := RunConfig{SaveSteps: 2, SaveTotalLimit: 1}
	alg := func() Algorithm { return NewDAGRPO() }
	whole := newRunner(t, alg, cfg, nil)
	w, err := whole.train(t, false, 0, 0)
	require.NoError(t, err)
	want := whole.outcome(t, w)

	all := newRunner(t, alg, RunConfig{SaveSteps: 2, SaveTotalLimit: 100}, nil)
	_, err = all.train(t, false, 0, 0)
	require.NoError(t, err)
	for newest := 2; newest <= 12; newest += 2 {
		// checkpoint-newest is whole and the ones before it are not yet removed.
		r := newRunner(t, alg, cfg, nil)
		r.store, r.cloud = all.store, all.cloud
		require.NoError(t, os.CopyFS(r.dir, os.DirFS(all.dir)))
		for s := newest + 2; s <= 12; s += 2 {
			require.NoError(t, os.RemoveAll(filepath.Join(r.dir, fmt.Sprintf("checkpoint-%d", s))))
		}
		w, err := r.train(t, true, 0, 0)
		require.NoError(t, err)
		got := r.outcome(t, w)
		require.Equal(t, want.files, got.files)
		require.Equal(t, strings.Join(want.metrics, "\n"), strings.Join(got.metrics, "\n"))
		require.Equal(t, want.entries, got.entries)
		require.Equal(t, want.asked, got.asked)
	}
}

// Damage to a checkpoint is one clear line that names the file; nothing is
// removed, and with the damaged one moved away the run goes on to the same end.
func TestDamagedCheckpoint(t *testing.T) {
	cfg := RunConfig{SaveSteps: 3, SaveTotalLimit: 2}
	alg := func() Algorithm { return NewDAGRPO() }
	good := newRunner(t, alg, cfg, nil)
	_, err := good.train(t, false, 7, 0)
	require.ErrorIs(t, err, ErrStopped)
	clean := newRunner(t, alg, cfg, nil)
	w, err := clean.train(t, false, 0, 0)
	require.NoError(t, err)
	want := clean.outcome(t, w)

	for name, c := range map[string]struct {
		file   string
		damage func(data []byte) []byte
	}{
		"weights cut":      {"model.safetensors", func(d []byte) []byte { return d[:len(d)/2] }},
		"weights empty":    {"model.safetensors", func([]byte) []byte { return nil }},
		"weights' header":  {"model.safetensors", func(d []byte) []byte { d[20] ^= 0xff; return d }},
		"optimizer cut":    {"optimizer.safetensors", func(d []byte) []byte { return d[:len(d)-1] }},
		"state cut":        {stateFile, func(d []byte) []byte { return d[:len(d)/2] }},
		"state of another": {stateFile, func(d []byte) []byte { return bytes.Replace(d, []byte(`"da-grpo"`), []byte(`"gapg"`), 1) }},
		"state of a newer one": {stateFile, func(d []byte) []byte {
			return bytes.Replace(d, []byte(`"format_version": 1`), []byte(`"format_version": 9`), 1)
		}},
		"state of no step": {stateFile, func(d []byte) []byte { return bytes.Replace(d, []byte(`"Step": 7`), []byte(`"Step": 6`), 1) }},
		"no optimizer":     {"optimizer.safetensors", nil},
		"no state":         {stateFile, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRunner(t, alg, cfg, nil)
			r.store, r.cloud = good.store, good.cloud
			require.NoError(t, os.CopyFS(r.dir, os.DirFS(good.dir)))
			path := filepath.Join(r.dir, "checkpoint-7", c.file)
			if c.damage == nil {
				require.NoError(t, os.Remove(path))
			} else {
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				damaged := c.damage(bytes.Clone(data))
				require.NotEqual(t, data, damaged)
				require.NoError(t, os.WriteFile(path, damaged, 0o644))
			}
			before := listing(t, r.dir)
			_, err := r.train(t, true, 0, 0)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
			t.Log(strings.ReplaceAll(err.Error(), r.dir, "RUN"))
			require.Equal(t, before, listing(t, r.dir), "nothing is touched")

			require.NoError(t, os.RemoveAll(filepath.Join(r.dir, "checkpoint-7")))
			w, err := r.train(t, true, 0, 0)
			require.NoError(t, err)
			got := r.outcome(t, w)
			require.Equal(t, strings.Join(want.metrics, "\n"), strings.Join(got.metrics, "\n"))
			require.True(t, sameBits(want.weights, got.weights))
		})
	}
}

// listing is the names and contents of a directory's files.
func listing(t testing.TB, dir string) map[string]string {
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var data []byte
			data, err = os.ReadFile(path)
			out[path] = string(data)
		}
		return err
	}))
	return out
}

func TestRunDirectory(t *testing.T) {
	r := newRunner(t, func() Algorithm { return GAPG{} }, RunConfig{SaveSteps: 1}, nil)
	_, err := r.train(t, false, 2, 0)
	require.ErrorIs(t, err, ErrStopped)
	_, err = r.train(t, false, 0, 0)
	require.ErrorContains(t, err, "already holds checkpoint-2")

	r.cfg.MetricForBest, r.cfg.EvalSteps = "f1", 1
	_, err = r.train(t, true, 0, 0)
	require.ErrorContains(t, err, `metric-for-best-model "f1": the evaluation has no such metric; it has score, sum`)

	dir, err := NewestCheckpoint(r.dir)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(r.dir, "checkpoint-2"), dir)
	_, err = NewestCheckpoint(t.TempDir())
	require.ErrorContains(t, err, "holds no checkpoint")

	// A directory's name that is a file's.
	r.dir = filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(r.dir, nil, 0o644))
	_, err = r.train(t, false, 0, 0)
	require.ErrorContains(t, err, r.dir)
}

// A non-finite step ends the run; the checkpoints stay as they are.
func TestNonFiniteEndsRun(t *testing.T) {
	dir := t.TempDir()
	y := newToy(t, toyOptions{plain: true})
	run := &Run{Trainer: y.tr, Config: RunConfig{Dir: dir, SaveSteps: 1}}
	var before map[string]string
	run.OnStep = func(st *StepStats) {
		if st.Step == 3 {
			before = listing(t, filepath.Join(dir, "checkpoint-2"))
			p := y.m.Params()[0].Name
			w, err := y.m.ReadParam(bg, model.Weights, p)
			require.NoError(t, err)
			for i := range w {
				w[i] = float32(nan())
			}
			require.NoError(t, y.m.WriteParam(bg, model.Weights, p, w))
			y.m.RefreshWeights()
		}
	}
	err := run.Train(bg, false)
	require.ErrorIs(t, err, ErrNonFinite)
	require.Equal(t, before, listing(t, filepath.Join(dir, "checkpoint-2")))
}
