package gapg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// BatchReward is a Reward that scores all groups of a step together.
type BatchReward interface {
	Reward
	// RewardAll returns the parts of every rollout of every group. A group whose
	// error is not nil could not be scored and leaves the batch.
	RewardAll(ctx context.Context, groups []*Group) (parts [][]RewardParts, errs []error)
}

// ScorerConfig describes a scorer behind HTTP: a judge or a reward model.
type ScorerConfig struct {
	URL         string
	Key         string        // sent as a bearer token unless ""; in no error and no log
	Weight      float64       // of a score beside the other parts of the reward; 0: 1
	Batch       int           // completions of a request at most; 0: 32
	Concurrency int           // requests under way at once; 0: 4
	Attempts    int           // times that a batch is sent at most; 0: 3
	Backoff     time.Duration // before the second attempt, doubled from then on; 0: half a second
	Timeout     time.Duration // of a request; 0: 30 s
	StepTimeout time.Duration // of all requests of a step, retries and waits included; 0: a minute
}

// Scorer is a reward with a part by an HTTP scorer: another Reward's parts and,
// for each response that does not ask for help, Weight times its score as Other.
//
// It posts {"inputs": [{"prompt", "completion", "answer", "reference"}, …]} and
// reads {"scores": [0.5, null, …]}, one number for each input; null says "no
// score". answer is what the task has found in the completion, reference the
// gold answer where the prompt's Gold has a method Reference() string.
//
// Timeouts, broken connections, 408, 409, 425, 429 and 5xx are tried again, after
// the Retry-After that the server asks for where it does. What has no score when
// the attempts or the time of the step are used up leaves its group without one.
// After a step without any answer the next one sends a single request first, and
// no other unless that is answered: a dead scorer costs a step one request.
type Scorer struct {
	of     Reward
	c      ScorerConfig
	client *http.Client
	dead   atomic.Bool // the last step had no answer
}

var _ BatchReward = (*Scorer)(nil)

