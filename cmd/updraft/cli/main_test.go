package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// asMain makes the test binary act as the command, with the test's task: for
// tests that must kill a process.
const asMain = "UPDRAFT_TEST_MAIN"

// callLog names a file in which that process notes every cloud call.
const callLog = "UPDRAFT_TEST_CALLS"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		os.Exit(Main(context.Background(), testOptions(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// parity is a task that a random model solves now and then: a response is right
// if it has an even number of characters.
type parity struct{}

func (parity) Name() string { return "parity" }

func (parity) Judge(_ context.Context, _ gapg.Prompt, response string) (gapg.Verdict, error) {
	if strings.HasSuffix(response, gapg.Marker) {
		return gapg.Verdict{Help: true}, nil
	}
	return gapg.Verdict{Correct: len(response)%2 == 0, Format: !strings.Contains(response, "<"), Answer: response}, nil
}

func (parity) JudgeCloud(_ context.Context, _ gapg.Prompt, answer string) (bool, error) {
	return answer == "right", nil
}

// testOptions adds a task, an algorithm and rewards of the tests.
func testOptions() Options {
	characters := func(gapg.Task) []string {
		return append([]string{task.ThinkOpen, task.ThinkClose, task.AnswerOpen, task.AnswerClose}, strings.Split(task.DemoCharacters, "")...)
	}
	return Options{
		Algorithms: []Algorithm{{Name: "renamed-rloo", New: func(AlgorithmSettings) (gapg.Algorithm, error) { return gapg.RLOO{}, nil }}},
		Rewards: []Reward{{Name: "not-a-number", New: func(gapg.Hierarchical) (gapg.Reward, error) {
			return gapg.RewardFunc(func(_ context.Context, g *gapg.Group, i int) (gapg.RewardParts, error) {
				zero := 0.0
				if g.Index%2 == 1 {
					return gapg.RewardParts{Other: zero / zero}, nil
				}
				return gapg.RewardParts{Other: float64(i)}, nil
			}), nil
		}}},
		Tasks: []Task{{
			Name: "parity",
			New:  func(*tokenizer.Tokenizer) (gapg.Task, error) { return parity{}, nil },
			Prompts: func(_ gapg.Task, part task.Split, seed uint64, n int) ([]gapg.Prompt, error) {
				if n == 0 {
					n = 60
				}
				out := make([]gapg.Prompt, n)
				for i := range out {
					out[i] = gapg.Prompt{ID: fmt.Sprintf("%v %d", part, i), Text: fmt.Sprintf("%d+%d=", i*7%31, i)}
				}
				return out, nil
			},
			Read: func(_ gapg.Task, path string) ([]gapg.Prompt, error) {
				data, err := os.ReadFile(path)
				var out []gapg.Prompt
				for i, line := range strings.Fields(string(data)) {
					out = append(out, gapg.Prompt{ID: fmt.Sprint(i), Text: line})
				}
				return out, err
			},
			Cloud: func(c cloud.SimulatedConfig) (cloud.Cloud, error) {
				c.Right = func(q cloud.Question) (string, error) { noteCall(q.ID); return "right", nil }
				c.Wrong = func(q cloud.Question) (string, error) { noteCall(q.ID); return "wrong", nil }
				return cloud.NewSimulated(c)
			},
			Tokenizer:   task.NewDemoTokenizer,
			MarkerAfter: characters,
		}},
	}
}

// noteCall appends a line to the call log in one write, which survives a kill.
func noteCall(id string) {
	path := os.Getenv(callLog)
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		f.WriteString(id + "\n")
		f.Close()
	}
}

// result is what a command line gave.
type result struct {
	code        int
	out, stderr string
}

// run runs a command line in this process.
func run(t testing.TB, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(t.Context(), testOptions(), args, strings.NewReader(""), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// ok demands success.
func ok(t testing.TB, args ...string) result {
	t.Helper()
	r := run(t, args...)
	require.Zero(t, r.code, "updraft %s\n%s", strings.Join(args, " "), r.stderr)
	return r
}

// oneObject demands that standard output is exactly one JSON object.
func oneObject(t testing.TB, out string, v any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	require.NoError(t, dec.Decode(v), out)
	require.False(t, dec.More(), "more than one object: %s", out)
	require.True(t, strings.HasPrefix(out, "{"), out)
}

// tinyModel writes a random model over the demonstration's vocabulary.
func tinyModel(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tiny")
	writeTiny(t, dir, 7)
	return dir
}

func writeTiny(t testing.TB, dir string, seed uint64) {
	t.Helper()
	tok, err := task.NewDemoTokenizer()
	require.NoError(t, err)
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	m, err := model.New(be, model.Config{ModelType: "llama", HiddenAct: "silu", HiddenSize: 16, IntermediateSize: 24, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1, HeadDim: 8, VocabSize: tok.Size(), MaxPositionEmbeddings: 64, TieWordEmbeddings: true, RMSNormEps: 1e-5, RopeTheta: 10000,
		InitializerRange: 0.4}, seed, model.Options{})
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, saveModel(t.Context(), m, tok, dir))
}

// small are the flags of a training that takes a blink.
func small(modelDir, out string, more ...string) []string {
	return append([]string{"train", "--task", "parity", "--model", modelDir, "--output-dir", out, "--threads", "1", "--max-completion-length", "12",
		"--num-generations", "4", "--per-device-train-batch-size", "16", "--learning-rate", "1e-2", "--max-steps", "4", "--preflight-prompts", "0"}, more...)
}

// untimed returns the metrics of a run without its wall-clock figures.
func untimed(t testing.TB, dir string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(read(t, dir, "metrics.jsonl")), "\n") {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m), line)
		for key := range (&gapg.StepStats{}).Timings() {
			delete(m, key)
		}
		for key := range (&gapg.SFTStats{}).Timings() {
			delete(m, key)
		}
		out = append(out, m)
	}
	return out
}

// writeBase writes a random model that a demonstration can start from: its
// context holds the demonstration's lengths.
func writeBase(t testing.TB, dir string) {
	t.Helper()
	r := ok(t, "sft", "--output-dir", dir+"-run", "--hidden-size", "16", "--num-hidden-layers", "1", "--num-attention-heads", "2", "--num-key-value-heads", "1",
		"--head-dim", "8", "--intermediate-size", "16", "--max-position-embeddings", "128", "--max-steps", "30", "--warmup-steps", "5", "--per-device-train-batch-size", "8")
	require.Contains(t, r.out, "final")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(dir+"-run", "final"))))
}

func lineCount(path string) int {
	data, _ := os.ReadFile(path)
	return bytes.Count(data, []byte("\n"))
}
