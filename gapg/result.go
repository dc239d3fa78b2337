package gapg

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/updraft-ml/updraft/gapg/report"
)

// Training is what one training of an experiment did.
type Training struct {
	Method            string
	Config            Config // the settings it was made with
	Steps             int
	CloudCalls        int // distinct prompts that it asked the cloud for
	CloudCostUSD      float64
	MaxLogpDifference float64
	RolloutTokens     int
	TrainTokens       int
	RolloutTime       time.Duration
	TrainTime         time.Duration // forward, backward and optimizer
	Time              time.Duration
	Stats             []StepStats // one per step
}

// Result is the outcome of an experiment.
type Result struct {
	Task        string
	Seed        uint64
	Budget      Budget
	TestPrompts int // that count: resolved by the task and the cloud for every model
	Unresolved  int // test prompts that do not
	Time        time.Duration

	// Weak and Strong name whose accuracy alone PGR stands on.
	Weak, Strong       string
	WeakAcc, StrongAcc float64
	// Reference is the method that the others are compared with: gapg where it is
	// among them. Its figures come from responses that were generated at the
	// calibrated bias.
	Reference          string
	Methods            []report.Method      // in the order of the table
	Details            map[string]*Detail   // by method
	Curves             []report.BudgetCurve // of the methods with a ranking
	Comparisons        []report.Comparison  // gapg − each other method, at gapg's number of calls
	Trainings          []Training
	Transcripts        []report.Transcript
	Confidence         string // the confidence score that was best on validation
	Router             string // the router that was best on validation
	ShortcutMismatches int    // test prompts where generating at the calibrated bias differed from the records
	ValidationPrompts  int
}

// Detail is what the table does not show of a method.
type Detail struct {
	Figures     Figures
	Calibration *Calibration // nil where nothing was calibrated
	CPT50       *float64     // smallest ratio with PGR ≥ 0.5; nil: none
	CPT80       *float64
	// Predictions of the test prompts that count, in their order.
	Predictions []Prediction
}

// Prediction is what became of one test prompt under one method.
type Prediction struct {
	Method        string  `json:"method"`
	ID            string  `json:"id"`
	Asked         bool    `json:"asked"`          // sent to the cloud
	Denied        bool    `json:"denied"`         // wanted the cloud, the hard budget was spent
	Correct       bool    `json:"correct"`        // what the user got was right
	DeviceCorrect bool    `json:"device_correct"` // the device's own answer, calls disabled
	CloudCorrect  bool    `json:"cloud_correct"`
	Answer        string  `json:"answer"` // what the user got
	Tokens        int     `json:"tokens"` // generated on the device
	Score         float64 `json:"-"`      // the larger, the sooner it asks
}

// Summary is the JSON form of a Result.
type Summary struct {
	Task        string          `json:"task"`
	Seed        uint64          `json:"seed"`
	Budget      float64         `json:"budget"`
	TestPrompts int             `json:"test_prompts"`
	Seconds     float64         `json:"seconds"`
	Methods     []report.Method `json:"methods"`
	Train       TrainSummary    `json:"train"`
}

// TrainSummary is the training of gapg; the difference and the rates are over
// all trainings of the experiment.
type TrainSummary struct {
	Steps                  int     `json:"steps"`
	TrainingCloudCalls     int     `json:"training_cloud_calls"`
	MaxLogpDifference      float64 `json:"max_logp_difference"`
	RolloutTokensPerSecond float64 `json:"rollout_tokens_per_second"`
	TrainTokensPerSecond   float64 `json:"train_tokens_per_second"`
}

// Method returns a method's row, nil where there is none.
func (r *Result) Method(name string) *report.Method {
	for i := range r.Methods {
		if r.Methods[i].Name == name {
			return &r.Methods[i]
		}
	}
	return nil
}

// Training returns a method's training, nil where there was none.
func (r *Result) Training(method string) *Training {
	for i := range r.Trainings {
		if r.Trainings[i].Method == method {
			return &r.Trainings[i]
		}
	}
	return nil
}

// Summary returns what is printed as JSON.
func (r *Result) Summary() Summary {
	s := Summary{Task: r.Task, Seed: r.Seed, Budget: r.Budget.Share(), TestPrompts: r.TestPrompts, Seconds: r.Time.Seconds(), Methods: r.Methods}
	var rollout, train int
	var rolloutTime, trainTime time.Duration
	for i := range r.Trainings {
		t := &r.Trainings[i]
		if i == 0 || t.Method == r.Reference {
			s.Train.Steps, s.Train.TrainingCloudCalls = t.Steps, t.CloudCalls
		}
		if !(t.MaxLogpDifference <= s.Train.MaxLogpDifference) {
			s.Train.MaxLogpDifference = t.MaxLogpDifference
		}
		rollout += t.RolloutTokens
		train += t.TrainTokens
		rolloutTime += t.RolloutTime
		trainTime += t.TrainTime
	}
	s.Train.RolloutTokensPerSecond = ratio(float64(rollout), rolloutTime.Seconds())
	s.Train.TrainTokensPerSecond = ratio(float64(train), trainTime.Seconds())
	return s
}

