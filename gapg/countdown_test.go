package gapg_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// Countdown with its own tokenizer, simulated cloud and ledger, on a backend
// whose memory is hidden, by every algorithm.
func TestCountdownEndToEnd(t *testing.T) {
	problems := make([]task.Countdown, 0, 12)
	for i := range 12 {
		problems = append(problems, task.Countdown{Nums: []int{3 + i, 5, 7}, Target: 15 + i})
	}
	prompts := task.CountdownTask{Compact: true}.Prompts(problems)
	for _, a := range []gapg.Algorithm{gapg.GAPG{NoFilter: true}, gapg.GAPG{}, gapg.NewDAGRPO(), gapg.GRPO{}, gapg.DrGRPO{}, gapg.RLOO{}, gapg.DAPO{}} {
		t.Run(a.Name(), func(t *testing.T) {
			c, err := cpu.New(cpu.Options{Threads: 1})
			require.NoError(t, err)
			be := enginetest.NewDeferred(c)
			defer func() { require.NoError(t, be.Close()) }()
			tok, err := task.NewDemoTokenizer()
			require.NoError(t, err)
			m, err := model.New(be, model.Config{ModelType: "qwen3", HiddenSize: 24, IntermediateSize: 40, NumHiddenLayers: 2, NumAttentionHeads: 4, NumKeyValueHeads: 2,
				HeadDim: 8, VocabSize: tok.Size(), MaxPositionEmbeddings: 96, TieWordEmbeddings: true, InitializerRange: 0.2}, 3, model.Options{Trainable: true, MaxRows: 100})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			sim, err := task.SimulatedCloud(cloud.SimulatedConfig{USDPerCall: 0.01})
			require.NoError(t, err)
			store := cloud.NewMemory()
			defer store.Close()
			ledger, err := cloud.NewLedger(sim, store, cloud.LedgerConfig{Run: "train"})
			require.NoError(t, err)
			tr, err := gapg.NewTrainer(
				gapg.Config{Algorithm: a, Budget: gapg.Budget{Num: 3, Den: 10}, NumGenerations: 6, PromptsPerStep: 4, MaxCompletionLength: 12, LearningRate: 1e-2},
				gapg.Setup{Model: m, Tokenizer: tok, Task: task.CountdownTask{Compact: true}, Prompts: prompts, Cloud: ledger, EndToken: tok.Special().EOS})
			require.NoError(t, err)
			defer func() { require.NoError(t, tr.Close()) }()
			updates, calls := 0, 0
			for range 4 {
				st, err := tr.Step(context.Background())
				require.NoError(t, err)
				require.Zero(t, st.MaxLogpDifference)
				require.Positive(t, st.RolloutTokens)
				require.True(t, st.GradNorm < 1e6 && st.Loss < 1e6 && st.Loss > -1e6)
				if !st.Skipped {
					updates++
				}
				calls += st.CloudCalls
			}
			if _, filtered := a.(gapg.GAPG); !filtered {
				require.Positive(t, updates)
			}
			totals := ledger.Totals(1 << 20)
			require.Equal(t, totals.Calls, calls)
			require.Equal(t, calls, tr.State().Calls)
			require.InDelta(t, totals.CostUSD, tr.State().CostUSD, 1e-12)
		})
	}
}
