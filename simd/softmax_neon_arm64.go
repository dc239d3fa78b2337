//go:build !noasm

package simd

// softmaxRowsNEON turns rows of scores into weights exp(scale·s − m) with their
// maximum m and sum; the weights of keys that a row does not see are 0.
//
//go:noescape
func softmaxRowsNEON(s *float32, rows int, scale float32, seen, step int, m, sum *float32)

// softmaxGradRowsNEON turns rows of scores p into probabilities exp(scale·p − lse),
// and rows of their gradients ds into scale·p·(ds − delta); both are 0 for keys
// that a row does not see.
//
//go:noescape
func softmaxGradRowsNEON(p, ds *float32, rows int, scale float32, seen, step int, lse, delta *float32)

// mergeRowsNEON computes o[r,i] = b[r]·part[r,i] + (a[r]·o[r,i]), the product with
// a rounded.
//
//go:noescape
func mergeRowsNEON(o, part *float32, rows, d int, a, b *float32)

// softmaxMergeNEON merges the maximum ms and sum sums of a further split into m and
// sum, and returns in a and b what the outputs of before and of the split are to be
// multiplied by.
//
//go:noescape
func softmaxMergeNEON(m, sum, ms, sums *float32, n int, a, b *float32)
