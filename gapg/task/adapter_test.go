package task

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
)

func TestMarkerIsTheMethods(t *testing.T) { require.Equal(t, gapg.Marker, Marker) }

func TestJudge(t *testing.T) {
	task := CountdownTask{Compact: true}
	p := task.Prompt(Countdown{[]int{1, 2, 3}, 6})
	require.Equal(t, "3 2 1=6", p.Text)
	require.Equal(t, "countdown:1,2,3=6", p.ID)
	for in, want := range map[string]gapg.Verdict{
		"<think>a</think><answer>1+2+3</answer>":          {Correct: true, Format: true, Answer: "1+2+3"},
		"<answer>1+2+3</answer>":                          {Correct: true, Answer: "1+2+3"},
		"<think>a</think><answer>1+2*3</answer>":          {Format: true, Answer: "1+2*3"},
		"<think>a</think><answer>1+2+3</answer>" + Marker: {Help: true},
		"1+2+3": {},
	} {
		v, err := task.Judge(t.Context(), p, in)
		require.NoError(t, err)
		require.Equal(t, want, v, in)
	}
	for in, want := range map[string]bool{"1+2+3": true, " <answer>1+2+3</answer>": true, "1+2": false, "<answer>1+2+3</answer>" + Marker: false} {
		ok, err := task.JudgeCloud(t.Context(), p, in)
		require.NoError(t, err)
		require.Equal(t, want, ok, in)
	}
	_, err := task.Judge(t.Context(), gapg.Prompt{}, "")
	require.ErrorContains(t, err, "gold")
	_, err = task.JudgeCloud(t.Context(), gapg.Prompt{}, "")
	require.ErrorContains(t, err, "gold")
}

func TestSimulatedCloud(t *testing.T) {
	c, err := SimulatedCloud(cloud.SimulatedConfig{Accuracy: 0.7})
	require.NoError(t, err)
	ps, err := Generate(DefaultGen(), 1, 200)
	require.NoError(t, err)
	task, right := CountdownTask{}, 0
	for _, p := range task.Prompts(ps) {
		a, err := c.Answer(t.Context(), cloud.Question{ID: p.ID, Text: p.Text, Gold: p.Gold})
		require.NoError(t, err)
		ok, err := task.JudgeCloud(t.Context(), p, a.Text)
		require.NoError(t, err)
		require.Equal(t, c.Knows(p.ID), ok)
		if ok {
			right++
			continue
		}
		// Plausible: it parses, uses the numbers, and only misses the target.
		inside, found := LastAnswer(a.Text)
		require.True(t, found)
		require.ErrorIs(t, p.Gold.(Countdown).Check(inside), ErrWrongValue)
	}
	require.InDelta(t, 140, right, 35)

	_, err = c.Answer(context.Background(), cloud.Question{ID: "x"})
	require.Error(t, err)
	require.Equal(t, "I found no expression for the target.", Countdown{[]int{7}, 7}.WrongAnswer())
}

func ExampleCountdown_Check() {
	p := Countdown{Nums: []int{3, 3, 8, 8}, Target: 24}
	fmt.Println(p.Check("8 / (3 - 8 / 3)"))
	fmt.Println(p.Check("3 * 8"))
	// Output:
	// <nil>
	// does not use exactly the given numbers: it uses [3 8], not [3 3 8 8]
}

func ExampleUniverse_Demonstration() {
	u, err := NewUniverse(DemoUniverse())
	if err != nil {
		panic(err)
	}
	d, err := u.Demonstration(SplitSFT, DefaultDemo(), 1, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println(d.Problem.Compact())
	fmt.Println(d.Response())
	// Output:
	// 8 8 3=67
	// <think>8-3=5,8+5=13?<unknown> I need external assistance </unknown>
}

// The cloud reads the problem and the format of answers, and no word of help.
func TestCloudNeverSeesTheHelpInstruction(t *testing.T) {
	for _, compact := range []bool{false, true} {
		p := CountdownTask{Compact: compact}.Prompt(Countdown{Nums: []int{1, 2}, Target: 3})
		require.Contains(t, p.CloudText, "Target: 3")
		require.Contains(t, p.CloudText, AnswerOpen)
		require.NotContains(t, p.CloudText, "unknown")
		require.Equal(t, compact, !strings.Contains(p.Text, Marker))
	}
}
