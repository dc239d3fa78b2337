package gapg

import (
	"encoding/json"
	"fmt"
	"math"
)

// Every algorithm here is a pair: which groups it keeps, and the weight of a
// token, which is always advantage × ratio (0 where clipped) × normaliser,
// less the slope of the KL penalty. The normalisers tell them apart.

// GAPG is the group-level policy gradient (the paper's equation for ∇R):
//
//	1/(G−1) · Σ_i ∇log π(y_i|x) · (r_i − r̄),   log π(y|x) = Σ_t log π(y_t|…),
//
// averaged over prompts: without division by the standard deviation, which
// would make a group with one solution weigh like a group with one call, and
// without division by the length, which would bias it. It equals unnormalised
// RLOO (Ahmadian et al. 2024).
type GAPG struct {
	NoFilter bool // keep every group (an ablation)
	Std      bool // divide by the standard deviation (an ablation)
	// PerBatch divides by the prompts of the batch before filtering; the default
	// divides by those that are left.
	PerBatch bool
}

// Name returns "gapg".
func (GAPG) Name() string { return "gapg" }

// Select applies adaptive prompt filtering.
func (a GAPG) Select(b *Batch) Selection {
	if a.NoFilter {
		return KeepAll(b)
	}
	return Filter(b)
}

// Weights returns (r_i − r̄)/(G−1)/prompts for every token.
func (a GAPG) Weights(b *Batch, keep []int) [][][]float32 {
	prompts := len(keep)
	if a.PerBatch {
		prompts = len(b.Groups)
	}
	return Weigh(b, keep, func(g *Group, i int) (adv, norm float64) {
		mean, std := rewardStats(g)
		adv = g.Rollouts[i].Reward - mean
		if a.Std {
			adv /= std + stdEps
		}
		return adv, 1 / float64((len(g.Rollouts)-1)*prompts)
	})
}

// DAGRPO adds a dual variable to the group-level gradient (arXiv 2602.00166):
// advantage (r − r̄) − λ(c − c̄), where c says that a rollout asked for help,
// and λ follows dual ascent on call ratio − budget. Use NewDAGRPO.
type DAGRPO struct {
	Lambda float64 // λ ≥ 0
	Eta    float64 // step of the dual ascent
}

// NewDAGRPO returns the authors' settings: λ0 = 0.5, η = 0.01.
func NewDAGRPO() *DAGRPO { return &DAGRPO{Lambda: 0.5, Eta: 1e-2} }

// Name returns "da-grpo".
func (*DAGRPO) Name() string { return "da-grpo" }

// Select keeps every group.
func (*DAGRPO) Select(b *Batch) Selection { return KeepAll(b) }

// Weights returns ((r_i − r̄) − λ(c_i − c̄))/(G−1)/prompts for every token.
func (a *DAGRPO) Weights(b *Batch, keep []int) [][][]float32 {
	return Weigh(b, keep, func(g *Group, i int) (adv, norm float64) {
		mean, _ := rewardStats(g)
		n := float64(len(g.Rollouts))
		c := 0.0
		if g.Rollouts[i].Verdict.Help {
			c = 1
		}
		adv = g.Rollouts[i].Reward - mean - a.Lambda*(c-float64(g.Helps())/n)
		return adv, 1 / ((n - 1) * float64(len(keep)))
	})
}

// Observe moves λ by η·(call ratio − budget), never below zero.
func (a *DAGRPO) Observe(b *Batch) map[string]float64 {
	calls, n := 0, 0
	for _, g := range b.Groups {
		calls += g.Helps()
		n += len(g.Rollouts)
	}
	if n > 0 {
		a.Lambda = max(0, a.Lambda+a.Eta*(float64(calls)/float64(n)-b.Budget.Share()))
	}
	return map[string]float64{"da_grpo/lambda": a.Lambda}
}

// State returns λ.
func (a *DAGRPO) State() (json.RawMessage, error) { return json.Marshal(a) }

