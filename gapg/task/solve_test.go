package task

import (
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSolveKnown(t *testing.T) {
	for _, c := range []struct {
		p    Countdown
		want bool
	}{
		{Countdown{[]int{3, 3, 8, 8}, 24}, true},  // 8/(3-8/3): needs fractions
		{Countdown{[]int{1, 5, 5, 5}, 24}, true},  // 5*(5-1/5)
		{Countdown{[]int{1, 1, 1, 1}, 24}, false}, //
		{Countdown{[]int{7}, 7}, true},
		{Countdown{[]int{7}, 8}, false},
		{Countdown{[]int{0, 0, 0, 0}, 0}, true},
		{Countdown{[]int{0, 0, 0, 5}, 0}, true},
		{Countdown{[]int{0, 0, 0, 0}, 1}, false},
		{Countdown{[]int{0, 1, 2, 3}, -6}, true},
		{Countdown{[]int{25, 50, 75, 100, 3, 6}, 952}, true}, // a famous television round
		{Countdown{[]int{1, 1, 2, 2, 3, 3}, 999}, false},
		{Countdown{[]int{1 << 30, 1 << 30, 1}, 1 << 60}, true},
	} {
		e, ok := c.p.Solve()
		require.Equal(t, c.want, ok, "%v", c.p)
		if ok {
			require.NoError(t, c.p.Check(e.String()), "%v", c.p)
		}
	}
	require.Panics(t, func() { Countdown{}.Solve() })
}

// reachable computes every value by splitting subsets and knows none of the
// solver's tricks.
func reachable(nums []int) map[Rat]bool {
	sets := make([]map[Rat]bool, 1<<len(nums))
	for set := 1; set < len(sets); set++ {
		m := make(map[Rat]bool)
		if bits.OnesCount(uint(set)) == 1 {
			m[Int(int64(nums[bits.TrailingZeros(uint(set))]))] = true
		}
		for a := (set - 1) & set; a != 0; a = (a - 1) & set {
			for x := range sets[a] {
				for y := range sets[set&^a] {
					for _, op := range []byte("+-*/") {
						if v, ok := Apply(x, op, y); ok {
							m[v] = true
						}
					}
				}
			}
		}
		sets[set] = m
	}
	return sets[len(sets)-1]
}

func TestSolveIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nums := rapid.SliceOfN(rapid.IntRange(0, 13), 1, 4).Draw(t, "nums")
		want := reachable(nums)
		for target := -40; target <= 150; target++ {
			p := Countdown{nums, target}
			e, ok := p.Solve()
			require.Equal(t, want[Int(int64(target))], ok, "%v", p)
			if ok {
				require.NoError(t, p.Check(e.String()), "%v: %v", p, e)
			}
		}
	})
}

func TestSolveIsCompleteWithFiveNumbers(t *testing.T) {
	nums := []int{2, 3, 5, 7, 0}
	want := reachable(nums)
	for target := range 400 {
		_, ok := Countdown{nums, target}.Solve()
		require.Equal(t, want[Int(int64(target))], ok, target)
	}
}

func TestExpressions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nums := rapid.SliceOfN(rapid.IntRange(0, 13), 1, 4).Draw(t, "nums")
		seen := map[string]bool{}
		got := map[Rat]bool{}
		for e, v := range Expressions(nums, Rules{}) {
			require.False(t, seen[e.canonical()])
			seen[e.canonical()] = true
			w, err := e.Value()
			require.NoError(t, err)
			require.Equal(t, w, v)
			require.Len(t, e.leaves(nil), len(nums))
			got[v] = true
		}
		require.Equal(t, reachable(nums), got)

		rules := Rules{Plain: true, MaxValue: 99}
		for e, v := range Expressions(nums, rules) {
			require.True(t, seen[e.canonical()])
			if len(nums) > 1 {
				require.True(t, v.IsInt() && v.Num() >= 1 && v.Num() <= 99)
			}
			for _, s := range e.Steps() {
				require.True(t, s.Value.IsInt() && s.Value.Num() >= 1 && s.Value.Num() <= 99, "%v", s)
				require.GreaterOrEqual(t, s.A.Num(), s.B.Num())
				w, ok := Apply(s.A, s.Op, s.B)
				require.True(t, ok && w == s.Value)
			}
		}
	})
}

func TestExpressionsStopEarly(t *testing.T) {
	n := 0
	for range Expressions([]int{1, 2, 3, 4, 5, 6}, Rules{}) {
		if n++; n == 10 {
			break
		}
	}
	require.Equal(t, 10, n)
}

func TestSteps(t *testing.T) {
	e, err := ParseExpr("(1+2)*(7-3)")
	require.NoError(t, err)
	var got []string
	for _, s := range e.Steps() {
		got = append(got, s.String())
	}
	require.Equal(t, []string{"1+2=3", "7-3=4", "3*4=12"}, got)
}

func BenchmarkSolve(b *testing.B) {
	for _, c := range []struct {
		name string
		p    Countdown
	}{
		{"3-solvable", Countdown{[]int{3, 7, 2}, 13}},
		{"4-unsolvable", Countdown{[]int{97, 89, 83, 79}, 13}},
		{"6-solvable", Countdown{[]int{25, 50, 75, 100, 3, 6}, 952}},
		{"6-unsolvable", Countdown{[]int{1, 1, 2, 2, 3, 3}, 999}},
		{"6-unsolvable-large", Countdown{[]int{97, 89, 83, 79, 73, 71}, 1000003}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.p.Solve()
			}
		})
	}
}
