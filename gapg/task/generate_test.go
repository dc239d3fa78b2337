package task

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestKey(t *testing.T) {
	require.Equal(t, "countdown:2,3,7=13", Countdown{[]int{7, 2, 3}, 13}.Key())
	require.Equal(t, "7 3 2=13", Countdown{[]int{2, 7, 3}, 13}.Compact())
	p := Countdown{[]int{7, 2, 3}, 13}
	p.Key()
	p.Compact()
	require.Equal(t, []int{7, 2, 3}, p.Nums, "the order shown is kept")
	require.Contains(t, p.Instruction(), "7, 2, 3")
	require.Contains(t, p.Instruction(), Marker)
	require.False(t, AsksForHelp(p.Instruction()))
}

func TestHash64IsFixed(t *testing.T) {
	// First eight bytes of SHA-256 of "split\x00countdown:2,3,7=13".
	require.Equal(t, uint64(fixedHash), Hash64("split", "countdown:2,3,7=13"))
	require.NotEqual(t, Hash64("a", "bc"), Hash64("ab", "c"))
}

func TestSplitShares(t *testing.T) {
	const n = 50_000
	var got [SplitTest + 1]float64
	for i := range n {
		got[SplitOf(fmt.Sprint("countdown:", i))]++
	}
	for s, want := range map[Split]float64{SplitAll: 0, SplitSFT: .70, SplitTrain: .12, SplitValidation: .08, SplitTest: .10} {
		// Five standard deviations.
		require.True(t, math.Abs(got[s]/n-want) <= 5*math.Sqrt(want*(1-want)/n), "%v: %v", s, got[s]/n)
	}
	require.Equal(t, "validation", SplitValidation.String())
}

func TestGenerate(t *testing.T) {
	for _, rule := range []TargetRule{TargetUniform, TargetByExpression} {
		for _, rules := range []Rules{{}, {Plain: true, MaxValue: 999}} {
			c := DefaultGen()
			c.Counts = []float64{3: 2, 4: 1, 5: 0.3, 6: 0.3}
			c.Target, c.Rules = rule, rules
			if rules.Plain {
				c.Counts = []float64{3: 2, 4: 1} // listing plain solutions of six numbers takes long
			}
			all, err := Generate(c, 7, 150)
			require.NoError(t, err)
			require.Len(t, all, 150)
			seen, counts := map[string]bool{}, map[int]int{}
			for _, p := range all {
				require.NoError(t, p.Validate())
				require.True(t, p.Solvable(), "%v", p)
				require.False(t, seen[p.Key()])
				seen[p.Key()] = true
				counts[len(p.Nums)]++
				require.True(t, p.Target >= 10 && p.Target <= 100)
				for _, n := range p.Nums {
					require.True(t, n >= 1 && n <= 99)
				}
				if rules.Plain {
					found := false
					for e := range p.Solutions(rules) {
						require.True(t, p.Correct(e.String()))
						found = true
						break
					}
					require.True(t, found)
				}
			}
			require.Greater(t, counts[3], 30)
			require.Greater(t, counts[4], 10)

			again, err := Generate(c, 7, 40)
			require.NoError(t, err)
			require.Equal(t, all[:40], again, "a prefix is a prefix")
			other, err := Generate(c, 8, 40)
			require.NoError(t, err)
			require.NotEqual(t, again, other)
		}
	}
}

func TestGenerateSplitsAreDisjoint(t *testing.T) {
	seen := map[string]Split{}
	for s := SplitSFT; s <= SplitTest; s++ {
		c := DefaultGen()
		c.Counts, c.Split = []float64{3: 1}, s
		ps, err := Generate(c, uint64(s), 100)
		require.NoError(t, err)
		for _, p := range ps {
			require.Equal(t, s, SplitOf(p.Key()))
			_, dup := seen[p.Key()]
			require.False(t, dup)
			seen[p.Key()] = s
		}
	}
}

func TestGenerateExhausted(t *testing.T) {
	c := GenConfig{Counts: []float64{2: 1}, MinNumber: 1, MaxNumber: 3, MinTarget: 1, MaxTarget: 9}
	// (1,1): 1 2; (1,2): 1 2 3; (1,3): 2 3 4; (2,2): 1 4; (2,3): 1 5 6; (3,3): 1 6 9
	ps, err := Generate(c, 1, 16)
	require.NoError(t, err)
	require.Len(t, ps, 16)
	_, err = Generate(c, 1, 17)
	require.ErrorContains(t, err, "found only 16")
}

