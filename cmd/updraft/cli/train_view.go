package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// reportFile is the report inside a run directory.
const reportFile = "report.html"

// trainView shows a training: the bar, the log, the report.
type trainView struct {
	a      *app
	cmd    *cobra.Command
	f      *trainFlags
	c      gapg.Config
	device string
	task   string
	total  int
	bar    *progress
	last   *gapg.StepStats
	evals  map[string]float64
	trend  trend

	preflight *gapg.Preflight // nil where the run was resumed
}

// trend is a moving mean of what a single step shows too noisily.
type trend struct{ reward, ratio float64 }

const trendWeight = 0.1

func (t *trend) add(st *gapg.StepStats) {
	if st.Step <= 1 || *t == (trend{}) {
		*t = trend{st.Reward, st.CloudRatio}
		return
	}
	t.reward += trendWeight * (st.Reward - t.reward)
	t.ratio += trendWeight * (st.CloudRatio - t.ratio)
}

func (v *trainView) step(st *gapg.StepStats) {
	v.last = st
	v.trend.add(st)
	v.bar.step(st.Step, "reward", fmt.Sprintf("%.3f", v.trend.reward), "calls", fmt.Sprintf("%.3f", v.trend.ratio),
		"budget", fmt.Sprintf("%.3f", st.Budget))
}

func (v *trainView) eval(step int, m map[string]float64) {
	v.evals = m
	v.a.log.Info("evaluation", "step", step, "overall", share(m["accuracy/overall"]), "device", share(m["accuracy/device"]),
		"solo", share(m["accuracy/solo"]), "calls", share(m["cloud/ratio"]), "budget", v.c.Budget.Share(),
		"at_budget", share(m["accuracy/overall_at_budget"]), "precision", share(m["help/precision"]), "recall", share(m["help/recall"]))
	progress := ""
	if step < v.total {
		progress = fmt.Sprintf("step %d of %d", step, v.total)
	}
	if err := v.writeReport(progress); err != nil {
		v.a.log.Warn("the report could not be written", "error", oneLine(err))
	}
}

func share(x float64) string { return fmt.Sprintf("%.3f", x) }

// writeReport makes report.html from the metrics log.
func (v *trainView) writeReport(progress string) error {
	metrics, err := report.ReadMetrics(filepath.Join(v.f.outputDir, report.MetricsFile))
	if err != nil {
		return err
	}
	d := report.Data{Task: v.task, Progress: progress, Budget: v.c.Budget.Share(),
		Training: report.TrainingCharts(v.c.Budget.Share(), report.Run{Name: v.c.Algorithm.Name(), Metrics: metrics})}
	d.Notes = append(d.Notes, "Cloud: "+v.f.cloud.label()+".")
	d.Headline = fmt.Sprintf("%s on %s: a training", v.c.Algorithm.Name(), v.task)
	for _, t := range []struct{ key, label, note string }{
		{"eval/accuracy/overall", "overall accuracy", "the cloud's answers counted"},
		{"eval/accuracy/overall_at_budget", "at the budget", "overall accuracy with the calls cut to the budget"},
		{"eval/cloud/ratio", "calls per prompt", fmt.Sprintf("budget %g", v.c.Budget.Share())},
		{"eval/help/precision", "help precision", "of the calls, the device would have failed"},
	} {
		if x, ok := metrics.Last(t.key); ok {
			d.Tiles = append(d.Tiles, report.Tile{Label: t.label, Value: fmt.Sprintf("%.1f %%", 100*x), Note: t.note})
		}
	}
	return report.WriteFile(filepath.Join(v.f.outputDir, reportFile), about(v.cmd, d, v.device, v.c.Seed))
}

