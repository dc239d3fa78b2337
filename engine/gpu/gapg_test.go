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
	"github.com/updraft-ml/updraft/engine/enginetest"
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

// curve is what a training shows: for each step its loss, the norm of its gradient
// and its entropy.
type curve [][3]float64

var curveNames = [3]string{"loss", "gradient norm", "entropy"}

func curveOf(all []*gapg.StepStats) (c curve) {
	for _, st := range all {
		c = append(c, [3]float64{st.Loss, st.GradNorm, st.Entropy})
	}
	return c
}

// sameDraws says whether two trainings drew the same tokens and judged them alike.
func sameDraws(a, b []*gapg.StepStats) error {
	for i := range a {
		if a[i].RolloutTokens != b[i].RolloutTokens || a[i].Reward != b[i].Reward {
			return fmt.Errorf("step %d: %d tokens and reward %g, against %d and %g: tokens were drawn differently",
				i, a[i].RolloutTokens, a[i].Reward, b[i].RolloutTokens, b[i].Reward)
		}
	}
	return nil
}

// curveTolerance is how far the curves of two F32 devices may be apart, derived
// from what the conformance suite allows to every single operation: trainings on
// backends in float64 whose results are all off by a random share of the suite's
// tolerance for them (enginetest.NewErring) scatter with a standard deviation σ, in
// which are the errors of a hundred operations in a row, those that updates carry
// on, and what AdamW makes of a gradient near zero. Real errors are smaller than
// such draws: a tolerance is what a rounding error stays below. Two devices then
// differ by √2·σ, and by more than four times that with probability below 1e-4;
// 1e-3 where σ, estimated from 16 trainings, comes out a fifth too small.
//
// like is a training whose tokens all must draw; a draw that hangs on a rounding
// would make it another training.
func curveTolerance(t testing.TB, like []*gapg.StepStats) curve {
	t.Helper()
	const samples, sigmas = 16, 4
	near := curveOf(like) // differences from it are small, so that their squares do not cancel
	sum, squares := make(curve, len(like)), make(curve, len(like))
	for k := range samples {
		be := enginetest.NewErring(uint64(k))
		all := train(t, be, len(like), model.Options{})
		require.NoError(t, be.Close())
		require.NoError(t, sameDraws(like, all))
		for i, step := range curveOf(all) {
			for j, v := range step {
				sum[i][j] += v - near[i][j]
				squares[i][j] += (v - near[i][j]) * (v - near[i][j])
			}
		}
	}
	tol := make(curve, len(like))
	for i := range tol {
		for j, s := range sum[i] {
			tol[i][j] = sigmas * math.Sqrt(2*(squares[i][j]-s*s/samples)/(samples-1))
		}
	}
	return tol
}

// compareTrainings says how much of their tolerances the differences take, and
// where they take more than all.
func compareTrainings(want, got []*gapg.StepStats, tol curve) (worst float64, err error) {
	w := curveOf(want)
	for i, step := range curveOf(got) {
		if err := sameDraws(want[:i+1], got[:i+1]); err != nil {
			return 0, err
		}
		for j, v := range step {
			diff := math.Abs(v - w[i][j])
			if !(diff <= tol[i][j]) {
				return 0, fmt.Errorf("step %d: %s %.9g, want %.9g: a difference of %.2g, tolerance %.2g", i, curveNames[j], v, w[i][j], diff, tol[i][j])
			}
			if diff > 0 {
				worst = max(worst, diff/tol[i][j])
			}
		}
	}
	return worst, nil
}

// trainOnCPU is a training of five steps, at least three of them with an update.
func trainOnCPU(t testing.TB, defect func(engine.Backend) engine.Backend) []*gapg.StepStats {
	t.Helper()
	c, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer c.Close()
	var be engine.Backend = c
	if defect != nil {
		be = defect(c)
	}
	all := train(t, be, 5, model.Options{})
	updates := 0
	for _, st := range all {
		if !st.Skipped {
			updates++
		}
	}
	require.GreaterOrEqual(t, updates, 3)
	return all
}

// A training of several steps gives the CPU's losses, and its rollouts have the
// log-probs of its forward to the bit. With a scale wrong by one part in ten
// thousand, or other small mistakes, it does not.
func TestTrainingEqualsCPU(t *testing.T) {
	b := open(t, Options{})
	want := trainOnCPU(t, nil)
	tol := curveTolerance(t, want)
	got := train(t, b, len(want), model.Options{})
	for i, st := range got {
		require.Zero(t, st.MaxLogpDifference, "step %d", i)
	}
	worst, err := compareTrainings(want, got, tol)
	require.NoError(t, err)
	t.Logf("at most %.1f%% of a tolerance used", 100*worst)

	for name, d := range map[string]slanted{
		"scale of attention":             {attention: 1e-4},
		"scale of the logits":            {logits: 1e-4},
		"epsilon of norms":               {eps: 1},
		"learning rate":                  {rate: 1e-4},
		"bias correction a step too far": {late: 1},
	} {
		_, err := compareTrainings(want, trainOnCPU(t, func(b engine.Backend) engine.Backend {
			d.Backend = b
			return &d
		}), tol)
		require.Error(t, err, name)
		t.Logf("%s: %v", name, err)
	}
}

// slanted is a backend with something slightly wrong, by these shares.
type slanted struct {
	engine.Backend
	attention, logits, eps, rate float32
	late                         int
}

func (s *slanted) Attention(a engine.AttentionArgs) {
	a.Scale *= 1 + s.attention
	s.Backend.Attention(a)
}

func (s *slanted) AttentionBackward(a engine.AttentionBackwardArgs) {
	a.Scale *= 1 + s.attention
	s.Backend.AttentionBackward(a)
}

func (s *slanted) LogProb(a engine.LogProbArgs) {
	a.Scale *= 1 + s.logits
	s.Backend.LogProb(a)
}

func (s *slanted) RMSNorm(a engine.RMSNormArgs) {
	a.Eps *= 1 + s.eps
	s.Backend.RMSNorm(a)
}

func (s *slanted) AdamW(a engine.AdamWArgs) {
	a.LR *= 1 + s.rate
	a.Step += s.late
	s.Backend.AdamW(a)
}

// In BF16 with 8-bit moments too, before and after updates.
func TestTrainingInBF16(t *testing.T) {
	for i, st := range train(t, open(t, Options{}), 5, model.Options{Weights: engine.BF16, Moments: engine.U8}) {
		require.Zero(t, st.MaxLogpDifference, "step %d", i)
		require.False(t, math.IsNaN(st.Loss) || math.IsInf(st.Loss, 0), "step %d", i)
		require.False(t, math.IsNaN(st.GradNorm), "step %d", i)
	}
}
