package gpu

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// letters is a task: the answer to a prompt whose Gold is true begins with x, and
// to the others nobody but the cloud knows one.
type letters struct{}

func (letters) Name() string { return "letters" }

func (letters) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	if strings.HasSuffix(response, gapg.Marker) {
		return gapg.Verdict{Help: true}, nil
	}
	return gapg.Verdict{Correct: p.Gold.(bool) && strings.HasPrefix(response, "x"), Format: len(response) == 1, Answer: response}, nil
}

func (letters) JudgeCloud(_ context.Context, _ gapg.Prompt, answer string) (bool, error) {
	return answer == "right", nil
}

// knowsAll is a cloud that is right.
type knowsAll struct{}

func (knowsAll) Name() string { return "knows all" }

func (knowsAll) Answer(context.Context, cloud.Question) (cloud.Answer, error) {
	return cloud.Answer{Text: "right"}, nil
}

// train runs steps of GAPG of a tiny model on a backend.
func train(t testing.TB, be engine.Backend, steps int, o model.Options) []*gapg.StepStats {
	t.Helper()
	tok, err := tokenizer.NewCharacter("abpqrstuvwxy", []string{"<end>", gapg.Marker})
	require.NoError(t, err)
	end, _ := tok.ID("<end>")
	o.Trainable, o.MaxRows = true, 512
	m, err := model.New(be, model.Config{ModelType: "qwen3", HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 2, NumAttentionHeads: 4,
		NumKeyValueHeads: 2, HeadDim: 16, HiddenAct: "silu", RMSNormEps: 1e-5, RopeTheta: 1e4, VocabSize: tok.Size(),
		MaxPositionEmbeddings: 64, TieWordEmbeddings: true, InitializerRange: 0.3}, 5, o)
	require.NoError(t, err)
	defer m.Close()
	ledger, err := cloud.NewLedger(knowsAll{}, cloud.NewMemory(), cloud.LedgerConfig{Run: "train"})
	require.NoError(t, err)
	var prompts []gapg.Prompt
	for i := range 10 {
		text := fmt.Sprintf("%c%c", "ab"[i%2], "pqrstuvw"[i/2%8])
		prompts = append(prompts, gapg.Prompt{ID: fmt.Sprintf("%s%d", text, i), Text: text, Gold: i%2 == 0})
	}
	tr, err := gapg.NewTrainer(gapg.Config{Budget: gapg.Budget{Num: 1, Den: 2}, NumGenerations: 6, PromptsPerStep: 5, MaxSteps: steps, MaxCompletionLength: 3,
		LearningRate: 1e-2}, gapg.Setup{Model: m, Tokenizer: tok, Task: letters{}, Prompts: prompts, Cloud: ledger, EndToken: end})
	require.NoError(t, err)
	defer tr.Close()
	var all []*gapg.StepStats
	for range steps {
		st, err := tr.Step(t.Context())
		require.NoError(t, err)
		all = append(all, st)
	}
	return all
}

// A training of several steps gives the CPU's losses, and its rollouts have the
// log-probs of its forward to the bit.
//
// Tolerances: of a loss, the roundings of some hundred float32 operations in a row,
// of which a few dozen updates each carry theirs on, amplified by AdamW where a
// gradient is near zero.
func TestTrainingEqualsCPU(t *testing.T) {
	const steps = 5
	c, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer c.Close()
	want := train(t, c, steps, model.Options{})
	got := train(t, open(t, Options{}), steps, model.Options{})
	updates := 0
	for i, g := range got {
		w := want[i]
		require.Zero(t, g.MaxLogpDifference, "step %d", i)
		require.Equal(t, w.RolloutTokens, g.RolloutTokens, "step %d: tokens were drawn differently", i)
		require.Equal(t, w.Reward, g.Reward, "step %d", i)
		require.InDelta(t, w.Loss, g.Loss, 1e-5*(1+math.Abs(w.Loss)), "step %d", i)
		require.InEpsilon(t, 1+w.GradNorm, 1+g.GradNorm, 1e-4, "step %d", i)
		require.InDelta(t, w.Entropy, g.Entropy, 1e-4, "step %d", i)
		if !g.Skipped {
			updates++
		}
	}
	require.GreaterOrEqual(t, updates, 3)
}

// In BF16 with 8-bit moments too, before and after updates.
func TestTrainingInBF16(t *testing.T) {
	for i, st := range train(t, open(t, Options{}), 5, model.Options{Weights: engine.BF16, Moments: engine.U8}) {
		require.Zero(t, st.MaxLogpDifference, "step %d", i)
		require.False(t, math.IsNaN(st.Loss) || math.IsInf(st.Loss, 0), "step %d", i)
		require.False(t, math.IsNaN(st.GradNorm), "step %d", i)
	}
}
