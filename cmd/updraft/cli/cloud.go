package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
)

// cloudFlags say who answers when the model asks, and what that may cost.
type cloudFlags struct {
	spec                    string
	model, keyEnv           string
	headers                 []string
	system, temperature     string
	maxTokens               int
	maxTokensField, extra   string
	prices                  []string
	concurrency, attempts   int
	timeout                 time.Duration
	rate                    float64
	maxCalls, maxTotalToken int
	maxUSD                  float64
	cache                   string
	replay                  bool
}

func (f *cloudFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.spec, "cloud", "simulated:0.938", "cloud: the address of an OpenAI-compatible server such as https://api.openai.com/v1, simulated:SHARE (right on that share of prompts), or none")
	fs.StringVar(&f.model, "cloud-model", "", "name of the model behind that address")
	fs.StringVar(&f.keyEnv, "cloud-key-env", "OPENAI_API_KEY", "environment variable that holds the key; it is sent if it is set, and never logged")
	fs.StringArrayVar(&f.headers, "cloud-header", nil, `further header, "Name: value"; may be given several times`)
	fs.StringVar(&f.system, "cloud-system-prompt", "", "system message for the cloud, such as the format of answers that the verifier reads; the cloud never sees the device's prompt")
	fs.StringVar(&f.temperature, "cloud-temperature", "0", "temperature sent to the cloud; none: the field is left out, for models that refuse it")
	fs.IntVar(&f.maxTokens, "cloud-max-tokens", 4096, "tokens of an answer at most, reasoning included; 0: the field is left out")
	fs.StringVar(&f.maxTokensField, "cloud-max-tokens-field", "max_tokens", "name of that field; some models want max_completion_tokens")
	fs.StringVar(&f.extra, "cloud-extra", "", `further fields of the request as JSON, such as {"reasoning_effort": "low"}`)
	fs.StringArrayVar(&f.prices, "cloud-price", nil, "price in US dollars per million tokens, MODEL=PROMPT,COMPLETION; may be given several times, as a table for several models; without one costs are unknown")
	fs.IntVar(&f.concurrency, "cloud-concurrency", 8, "calls under way at once")
	fs.IntVar(&f.attempts, "cloud-attempts", 5, "times that a question is sent at most when the network or the server fails; each counts against the limits")
	fs.DurationVar(&f.timeout, "cloud-timeout", 5*time.Minute, "time limit of one call")
	fs.Float64Var(&f.rate, "cloud-rate", 0, "calls per second at most; 0: no bound")
	fs.IntVar(&f.maxCalls, "max-cloud-calls", 0, "calls that the run may make in all, over restarts; 0: no bound. At a limit the run saves and exits with code 3")
	fs.IntVar(&f.maxTotalToken, "max-cloud-tokens", 0, "tokens that they may use in all; 0: no bound")
	fs.Float64Var(&f.maxUSD, "max-cloud-usd", 0, "US dollars that they may cost in all; 0: no bound; needs a price")
	fs.StringVar(&f.cache, "cloud-cache", "", "ledger.db of another run, whose answers are not asked for again")
	fs.BoolVar(&f.replay, "cloud-replay", false, "send nothing: use recorded answers alone; prompts without one leave the batch")
}

// Keys of cloudFlags that may differ when a run is resumed: what is asked and
// how answers read does not depend on them.
var freeCloudKeys = []string{
	"cloud-key-env", "cloud-concurrency", "cloud-attempts", "cloud-timeout", "cloud-rate", "cloud-price",
	"max-cloud-calls", "max-cloud-tokens", "max-cloud-usd", "cloud-cache", "cloud-replay",
}

// wire reports whether --cloud is an address.
func (f *cloudFlags) wire() bool {
	return strings.HasPrefix(f.spec, "http://") || strings.HasPrefix(f.spec, "https://")
}

// label names the cloud where results are shown, and says of a simulated one
// that it is.
func (f *cloudFlags) label() string {
	if f.wire() {
		return f.model + " at " + f.spec
	}
	return simulatedLabel(f.spec)
}

// simulatedLabel is label for the clouds that are no address.
func simulatedLabel(spec string) string {
	if spec == "none" {
		return spec
	}
	return spec + " (simulated; no model was asked)"
}

// open returns the cloud that the flags describe, nil for none. Nothing is sent.
func (f *cloudFlags) open(b *bound) (cloud.Cloud, error) {
	if f.concurrency < 1 || f.attempts < 1 {
		return nil, inputf("--cloud-concurrency %d, --cloud-attempts %d: must be at least 1", f.concurrency, f.attempts)
	}
	if f.maxCalls < 0 || f.maxTotalToken < 0 || !(f.maxUSD >= 0) {
		return nil, inputf("--max-cloud-calls, --max-cloud-tokens, --max-cloud-usd: must not be negative")
	}
	var c cloud.Cloud
	var err error
	if f.wire() {
		c, err = f.openWire()
	} else {
		c, err = b.openSimulated(f.spec)
	}
	if err == nil && c != nil && f.replay {
		c = cloud.Replay{Of: c}
	}
	return c, err
}

