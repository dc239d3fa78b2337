package gapg

import (
	"context"
	"log/slog"
	"time"

	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// The methods that an Experiment compares, in the order of its table. The
// trained models among them are task-tuning, collaboration-aware, gapg and
// da-grpo; the others cost no training of their own.
const (
	MethodBase               = "base"
	MethodBaseHelpBias       = "base-help-bias"
	MethodTaskTuning         = "task-tuning"
	MethodNaive              = "naive-offloading"
	MethodRouter             = "router"
	MethodConfidence         = "confidence"
	MethodSelfCheck          = "self-check"
	MethodCollaborationAware = "collaboration-aware"
	MethodGAPG               = "gapg"
	MethodDAGRPO             = "da-grpo"
	MethodCloud              = "cloud"
	MethodOracle             = "oracle"
)

// AllMethods returns every method, in the order of the table.
func AllMethods() []string {
	return []string{MethodBase, MethodBaseHelpBias, MethodTaskTuning, MethodNaive, MethodRouter, MethodConfidence,
		MethodSelfCheck, MethodCollaborationAware, MethodGAPG, MethodDAGRPO, MethodCloud, MethodOracle}
}

// DefaultMethods returns the methods that need the trainings of task-tuning
// and gapg alone.
func DefaultMethods() []string {
	return []string{MethodBase, MethodBaseHelpBias, MethodTaskTuning, MethodNaive, MethodRouter, MethodConfidence,
		MethodSelfCheck, MethodGAPG, MethodCloud, MethodOracle}
}

// OpenModel returns a model that the caller closes.
type OpenModel func(ctx context.Context) (*model.Model, error)

// Experiment trains what its methods need, each from a fresh copy of the base
// and for the same number of steps, and compares them on held-out prompts.
type Experiment struct {
	// Open returns a fresh copy of the base model, trainable where something is
	// to be trained. The experiment closes each copy before it opens the next.
	Open OpenModel
	// Trained holds models that are there already, by method: task-tuning,
	// collaboration-aware, gapg or da-grpo. They are not trained again.
	Trained map[string]OpenModel

	Task      Task
	Tokenizer *tokenizer.Tokenizer
	Cloud     Desk // asked for every prompt of Validation and Test, and by the trainings
	Budget    Budget
	Seed      uint64

	Train, Validation, Test []Prompt

	// Methods names the rows; nil: DefaultMethods. Self-check is left out where
	// the task has no such rule.
	Methods []string

	// Config is the training of every model, but for its algorithm, reward and
	// budget, which the method decides; Configs replaces it for some methods,
	// and what it sets there of Algorithm and Reward stands. Every training has
	// the same MaxSteps.
	Config  Config
	Configs map[string]Config

	EndToken     int32
	Marker       []int32 // the help marker's tokens
	MarkerAfter  []int32 // tokens after which it may begin
	MaxNewTokens int     // of evaluation; 0: Config.MaxCompletionLength
	EvalBatch    int     // rows of a decode step in evaluation; 0: 256
	TrainBatch   int     // rows of a decode step in training; 0: all of a step's

	// Margin is how many standard errors of the validation share calibration
	// stays below the budget; 0: 1; negative: none.
	Margin float64
	// RouterPrompts is how many training prompts teach the router; 0: 2000, or
	// all there are.
	RouterPrompts int
	// Resamples of each bootstrap; 0: 2000.
	Resamples int

	Logger *slog.Logger // nil: silent
	// OnProgress, where set, is called from the goroutine of Run before each
	// phase's first step (Step 0) and after each step.
	OnProgress func(Progress)
	// OnStep, where set, sees every training step.
	OnStep func(method string, st *StepStats)
}

// Progress says how far an experiment is.
type Progress struct {
	Phase  string // "train", "evaluate", "cloud", "router", "compare"
	Method string // whose training or evaluation; "" where none
	Step   int
	Of     int
	Stats  *StepStats // of a training step; nil elsewhere
}

// Training is what one training of an experiment did.
type Training struct {
	Method            string
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

	Weak, Strong       string // the rows that PGR stands on
	WeakAcc, StrongAcc float64
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
