package gapg

import (
	"math/rand/v2"
	"slices"
)

// Filter is adaptive prompt filtering (the paper's section 3.3.2). D1 holds
// the prompts with at least one correct device response, D2 those without one
// that the cloud gets right. All of D1 is kept, and of D2 at most
// floor(ρ·|D1|), the surplus dropped at random with the run's seed. Without
// any D1 nothing is kept.
//
// Groups are chosen by their own sampled outcomes, so the filtered estimator
// is conditional: it is not an unbiased gradient of the unfiltered objective.
func Filter(b *Batch) Selection {
	var d1, d2 []int
	for i, g := range b.Groups {
		switch {
		case g.DeviceCorrect() > 0:
			d1 = append(d1, i)
		case g.Cloud.Asked && g.Cloud.Correct:
			d2 = append(d2, i)
		}
	}
	s := Selection{D1: len(d1), D2: len(d2)}
	s.D2Kept = min(len(d2), b.Budget.Cap(len(d1)))
	if s.D2Kept < len(d2) {
		rng := rand.New(rand.NewPCG(b.Seed, uint64(b.Step)))
		rng.Shuffle(len(d2), func(i, j int) { d2[i], d2[j] = d2[j], d2[i] })
	}
	s.Keep = append(d1, d2[:s.D2Kept]...)
	slices.Sort(s.Keep)
	return s
}

// KeepAll is the Selection of every group; D1 and D2 are still counted.
func KeepAll(b *Batch) Selection {
	s := Filter(b)
	s.D2Kept = s.D2
	s.Keep = s.Keep[:0]
	for i := range b.Groups {
		s.Keep = append(s.Keep, i)
	}
	return s
}