func (f *cloudFlags) openWire() (cloud.Cloud, error) {
	c := cloud.OpenAIConfig{
		BaseURL: f.spec, Model: f.model, APIKey: os.Getenv(f.keyEnv), Headers: map[string]string{}, System: f.system,
		MaxTokens: f.maxTokens, MaxTokensField: f.maxTokensField, Total: f.timeout, FirstByte: f.timeout, RequestsPerSecond: f.rate,
	}
	if f.model == "" {
		return nil, inputf("--cloud %s: name its model by --cloud-model", f.spec)
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, inputf(`--cloud-header: must be "Name: value"`) // the value may be a secret
		}
		c.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if f.temperature != "none" {
		t, err := strconv.ParseFloat(f.temperature, 64)
		if err != nil || !(t >= 0 && t <= 2) {
			return nil, inputf("--cloud-temperature %q: must be a number from 0 to 2, or none", f.temperature)
		}
		c.Temperature = &t
	}
	if f.extra != "" {
		if err := json.Unmarshal([]byte(f.extra), &c.Extra); err != nil {
			return nil, inputf("--cloud-extra: not a JSON object: %w", err)
		}
	}
	var err error
	if c.Price, err = f.price(); err != nil {
		return nil, err
	}
	switch {
	case f.replay:
	case f.maxCalls == 0 && f.maxUSD == 0:
		return nil, inputf("--cloud %s: calls cost money; set --max-cloud-calls or --max-cloud-usd", f.spec)
	case f.maxUSD > 0 && c.Price == nil:
		return nil, inputf("--max-cloud-usd %g: the price of %s is not known; give it by --cloud-price %s=PROMPT,COMPLETION, or limit --max-cloud-calls", f.maxUSD, f.model, f.model)
	case (f.maxUSD > 0 || f.maxTotalToken > 0) && f.maxTokens == 0:
		return nil, inputf("--cloud-max-tokens 0: a limit of tokens or dollars can only be kept where answers are bounded")
	}
	o, err := cloud.NewOpenAI(c)
	return o, input(err)
}

// price looks the model up in --cloud-price; nil where it is not there.
func (f *cloudFlags) price() (*cloud.Price, error) {
	for _, entry := range f.prices {
		name, pair, ok := strings.Cut(entry, "=")
		in, out, two := strings.Cut(pair, ",")
		prompt, err1 := strconv.ParseFloat(strings.TrimSpace(in), 64)
		completion, err2 := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if !ok || !two || err1 != nil || err2 != nil || !(prompt >= 0 && completion >= 0) || math.IsInf(prompt+completion, 0) {
			return nil, inputf("--cloud-price %q: must be MODEL=PROMPT,COMPLETION in US dollars per million tokens, such as deepseek-chat=0.27,1.10", entry)
		}
		if strings.TrimSpace(name) == f.model {
			return &cloud.Price{Prompt: prompt, Completion: completion}, nil
		}
	}
	return nil, nil
}

// ready sets the limits of a run's store and takes over another's answers.
func (f *cloudFlags) ready(a *app, s *cloud.Store) error {
	s.SetLimits(cloud.Limits{Calls: f.maxCalls, Tokens: f.maxTotalToken, USD: f.maxUSD})
	if f.cache == "" {
		return nil
	}
	n, err := s.Import(f.cache)
	if err != nil {
		return input(err)
	}
	a.log.Info("answers taken over", "cloud-cache", f.cache, "new", n)
	return nil
}

// desk is the cloud as one purpose of a run sees it; nil without a cloud.
func (f *cloudFlags) desk(c cloud.Cloud, s *cloud.Store, run string) (gapg.Desk, error) {
	if c == nil {
		return nil, nil
	}
	l := cloud.LedgerConfig{Run: run, Concurrency: f.concurrency}
	if f.wire() {
		l.Attempts = f.attempts
	}
	d, err := cloud.NewLedger(c, s, l)
	return d, input(err)
}

// openSimulated reads --cloud: none, or simulated with the share that is right.
func (b *bound) openSimulated(spec string) (cloud.Cloud, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch kind {
	case "none":
		return nil, nil
	case "simulated":
		c := cloud.SimulatedConfig{Name: "simulated"}
		if rest != "" {
			x, err := strconv.ParseFloat(rest, 64)
			if err != nil || !(x >= 0 && x <= 1) {
				return nil, inputf("--cloud %s: the share of right answers must be a number from 0 to 1, such as simulated:0.938", spec)
			}
			c.Name += ":" + rest
			if c.Accuracy = x; x == 0 {
				c.Accuracy = -1
			}
		}
		c.USDPerMillionPromptTokens, c.USDPerMillionCompletionTokens, c.ReasoningTokens = simulatedPrompt, simulatedCompletion, simulatedReasoning
		if b.Cloud == nil {
			return nil, inputf("--cloud %s: the task %s has no solver to simulate a cloud with; use --cloud none", spec, b.Name)
		}
		out, err := b.Cloud(c)
		return out, input(err)
	}
	return nil, inputf("--cloud %q: must be a http or https address, simulated, simulated:SHARE or none", spec)
}

