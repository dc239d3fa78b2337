package gapg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/updraft-ml/updraft/model"
)

// Example is one demonstration. Weights has one entry per token of Response:
// 0 leaves a token out of the loss.
type Example struct {
	Prompt, Response []int32
	Weights          []float32
}

// Examples is an endless or repeating sequence of demonstrations: a pure
// function of the index, so that a resumed run needs no iterator state.
type Examples interface {
	Example(i int) (Example, error)
}

// SFTConfig holds the settings of a supervised warm start. The zero value of a
// field means its default.
type SFTConfig struct {
	MaxSteps     int     // 1000
	BatchSize    int     // examples per step: 32
	LearningRate float64 // 1e-3
	LRScheduler  string  // constant, linear or cosine: linear
	WarmupSteps  int     // 50
	AdamBeta1    float64 // 0.9
	AdamBeta2    float64 // 0.95
	AdamEpsilon  float64 // 1e-8
	WeightDecay  float64 // 0
	MaxGradNorm  float64 // 1.0
}

// SFT is the supervised warm start: next-token cross-entropy on
// demonstrations.
type SFT struct {
	cfg   SFTConfig
	rate  Config // holds the schedule
	m     *model.Model
	data  Examples
	log   *slog.Logger
	steps int
}

// SFTStats is what one supervised step did.
type SFTStats struct {
	Step         int
	Loss         float64 // nats per trained token
	GradNorm     float64
	LearningRate float64
	Tokens       int // trained tokens
	StepTime     time.Duration
}

// NewSFT checks the configuration.
func NewSFT(c SFTConfig, m *model.Model, data Examples, log *slog.Logger) (*SFT, error) {
	def(&c.MaxSteps, 1000)
	def(&c.BatchSize, 32)
	def(&c.LearningRate, 1e-3)
	def(&c.LRScheduler, "linear")
	def(&c.WarmupSteps, 50)
	def(&c.AdamBeta1, 0.9)
	def(&c.AdamBeta2, 0.95)
	def(&c.AdamEpsilon, 1e-8)
	def(&c.MaxGradNorm, 1)
	rate := Config{LearningRate: c.LearningRate, LRScheduler: c.LRScheduler, WarmupSteps: c.WarmupSteps, MaxSteps: c.MaxSteps}
	rate.setDefaults()
	if err := rate.Check(); err != nil {
		return nil, err
	}
	if c.BatchSize < 1 {
		return nil, fmt.Errorf("batch size %d: must be at least 1", c.BatchSize)
	}
	if log == nil {
		log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return &SFT{cfg: c, rate: rate, m: m, data: data, log: log}, nil
}

// Steps returns the steps made so far; SetSteps continues from a checkpoint.
func (s *SFT) Steps() int { return s.steps }

// SetSteps says how many steps the loaded weights have had.
func (s *SFT) SetSteps(n int) { s.steps = n }

// Step makes one update.
func (s *SFT) Step(ctx context.Context) (*SFTStats, error) {
	start := time.Now()
	st := &SFTStats{Step: s.steps + 1}
	batch, weights := &model.Batch{}, []float32(nil)
	for i := range s.cfg.BatchSize {
		ex, err := s.data.Example(s.steps*s.cfg.BatchSize + i)
		if err != nil {
			return nil, err
		}
		if len(ex.Weights) != len(ex.Response) {
			return nil, errors.New("sft: an example's weights and response differ in length")
		}
		batch.Groups = append(batch.Groups, model.Group{Prompt: ex.Prompt, Responses: [][]int32{ex.Response}})
		weights = append(weights, ex.Weights...)
	}
	total := 0.0
	for _, w := range weights {
		total += float64(w)
		if w != 0 {
			st.Tokens++
		}
	}
	if total <= 0 {
		return nil, fmt.Errorf("sft: step %d: no token of the batch is trained on; check the demonstrations' masks", st.Step)
	}
	parts, err := batch.Split(s.m.Options().MaxRows)
	if err != nil {
		return nil, err
	}
	s.m.ZeroGrad()
	for _, p := range parts {
		out, err := s.m.Forward(ctx, &p.Batch)
		if err != nil {
			return nil, err
		}
		loss, slope := model.WeightedNLL(out, weights[p.From:p.To], total)
		st.Loss += loss
		if err := s.m.Backward(ctx, slope, nil); err != nil {
			return nil, err
		}
	}
	if st.GradNorm, err = s.m.GradNorm(ctx); err != nil {
		return nil, err
	}
	if math.IsNaN(st.Loss+st.GradNorm) || math.IsInf(st.Loss+st.GradNorm, 0) {
		return nil, fmt.Errorf("step %d: %w (loss %g, gradient norm %g): the step is rejected and the weights are unchanged; lower the learning rate or look at the data", st.Step, ErrNonFinite, st.Loss, st.GradNorm)
	}
	scale := 1.0
	if s.cfg.MaxGradNorm > 0 && st.GradNorm > s.cfg.MaxGradNorm {
		scale = s.cfg.MaxGradNorm / st.GradNorm
	}
	st.LearningRate = s.rate.learningRate(st.Step)
	s.m.AdamWStep(model.AdamW{LR: float32(st.LearningRate), Beta1: float32(s.cfg.AdamBeta1), Beta2: float32(s.cfg.AdamBeta2),
		Eps: float32(s.cfg.AdamEpsilon), WeightDecay: float32(s.cfg.WeightDecay), GradScale: float32(scale)})
	if err := s.m.Backend().Sync(); err != nil {
		return nil, err
	}
	s.steps++
	st.StepTime = time.Since(start)
	return st, nil
}
