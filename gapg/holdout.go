package gapg

import (
	"math"
	"strconv"
)

// HoldOut divides prompts into a training part and a held-out part of about the
// given share. Which part a prompt is in is decided by a hash of the seed and
// its ID alone, so that equal prompts are never on both sides and a larger data
// set leaves the others where they were.
func HoldOut(prompts []Prompt, share float64, seed uint64) (train, held []Prompt) {
	limit := share * math.Exp2(64)
	domain := "hold out " + strconv.FormatUint(seed, 10)
	for _, p := range prompts {
		if float64(hash64(domain, p.ID)) < limit {
			held = append(held, p)
		} else {
			train = append(train, p)
		}
	}
	return train, held
}
