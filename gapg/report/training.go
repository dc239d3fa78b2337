package report

import "fmt"

// Run is the metrics log of one run under the name to show.
type Run struct {
	Name    string
	Metrics *Metrics
}

// trainingKey is one curve of a training chart: the first of keys that a run
// has is drawn.
type trainingKey struct {
	name  string // within the chart; "" where the chart has one curve
	keys  []string
	color string
	eval  bool // few points: dots instead of a moving mean
}

type trainingChart struct {
	title, note string
	unit        Unit
	curves      []trainingKey
	fromZero    bool
	toOne       bool
	budget      bool
}

// trainingCharts are the charts that every run gets, in order. Names are those
// of metrics.jsonl; evaluations are logged with the prefix "eval/" or "eval_".
var trainingCharts = []trainingChart{
	{title: "Reward", note: "mean over all responses of the step",
		curves: []trainingKey{{keys: []string{"reward"}, color: "0"}}},
	{title: "Accuracy", note: "overall counts the cloud’s answers; device, those given without it", unit: Percent, toOne: true,
		curves: []trainingKey{
			{name: "overall", keys: []string{"accuracy/overall"}, color: "gapg"},
			{name: "device", keys: []string{"accuracy/device"}, color: "device"},
			{name: "overall, validation", keys: []string{"eval/accuracy/overall", "eval_accuracy/overall"}, color: "gapg", eval: true},
			{name: "device, validation", keys: []string{"eval/accuracy/device", "eval_accuracy/device"}, color: "device", eval: true},
		}},
	{title: "Cloud calls per prompt", note: "without calibration, against the budget", unit: Percent, fromZero: true, budget: true,
		curves: []trainingKey{
			{name: "training", keys: []string{"cloud/ratio"}, color: "cloud"},
			{name: "validation", keys: []string{"eval/cloud/ratio", "eval_cloud/ratio"}, color: "cloud", eval: true},
		}},
	{title: "Prompts kept by the filter", note: "|D1|: solved on the device at least once; |D2|: solved by the cloud alone", fromZero: true,
		curves: []trainingKey{
			{name: "|D1|", keys: []string{"filter/d1"}, color: "device"},
			{name: "|D2|", keys: []string{"filter/d2"}, color: "cloud"},
		}},
	{title: "Entropy", note: "nats per token", fromZero: true,
		curves: []trainingKey{{keys: []string{"entropy"}, color: "4"}}},
	{title: "Completion length", note: "tokens, mean over responses", fromZero: true,
		curves: []trainingKey{{keys: []string{"completions/mean_length"}, color: "5"}}},
	{title: "Groups without gradient", note: "all rewards of the group equal", unit: Percent, fromZero: true,
		curves: []trainingKey{{keys: []string{"frac_reward_zero_std"}, color: "7"}}},
	{title: "Gradient norm", note: "before clipping", fromZero: true,
		curves: []trainingKey{{keys: []string{"grad_norm"}, color: "3"}}},
	{title: "Largest log-prob difference", note: "rollout against an independent recomputation; must be 0", fromZero: true,
		curves: []trainingKey{{keys: []string{"sampling/sampling_logp_difference/max", "max_logp_difference"}, color: "6"}}},
}

// TrainingCharts makes the charts over training steps of one run or of several
// overlaid: reward, accuracy, call ratio with the budget (a share; 0 draws
// none), filter, entropy, completion length and the log-prob difference.
// Charts of fields that no run logged are left out.
func TrainingCharts(budget float64, runs ...Run) []Chart {
	logged := 0
	for _, run := range runs {
		if run.Metrics != nil {
			logged++
		}
	}
	var charts []Chart
	for _, spec := range trainingCharts {
		c := Chart{Title: spec.title, Note: spec.note, XLabel: "step", YUnit: spec.unit}
		if spec.fromZero || spec.toOne {
			c.YMin = new(0.0)
		}
		if spec.toOne {
			c.YMax = new(1.0)
		}
		zero, many := true, logged > 1
		var whole, broken string // the curves that runs are drawn by, when overlaid
		for i, run := range runs {
			if run.Metrics == nil {
				continue
			}
			trained := false
			for _, k := range spec.curves {
				if many && k.eval && trained {
					continue // too much for one picture
				}
				s, ok := k.series(run, i, many)
				if !ok {
					continue
				}
				trained = trained || !k.eval
				if s.Dashed {
					broken = k.name
				} else {
					whole = k.name
				}
				c.Series = append(c.Series, s)
				for _, v := range s.Y {
					zero = zero && v == 0
				}
			}
		}
		if many && whole != "" && broken != "" {
			c.Note = fmt.Sprintf("whole lines: %s; broken: %s", whole, broken)
		}
		if !c.drawable() {
			continue
		}
		if spec.budget && budget > 0 {
			c.Lines = append(c.Lines, Line{Value: budget, Name: "budget " + percent(budget, 0), Left: true})
		}
		if zero && spec.title == "Largest log-prob difference" {
			n := 0
			for _, s := range c.Series {
				n += len(s.Y)
			}
			c.YMax = new(1e-6) // an axis on which one unit in the last place would show
			c.Note = fmt.Sprintf("rollout against an independent recomputation: exactly 0 at all %s steps", groupDigits(fmt.Sprint(n)))
		}
		charts = append(charts, c)
	}
	return charts
}

func (k *trainingKey) series(run Run, index int, many bool) (Series, bool) {
	for _, key := range k.keys {
		x, y := run.Metrics.Column(key)
		if len(x) == 0 {
			continue
		}
		s := Series{Name: k.name, X: x, Y: y, Color: k.color, Dots: k.eval, Smooth: !k.eval, Dashed: k.eval}
		if many {
			// Runs differ in colour; within a chart of several curves the first
			// is whole and the others broken.
			s.Name, s.Group = run.Name, run.Name
			if k.name != "" {
				s.Name += ", " + k.name
			}
			s.Color = fmt.Sprint(index % 8)
			s.Dashed = k.color == "device" || k.eval
		}
		return s, true
	}
	return Series{}, false
}
