package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMetricsLineFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	l, err := CreateMetrics(path)
	require.NoError(t, err)
	require.NoError(t, l.Write(0, nil))
	require.NoError(t, l.Write(1, map[string]any{"reward": 0.1, "cloud/calls": 12, "a": float32(0.1), "skipped": false, "note": "x<y", "nothing": nil}))
	require.NoError(t, l.Write(1, map[string]any{"kl": math.NaN(), "z": math.Inf(1), "b": float32(math.Inf(-1)), "ok": 1e-300}))
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, `{"step":0}
{"step":1,"a":0.1,"cloud/calls":12,"note":"x\u003cy","nothing":null,"reward":0.1,"skipped":false}
{"step":1,"b":null,"kl":null,"nonfinite":{"b":"-Infinity","kl":"NaN","z":"Infinity"},"ok":1e-300,"z":null}
`, string(b))

	m, err := ReadMetrics(path)
	require.NoError(t, err)
	require.False(t, m.Torn)
	require.Len(t, m.Records, 3)
	require.Equal(t, int64(1), m.LastStep())
	require.Equal(t, map[string]string{"note": "x<y"}, m.Records[1].Text)
	require.Equal(t, 0.0, m.Records[1].Values["skipped"])
	last := m.Records[2].Values
	require.True(t, math.IsNaN(last["kl"]) && math.IsInf(last["z"], 1) && math.IsInf(last["b"], -1))
	require.Equal(t, []string{"a", "b", "cloud/calls", "kl", "nothing", "ok", "reward", "skipped", "z"}, m.Keys())
	x, y := m.Column("reward")
	require.Equal(t, []float64{1}, x)
	require.Equal(t, []float64{0.1}, y)
	_, ok := m.Last("kl")
	require.False(t, ok)
}

func TestMetricsRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, MetricsFile)
	l, err := CreateMetrics(path)
	require.NoError(t, err)
	for _, bad := range []map[string]any{{"step": 1}, {"nonfinite": 1}, {"": 1}, {"x": []int{1}}} {
		require.Error(t, l.Write(1, bad))
	}
	require.NoError(t, l.Write(5, map[string]any{"x": 1}))
	require.ErrorContains(t, l.Write(4, nil), "step 4 after step 5")
	require.NoError(t, l.Close())
	require.ErrorContains(t, l.Write(6, nil), "is closed")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "{\"step\":5,\"x\":1}\n", string(b), "a refused line leaves nothing behind")

	_, err = CreateMetrics(path)
	require.ErrorContains(t, err, "another run")
	_, err = CreateMetrics(filepath.Join(dir, "no", "such"))
	require.ErrorContains(t, err, filepath.Join("no", "such"))
	_, err = ReadMetrics(filepath.Join(dir, "absent"))
	require.ErrorContains(t, err, "absent")
}

func TestMetricsReadErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"{\"step\":1}\nnonsense\n":       ":2: not a JSON object",
		"{\"step\":1}\n\n{\"step\":2}\n": ":2: empty line",
		"{\"reward\":1}\n":               `:1: field "step" is missing`,
		"{\"step\":1.5}\n":               `:1: field "step" is 1.5`,
		"{\"step\":\"a\"}\n":             `:1: field "step" is "a"`,
		"[1]\n":                          ":1: not a JSON object",
		"{\"step\":1,\"nonfinite\":3}\n": `:1: field "nonfinite" is 3`,
		"{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"x\":1e999}\n": `:3: field "x"`,
	} {
		_, err := readMetrics(strings.NewReader(text), "metrics.jsonl")
		require.ErrorContains(t, err, "metrics.jsonl"+want)
	}
	m, err := readMetrics(strings.NewReader("{\"step\":1}\n{\"step\":2,\"rew"), "m")
	require.NoError(t, err)
	require.True(t, m.Torn)
	require.Len(t, m.Records, 1)
	require.Equal(t, int64(-1), (&Metrics{}).LastStep())
}

// values of a made-up deterministic run.
func stepValues(step int64) map[string]any {
	return map[string]any{"reward": math.Sin(float64(step)), "kl": math.Log(float64(step - 3)), "cloud/calls": step * 2}
}

func evalValues(step int64) map[string]any {
	return map[string]any{"eval/accuracy/overall": 1 / float64(step)}
}

// trainTo writes steps from+1..to, evaluating at each third, saving at each
// fifth; it returns the last mark.
func trainTo(t require.TestingT, l *MetricsLog, from, to int64, mark Mark) Mark {
	for s := from + 1; s <= to; s++ {
		require.NoError(t, l.Write(s, stepValues(s)))
		if s%5 == 0 { // saved before the evaluation of the same step
			m, err := l.Mark(s)
			require.NoError(t, err)
			mark = m
		}
		if s%3 == 0 {
			require.NoError(t, l.Write(s, evalValues(s)))
		}
	}
	return mark
}