func TestGenerateBadConfig(t *testing.T) {
	for want, change := range map[string]func(*GenConfig){
		"no count":        func(c *GenConfig) { c.Counts = nil },
		"is NaN":          func(c *GenConfig) { c.Counts = []float64{3: math.NaN()} },
		"must be from 1":  func(c *GenConfig) { c.Counts = []float64{9: 1} },
		"negative":        func(c *GenConfig) { c.MinNumber = -1 },
		"range is empty":  func(c *GenConfig) { c.MaxNumber = 0 },
		"targets from 10": func(c *GenConfig) { c.MaxTarget = 9 },
		"too large":       func(c *GenConfig) { c.MaxNumber = 1 << 40 },
		"unknown split":   func(c *GenConfig) { c.Split = 9 },
		"target rule":     func(c *GenConfig) { c.Target = 9 },
	} {
		c := DefaultGen()
		change(&c)
		_, err := Generate(c, 1, 1)
		require.ErrorContains(t, err, want)
	}
}

func TestUniverse(t *testing.T) {
	whole := DemoUniverse()
	whole.DropSingle = 0
	u, err := NewUniverse(whole)
	require.NoError(t, err)
	all := u.Problems(SplitAll)
	require.Len(t, all, 19712)

	// Thinning takes problems with one solution, and only those.
	thin, err := NewUniverse(DemoUniverse())
	require.NoError(t, err)
	singles, kept := 0, 0
	for _, p := range all {
		if u.Ways(p) > 1 {
			require.Equal(t, u.Ways(p), thin.Ways(p))
			continue
		}
		singles++
		kept += thin.Ways(p)
	}
	require.InDelta(t, 0.7, float64(kept)/float64(singles), 0.02)
	require.Len(t, thin.Problems(SplitAll), len(all)-singles+kept)
	sum := 0
	for s := SplitSFT; s <= SplitTest; s++ {
		for _, p := range u.Problems(s) {
			require.Equal(t, s, SplitOf(p.Key()))
		}
		sum += len(u.Problems(s))
	}
	require.Equal(t, len(all), sum)

	// A universe agrees with the solver: what it lacks has no plain solution.
	rng := newStream(99, 1, 1)
	for range 300 {
		p := Countdown{[]int{rng.between(1, 25), rng.between(1, 25), rng.between(1, 25)}, rng.between(10, 99)}
		n := 0
		for e := range p.Solutions(DemoUniverse().Rules) {
			require.True(t, p.Correct(e.Bracketed()), "%v: %v", p, e.Bracketed())
			n++
		}
		require.Equal(t, n, u.Ways(p), "%v", p)
	}

	ps, err := u.Distinct(SplitTest, 5, 1000)
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, p := range ps {
		require.False(t, seen[p.Key()])
		seen[p.Key()] = true
		require.Equal(t, SplitTest, SplitOf(p.Key()))
	}
	few, err := u.Distinct(SplitTest, 5, 10)
	require.NoError(t, err)
	require.Equal(t, ps[:10], few)
	_, err = u.Distinct(SplitTest, 5, 100_000)
	require.ErrorContains(t, err, "100000 problems wanted")

	pass := u.Pass(SplitTrain, 1)
	require.ElementsMatch(t, u.Problems(SplitTrain), pass)
	require.NotEqual(t, u.Problems(SplitTrain), pass)
	require.Equal(t, pass, u.Pass(SplitTrain, 1))

	// Draws are uniform: chi-square over the split's problems, whose standard
	// deviation is √(2·problems).
	train := u.Problems(SplitTrain)
	counts := map[string]float64{}
	n := 20 * len(train)
	for i := range uint64(n) {
		p, err := u.Sample(SplitTrain, 3, i)
		require.NoError(t, err)
		counts[p.Key()]++
	}
	chi := 0.0
	for _, p := range train {
		d := counts[p.Key()] - 20
		chi += d * d / 20
	}
	require.InDelta(t, float64(len(train)), chi, 5*math.Sqrt(2*float64(len(train))))
}