// The simulated cloud's price and length of thought: those of a reasoning model
// at the prices of DeepSeek-R1's release (US dollars per million tokens).
const (
	simulatedPrompt     = 0.55
	simulatedCompletion = 2.19
	simulatedReasoning  = 1500
)

// forecast is what a run may ask of a cloud: prompts that it will surely want
// answered, and prompts of which it will want some share.
type forecast struct {
	sure, perhaps []gapg.Prompt
	share         float64 // of perhaps
}

// estimate is a forecast in calls, tokens and US dollars, after the answers
// that are on record. Unknown costs are nil.
type estimate struct {
	Recorded        int      `json:"recorded"`
	ExpectedCalls   int      `json:"expected_calls"`
	WorstCalls      int      `json:"worst_calls"` // without repetitions
	ExpectedTokens  int      `json:"expected_tokens"`
	WorstTokens     int      `json:"worst_tokens"`
	ExpectedCostUSD *float64 `json:"expected_cost_usd"`
	WorstCostUSD    *float64 `json:"worst_cost_usd"`
}

// estimate counts each distinct question once. A token is taken as four bytes
// of a prompt, or one at worst; an answer as half of what it may be.
func (f *cloudFlags) estimate(c cloud.Cloud, s *cloud.Store, w forecast) (estimate, error) {
	var e estimate
	if r, ok := c.(cloud.Replay); ok {
		c = r.Of
	}
	o, ok := c.(*cloud.OpenAI)
	if !ok {
		return e, nil
	}
	seen := map[cloud.Question]bool{}
	var worst cloud.Usage
	var expectedCalls, expectedPrompt, expectedCompletion float64
	add := func(prompts []gapg.Prompt, share float64) error {
		var qs []cloud.Question
		for _, p := range prompts {
			q := gapg.Question(p)
			q.Gold = nil
			if !seen[q] {
				seen[q] = true
				qs = append(qs, q)
			}
		}
		known, err := s.Answers(c, qs)
		if err != nil {
			return input(err)
		}
		for i, q := range qs {
			if known[i] {
				e.Recorded++
				continue
			}
			e.WorstCalls++
			worst.CompletionTokens += f.maxTokens
			worst.PromptTokens += o.Bound(q).Tokens - f.maxTokens
			expectedCalls += share
			expectedPrompt += share * float64(len(q.Text)+len(f.system)) / 4
			expectedCompletion += share * float64(f.maxTokens) / 2
		}
		return nil
	}
	if err := add(w.sure, 1); err != nil {
		return e, err
	}
	if err := add(w.perhaps, w.share); err != nil {
		return e, err
	}
	expected := cloud.Usage{PromptTokens: int(math.Ceil(expectedPrompt)), CompletionTokens: int(math.Ceil(expectedCompletion))}
	e.ExpectedCalls = int(math.Ceil(expectedCalls - 1e-9))
	e.ExpectedTokens, e.WorstTokens = expected.PromptTokens+expected.CompletionTokens, worst.PromptTokens+worst.CompletionTokens
	if p := o.Price(); p != nil {
		a, b := p.Cost(expected), p.Cost(worst)
		e.ExpectedCostUSD, e.WorstCostUSD = &a, &b
	}
	return e, nil
}

// String is for people.
func (e estimate) String() string {
	usd := func(x *float64) string {
		if x == nil {
			return "unknown cost"
		}
		return fmt.Sprintf("$%.2f", *x)
	}
	return fmt.Sprintf("cloud: expected %d calls, %d tokens, %s; at worst %d calls, %d tokens, %s; %d answers are on record",
		e.ExpectedCalls, e.ExpectedTokens, usd(e.ExpectedCostUSD), e.WorstCalls, e.WorstTokens, usd(e.WorstCostUSD), e.Recorded)
}

// announce says what a wire cloud may cost before the first call is paid.
func (f *cloudFlags) announce(a *app, c cloud.Cloud, s *cloud.Store, w forecast) error {
	if !f.wire() || c == nil {
		return nil
	}
	e, err := f.estimate(c, s, w)
	if err != nil {
		return err
	}
	a.log.Info(e.String())
	return nil
}

// dryEstimate is announce's for a dry run, which leaves no file behind: answers
// of the run itself (own, where it exists) and of --cloud-cache count as known.
func (f *cloudFlags) dryEstimate(c cloud.Cloud, own string, w forecast) (*estimate, error) {
	if !f.wire() || c == nil {
		return nil, nil
	}
	s := cloud.NewMemory()
	defer s.Close()
	for _, path := range []string{own, f.cache} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil && path == own {
			continue
		}
		if _, err := s.Import(path); err != nil {
			return nil, input(err)
		}
	}
	e, err := f.estimate(c, s, w)
	return &e, err
}

// isFreeKey reports whether a configuration key may differ on resuming.
func isFreeKey(key string) bool {
	return slices.Contains(freeKeys, key) || slices.Contains(freeCloudKeys, key) || slices.Contains(freeScorerKeys, key)
}
