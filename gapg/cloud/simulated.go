package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// SimulatedConfig describes a simulated cloud.
type SimulatedConfig struct {
	// Name is the cloud's name; "" stands for "simulated". Give simulated clouds
	// with different settings different names if they share a ledger.
	Name string

	// Right returns the right answer to a question, and Wrong a plausible answer
	// that is wrong. Both must depend on the question alone and be safe for
	// concurrent use. An error of Right means that the question has no answer
	// that the cloud could know: it then answers with Wrong.
	Right func(Question) (string, error)
	Wrong func(Question) (string, error)

	// Accuracy is the share of all questions that are answered rightly. Which
	// ones is decided by a hash of the question's ID, so it is the same in every
	// run and in every order. 0 means 0.938, the accuracy of the cloud model in
	// arXiv 2509.24050; a negative value means none.
	Accuracy float64

	// Latency is the time that an answer is reported to take: Base, and PerToken
	// for each token of the answer. It is not waited for unless Sleep is set.
	LatencyBase     time.Duration
	LatencyPerToken time.Duration
	Sleep           bool

	// Prices, in US dollars.
	USDPerCall                    float64
	USDPerMillionPromptTokens     float64
	USDPerMillionCompletionTokens float64

	// ReasoningTokens is added to the length of each answer's text, as a
	// reasoning model bills for its thought.
	ReasoningTokens int

	// CountTokens estimates the tokens of a text; nil means one token per four
	// bytes, rounded up.
	CountTokens func(string) int

	// Fail, if set, may return an error for a question instead of an answer: a
	// network that breaks, for tests.
	Fail func(Question) error
}

// DefaultAccuracy is the share of questions that a simulated cloud gets right
// unless told otherwise.
const DefaultAccuracy = 0.938

// Simulated is a Cloud made of a solver. Make one with NewSimulated.
type Simulated struct{ c SimulatedConfig }

// NewSimulated returns the cloud that c describes.
func NewSimulated(c SimulatedConfig) (*Simulated, error) {
	if c.Name == "" {
		c.Name = "simulated"
	}
	switch {
	case c.Right == nil || c.Wrong == nil:
		return nil, errors.New("simulated cloud: both Right and Wrong are needed")
	case !(c.Accuracy <= 1):
		return nil, fmt.Errorf("simulated cloud: accuracy %v: it must be at most 1", c.Accuracy)
	case c.LatencyBase < 0 || c.LatencyPerToken < 0:
		return nil, errors.New("simulated cloud: latencies must not be negative")
	case !(c.USDPerCall >= 0) || !(c.USDPerMillionPromptTokens >= 0) || !(c.USDPerMillionCompletionTokens >= 0):
		return nil, errors.New("simulated cloud: prices must not be negative")
	case c.ReasoningTokens < 0:
		return nil, errors.New("simulated cloud: ReasoningTokens must not be negative")
	}
	if c.Accuracy == 0 {
		c.Accuracy = DefaultAccuracy
	}
	if c.CountTokens == nil {
		c.CountTokens = func(s string) int { return (len(s) + 3) / 4 }
	}
	return &Simulated{c}, nil
}

// Name returns the configured name.
func (s *Simulated) Name() string { return s.c.Name }

// Knows reports whether the cloud answers the question with this ID rightly,
// given that it has a right answer: the first 53 bits of SHA-256 of
// "simulated cloud", NUL and the ID, as a number in [0, 1), are below the
// accuracy.
func (s *Simulated) Knows(id string) bool {
	h := sha256.Sum256([]byte("simulated cloud\x00" + id))
	return float64(binary.BigEndian.Uint64(h[:])>>11)/(1<<53) < s.c.Accuracy
}

// Answer implements Cloud.
func (s *Simulated) Answer(ctx context.Context, q Question) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	if s.c.Fail != nil {
		if err := s.c.Fail(q); err != nil {
			return Answer{}, err
		}
	}
	text, err := "", errors.New("unknown")
	if s.Knows(q.ID) {
		text, err = s.c.Right(q)
	}
	if err != nil {
		if text, err = s.c.Wrong(q); err != nil {
			return Answer{}, fmt.Errorf("simulated cloud: %q: %w", q.ID, err)
		}
	}
	a := Answer{Text: text}
	a.Usage.PromptTokens = s.c.CountTokens(q.Text)
	a.Usage.CompletionTokens = s.c.CountTokens(text) + s.c.ReasoningTokens
	a.CostUSD = s.c.USDPerCall +
		float64(a.Usage.PromptTokens)*s.c.USDPerMillionPromptTokens/1e6 +
		float64(a.Usage.CompletionTokens)*s.c.USDPerMillionCompletionTokens/1e6
	a.Latency = s.c.LatencyBase + time.Duration(a.Usage.CompletionTokens)*s.c.LatencyPerToken
	if s.c.Sleep {
		t := time.NewTimer(a.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
	return a, nil
}
