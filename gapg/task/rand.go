package task

import "math/bits"

// stream is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): small, and fixed for
// all time, so that problems and demonstrations with a given seed stay what
// they are under every Go version.
type stream struct{ state uint64 }

// newStream returns the generator of (seed, index) for one purpose. Streams of
// different arguments are unrelated.
func newStream(purpose, seed, index uint64) *stream {
	s := &stream{purpose}
	s.state = s.next() ^ seed
	s.state = s.next() ^ index
	s.next()
	return s
}

func (s *stream) next() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// intn returns a uniform integer in [0, n), n > 0 (Lemire's method, exact).
func (s *stream) intn(n int) int {
	for {
		hi, lo := bits.Mul64(s.next(), uint64(n))
		if lo >= uint64(n) || lo >= -uint64(n)%uint64(n) {
			return int(hi)
		}
	}
}

// between returns a uniform integer in [lo, hi].
func (s *stream) between(lo, hi int) int { return lo + s.intn(hi-lo+1) }

// float returns a uniform number in [0, 1) with 53 bits.
func (s *stream) float() float64 { return float64(s.next()>>11) / (1 << 53) }

// pick returns an index with probability proportional to its weight. The
// weights are non-negative and not all zero.
func (s *stream) pick(weights []float64) int {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	x := s.float() * sum
	last := 0
	for i, w := range weights {
		if w <= 0 {
			continue
		}
		if x < w {
			return i
		}
		x -= w
		last = i // rounding can leave x at the end of the last interval
	}
	return last
}

// Purposes keep the streams of one seed apart.
const (
	purposeProblem uint64 = iota + 1
	purposeDemo
	purposeWrong
	purposeCount
	purposePass
)
