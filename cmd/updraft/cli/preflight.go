package cli

import (
	"context"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/gapg"
)

// preflightShare is the share of --max-cloud-calls that the check before a
// training may use.
const preflightShare = 4

// preflightCloud is how many prompts of the check the cloud is asked about.
func (f *trainFlags) preflightCloud(c gapg.Config) int {
	switch {
	case f.cloud.spec == "none" || c.Budget.Num == 0:
		return 0
	case f.cloud.wire() && f.cloud.maxCalls > 0:
		return min(f.preflight, f.cloud.maxCalls/preflightShare)
	}
	return f.preflight
}

// runPreflight says what the training can expect, and refuses one that can
// learn nothing.
func (f *trainFlags) runPreflight(ctx context.Context, a *app, t *gapg.Trainer) (*gapg.Preflight, error) {
	cloudPrompts := f.preflightCloud(t.Config())
	p, err := t.Preflight(ctx, f.preflight, cloudPrompts)
	if err != nil {
		return nil, err
	}
	cloudText := "not asked"
	if p.CloudPrompts > 0 {
		cloudText = fmt.Sprintf("%s of %d", share(p.CloudAccuracy), p.CloudPrompts)
	}
	a.log.Info("before training", "prompts", p.Prompts, "responses", p.Responses, "accuracy", share(p.Accuracy), "marker_rate", share(p.MarkerRate),
		"truncation_rate", share(p.Truncation), "format_rate", share(p.Format), "cloud_accuracy", cloudText, "cloud", f.cloud.label(), "unresolved", p.Unresolved)
	asks := t.Config().Budget.Num != 0
	const anyway = "; --preflight-prompts 0 starts anyway"
	switch {
	case p.Responses == 0:
		return nil, inputf("before training: none of the responses to %d prompts could be judged; the warnings say why"+anyway, p.Prompts)
	case asks && p.MarkerRate == 0 && p.Truncation == 1:
		return nil, inputf("before training: all of %d responses ran into --max-completion-length %d, and none asks for help: raise it, or warm-start the model by updraft sft --from-rollouts"+anyway, p.Responses, f.maxLength)
	case asks && p.MarkerRate == 0:
		return nil, inputf("before training: none of %d responses ends in the marker that asks for help, so asking can never be learnt: warm-start the model by updraft sft --from-rollouts, or say in --help-instruction that it may ask"+anyway, p.Responses)
	case p.CloudPrompts > 0 && p.CloudAccuracy == 0:
		return nil, inputf("before training: the cloud answers none of %d prompts rightly: read its answers (ledger.db in --output-dir keeps them), correct --answer-column or --verifier, or tell it the form of answers by --cloud-system-prompt"+anyway, p.CloudPrompts)
	}
	if p.Accuracy == 0 {
		a.log.Warn("no response is right: the model can only learn to ask; a warm start or easier prompts would help", "responses", p.Responses)
	}
	if p.Truncation > 0.5 {
		a.log.Warn("most responses run into the token limit; raise --max-completion-length", "truncation_rate", share(p.Truncation))
	}
	if p.CloudPrompts > 0 && !(p.CloudAccuracy > math.Max(p.Accuracy, 0)) {
		a.log.Warn("the cloud is no better than the model: asking it gains nothing", "cloud_accuracy", share(p.CloudAccuracy), "accuracy", share(p.Accuracy))
	}
	return p, nil
}