// NewScorer adds a scorer's part to a reward.
func NewScorer(of Reward, c ScorerConfig) (*Scorer, error) {
	def(&c.Weight, 1)
	def(&c.Batch, 32)
	def(&c.Concurrency, 4)
	def(&c.Attempts, 3)
	def(&c.Backoff, 500*time.Millisecond)
	def(&c.Timeout, 30*time.Second)
	def(&c.StepTimeout, time.Minute)
	u, err := url.Parse(c.URL)
	switch {
	case of == nil:
		return nil, errors.New("scorer: a reward to add to is needed")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("scorer: the URL must be an http or https address")
	case math.IsNaN(c.Weight) || math.IsInf(c.Weight, 0):
		return nil, fmt.Errorf("scorer: weight %g: must be finite", c.Weight)
	case c.Batch < 1 || c.Concurrency < 1 || c.Attempts < 1 || c.Backoff < 0 || c.Timeout < 0 || c.StepTimeout < 0:
		return nil, errors.New("scorer: batch, concurrency and attempts must be at least 1, times not negative")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Concurrency
	return &Scorer{of: of, c: c, client: &http.Client{Transport: transport}}, nil
}

// Check checks the reward that the scores are added to.
func (s *Scorer) Check() error {
	if c, ok := s.of.(interface{ Check() error }); ok {
		return c.Check()
	}
	return nil
}

// Reward implements Reward.
func (s *Scorer) Reward(ctx context.Context, g *Group, i int) (RewardParts, error) {
	one := *g
	one.Rollouts = g.Rollouts[i : i+1]
	parts, errs := s.RewardAll(ctx, []*Group{&one})
	if errs[0] != nil {
		return RewardParts{}, errs[0]
	}
	return parts[0][0], nil
}

// scorerInput is one completion as the scorer reads it.
type scorerInput struct {
	Prompt     string `json:"prompt"`
	Completion string `json:"completion"`
	Answer     string `json:"answer"`
	Reference  string `json:"reference,omitempty"`

	group, rollout int
}

// RewardAll implements BatchReward.
func (s *Scorer) RewardAll(ctx context.Context, groups []*Group) ([][]RewardParts, []error) {
	parts, errs := make([][]RewardParts, len(groups)), make([]error, len(groups))
	var inputs []scorerInput
	for i, g := range groups {
		parts[i] = make([]RewardParts, len(g.Rollouts))
		reference := ""
		if r, ok := g.Prompt.Gold.(interface{ Reference() string }); ok {
			reference = r.Reference()
		}
		for j, r := range g.Rollouts {
			if parts[i][j], errs[i] = s.of.Reward(ctx, g, j); errs[i] != nil {
				break
			}
			if !r.Verdict.Help {
				inputs = append(inputs, scorerInput{Question(g.Prompt).Text, r.Text, r.Verdict.Answer, reference, i, j})
			}
		}
	}
	scores, failed := s.scores(ctx, inputs)
	for k, in := range inputs {
		if failed[k] != nil {
			if errs[in.group] == nil {
				errs[in.group] = failed[k]
			}
			continue
		}
		parts[in.group][in.rollout].Other += s.c.Weight * scores[k]
	}
	return parts, errs
}

// scores asks for all scores of a step. Those without one have an error.
func (s *Scorer) scores(ctx context.Context, inputs []scorerInput) ([]float64, []error) {
	scores, failed := make([]float64, len(inputs)), make([]error, len(inputs))
	if len(inputs) == 0 {
		return scores, failed
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.StepTimeout)
	defer cancel()
	var answered atomic.Bool
	send := func(from, attempts int) {
		to := min(from+s.c.Batch, len(inputs))
		got, err := s.batch(ctx, inputs[from:to], attempts)
		if err == nil {
			answered.Store(true)
		}
		for k := from; k < to; k++ {
			switch {
			case err != nil:
				failed[k] = err
			case got[k-from] == nil:
				failed[k] = errors.New("scorer: no score for this completion")
			default:
				scores[k] = *got[k-from]
			}
		}
	}
	first := 0
	if s.dead.Load() {
		send(0, 1)
		if !answered.Load() {
			for k := range failed {
				failed[k] = failed[0]
			}
			return scores, failed
		}
		first = s.c.Batch
	}
	var next atomic.Int64
	next.Store(int64(first))
	var wg sync.WaitGroup
	for range min(s.c.Concurrency, (len(inputs)-first+s.c.Batch-1)/s.c.Batch) {
		wg.Go(func() {
			for {
				from := int(next.Add(int64(s.c.Batch))) - s.c.Batch
				if from >= len(inputs) {
					return
				}
				send(from, s.c.Attempts)
			}
		})
	}
	wg.Wait()
	s.dead.Store(!answered.Load())
	return scores, failed
}

// batch sends one request until it is answered.
func (s *Scorer) batch(ctx context.Context, inputs []scorerInput, attempts int) ([]*float64, error) {
	body, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("scorer: %w", context.Cause(ctx))
		}
		scores, wait, err := s.once(ctx, body, len(inputs))
		if err == nil || wait < 0 || attempt >= attempts {
			return scores, err
		}
		// Waits are drawn from the upper half of their range, so that requests that
		// failed together do not come back together.
		backoff := s.c.Backoff << min(attempt-1, 16)
		backoff = backoff/2 + rand.N(backoff/2+1)
		t := time.NewTimer(max(backoff, wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

// once sends a request. With an error comes the least wait before another
// attempt, negative where there is no use in one.
func (s *Scorer) once(ctx context.Context, body []byte, n int) (scores []*float64, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, -1, errors.New("scorer: the URL cannot be asked")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if s.c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+s.c.Key)
	}
	res, err := s.client.Do(req)
	if err != nil {
		var u *url.Error // holds the whole address, in which there may be a key
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, 0, fmt.Errorf("scorer at %s: %w", req.URL.Host, err)
	}
	defer res.Body.Close()
	// Numbers have at most some 25 characters; what is beyond is no list of them.
	data, err := io.ReadAll(io.LimitReader(res.Body, int64(64*n+4096)))
	switch {
	case res.StatusCode == http.StatusOK && err != nil:
		return nil, 0, fmt.Errorf("scorer at %s: %w", req.URL.Host, err)
	case res.StatusCode != http.StatusOK:
		return nil, retryAfter(res), fmt.Errorf("scorer at %s: status %d", req.URL.Host, res.StatusCode)
	}
	var reply struct {
		Scores []*float64 `json:"scores"`
	}
	if err := json.Unmarshal(data, &reply); err != nil {
		return nil, 0, fmt.Errorf("scorer at %s: its reply is not JSON with scores: %w", req.URL.Host, err)
	}
	if len(reply.Scores) != n {
		return nil, -1, fmt.Errorf("scorer at %s: %d scores for %d inputs", req.URL.Host, len(reply.Scores), n)
	}
	return reply.Scores, 0, nil
}

// retryAfter is the wait that a failed reply asks for, negative where trying
// again is of no use.
func retryAfter(res *http.Response) time.Duration {
	switch c := res.StatusCode; {
	case c == http.StatusRequestTimeout, c == http.StatusConflict, c == http.StatusTooEarly, c == http.StatusTooManyRequests, c >= 500:
	default:
		return -1
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(res.Header.Get("Retry-After")))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, 5*time.Minute)
}

// scoreGroups fills in the rewards of the resolved groups.
func scoreGroups(ctx context.Context, reward Reward, groups []*Group) {
	b, ok := reward.(BatchReward)
	if !ok {
		for _, g := range groups {
			scoreGroup(ctx, reward, g)
		}
		return
	}
	var resolved []*Group
	for _, g := range groups {
		if g.Unresolved == "" {
			resolved = append(resolved, g)
		}
	}
	parts, errs := b.RewardAll(ctx, resolved)
	for i, g := range resolved {
		if errs[i] != nil {
			g.Unresolved = fmt.Sprintf("reward: %v", errs[i])
			continue
		}
		for j, p := range parts[i] {
			g.Rollouts[j].Parts, g.Rollouts[j].Reward = p, p.Sum()
		}
	}
}
