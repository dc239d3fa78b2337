package cloud

import (
	"context"
	"math"
	"time"
)

// Question is what the cloud is asked.
type Question struct {
	ID   string // stable key of the prompt; answers are cached by (cloud, ID, Text)
	Text string
	Gold any // the task's own data; only simulated clouds read it
}

// Answer is what the cloud said. It is stored on disk as JSON.
type Answer struct {
	Text    string  `json:"text"`
	Usage   Usage   `json:"usage"`
	CostUSD float64 `json:"cost_usd"`
	// CostUnknown says that CostUSD is 0 for want of a price, not for free.
	CostUnknown bool          `json:"cost_unknown,omitempty"`
	Latency     time.Duration `json:"latency_ns"`
}

// Cost returns the answer's cost in US dollars, NaN where it is not known.
func (a *Answer) Cost() float64 {
	if a.CostUnknown {
		return math.NaN()
	}
	return a.CostUSD
}

// Usage counts the cloud's tokens.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
}

// Cloud is a fixed, stronger model. Answer may be called by several goroutines
// at once. An error means "no answer", not "wrong": wrap it with Transient
// where asking again later may help.
type Cloud interface {
	// Name identifies the model and its settings; it is part of the cache key.
	Name() string
	Answer(ctx context.Context, q Question) (Answer, error)
}
