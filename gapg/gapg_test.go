package gapg

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseBudget(t *testing.T) {
	for _, c := range []struct {
		in       string
		num, den int64
	}{{"0.30", 3, 10}, {"0", 0, 1}, {"3/7", 3, 7}, {"0.05", 1, 20}, {"0.938", 469, 500}} {
		b, err := ParseBudget(c.in)
		require.NoError(t, err, c.in)
		require.Equal(t, Budget{c.num, c.den}, b, c.in)
	}
	for _, bad := range []string{"1", "1.5", "-0.1", "NaN", "", "30%", "0.12345678901"} {
		_, err := ParseBudget(bad)
		require.Error(t, err, bad)
	}
}

// The cap is exact where floating point is not: 0.3/0.7·7 = 3, not 2.
func TestBudgetCap(t *testing.T) {
	b, _ := ParseBudget("0.3")
	for n, want := range map[int]int{0: 0, 1: 0, 2: 0, 3: 1, 6: 2, 7: 3, 14: 6, 29: 12, 70: 30} {
		require.Equal(t, want, b.Cap(n), "floor(3/7·%d)", n)
	}
	require.Equal(t, 300, b.Calls(1000))
	require.Zero(t, Budget{0, 1}.Cap(1000))
}

func group(cloudAsked, cloudCorrect bool, verdicts ...Verdict) *Group {
	g := &Group{Cloud: CloudOutcome{Asked: cloudAsked, Correct: cloudCorrect}}
	for _, v := range verdicts {
		g.Rollouts = append(g.Rollouts, Rollout{Verdict: v, Tokens: make([]int32, 3), Logprobs: make([]float32, 3), OldLogprobs: make([]float32, 3)})
	}
	return g
}

var (
	right     = Verdict{Correct: true, Format: true}
	rightBare = Verdict{Correct: true}
	wrong     = Verdict{Format: true}
	wrongBare = Verdict{}
	help      = Verdict{Help: true, Format: true}
)

func TestHierarchicalReward(t *testing.T) {
	h := PaperWeights()
	for _, c := range []struct {
		name           string
		asked, correct bool
		v              Verdict
		want           float64
	}{
		{"solved, format kept", false, false, right, 2.2},
		{"solved, format broken", false, false, rightBare, 2.0},
		{"help, cloud right", true, true, help, 0.5},
		{"help, cloud wrong", true, false, help, 0},
		{"help, cloud never asked", false, true, help, 0},
		{"wrong, format kept", false, false, wrong, 0.2},
		{"wrong, format kept, another rollout's call", true, true, wrong, 0.2},
		{"wrong, format broken", false, false, wrongBare, 0},
	} {
		p, err := h.Reward(context.Background(), group(c.asked, c.correct, c.v), 0)
		require.NoError(t, err)
		require.InDelta(t, c.want, p.Sum(), 1e-12, c.name)
	}
	require.NoError(t, h.Check())
	require.NoError(t, Hierarchical{1, 0.5, 0}.Check())
	for _, bad := range []Hierarchical{{1, 1, 0}, {1, 2, 0}, {1, 0.2, 0.2}, {1, 0.5, -0.1}, {2, 0.1, 0.2}} {
		require.Error(t, bad.Check(), "%v", bad)
	}
}

func TestFilter(t *testing.T) {
	d1 := func() *Group { return group(false, false, right, wrong) }
	all := func() *Group { return group(false, false, right, right) }
	d2 := func() *Group { return group(true, true, help, wrong) }
	lost := func() *Group { return group(true, false, help, wrong) }   // the cloud fails too
	quiet := func() *Group { return group(false, true, wrong, wrong) } // nobody asked
	both := func() *Group { return group(true, true, help, right) }    // a call beside a solution
	for _, c := range []struct {
		name             string
		budget           string
		groups           []*Group
		d1, d2, kept, up int
	}{
		{"no device success: nothing is kept", "0.3", []*Group{d2(), d2()}, 0, 2, 0, 0},
		{"budget 0: no cloud prompts", "0", []*Group{d1(), d1(), d2()}, 2, 1, 0, 2},
		{"floor(3/7·2) = 0", "0.3", []*Group{d1(), d1(), d2()}, 2, 1, 0, 2},
		{"floor(3/7·3) = 1", "0.3", []*Group{d1(), d2(), d1(), d2(), d1()}, 3, 2, 1, 4},
		{"all-correct groups count in D1", "0.5", []*Group{all(), all(), d2(), d2(), d2()}, 2, 3, 2, 4},
		{"neither D1 nor D2", "0.5", []*Group{d1(), lost(), quiet()}, 1, 0, 0, 1},
		{"a call beside a solution is D1", "0.5", []*Group{both(), d2()}, 1, 1, 1, 2},
		{"ρ > 1", "0.75", []*Group{d1(), d2(), d2(), d2(), d2()}, 1, 4, 3, 4},
	} {
		budget, err := ParseBudget(c.budget)
		require.NoError(t, err)
		b := &Batch{Step: 3, Seed: 7, Budget: budget, Groups: c.groups}
		s := Filter(b)
		require.Equal(t, []int{c.d1, c.d2, c.kept, c.up}, []int{s.D1, s.D2, s.D2Kept, len(s.Keep)}, c.name)
		require.IsIncreasing(t, append([]int{-1}, s.Keep...), c.name)
		require.Equal(t, s, Filter(b), "the same step drops the same groups")
		for _, k := range s.Keep {
			require.True(t, c.groups[k].DeviceCorrect() > 0 || c.groups[k].Cloud.Correct)
		}
	}
}

// Which surplus prompts are dropped is drawn anew each step, evenly.
func TestFilterDropsEvenly(t *testing.T) {
	groups := []*Group{group(false, false, right), group(false, false, right)}
	for range 4 {
		groups = append(groups, group(true, true, help))
	}
	budget, _ := ParseBudget("0.5")
	seen := map[int]int{}
	const steps = 4000
	for step := range steps {
		for _, k := range Filter(&Batch{Step: step, Seed: 1, Budget: budget, Groups: groups}).Keep {
			seen[k]++
		}
	}
	require.Equal(t, steps, seen[0])
	for k := 2; k < 6; k++ {
		require.InDelta(t, steps/2, seen[k], 6*32, "half of D2 each step: 6 standard deviations")
	}
}
