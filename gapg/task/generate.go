package task

import (
	"errors"
	"fmt"
	"math/bits"
)

// Split names one of the disjoint parts of all problems. A problem's part is
// decided by a hash of its key alone, so parts made with any seed, size or
// difficulty never share a problem.
type Split int

// The parts, and the share of all problems in each.
const (
	SplitAll        Split = iota // no restriction: for problems that nothing is trained on
	SplitSFT                     // supervised warm start, 70 %
	SplitTrain                   // reinforcement learning, 12 %
	SplitValidation              // calibration, model selection, early stopping, 8 %
	SplitTest                    // held out, 10 %
)

// splitEnds are the upper ends of the parts in hundredths. They are part of what
// a seed means and never change.
var splitEnds = [...]uint64{SplitSFT: 70, SplitTrain: 82, SplitValidation: 90, SplitTest: 100}

// String returns sft, train, validation, test or all.
func (s Split) String() string {
	switch s {
	case SplitAll:
		return "all"
	case SplitSFT:
		return "sft"
	case SplitTrain:
		return "train"
	case SplitValidation:
		return "validation"
	case SplitTest:
		return "test"
	}
	return fmt.Sprintf("Split(%d)", int(s))
}

// SplitOf returns the part that a problem's key belongs to.
func SplitOf(key string) Split {
	h, _ := bits.Mul64(Hash64("split", key), 100)
	for s := SplitSFT; s < SplitTest; s++ {
		if h < splitEnds[s] {
			return s
		}
	}
	return SplitTest
}

// TargetRule says how the generator chooses a target.
type TargetRule int

const (
	// TargetUniform draws the target uniformly from the target range and drops
	// problems that have no solution. Targets with a single solution are as
	// likely as those with many: the harder rule.
	TargetUniform TargetRule = iota

	// TargetByExpression combines the numbers at random and takes the value: a
	// target is the likelier the more ways lead to it.
	TargetByExpression
)

// GenConfig is the difficulty of generated problems.
type GenConfig struct {
	// Counts holds the relative frequency of problems with i numbers at
	// Counts[i], for 1 ≤ i ≤ MaxCount.
	Counts []float64

	MinNumber, MaxNumber int // range of each number, both included
	MinTarget, MaxTarget int // range of the target, both included

	Target TargetRule

	// Rules are what a solution may use: with the zero value any arithmetic,
	// under Plain only problems that can be worked out in plain steps are made.
	// Demonstrations need that.
	Rules Rules

	Split Split
}

// DefaultGen returns the shape of the Countdown-Tasks-3to4 data set: three or
// four numbers of 1–99 in equal shares, targets of 10–100.
func DefaultGen() GenConfig {
	return GenConfig{
		Counts:    []float64{3: 1, 4: 1},
		MinNumber: 1, MaxNumber: 99,
		MinTarget: 10, MaxTarget: 100,
	}
}

// Validate reports the first field that cannot be meant.
func (c GenConfig) Validate() error {
	sum := 0.0
	for i, w := range c.Counts {
		if !(w >= 0) || w > 1e9 {
			return fmt.Errorf("generator: the share of problems with %d numbers is %v: give a number from 0 up", i, w)
		}
		if w > 0 && (i < 1 || i > MaxCount) {
			return fmt.Errorf("generator: problems with %d numbers: the count must be from 1 to %d", i, MaxCount)
		}
		sum += w
	}
	switch {
	case sum == 0:
		return errors.New("generator: no count of numbers has a share: set Counts")
	case c.MinNumber < 0:
		return fmt.Errorf("generator: numbers from %d: negative numbers cannot be written in an answer", c.MinNumber)
	case c.MinNumber > c.MaxNumber:
		return fmt.Errorf("generator: numbers from %d to %d: the range is empty", c.MinNumber, c.MaxNumber)
	case c.MinTarget > c.MaxTarget:
		return fmt.Errorf("generator: targets from %d to %d: the range is empty", c.MinTarget, c.MaxTarget)
	case c.Rules.MaxValue < 0:
		return fmt.Errorf("generator: MaxValue %d is negative", c.Rules.MaxValue)
	case c.Split < SplitAll || c.Split > SplitTest:
		return fmt.Errorf("generator: unknown split %d", int(c.Split))
	case c.Target != TargetUniform && c.Target != TargetByExpression:
		return fmt.Errorf("generator: unknown target rule %d", int(c.Target))
	}
	largest := make([]int, len(c.Counts))
	for i, w := range c.Counts {
		if w == 0 {
			continue
		}
		for j := range i {
			largest[j] = c.MaxNumber
		}
		if err := (Countdown{Nums: largest[:i], Target: c.MinTarget}).Validate(); err != nil {
			return fmt.Errorf("generator: %w", err)
		}
	}
	return nil
}

// maxMisses is the count of consecutive draws without a new problem after which
// the space counts as exhausted. At a share of 1 in 1,000 of unseen solvable
// problems among the draws, giving up in error has a probability below 1e-80.
const maxMisses = 200_000

// Generate returns n distinct problems that all have a solution. It depends on
// its arguments alone, and the first m of n problems are those of a call for m.
// It fails if c is not valid or if fewer than n such problems can be found.
func Generate(c GenConfig, seed uint64, n int) ([]Countdown, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	out := make([]Countdown, 0, n)
	seen := make(map[string]bool, n)
	misses := 0
	for draw := uint64(0); len(out) < n; draw++ {
		// The count is settled before the search for a solvable problem begins, so
		// that the shares of Counts are those of the result.
		count := newStream(purposeCount, seed, uint64(len(out))).pick(c.Counts)
		p, ok := c.draw(newStream(purposeProblem, seed, draw), count)
		if ok {
			key := p.Key()
			if ok = !seen[key] && (c.Split == SplitAll || SplitOf(key) == c.Split) && c.solvable(p); ok {
				seen[key] = true
				out = append(out, p)
				misses = 0
				continue
			}
		}
		if misses++; misses == maxMisses {
			return nil, fmt.Errorf("generator: found only %d distinct problems of the %d wanted (split %v, numbers %d–%d, targets %d–%d): widen the ranges or ask for fewer",
				len(out), n, c.Split, c.MinNumber, c.MaxNumber, c.MinTarget, c.MaxTarget)
		}
	}
	return out, nil
}

// draw makes one candidate, not yet known to be new or solvable.
func (c GenConfig) draw(r *stream, count int) (Countdown, bool) {
	p := Countdown{Nums: make([]int, count)}
	for i := range p.Nums {
		p.Nums[i] = r.between(c.MinNumber, c.MaxNumber)
	}
	if c.Target == TargetUniform {
		p.Target = r.between(c.MinTarget, c.MaxTarget)
		return p, true
	}
	x, ok := randomExpr(r, p.Nums, c.Rules)
	if !ok || !x.v.IsInt() || x.v.num < int64(c.MinTarget) || x.v.num > int64(c.MaxTarget) {
		return Countdown{}, false
	}
	p.Target = int(x.v.num)
	return p, true
}

// solvable is what the generator demands of a solution.
func (c GenConfig) solvable(p Countdown) bool {
	if c.Target == TargetByExpression {
		return true // the expression that gave the target is a solution
	}
	// Most targets have no solution at all: the exact solver says so soonest.
	if !p.Solvable() {
		return false
	}
	if !c.Rules.Plain {
		return true
	}
	for range p.Solutions(c.Rules) {
		return true
	}
	return false
}
