package gapg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// toyTask has prompts of two letters. The answer to one whose Gold is true is
// "x"; nothing that the device can say is right where it is false, so that
// asking is.
type toyTask struct {
	judge      func(ctx context.Context, p Prompt, response string) error
	judgeCloud func(ctx context.Context, p Prompt) error
}

func (toyTask) Name() string { return "toy" }

func (k toyTask) Judge(ctx context.Context, p Prompt, response string) (Verdict, error) {
	if k.judge != nil {
		if err := k.judge(ctx, p, response); err != nil {
			return Verdict{}, err
		}
	}
	if strings.HasSuffix(response, Marker) {
		return Verdict{Help: true}, nil
	}
	return Verdict{Correct: p.Gold.(bool) && strings.HasPrefix(response, "x"), Format: len(response) == 1, Answer: response}, nil
}

func (k toyTask) JudgeCloud(ctx context.Context, p Prompt, answer string) (bool, error) {
	if k.judgeCloud != nil {
		if err := k.judgeCloud(ctx, p); err != nil {
			return false, err
		}
	}
	return answer == "right", nil
}

// toyCloud counts what it is asked. It is right on every prompt unless told
// otherwise.
type toyCloud struct {
	answer func(q cloud.Question) (string, error)
	mu     sync.Mutex
	calls  map[string]int
}

func (*toyCloud) Name() string { return "toy" }

func (c *toyCloud) Answer(_ context.Context, q cloud.Question) (cloud.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[q.ID]++
	text := "right"
	if c.answer != nil {
		var err error
		if text, err = c.answer(q); err != nil {
			return cloud.Answer{}, err
		}
	}
	return cloud.Answer{Text: text, CostUSD: 0.25, Usage: cloud.Usage{PromptTokens: 3, CompletionTokens: 5}}, nil
}

func (c *toyCloud) total() (n int) {
	for _, v := range c.calls {
		n += v
	}
	return n
}

func toyPrompts(n int) []Prompt {
	out := make([]Prompt, n)
	for i := range out {
		text := fmt.Sprintf("%c%c", "ab"[i%2], "pqrstuvw"[i/2%8])
		out[i] = Prompt{ID: fmt.Sprintf("%s%d", text, i), Text: text, Gold: i%2 == 0}
	}
	return out
}

func toyTokenizer() *tokenizer.Tokenizer {
	tok, err := tokenizer.NewCharacter("abpqrstuvwxy", []string{"<end>", Marker})
	if err != nil {
		panic(err)
	}
	return tok
}

// toy is a trainer of a tiny random model.
type toy struct {
	be    engine.Backend
	m     *model.Model
	store *cloud.Store
	cloud *toyCloud
	tr    *Trainer
	close func()
}

type toyOptions struct {
	config  func(*Config)
	setup   func(*Setup)
	wrap    func(engine.Backend) engine.Backend // around the CPU
	plain   bool                                // the CPU itself, not deferred
	types   model.Options                       // Weights, Moments and LoRA
	threads int
	maxRows int
	width   int
	seed    uint64
	store   *cloud.Store
	cloud   *toyCloud
}

var bg = context.Background()

func toyConfig(width int) model.Config {
	return model.Config{ModelType: "llama", HiddenSize: width, IntermediateSize: 24, NumHiddenLayers: 1, NumAttentionHeads: 2, NumKeyValueHeads: 1,
		HeadDim: 8, HiddenAct: "silu", RMSNormEps: 1e-5, RopeTheta: 1e4, VocabSize: toyTokenizer().Size(), MaxPositionEmbeddings: 64, TieWordEmbeddings: true, InitializerRange: 0.3}
}

func newToy(t testing.TB, o toyOptions) *toy {
	c, err := cpu.New(cpu.Options{Threads: max(1, o.threads)})
	require.NoError(t, err)
	y := &toy{be: c, store: o.store, cloud: o.cloud}
	switch {
	case o.wrap != nil:
		y.be = o.wrap(c)
	case !o.plain:
		y.be = enginetest.NewDeferred(c)
	}
	if o.width == 0 {
		o.width = 16
	}
	if o.maxRows == 0 {
		o.maxRows = 512
	}
	o.types.Trainable, o.types.MaxRows = true, o.maxRows
	y.m, err = model.New(y.be, toyConfig(o.width), 5+o.seed, o.types)
	require.NoError(t, err)
	if y.store == nil {
		y.store = cloud.NewMemory()
	}
	if y.cloud == nil {
		y.cloud = &toyCloud{}
	}
	if y.cloud.calls == nil {
		y.cloud.calls = map[string]int{}
	}
	ledger, err := cloud.NewLedger(y.cloud, y.store, cloud.LedgerConfig{Run: "train"})
	require.NoError(t, err)
	tok := toyTokenizer()
	end, _ := tok.ID("<end>")
	cfg := Config{Budget: Budget{1, 2}, NumGenerations: 4, PromptsPerStep: 4, MaxSteps: 50, MaxCompletionLength: 3, LearningRate: 1e-2}
	setup := Setup{Model: y.m, Tokenizer: tok, Task: toyTask{}, Prompts: toyPrompts(10), Cloud: ledger, EndToken: end}
	if o.config != nil {
		o.config(&cfg)
	}
	if o.setup != nil {
		o.setup(&setup)
	}
	y.tr, err = NewTrainer(cfg, setup)
	require.NoError(t, err)
	closed := false
	y.close = func() {
		if closed {
			return
		}
		closed = true
		require.NoError(t, y.tr.Close())
		require.NoError(t, y.m.Close())
		require.NoError(t, y.be.Close())
	}
	t.Cleanup(y.close)
	return y
}

// weights returns a copy of all parameters in a role.
func (y *toy) params(t testing.TB, r model.Role) map[string][]float32 {
	out := map[string][]float32{}
	for _, p := range y.m.Params() {
		v, err := y.m.ReadParam(bg, r, p.Name)
		require.NoError(t, err)
		out[p.Name] = v
	}
	return out
}

func (y *toy) step(t testing.TB) *StepStats {
	st, err := y.tr.Step(bg)
	require.NoError(t, err)
	return st
}

func sameBits(a, b map[string][]float32) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if len(v) != len(b[k]) {
			return false
		}
		for i := range v {
			if math.Float32bits(v[i]) != math.Float32bits(b[k][i]) {
				return false
			}
		}
	}
	return true
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

var errNoScorer = errors.New("no scorer")

func nan() float64 { return math.NaN() }