// SetState restores λ.
func (a *DAGRPO) SetState(s json.RawMessage) error {
	if err := json.Unmarshal(s, a); err != nil {
		return fmt.Errorf("da-grpo state: %w", err)
	}
	return nil
}

// GRPO divides the advantage by the group's standard deviation and every
// response by its own length (Shao et al. 2024).
type GRPO struct{}

// Name returns "grpo".
func (GRPO) Name() string { return "grpo" }

// Select keeps every group.
func (GRPO) Select(b *Batch) Selection { return KeepAll(b) }

// Weights returns (r_i − r̄)/(std + 1e-4)/length_i/rollouts for every token.
func (GRPO) Weights(b *Batch, keep []int) [][][]float32 {
	n := float64(countRollouts(b, keep))
	return Weigh(b, keep, func(g *Group, i int) (adv, norm float64) {
		mean, std := rewardStats(g)
		return (g.Rollouts[i].Reward - mean) / (std + stdEps), 1 / (n * float64(max(1, len(g.Rollouts[i].Tokens))))
	})
}

// DrGRPO is GRPO without the standard deviation and with a constant length
// (Liu et al. 2025). With the hierarchical reward and no filter it is the
// paper's "collaboration-aware tuning".
type DrGRPO struct{}

// Name returns "dr-grpo".
func (DrGRPO) Name() string { return "dr-grpo" }

// Select keeps every group.
func (DrGRPO) Select(b *Batch) Selection { return KeepAll(b) }

// Weights returns (r_i − r̄)/max_completion_length/rollouts for every token.
func (DrGRPO) Weights(b *Batch, keep []int) [][][]float32 {
	norm := 1 / (float64(countRollouts(b, keep)) * float64(max(1, b.Config.MaxTokens)))
	return Weigh(b, keep, func(g *Group, i int) (float64, float64) {
		mean, _ := rewardStats(g)
		return g.Rollouts[i].Reward - mean, norm
	})
}

// RLOO compares a rollout with the mean of the others (Ahmadian et al. 2024).
type RLOO struct{}

// Name returns "rloo".
func (RLOO) Name() string { return "rloo" }

// Select keeps every group.
func (RLOO) Select(b *Batch) Selection { return KeepAll(b) }

// Weights returns (r_i − mean of the others)/rollouts for every token.
func (RLOO) Weights(b *Batch, keep []int) [][][]float32 {
	norm := 1 / float64(countRollouts(b, keep))
	return Weigh(b, keep, func(g *Group, i int) (float64, float64) {
		above := 0.0 // by differences, which are exactly 0 for equal rewards
		for j := range g.Rollouts {
			above += g.Rollouts[i].Reward - g.Rollouts[j].Reward
		}
		return above / float64(len(g.Rollouts)-1), norm
	})
}

// DAPO has an asymmetric clip, one mean over all tokens, and dynamic sampling:
// groups whose rewards are all equal are left out (Yu et al. 2025) and, as
// Refill says, replaced by fresh ones.
type DAPO struct{}

// Name returns "dapo".
func (DAPO) Name() string { return "dapo" }

// Select drops the groups without gradient.
func (DAPO) Select(b *Batch) Selection {
	s := KeepAll(b)
	kept := s.Keep[:0]
	for _, i := range s.Keep {
		if _, std := rewardStats(b.Groups[i]); std > 0 {
			kept = append(kept, i)
		}
	}
	s.Keep = kept
	return s
}

// Refill reports that the trainer should sample further prompts until the
// batch is full of groups with a gradient, within its limit.
func (DAPO) Refill() bool { return true }

