package task

import (
	"errors"
	"fmt"
	"slices"
)

// UniverseConfig describes all problems of one shape.
type UniverseConfig struct {
	Count                int // of numbers, 1 to 4
	MinNumber, MaxNumber int // range of each number, both included
	MinTarget, MaxTarget int // range of the target, both included

	// Rules are what an attempt may do. A problem is in the universe if an attempt
	// solves it.
	Rules Rules

	// DropSingle leaves out this share, in hundredths, of the problems that exactly
	// one attempt solves, chosen by a hash of the key: the knob of difficulty, which
	// cannot be read off a prompt.
	DropSingle int
}

// DemoUniverse is the universe of the built-in demonstration: three numbers of
// 1–25, targets of 10–99, plain steps with values of at most 99, and of the
// problems with a single solution 70 in 100.
func DemoUniverse() UniverseConfig {
	return UniverseConfig{
		Count:     3,
		MinNumber: 1, MaxNumber: 25,
		MinTarget: 10, MaxTarget: 99,
		Rules:      Rules{Plain: true, MaxValue: 99},
		DropSingle: 30,
	}
}

// Attempt is one way to combine all numbers of a problem, right or wrong.
type Attempt struct {
	Expr  *Expr
	Value Rat
}

// Trace writes the attempt's steps, "16*5=80,80-17=63".
func (a Attempt) Trace() string {
	var s []byte
	for i, st := range a.Expr.Steps() {
		if i > 0 {
			s = append(s, ',')
		}
		s = append(s, st.String()...)
	}
	return string(s)
}

// Universe lists all problems of a shape with all attempts at them, so that
// problems can be drawn uniformly. It is read-only and safe for concurrent use.
type Universe struct {
	cfg      UniverseConfig
	attempts map[string][]Attempt // by the numbers in descending order
	parts    map[Split][]Countdown
	ways     map[string]int // number of solving attempts, by key
}

// NewUniverse enumerates the problems that c describes.
func NewUniverse(c UniverseConfig) (*Universe, error) {
	if c.DropSingle < 0 || c.DropSingle > 100 {
		return nil, fmt.Errorf("universe: drop single %d: give hundredths from 0 to 100", c.DropSingle)
	}
	if c.Count < 1 || c.Count > 4 {
		return nil, fmt.Errorf("universe: problems with %d numbers: the count must be from 1 to 4", c.Count)
	}
	g := GenConfig{
		Counts: make([]float64, c.Count+1), MinNumber: c.MinNumber, MaxNumber: c.MaxNumber,
		MinTarget: c.MinTarget, MaxTarget: c.MaxTarget, Rules: c.Rules,
	}
	g.Counts[c.Count] = 1
	if err := g.Validate(); err != nil {
		return nil, err
	}
	u := &Universe{cfg: c, attempts: make(map[string][]Attempt), parts: make(map[Split][]Countdown), ways: make(map[string]int)}
	nums := make([]int, c.Count)
	u.enumerate(nums, 0)
	if len(u.parts[SplitAll]) == 0 {
		return nil, errors.New("universe: no problem of this shape has a solution: widen the ranges")
	}
	return u, nil
}

// enumerate goes through the multisets in ascending order of descending tuples.
func (u *Universe) enumerate(nums []int, at int) {
	if at == len(nums) {
		u.addNumbers(slices.Clone(nums))
		return
	}
	most := u.cfg.MaxNumber
	if at > 0 {
		most = nums[at-1]
	}
	for n := u.cfg.MinNumber; n <= most; n++ {
		nums[at] = n
		u.enumerate(nums, at+1)
	}
}

func (u *Universe) addNumbers(nums []int) {
	var list []Attempt
	ways := make(map[int64]int)
	for e, v := range Expressions(nums, u.cfg.Rules) {
		list = append(list, Attempt{e, v})
		if v.den == 1 && v.num >= int64(u.cfg.MinTarget) && v.num <= int64(u.cfg.MaxTarget) {
			ways[v.num]++
		}
	}
	u.attempts[joinInts(nums, " ")] = list
	for t := u.cfg.MinTarget; t <= u.cfg.MaxTarget; t++ {
		p := Countdown{nums, t}
		k := p.Key()
		n := ways[int64(t)]
		if n == 0 || n == 1 && int(Hash64("single solution", k)%100) < u.cfg.DropSingle {
			continue
		}
		u.ways[k] = n
		u.parts[SplitAll] = append(u.parts[SplitAll], p)
		u.parts[SplitOf(k)] = append(u.parts[SplitOf(k)], p)
	}
}

// Config returns what the universe was made of.
func (u *Universe) Config() UniverseConfig { return u.cfg }

// Problems returns all problems of a split in a fixed order. The caller must not
// change them.
func (u *Universe) Problems(s Split) []Countdown { return u.parts[s] }

// Ways returns the number of attempts that solve p, 0 if p is not in the
// universe.
func (u *Universe) Ways(p Countdown) int { return u.ways[p.Key()] }

// Attempts returns all attempts at p's numbers, whatever they amount to; none if
// p's numbers are not of the universe. The caller must not change them.
func (u *Universe) Attempts(p Countdown) []Attempt {
	nums := slices.Clone(p.Nums)
	slices.Sort(nums)
	slices.Reverse(nums)
	return u.attempts[joinInts(nums, " ")]
}

// Sample draws problem number index of a seed from a split, uniformly and with
// replacement. It depends on its arguments alone, so any index can be had at
// once.
func (u *Universe) Sample(s Split, seed, index uint64) (Countdown, error) {
	ps := u.parts[s]
	if len(ps) == 0 {
		return Countdown{}, fmt.Errorf("universe: no problem in the split %v", s)
	}
	return ps[newStream(purposeProblem+uint64(s)<<8, seed, index).intn(len(ps))], nil
}

// Distinct draws n different problems of a split: the first n of its Pass.
func (u *Universe) Distinct(s Split, seed uint64, n int) ([]Countdown, error) {
	if have := len(u.parts[s]); n > have {
		return nil, fmt.Errorf("universe: %d problems wanted, the split %v has %d: widen the ranges or ask for fewer", n, s, have)
	}
	return u.Pass(s, seed)[:n], nil
}

// Pass returns all problems of a split in an order shuffled by the seed: one pass
// over them without repeats. Give each pass a seed of its own.
func (u *Universe) Pass(s Split, seed uint64) []Countdown {
	ps := slices.Clone(u.parts[s])
	r := newStream(purposePass, seed, uint64(s))
	for i := len(ps) - 1; i > 0; i-- {
		j := r.intn(i + 1)
		ps[i], ps[j] = ps[j], ps[i]
	}
	return ps
}
