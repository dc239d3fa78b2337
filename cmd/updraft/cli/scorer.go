package cli

import (
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
)

// scorerFlags describe a scorer behind HTTP whose scores are part of the reward.
type scorerFlags struct {
	url, keyEnv                  string
	weight                       float64
	batch, concurrency, attempts int
	timeout, stepTimeout         time.Duration
}

// freeScorerKeys may differ when a run is resumed: what is scored and how it
// counts does not depend on them.
var freeScorerKeys = []string{"reward-key-env", "reward-batch", "reward-concurrency", "reward-attempts", "reward-timeout", "reward-step-timeout"}

func (f *scorerFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.url, "reward-url", "", "address of a scorer (a judge or a reward model) whose score is added to the reward of each response that does not ask: see docs/data.md")
	fs.Float64Var(&f.weight, "reward-url-weight", 1, "weight of that score")
	fs.StringVar(&f.keyEnv, "reward-key-env", "REWARD_API_KEY", "environment variable that holds the scorer's key; it is sent as a bearer token if it is set, and never logged")
	fs.IntVar(&f.batch, "reward-batch", 32, "completions of a request to the scorer at most")
	fs.IntVar(&f.concurrency, "reward-concurrency", 4, "requests to the scorer under way at once")
	fs.IntVar(&f.attempts, "reward-attempts", 3, "times that a request is sent at most when the network or the scorer fails")
	fs.DurationVar(&f.timeout, "reward-timeout", 30*time.Second, "time limit of a request to the scorer")
	fs.DurationVar(&f.stepTimeout, "reward-step-timeout", time.Minute, "time limit of all of a step's, retries included; groups without scores then leave the batch")
}

// add returns the reward with the scorer's part.
func (f *scorerFlags) add(r gapg.Reward) (gapg.Reward, error) {
	if f.url == "" {
		return r, nil
	}
	for _, x := range []struct {
		flag  string
		value int
	}{{"reward-batch", f.batch}, {"reward-concurrency", f.concurrency}, {"reward-attempts", f.attempts}} {
		if x.value < 1 {
			return nil, inputf("--%s %d: must be at least 1", x.flag, x.value)
		}
	}
	if f.timeout <= 0 || f.stepTimeout <= 0 {
		return nil, inputf("--reward-timeout %v, --reward-step-timeout %v: must be above 0", f.timeout, f.stepTimeout)
	}
	if f.weight == 0 {
		return nil, inputf("--reward-url-weight 0: the scorer would be asked for nothing; leave --reward-url out")
	}
	s, err := gapg.NewScorer(r, gapg.ScorerConfig{URL: f.url, Key: os.Getenv(f.keyEnv), Weight: f.weight, Batch: f.batch, Concurrency: f.concurrency,
		Attempts: f.attempts, Timeout: f.timeout, StepTimeout: f.stepTimeout})
	if err != nil {
		return nil, inputf("--reward-url: %w", err)
	}
	return s, nil
}
