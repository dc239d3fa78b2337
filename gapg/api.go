package gapg

import (
	"context"
	"encoding/json"

	"github.com/updraft-ml/updraft/gapg/cloud"
)

// Marker ends a response that asks for the cloud's help.
const Marker = "<unknown> I need external assistance </unknown>"

// Prompt is one question.
type Prompt struct {
	// ID is a stable key of the question itself, equal for equal questions: the
	// simulated cloud's luck, caches and seeded splits depend on it.
	ID string
	// Text is what the device model reads.
	Text string
	// CloudText is what the cloud is asked; empty means Text.
	CloudText string
	// Gold is whatever the task needs to judge an answer. Nothing else reads it.
	Gold any
}

// Verdict is a task's reading of one complete response.
type Verdict struct {
	Help    bool   // ends in the marker: a call, never graded as an answer
	Correct bool   // the answer is right; false where Help is set
	Format  bool   // the response keeps the task's format
	Answer  string // the extracted answer, "" where there is none
}

// Task judges responses. Methods may be called by several goroutines at once.
type Task interface {
	Name() string
	// Judge reads and verifies a complete response of the device. An error
	// means "could not be judged" (a time limit, a dead scorer), not "wrong":
	// the prompt's group leaves the batch and is counted.
	Judge(ctx context.Context, p Prompt, response string) (Verdict, error)
	// JudgeCloud verifies the cloud's answer text.
	JudgeCloud(ctx context.Context, p Prompt, answer string) (bool, error)
}

// Finish says why a response ended.
type Finish string

// The reasons.
const (
	FinishStop   Finish = "stop"   // an end token
	FinishLength Finish = "length" // the token limit: "clipped"
)

// Rollout is one sampled response. The slices run over Tokens.
type Rollout struct {
	Tokens           []int32
	Text             string // decoded, without the end token
	Finish           Finish
	SamplingLogprobs []float32 // under the distribution that the tokens were drawn from
	OldLogprobs      []float32 // raw, of the policy that drew them
	Logprobs         []float32 // raw, of the policy now; what an Algorithm differentiates
	RefLogprobs      []float32 // raw, of the reference model; nil without one
	Entropies        []float32

	Verdict Verdict
	Parts   RewardParts
	Reward  float64 // sum of Parts
}

// CloudOutcome is what became of a prompt's cloud call.
type CloudOutcome struct {
	Asked   bool // the answer was wanted: by at least one rollout (or by --query-cloud all-fail)
	Answer  cloud.Answer
	Correct bool
	Cached  bool // known from an earlier call: nothing was sent
}

// Group is the G responses to one prompt.
type Group struct {
	Prompt       Prompt
	Index        int // position of the prompt in the training data
	PromptTokens []int32
	Rollouts     []Rollout
	Cloud        CloudOutcome
	// Unresolved says why the group left the batch: a verifier or a cloud call
	// that gave no outcome. Such a group is in no update and in no reward mean.
	Unresolved string
}

// DeviceCorrect counts the rollouts whose own answer is right.
func (g *Group) DeviceCorrect() int {
	n := 0
	for i := range g.Rollouts {
		if v := g.Rollouts[i].Verdict; v.Correct && !v.Help {
			n++
		}
	}
	return n
}

// Helps counts the rollouts that ask for help.
func (g *Group) Helps() int {
	n := 0
	for i := range g.Rollouts {
		if g.Rollouts[i].Verdict.Help {
			n++
		}
	}
	return n
}

// RewardParts are the addends of a reward, logged apart.
type RewardParts struct {
	Accuracy     float64
	Coordination float64
	Format       float64
	Other        float64
}

// Sum returns the reward.
func (p RewardParts) Sum() float64 { return p.Accuracy + p.Coordination + p.Format + p.Other }

// Reward scores rollout i of a group, whose verdicts and cloud outcome are
// known. An error means "could not be scored": the group leaves the batch.
type Reward interface {
	Reward(ctx context.Context, g *Group, i int) (RewardParts, error)
}

// RewardFunc is a Reward made of a function.
type RewardFunc func(ctx context.Context, g *Group, i int) (RewardParts, error)

// Reward calls f.
func (f RewardFunc) Reward(ctx context.Context, g *Group, i int) (RewardParts, error) {
	return f(ctx, g, i)
}

// Batch is what an Algorithm sees of one step.
type Batch struct {
	Step      int       // from 1
	Iteration int       // from 0: updates already made on this batch
	Groups    []*Group  // resolved groups, in prompt order
	Seed      uint64    // of the run; draw from (Seed, Step) alone
	Rho       float64   // ρ = share/(1−share) of the cloud budget
	Budget    Budget    // the share itself, as integers
	Config    AlgConfig // clip ranges and KL of the run
}

// Selection is an Algorithm's choice of groups.
type Selection struct {
	Keep []int // indices into Batch.Groups, ascending
	// D1 counts prompts with a correct device response, D2 prompts without one
	// that the cloud gets right (before the cap), D2Kept those within it.
	D1, D2, D2Kept int
}

// Algorithm turns groups into per-token weights.
type Algorithm interface {
	Name() string
	// Select chooses the groups of the update. It is called once per step,
	// before the first iteration.
	Select(b *Batch) Selection
	// Weights returns one weight per token of each rollout of each kept group:
	// weights[i][j][t] belongs to b.Groups[keep[i]].Rollouts[j].Tokens[t]. The
	// trainer adds Σ weight·∇log π to the gradient that it ascends; Logprobs of
	// the current policy are filled in.
	Weights(b *Batch, keep []int) [][][]float32
}

// Stateful is an Algorithm whose state outlives a step (a dual variable).
// The trainer saves it in checkpoints.
type Stateful interface {
	State() (json.RawMessage, error)
	SetState(json.RawMessage) error
}

// Observer is an Algorithm that wants to see a whole step's outcome before its
// groups are weighted, e.g. to move a dual variable. Metrics are logged.
type Observer interface {
	Observe(b *Batch) (metrics map[string]float64)
}

// AlgConfig holds the loss settings that several algorithms share, under TRL's
// names and defaults.
type AlgConfig struct {
	Epsilon     float64 // lower clip range of the ratio, 0.2
	EpsilonHigh float64 // upper clip range; 0: Epsilon
	Beta        float64 // weight of the KL to the reference model, 0: none
	KLEstimator string  // k1, k2 or k3 (Schulman 2020)
	MaxTokens   int     // max_completion_length, the constant length of Dr. GRPO
}

// Budget is the share of prompts that may go to the cloud, kept as the integer
// fraction Num/Den so that caps are computed exactly.
type Budget struct{ Num, Den int64 }

// Usage and cost of one collaborative answer.
type Reply struct {
	Text      string // the answer's text
	Answer    string // the extracted answer
	Source    Source // who answered
	Denied    bool   // the model asked, but the hard budget was spent: it answered itself
	Device    DeviceUsage
	Cloud     cloud.Usage
	CostUSD   float64
	Reasoning string // the device's whole response
}

// Source says who answered.
type Source string

// The sources.
const (
	FromDevice Source = "device"
	FromCloud  Source = "cloud"
)

// DeviceUsage counts the device's tokens.
type DeviceUsage struct{ PromptTokens, CompletionTokens int }

// Collaborator answers prompts: the device first, the cloud where the device
// asks for it.
type Collaborator interface {
	Answer(ctx context.Context, p Prompt) (Reply, error)
}
