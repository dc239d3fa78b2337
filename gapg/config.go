package gapg

import (
	"fmt"
	"math"
	"time"
)

// Config holds the settings of a training, under TRL's names and defaults
// where it has them. The zero value of a field means its default.
type Config struct {
	Algorithm Algorithm // default GAPG{}
	Reward    Reward    // default PaperWeights()
	Budget    Budget    // share of prompts for the cloud; the zero value allows none

	NumGenerations int // G, responses per prompt: 8, at least 2
	PromptsPerStep int // 32
	NumIterations  int // updates per batch: 1
	MaxSteps       int // 100

	MaxCompletionLength int     // tokens: 512
	Temperature         float64 // 1.0
	TopP                float64 // 1.0
	TopK                int     // off
	MinP                float64 // off

	LearningRate float64 // 1e-6
	LRScheduler  string  // constant, linear or cosine: constant
	WarmupSteps  int
	AdamBeta1    float64 // 0.9
	AdamBeta2    float64 // 0.999
	AdamEpsilon  float64 // 1e-8
	WeightDecay  float64
	MaxGradNorm  float64 // 1.0; negative: no clipping

	Loss       AlgConfig
	QueryCloud string // "help" (default) or "all-fail"
	// JudgeTimeout bounds each call of the task's verifier, through its context:
	// 30 s. What takes longer leaves its group unresolved.
	JudgeTimeout time.Duration
	MaxRefill    int    // for algorithms that refill: at most this many extra batches, 3
	Seed         uint64 // 42
}

func (c *Config) setDefaults() {
	def(&c.NumGenerations, 8)
	def(&c.PromptsPerStep, 32)
	def(&c.NumIterations, 1)
	def(&c.MaxSteps, 100)
	def(&c.MaxCompletionLength, 512)
	def(&c.Temperature, 1)
	def(&c.TopP, 1)
	def(&c.LearningRate, 1e-6)
	def(&c.LRScheduler, "constant")
	def(&c.AdamBeta1, 0.9)
	def(&c.AdamBeta2, 0.999)
	def(&c.AdamEpsilon, 1e-8)
	def(&c.MaxGradNorm, 1)
	def(&c.Loss.Epsilon, 0.2)
	def(&c.Loss.KLEstimator, "k3")
	def(&c.QueryCloud, "help")
	def(&c.JudgeTimeout, judgeLimit)
	def(&c.MaxRefill, 3)
	def(&c.Seed, 42)
	if c.Algorithm == nil {
		c.Algorithm = GAPG{}
	}
	if c.Reward == nil {
		c.Reward = PaperWeights()
	}
	c.Loss.MaxTokens = c.MaxCompletionLength
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Check returns an error that names the setting and the fix.
func (c *Config) Check() error {
	if r, ok := c.Reward.(interface{ Check() error }); ok {
		if err := r.Check(); err != nil {
			return err
		}
	}
	switch {
	case c.NumGenerations < 2:
		return fmt.Errorf("num-generations %d: the group's mean needs at least 2 responses per prompt", c.NumGenerations)
	case c.PromptsPerStep < 1:
		return fmt.Errorf("prompts per step %d: must be at least 1", c.PromptsPerStep)
	case c.NumIterations < 1:
		return fmt.Errorf("num-iterations %d: must be at least 1", c.NumIterations)
	case c.MaxCompletionLength < 1:
		return fmt.Errorf("max-completion-length %d: must be at least 1", c.MaxCompletionLength)
	case !(c.Temperature > 0):
		return fmt.Errorf("temperature %g: training samples, so it must be above 0", c.Temperature)
	case !(c.LearningRate > 0):
		return fmt.Errorf("learning-rate %g: must be above 0", c.LearningRate)
	case math.IsInf(c.LearningRate, 0) || c.WarmupSteps < 0 || c.MaxSteps < 0:
		return fmt.Errorf("learning-rate %g, warmup-steps %d, max-steps %d: must be finite and not negative", c.LearningRate, c.WarmupSteps, c.MaxSteps)
	case !(c.AdamBeta1 >= 0 && c.AdamBeta1 < 1) || !(c.AdamBeta2 >= 0 && c.AdamBeta2 < 1):
		return fmt.Errorf("adam-beta1 %g, adam-beta2 %g: must be in [0, 1)", c.AdamBeta1, c.AdamBeta2)
	case c.Budget != Budget{} && (c.Budget.Num < 0 || c.Budget.Num >= c.Budget.Den):
		return fmt.Errorf("cloud budget %d/%d: outside [0, 1); give a share of the prompts", c.Budget.Num, c.Budget.Den)
	case c.JudgeTimeout < 0:
		return fmt.Errorf("judge timeout %v: must be above 0", c.JudgeTimeout)
	case c.QueryCloud != "help" && c.QueryCloud != "all-fail":
		return fmt.Errorf("query-cloud %q: must be help or all-fail", c.QueryCloud)
	case c.LRScheduler != "constant" && c.LRScheduler != "linear" && c.LRScheduler != "cosine":
		return fmt.Errorf("lr-scheduler-type %q: must be constant, linear or cosine", c.LRScheduler)
	case c.Loss.KLEstimator != "k1" && c.Loss.KLEstimator != "k2" && c.Loss.KLEstimator != "k3":
		return fmt.Errorf("kl-estimator %q: must be k1, k2 or k3", c.Loss.KLEstimator)
	}
	return nil
}

// learningRate returns the rate of a step, counted from 1: a linear warm-up,
// then constant, or falling to zero at MaxSteps.
func (c *Config) learningRate(step int) float64 {
	if step <= c.WarmupSteps {
		return c.LearningRate * float64(step) / float64(c.WarmupSteps+1)
	}
	left := 1 - float64(step-1-c.WarmupSteps)/float64(max(1, c.MaxSteps-c.WarmupSteps))
	switch c.LRScheduler {
	case "linear":
		return c.LearningRate * max(0, left)
	case "cosine":
		return c.LearningRate * 0.5 * (1 + math.Cos(math.Pi*(1-max(0, left))))
	}
	return c.LearningRate
}