// trainSummary is what updraft train --json prints.
type trainSummary struct {
	Algorithm         string             `json:"algorithm"`
	Steps             int                `json:"steps"`
	Budget            float64            `json:"budget"`
	Rho               float64            `json:"rho"`
	Seed              uint64             `json:"seed"`
	NumTokens         int64              `json:"num_tokens"`
	Cloud             string             `json:"cloud"`
	CloudCalls        int                `json:"training_cloud_calls"`
	CloudCostUSD      *float64           `json:"training_cloud_cost_usd"` // null: not known
	Unanswered        int                `json:"cloud_calls_possibly_billed"`
	MaxLogpDifference float64            `json:"max_logp_difference"`
	BestStep          int                `json:"best_step,omitempty"`
	Preflight         map[string]float64 `json:"preflight,omitempty"`
	Evaluation        map[string]float64 `json:"evaluation,omitempty"`
	OutputDir         string             `json:"output_dir"`
	Model             string             `json:"model"`
}

func (v *trainView) summary(t *gapg.Trainer, run *gapg.Run, store *cloud.Store, final string) error {
	state := t.State()
	s := trainSummary{Algorithm: v.c.Algorithm.Name(), Steps: state.Step, Budget: v.c.Budget.Share(), Rho: v.c.Budget.Rho(), Seed: v.c.Seed,
		NumTokens: state.Tokens, Cloud: v.f.cloud.label(), CloudCalls: state.Calls, MaxLogpDifference: run.MaxLogpDifference(),
		BestStep: run.BestStep(), Evaluation: finiteMap(v.evals), OutputDir: v.f.outputDir, Model: final}
	if v.preflight != nil {
		s.Preflight = v.preflight.Metrics()
	}
	cost := "unknown cost"
	if state.Unpriced == 0 {
		s.CloudCostUSD = &state.CostUSD
		cost = fmt.Sprintf("$%.2f", state.CostUSD)
	}
	sent, err := store.Unanswered()
	if err != nil {
		return err
	}
	s.Unanswered = len(sent)
	out := v.cmd.OutOrStdout()
	if v.a.json {
		return printJSON(out, s)
	}
	fmt.Fprintf(out, "%s: %d steps, budget %.1f %% of prompts (ρ = %.4g), %d training cloud calls (%s)\n", s.Algorithm, s.Steps, 100*s.Budget, s.Rho, s.CloudCalls, cost)
	fmt.Fprintf(out, "cloud: %s\n", s.Cloud)
	if s.Unanswered > 0 {
		fmt.Fprintf(out, "%d calls were sent and never answered: they may have been billed\n", s.Unanswered)
	}
	if v.evals != nil {
		fmt.Fprintf(out, "last evaluation: overall accuracy %.1f %% at %.1f %% calls; at the budget %.1f %%; solo %.1f %%\n",
			100*v.evals["accuracy/overall"], 100*v.evals["cloud/ratio"], 100*v.evals["accuracy/overall_at_budget"], 100*v.evals["accuracy/solo"])
	}
	if s.BestStep > 0 {
		fmt.Fprintf(out, "best checkpoint by %s: step %d\n", v.f.metric, s.BestStep)
	}
	fmt.Fprintf(out, "rollout and training log-probs differ by at most %g\n", s.MaxLogpDifference)
	fmt.Fprintf(out, "model: %s\nreport: %s\n", final, filepath.Join(v.f.outputDir, reportFile))
	return nil
}

// saveModel writes a model with its tokenizer into dir, whole or not at all.
func saveModel(ctx context.Context, m *model.Model, tok *tokenizer.Tokenizer, dir string) error {
	return checkpoint.WriteDir(dir, func(tmp string) error {
		if err := m.Save(ctx, tmp); err != nil {
			return err
		}
		return tok.Save(filepath.Join(tmp, tokenizer.File))
	})
}

// dryRun shows what a command would do.
func (a *app) dryRun(cmd *cobra.Command, plan model.Plan, facts string, cost *estimate) error {
	out := cmd.OutOrStdout()
	if a.json {
		items := map[string]int64{}
		for _, it := range plan.Items {
			items[it.Name] = it.Bytes
		}
		all := map[string]any{"config": configMap(cmd), "memory_bytes": plan.Bytes(), "memory": items, "summary": facts}
		if cost != nil {
			all["cloud"] = cost
		}
		return printJSON(out, all)
	}
	if cost != nil {
		facts += "\n# " + cost.String()
	}
	text, err := configYAML(cmd)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n# %s\n# memory plan\n#   %s\n", text, facts, strings.Join(planLines(plan), "\n#   "))
	return err
}
