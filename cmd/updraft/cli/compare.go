package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// predictionsFile holds one line per method and test prompt.
const predictionsFile = "predictions.jsonl"

// phases shows how far an experiment is.
type phases struct {
	a     *app
	bar   *progress
	name  string
	done  int
	total int // phases in all; 0: not known
}

func (p *phases) progress(g gapg.Progress) {
	name := g.Phase
	if g.Method != "" {
		name += " " + g.Method
	}
	if name != p.name {
		p.finish()
		p.name = name
		if p.done++; p.total > 0 {
			name = fmt.Sprintf("%d/%d %s", p.done, max(p.done, p.total), name)
		}
		p.bar = p.a.progress(name, max(1, g.Of), g.Step)
	}
	if g.Step == 0 {
		return
	}
	if st := g.Stats; st != nil {
		p.bar.step(g.Step, "reward", fmt.Sprintf("%.2f", st.Reward), "right", fmt.Sprintf("%.2f", st.AccuracyOverall), "calls", fmt.Sprintf("%.2f", st.CloudRatio))
		return
	}
	p.bar.step(g.Step)
}

// countPhases returns how many phases an experiment has that trains what it
// compares.
func countPhases(methods []string) int {
	n := 2 // the cloud's answers, the comparison
	if slices.Contains(methods, gapg.MethodBase) || slices.Contains(methods, gapg.MethodBaseHelpBias) {
		n++
	}
	for _, m := range []string{gapg.MethodTaskTuning, gapg.MethodCollaborationAware, gapg.MethodGAPG, gapg.MethodDAGRPO} {
		if slices.Contains(methods, m) {
			n += 2
		}
	}
	return n
}

func (p *phases) finish() {
	if p.bar != nil {
		p.bar.finish()
		p.bar = nil
	}
}

// writeResult writes predictions and report into dir.
func writeResult(cmd *cobra.Command, dir string, r *gapg.Result, device string, notes []string) error {
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	enc.SetEscapeHTML(false)
	for _, m := range r.Methods {
		for _, p := range r.Details[m.Name].Predictions {
			if err := enc.Encode(p); err != nil {
				return err
			}
		}
	}
	err := checkpoint.WriteFile(filepath.Join(dir, predictionsFile), func(w io.Writer) error {
		_, err := w.Write(lines.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	d := about(cmd, r.Report(), device, r.Seed)
	d.Notes = append(d.Notes, notes...)
	return report.WriteFile(filepath.Join(dir, reportFile), d)
}

// finding says in one sentence what the comparison shows.
func finding(r *gapg.Result) string {
	ref := r.Method(r.Reference)
	if ref == nil {
		return ""
	}
	s := fmt.Sprintf("%s answers %.1f %% of %d held-out prompts rightly with %.1f %% of them sent to the cloud (budget %.0f %%)",
		ref.Name, 100*ref.OverallAccuracy, r.TestPrompts, 100*ref.CloudRatio, 100*r.Budget.Share())
	if ref.HelpPrecision != nil {
		s += fmt.Sprintf("; %.0f %% of its calls are for prompts that it would have got wrong", 100**ref.HelpPrecision)
	}
	if best := bestBaseline(r); best != nil {
		s += fmt.Sprintf("; %s, the best method that decides from outside the model, reaches %.1f %%", best.Name, 100*best.OverallAccuracy)
	}
	return s + "."
}

// bestBaseline is the best of the methods that divide the work from outside.
func bestBaseline(r *gapg.Result) *report.Method {
	var best *report.Method
	for _, name := range []string{gapg.MethodNaive, gapg.MethodRouter, gapg.MethodConfidence} {
		if m := r.Method(name); m != nil && (best == nil || m.OverallAccuracy > best.OverallAccuracy) {
			best = m
		}
	}
	return best
}
