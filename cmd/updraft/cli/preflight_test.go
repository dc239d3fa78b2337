package cli

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// asking is parity whose odd responses ask for help.
type asking struct{ parity }

func (a asking) Judge(ctx context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	v, err := a.parity.Judge(ctx, p, response)
	v.Help = !v.Correct
	return v, err
}

// mute is parity without a marker.
type mute struct{ parity }

func (m mute) Judge(ctx context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	return m.parity.Judge(ctx, p, response+" ")
}

// A training begins with what it can expect, and one that can learn nothing does
// not begin; the remedy is named.
func TestPreflight(t *testing.T) {
	dir := tinyModel(t)
	try := func(task gapg.Task, more ...string) (result, string) {
		o := testOptions()
		o.Tasks[0].New = func(*tokenizer.Tokenizer) (gapg.Task, error) { return task, nil }
		out := filepath.Join(t.TempDir(), "run")
		var stdout, stderr bytes.Buffer
		args := append(small(dir, out, "--preflight-prompts", "64", "--max-steps", "1", "--json"), more...)
		code := Main(t.Context(), o, args, strings.NewReader(""), &stdout, &stderr)
		return result{code, stdout.String(), stderr.String()}, out
	}
	r, out := try(asking{})
	require.Zero(t, r.code, r.stderr)
	var s trainSummary
	oneObject(t, r.out, &s)
	require.EqualValues(t, 60, s.Preflight["prompts"])
	require.EqualValues(t, 240, s.Preflight["responses"])
	require.InDelta(t, 1, s.Preflight["accuracy"]+s.Preflight["marker_rate"], 1e-9)
	require.InDelta(t, 0.938, s.Preflight["cloud_accuracy"], 0.1)
	require.Equal(t, 60, s.CloudCalls, "the check's calls count, and those of the step are among them")
	require.Contains(t, r.stderr, `before training" prompts=60`)
	require.Contains(t, r.stderr, `cloud="simulated:0.938 (simulated`)

	// The check is no part of a run that goes on.
	r = run(t, "train", "--output-dir", out, "--resume-from-checkpoint")
	require.NotContains(t, r.stderr, "before training")

	for name, c := range map[string]struct {
		task gapg.Task
		more []string
		want string
	}{
		"no marker": {mute{}, nil, "so asking can never be learnt: warm-start the model by updraft sft --from-rollouts"},
		"no cloud":  {asking{}, []string{"--cloud", "simulated:0"}, "the cloud answers none of 60 prompts rightly"},
	} {
		r, out := try(c.task, c.more...)
		require.Equal(t, exitInput, r.code, name)
		require.Contains(t, r.stderr, c.want)
		require.Contains(t, r.stderr, "--preflight-prompts 0 starts anyway")
		require.NoFileExists(t, filepath.Join(out, "final", "config.json"))
		// The directory holds no run, so that the next attempt may have it.
		r = ok(t, small(dir, out, "--max-steps", "1")...)
		require.Contains(t, r.out, "1 steps")
	}
	r, _ = try(mute{}, "--cloud", "none")
	require.Zero(t, r.code, "without a cloud nobody need ask")
}