func TestSmallUniverse(t *testing.T) {
	u, err := NewUniverse(UniverseConfig{Count: 2, MinNumber: 1, MaxNumber: 3, MinTarget: 1, MaxTarget: 9})
	require.NoError(t, err)
	require.Len(t, u.Problems(SplitAll), 16)
	_, err = NewUniverse(UniverseConfig{Count: 5, MinNumber: 1, MaxNumber: 3, MinTarget: 1, MaxTarget: 9})
	require.Error(t, err)
	_, err = NewUniverse(UniverseConfig{Count: 1, MinNumber: 1, MaxNumber: 3, MinTarget: 50, MaxTarget: 90})
	require.ErrorContains(t, err, "no problem")
}

func TestDemonstrations(t *testing.T) {
	u, err := NewUniverse(DemoUniverse())
	require.NoError(t, err)
	c := DefaultDemo()
	c.Kinds = append(c.Kinds, DemoKind{2, EndAsks, 0.05}, DemoKind{5, EndSolved, 0.05})
	sum := 0.0
	for _, k := range DefaultDemo().Kinds {
		sum += k.Weight
	}
	require.InDelta(t, 1, sum, 1e-12)
	task := CountdownTask{Compact: true}
	asks, solved := 0, 0
	const n = 3000
	for i := range uint64(n) {
		d, err := u.Demonstration(SplitSFT, c, 11, i)
		require.NoError(t, err)
		again, err := u.Demonstration(SplitSFT, c, 11, i)
		require.NoError(t, err)
		require.Equal(t, d, again)
		require.Equal(t, SplitSFT, SplitOf(d.Problem.Key()))

		// Judged as a response of a device it is what it claims to be.
		r := d.Response()
		v, err := task.Judge(t.Context(), task.Prompt(d.Problem), r)
		require.NoError(t, err)
		require.Equal(t, d.Asks, v.Help, r)
		require.Equal(t, d.Ending == EndSolved, v.Correct, "%v: %s", d.Problem, r)
		require.Equal(t, !d.Asks, v.Format, r)
		require.Equal(t, d.Ending == EndSolved, d.Problem.SelfCheck(r), r)
		if v.Help {
			asks++
		}
		if v.Correct {
			solved++
		}
		requireTrace(t, u, &d, c)
	}
	require.Greater(t, asks, n/20)
	require.Greater(t, solved, n/2)
	require.Less(t, solved, n*2/3)
}

// requireTrace reads a demonstration by the grammar, independently of its writer.
func requireTrace(t require.TestingT, u *Universe, d *Demo, c DemoConfig) {
	r, mask := d.Response(), d.Mask()
	require.Len(t, mask, len(r))
	body, ok := strings.CutPrefix(r, ThinkOpen)
	require.True(t, ok)
	at := len(ThinkOpen)
	trained := func(from, to int, want bool) {
		for i := from; i < to; i++ {
			require.Equal(t, want, mask[i], "byte %d of %s", i, r)
		}
	}
	trained(0, at, true)
	seen := map[string]bool{}
	tries := 0
	for {
		i := strings.IndexAny(body, "!;?<")
		require.GreaterOrEqual(t, i, 0, r)
		if body[i] == '<' {
			require.Zero(t, i, r)
			trained(at, len(r), true)
			break
		}
		attempt, mark := body[:i], body[i]
		tries++
		require.False(t, seen[attempt], "an attempt twice in %s", r)
		seen[attempt] = true
		pool := map[string]int{}
		for _, n := range d.Problem.Nums {
			pool[fmt.Sprint(n)]++
		}
		last, pos := "", at
		for j, step := range strings.Split(attempt, ",") {
			left, right, ok := strings.Cut(step, "=")
			require.True(t, ok)
			e, err := ParseExpr(left)
			require.NoError(t, err)
			value, err := e.Value()
			require.NoError(t, err)
			require.Equal(t, value.String(), right, "wrong arithmetic in %s", r)
			for _, operand := range []*Expr{e.Left, e.Right} {
				pool[operand.String()]--
				require.GreaterOrEqual(t, pool[operand.String()], 0, "a number out of nowhere in %s", r)
			}
			pool[right]++
			last = right
			trained(pos, pos+len(left), mark == '!' || c.TrainLaterOperands && j > 0)
			trained(pos+len(left), pos+len(step), true)
			pos += len(step)
			if pos < at+i {
				trained(pos, pos+1, true)
				pos++
			}
		}
		trained(at+i, at+i+1, true)
		left := 0
		for _, n := range pool {
			left += n
		}
		require.Equal(t, 1, left, "numbers left over in %s", r)
		require.Equal(t, mark == '!', last == fmt.Sprint(d.Problem.Target), r)
		body, at = body[i+1:], at+i+1
	}
	require.Equal(t, tries, d.Tries)
}

