package gapg

import (
	"context"
	"fmt"
)

// Hierarchical is the paper's exclusive reward:
//
//	device answer correct, format kept      Alpha_a + Alpha_f
//	device answer correct, format broken    Alpha_a
//	asked for help, cloud correct           Alpha_c
//	device answer wrong, format kept        Alpha_f
//	anything else                           0
//
// with Alpha_a > Alpha_c > Alpha_f ≥ 0.
type Hierarchical struct{ Accuracy, Coordination, Format float64 }

// PaperWeights returns the paper's weights for Countdown: 2.0, 0.5, 0.2.
func PaperWeights() Hierarchical { return Hierarchical{2.0, 0.5, 0.2} }

// Check returns an error unless Accuracy > Coordination > Format ≥ 0.
func (h Hierarchical) Check() error {
	switch {
	case !(h.Accuracy > h.Coordination):
		return fmt.Errorf("reward weights: alpha-c %g must be below alpha-a %g, or asking pays as much as solving", h.Coordination, h.Accuracy)
	case !(h.Coordination > h.Format):
		return fmt.Errorf("reward weights: alpha-c %g must be above alpha-f %g, or a wrong answer in the right format pays as much as asking", h.Coordination, h.Format)
	case !(h.Format >= 0):
		return fmt.Errorf("reward weights: alpha-f %g must not be negative", h.Format)
	}
	return nil
}

// Reward scores one rollout.
func (h Hierarchical) Reward(_ context.Context, g *Group, i int) (RewardParts, error) {
	v := g.Rollouts[i].Verdict
	switch {
	case v.Help && g.Cloud.Asked && g.Cloud.Correct:
		return RewardParts{Coordination: h.Coordination}, nil
	case v.Help:
		return RewardParts{}, nil
	case v.Correct && v.Format:
		return RewardParts{Accuracy: h.Accuracy, Format: h.Format}, nil
	case v.Correct:
		return RewardParts{Accuracy: h.Accuracy}, nil
	case v.Format:
		return RewardParts{Format: h.Format}, nil
	}
	return RewardParts{}, nil
}

// AccuracyOnly is task tuning's reward: solving and format pay, asking never
// does.
type AccuracyOnly struct{ Accuracy, Format float64 }

// Reward scores one rollout.
func (a AccuracyOnly) Reward(ctx context.Context, g *Group, i int) (RewardParts, error) {
	if g.Rollouts[i].Verdict.Help {
		return RewardParts{}, nil
	}
	return Hierarchical{Accuracy: a.Accuracy, Format: a.Format}.Reward(ctx, g, i)
}
