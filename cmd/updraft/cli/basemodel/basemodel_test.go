package basemodel_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cmd/updraft/cli/basemodel"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// The embedded model is small, whole, speaks the demo's vocabulary, and is what
// docs/demo.md says it is: it solves some 60 in 100 problems, keeps the format
// and does not ask by itself.
func TestEmbeddedModel(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, basemodel.Write(dir))
	size := int64(0)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		size += info.Size()
	}
	require.Less(t, size, int64(4_000_000))

	tok, err := tokenizer.Load(filepath.Join(dir, "tokenizer.json"))
	require.NoError(t, err)
	want, err := task.NewDemoTokenizer()
	require.NoError(t, err)
	require.Equal(t, want.Size(), tok.Size())
	require.Equal(t, want.Special(), tok.Special())
	for id := range int32(want.Size()) {
		a, _ := want.Token(id)
		b, _ := tok.Token(id)
		require.Equal(t, a, b)
	}

	be, err := cpu.New(cpu.Options{})
	require.NoError(t, err)
	defer be.Close()
	m, err := model.Load(t.Context(), be, dir, model.Options{MaxRows: 4096})
	require.NoError(t, err)
	defer m.Close()
	universe, err := task.NewUniverse(task.DemoUniverse())
	require.NoError(t, err)
	problems, err := universe.Distinct(task.SplitValidation, 10, 300)
	require.NoError(t, err)
	marker, after, err := task.DemoMarker(tok)
	require.NoError(t, err)
	judge := task.CountdownTask{Compact: true}
	ev := gapg.Evaluator{Tokenizer: tok, Task: judge, EndToken: tok.Special().EOS, Marker: marker, MarkerAfter: after, MaxNewTokens: task.DemoEvalTokens}
	records, err := ev.Run(t.Context(), m, judge.Prompts(problems))
	require.NoError(t, err)
	right, format, asks := 0, 0, 0
	for i := range records {
		if records[i].Verdict.Correct {
			right++
		}
		if records[i].Verdict.Format {
			format++
		}
		if _, yes := records[i].AsksAt(0); yes {
			asks++
		}
	}
	require.InDelta(t, 180, right, 30, "of 300")
	require.Greater(t, format, 290)
	require.Less(t, asks, 15)
}