// A run killed at any step, its file cut at any byte after the last
// checkpoint, ends in the same bytes as one never killed.
func TestMetricsResumeEqualsUninterrupted(t *testing.T) {
	dir := t.TempDir()
	const steps = 31
	l, err := CreateMetrics(filepath.Join(dir, "whole"))
	require.NoError(t, err)
	trainTo(t, l, 0, steps, Mark{})
	require.NoError(t, l.Close())
	want, err := os.ReadFile(filepath.Join(dir, "whole"))
	require.NoError(t, err)

	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint("killed", n))
		l, err := CreateMetrics(path)
		require.NoError(rt, err)
		var mark Mark
		at := int64(0)
		for kill := range rapid.IntRange(1, 3).Draw(rt, "kills") {
			to := rapid.Int64Range(mark.Step, steps).Draw(rt, fmt.Sprint("kill", kill))
			if to < at {
				to = at
			}
			mark = trainTo(rt, l, at, to, mark)
			size := l.size
			require.NoError(rt, l.f.Close())
			keep := rapid.Int64Range(mark.Bytes, size).Draw(rt, "bytes that reached the disk")
			require.NoError(rt, os.Truncate(path, keep))
			l, err = ResumeMetrics(path, mark)
			require.NoError(rt, err)
			at = mark.Step
			if at%3 == 0 && at > 0 {
				require.NoError(rt, l.Write(at, evalValues(at)))
			}
		}
		// The evaluation of the checkpoint's step was redone just now.
		trainTo(rt, l, at, steps, mark)
		require.NoError(rt, l.Close())
		got, err := os.ReadFile(path)
		require.NoError(rt, err)
		if !bytes.Equal(want, got) {
			rt.Fatalf("resumed log differs:\n%s\nwant\n%s", got, want)
		}
		require.NoError(rt, os.Remove(path))
	})
}

func TestMetricsResumeByStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	keep := "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"eval\":1}\n"
	for tail, step := range map[string]int64{"{\"step\":3}\n": 2, "{\"st": 2, "": 2, "{\"step\":3}\n{\"step\":4}": 2} {
		require.NoError(t, os.WriteFile(path, []byte(keep+tail), 0o666))
		l, err := ResumeMetrics(path, Mark{Step: step, Bytes: -1})
		require.NoError(t, err)
		require.Equal(t, path, l.Path())
		require.ErrorContains(t, l.Write(1, nil), "step 1 after step 2")
		require.NoError(t, l.Write(3, map[string]any{"again": true}))
		require.NoError(t, l.Close())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, keep+"{\"step\":3,\"again\":true}\n", string(b))
	}
}

func TestMetricsResumeRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	_, err := ResumeMetrics(path, Mark{Step: 4, Bytes: 100})
	require.ErrorContains(t, err, "missing")
	l, err := ResumeMetrics(path, Mark{}) // killed before the first checkpoint
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, os.WriteFile(path, []byte("{\"step\":5}\n"), 0o666)) // logged every fifth step, saved at the fourth
	l, err = ResumeMetrics(path, Mark{Step: 4})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, b)

	for _, c := range []struct {
		text string
		mark Mark
		want string
	}{
		{"{\"step\":1}\n", Mark{1, 40}, "counts on 40 bytes, 11 whole ones"},
		{"{\"step\":1}\n{\"step\":2}\n", Mark{1, 15}, "counts on 15 bytes, 11 whole ones"},
		{"{\"step\":1}\nrubbish...\n", Mark{2, 22}, ":2: not a JSON object"},
		{"{\"step\":1}\n{\"step\":9}\n", Mark{2, 22}, ":2: step 9 is past the checkpoint's step 2"},
		{"{\"step\":1}\n{\"step\":", Mark{2, 19}, ":2: not a JSON object"},
		{"{\"step\":1}\n{\"step\":2}\n", Mark{2, 0}, "counts on an empty file, but it begins with step 1"},
		{"rubbish\n{\"step\":2}\n", Mark{2, -1}, ":1: not a JSON object"},
	} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o666))
		_, err := ResumeMetrics(path, c.mark)
		require.ErrorContains(t, err, c.want)
		b, rerr := os.ReadFile(path)
		require.NoError(t, rerr)
		require.Equal(t, c.text, string(b), "a refused file is left as it was")
	}
}