func TestDemonstrationEdges(t *testing.T) {
	u, err := NewUniverse(UniverseConfig{Count: 1, MinNumber: 1, MaxNumber: 9, MinTarget: 1, MaxTarget: 9})
	require.NoError(t, err)
	// One number: no attempt can fail.
	d, err := u.Demonstrate(Countdown{[]int{7}, 7}, DemoConfig{Kinds: []DemoKind{{3, EndGivenUp, 1}}}, 1, 1)
	require.NoError(t, err)
	require.Equal(t, EndSolved, d.Ending)
	_, err = u.Demonstrate(Countdown{[]int{7}, 8}, DefaultDemo(), 1, 1)
	require.ErrorContains(t, err, "not a problem of the universe")
	for _, c := range []DemoConfig{
		{}, {Kinds: []DemoKind{{-1, EndSolved, 1}}}, {Kinds: []DemoKind{{0, 9, 1}}}, {Kinds: []DemoKind{{0, EndSolved, -1}}},
		{Kinds: []DemoKind{{0, EndSolved, 1}}, Help: math.NaN()}, {Kinds: []DemoKind{{0, EndSolved, 1}}, Help: 1.5},
	} {
		require.Error(t, c.Validate())
	}
}

func TestSelfCheck(t *testing.T) {
	p := Countdown{[]int{8, 3}, 24}
	for in, want := range map[string]bool{
		"<think>8*3=24!</think><answer>8*3</answer>":       true,
		"<think>8 * 3 = 24.</think><answer>8*3</answer>":   true,
		"<think>8*3=24!</think><answer>8+3</answer>":       true, // it reads the trace only
		"<think>8+3=11?</think><answer>8+3</answer>":       false,
		"<think>8*3=24;8+3=11?</think><answer>x</answer>":  false,
		"<think>8*3=24!" + Marker:                          false,
		"<think>8*3=24!</think>":                           false,
		"<think>it is 24</think><answer>8*3</answer>":      false,
		"<think>8*3=240</think><answer>8*3</answer>":       false,
		"<think>x=24/5</think><answer>8*3</answer>":        false,
		"<think>x=24.5</think><answer>8*3</answer>":        false,
		"<think>x=-24</think><answer>8*3</answer>":         false,
		"<think>x=</think><answer>8*3=24</answer>":         false,
		"x=24 <answer>8*3</answer>":                        true,
		"<think>=99999999999999999999999</think><answer>1": false,
	} {
		require.Equal(t, want, p.SelfCheck(in), in)
	}
	require.True(t, Countdown{[]int{3, 8}, -5}.SelfCheck("<think>3-8=-5</think><answer>3-8</answer>"))
}

func TestFeatures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Countdown{
			Nums:   rapid.SliceOfN(rapid.IntRange(0, 1000), 1, MaxCount).Draw(t, "nums"),
			Target: rapid.IntRange(-1000, 1000).Draw(t, "target"),
		}
		f := p.Features()
		require.Len(t, f, len(FeatureNames()))
		for i, x := range f {
			require.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%s of %v", FeatureNames()[i], p)
		}
		q := Countdown{Nums: rapid.Permutation(p.Nums).Draw(t, "order"), Target: p.Target}
		require.Equal(t, f, q.Features(), "the order of the numbers does not matter")
	})
	at := func(p Countdown, name string) float64 {
		for i, n := range FeatureNames() {
			if n == name {
				return p.Features()[i]
			}
		}
		panic(name)
	}
	p := Countdown{[]int{6, 4, 1}, 23}
	require.Equal(t, 11.0, at(p, "sum"))
	require.Equal(t, 1.0, at(p, "nearest_pair"))
	require.Equal(t, 1.0, at(p, "pairs_hit_with_third"))
	require.Equal(t, 1.0, at(p, "target_is_small_prime"))
	require.Equal(t, 1.0, at(p, "n3_divides_target"))
}

const fixedHash = 0xc10cc4c2b7b54842
