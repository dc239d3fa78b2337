package task

import (
	"math"
	"slices"
)

// featureSlots is the number of numbers that features name singly.
const featureSlots = 6

// FeatureNames names the entries of Features in order.
func FeatureNames() []string {
	names := []string{"count", "target", "log_target"}
	for _, n := range []string{"n1", "n2", "n3", "n4", "n5", "n6"} {
		names = append(names, n, n+"_divides_target", n+"_from_target")
	}
	return append(names,
		"sum", "target_minus_sum", "log_product", "max_minus_target", "mean", "spread",
		"ones", "duplicates", "odd_numbers", "odd_target", "target_is_small_prime",
		"nearest_pair", "pairs_divisible", "pairs_hit_with_third", "log_distinct_pair_values")
}

// Features describes p by its numbers and simple arithmetic on them, for a
// classifier that guesses from the prompt alone whether a device will solve it.
// The length is that of FeatureNames; the numbers appear in descending order,
// missing ones as 0. Values are of the order of the numbers themselves: scale
// them before use. What pairs of numbers come to is looked at, and whether a sum or
// difference with a third hits the target; a full search for a solution is not made.
func (p Countdown) Features() []float64 {
	nums := slices.Clone(p.Nums)
	slices.Sort(nums)
	slices.Reverse(nums)
	t := p.Target
	logOf := func(x float64) float64 { return math.Copysign(math.Log1p(math.Abs(x)), x) }
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	f := []float64{float64(len(nums)), float64(t), logOf(float64(t))}
	for i := range featureSlots {
		if i >= len(nums) {
			f = append(f, 0, 0, 0)
			continue
		}
		f = append(f, float64(nums[i]), flag(nums[i] > 0 && t%nums[i] == 0), math.Abs(float64(t-nums[i])))
	}
	sum, logProduct, squares, ones, duplicates, odd := 0.0, 0.0, 0.0, 0, 0, 0
	for i, n := range nums {
		sum += float64(n)
		squares += float64(n) * float64(n)
		logProduct += math.Log1p(float64(n))
		if n == 1 {
			ones++
		}
		if i > 0 && nums[i-1] == n {
			duplicates++
		}
		odd += n & 1
	}
	count := math.Max(1, float64(len(nums)))
	mean := sum / count
	greatest := 0.0
	if len(nums) > 0 {
		greatest = float64(nums[0])
	}
	nearest, divisible, hits := math.Inf(1), 0, 0
	values := make(map[int]bool)
	for i, a := range nums {
		for j, b := range nums[i+1:] {
			results := []int{a + b, a - b}
			if float64(a)*float64(b) < 1<<52 {
				results = append(results, a*b)
			}
			if b > 0 && a%b == 0 {
				divisible++
				results = append(results, a/b)
			}
			for _, v := range results {
				values[v] = true
				nearest = math.Min(nearest, math.Abs(float64(v)-float64(t)))
				for k, c := range nums {
					if k != i && k != i+1+j && (v+c == t || v-c == t || c-v == t) {
						hits++
					}
				}
			}
		}
	}
	if math.IsInf(nearest, 1) {
		nearest = math.Abs(greatest - float64(t))
	}
	return append(f,
		sum, float64(t)-sum, logProduct, greatest-float64(t), mean, math.Sqrt(math.Max(0, squares/count-mean*mean)),
		float64(ones), float64(duplicates), float64(odd), float64(t&1), flag(smallPrime(t)),
		nearest, float64(divisible), float64(hits), math.Log1p(float64(len(values))))
}

// smallPrime reports whether n is a prime below 10,000: a target that no product
// reaches in one step.
func smallPrime(n int) bool {
	if n < 2 || n >= 10_000 {
		return false
	}
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