// Report returns the result as a report shows it. The training charts are
// those of the reference method, where it was trained here. The caller adds
// what only it knows: date, configuration, versions, command, notes.
func (r *Result) Report() report.Data {
	d := report.Data{Task: r.Task, Budget: r.Budget.Share(), TestPrompts: r.TestPrompts, Methods: r.Methods, Reference: r.Reference,
		Weak: r.Weak, Strong: r.Strong, BudgetCurves: r.Curves, Transcripts: r.Transcripts, Comparisons: r.Comparisons}
	if t := r.Training(r.Reference); t != nil {
		d.Training = report.TrainingCharts(r.Budget.Share(), report.Run{Name: t.Method, Metrics: t.Metrics()})
		d.Config = t.Config.entries()
	}
	return d
}

// entries are the settings that a reader of a report asks for, by the names of
// the command line's flags.
func (c *Config) entries() []report.Entry {
	out := []report.Entry{{Key: "algorithm", Value: c.Algorithm.Name()}}
	if h, ok := c.Reward.(Hierarchical); ok {
		out = append(out, report.Entry{Key: "alpha-a, alpha-c, alpha-f", Value: fmt.Sprintf("%g, %g, %g", h.Accuracy, h.Coordination, h.Format)})
	}
	for _, e := range []struct {
		key   string
		value any
	}{
		{"prompts-per-step", c.PromptsPerStep}, {"num-generations", c.NumGenerations}, {"max-completion-length", c.MaxCompletionLength},
		{"temperature", c.Temperature}, {"learning-rate", c.LearningRate}, {"lr-scheduler-type", c.LRScheduler}, {"warmup-steps", c.WarmupSteps},
		{"adam-beta1, adam-beta2", fmt.Sprintf("%g, %g", c.AdamBeta1, c.AdamBeta2)}, {"max-grad-norm", c.MaxGradNorm},
	} {
		out = append(out, report.Entry{Key: e.key, Value: fmt.Sprint(e.value)})
	}
	return out
}

// Metrics returns the training's steps as a metrics log holds them.
func (t *Training) Metrics() *report.Metrics {
	m := &report.Metrics{Path: t.Method}
	for i := range t.Stats {
		v := t.Stats[i].Metrics()
		maps.Copy(v, t.Stats[i].Timings())
		m.Records = append(m.Records, report.Record{Step: int64(t.Stats[i].Step), Values: v})
	}
	return m
}

// add counts a step in.
func (t *Training) add(st *StepStats) {
	t.Steps = st.Step
	if !(st.MaxLogpDifference <= t.MaxLogpDifference) { // NaN counts as a difference
		t.MaxLogpDifference = st.MaxLogpDifference
	}
	t.RolloutTokens += st.RolloutTokens
	t.TrainTokens += st.TrainTokens
	t.RolloutTime += st.RolloutTime
	t.TrainTime += st.ForwardTime + st.BackwardTime + st.OptimizerTime
	t.Stats = append(t.Stats, *st)
}

// wantedTranscripts says how many samples of each kind a result holds, as far
// as there are any: ten in all.
var wantedTranscripts = []struct {
	kind report.TranscriptKind
	n    int
}{{report.Solved, 3}, {report.AskedEarly, 2}, {report.AskedLate, 3}, {report.Wrong, 2}}

// transcripts draws ten samples of what a model really generated; a kind that
// has too few leaves its places to the others.
func (c *comparison) transcripts(r *methodRow) []report.Transcript {
	m := c.ev.Models[r.model]
	order := make([]int, len(r.test))
	keys := make([]uint64, len(r.test))
	for i := range order {
		order[i], keys[i] = i, hash64("transcripts", r.test[i].ID)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(keys[a], keys[b]), cmp.Compare(a, b)) })
	byKind := map[report.TranscriptKind][]report.Transcript{}
	for _, i := range order {
		if r.denied[i] {
			continue
		}
		g, full, answer := &m.Generated[i], &m.Test[i], &c.ev.TestCloud[i]
		t := report.Transcript{Prompt: full.Prompt.Text, Response: g.Text, Asked: r.asked[i], Correct: r.test[i].right(r.asked[i]),
			Answer: g.Verdict.Answer, Tokens: len(g.Tokens)}
		switch {
		case t.Asked:
			t.Cloud, t.Forced, t.ForcedCorrect = answer.Answer.Text, full.Verdict.Answer, new(full.Verdict.Correct)
			t.Kind = report.AskedLate
			if 2*len(g.Tokens) < len(full.Tokens) { // less than half of what it would have written
				t.Kind = report.AskedEarly
			}
		case t.Correct:
			t.Kind = report.Solved
		default:
			t.Kind = report.Wrong
		}
		byKind[t.Kind] = append(byKind[t.Kind], t)
	}
	take, spare := map[report.TranscriptKind]int{}, 0
	for _, w := range wantedTranscripts {
		take[w.kind] = min(w.n, len(byKind[w.kind]))
		spare += w.n - take[w.kind]
	}
	for _, w := range wantedTranscripts {
		more := min(spare, len(byKind[w.kind])-take[w.kind])
		take[w.kind] += more
		spare -= more
	}
	var out []report.Transcript
	for _, w := range wantedTranscripts {
		out = append(out, byKind[w.kind][:take[w.kind]]...)
	}
	return out
}