// Weights returns (r_i − r̄)/(std + 1e-4)/tokens of the batch for every token.
func (DAPO) Weights(b *Batch, keep []int) [][][]float32 {
	tokens := 0
	for _, k := range keep {
		for i := range b.Groups[k].Rollouts {
			tokens += len(b.Groups[k].Rollouts[i].Tokens)
		}
	}
	norm := 1 / float64(max(1, tokens))
	return Weigh(b, keep, func(g *Group, i int) (float64, float64) {
		mean, std := rewardStats(g)
		return (g.Rollouts[i].Reward - mean) / (std + stdEps), norm
	})
}

// stdEps is TRL's guard of the division by the standard deviation.
const stdEps = 1e-4

// rewardStats returns a group's mean reward and its sample standard deviation
// (n − 1, as TRL has it). The mean is summed from the first reward, so that
// equal rewards have it exactly and a deviation of 0: (0.2·8)/8 is not 0.2 in
// floating point, and rounding must not pass for a gradient.
func rewardStats(g *Group) (mean, std float64) {
	n := float64(len(g.Rollouts))
	for i := range g.Rollouts {
		mean += g.Rollouts[i].Reward - g.Rollouts[0].Reward
	}
	mean = g.Rollouts[0].Reward + mean/n
	for i := range g.Rollouts {
		d := g.Rollouts[i].Reward - mean
		std += d * d
	}
	return mean, math.Sqrt(std / max(1, n-1))
}

func countRollouts(b *Batch, keep []int) int {
	n := 0
	for _, k := range keep {
		n += len(b.Groups[k].Rollouts)
	}
	return n
}

// Weigh lays out an Algorithm's weights. rollout gives the advantage of a
// group's i-th rollout and the factor that all its tokens share (1 over the
// rollouts of the batch, say); a token's weight is
//
//	norm · (advantage · ratio − β · slope of the KL penalty),
//
// with the importance ratio 1 in a batch's first update and 0 where the clip
// holds, as the run's AlgConfig says.
func Weigh(b *Batch, keep []int, rollout func(g *Group, i int) (adv, norm float64)) [][][]float32 {
	out := make([][][]float32, len(keep))
	for k, idx := range keep {
		g := b.Groups[idx]
		out[k] = make([][]float32, len(g.Rollouts))
		for i := range g.Rollouts {
			r := &g.Rollouts[i]
			adv, norm := rollout(g, i)
			w := make([]float32, len(r.Tokens))
			for t := range w {
				x := adv
				if b.Iteration > 0 {
					x *= clippedRatio(adv, float64(r.Logprobs[t])-float64(r.OldLogprobs[t]), b.Config)
				}
				if b.Config.Beta != 0 && r.RefLogprobs != nil {
					x -= b.Config.Beta * klSlope(b.Config.KLEstimator, float64(r.Logprobs[t])-float64(r.RefLogprobs[t]))
				}
				w[t] = float32(norm * x)
			}
			out[k][i] = w
		}
	}
	return out
}

// clippedRatio is the slope in log π of PPO's min(ratio·A, clip(ratio)·A),
// divided by A: the ratio, or 0 where the clip holds (Schulman et al. 2017).
// In the first update on a batch the ratio is 1 exactly.
func clippedRatio(adv, logRatio float64, c AlgConfig) float64 {
	high := c.EpsilonHigh
	if high == 0 {
		high = c.Epsilon
	}
	ratio := math.Exp(logRatio)
	if adv > 0 && ratio > 1+high || adv < 0 && ratio < 1-c.Epsilon {
		return 0
	}
	return ratio
}

// klSlope is d/d log π of Schulman's estimators with d = log π − log ref:
// k1 = d, k2 = d²/2, k3 = e^−d − 1 + d.
func klSlope(estimator string, d float64) float64 {
	switch estimator {
	case "k1":
		return 1
	case "k2":
		return d
	default:
		return 1 - math.Exp(-d)
	}
}

// klValue is the estimator itself, for the logs.
func klValue(estimator string, d float64) float64 {
	switch estimator {
	case "k1":
		return d
	case "k2":
		return d * d / 2
	default:
		return math.Exp(-d) - 1 + d
	}
}
