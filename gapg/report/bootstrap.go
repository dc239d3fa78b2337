package report

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is an estimate with a confidence interval.
type Interval struct {
	Mean float64 `json:"mean"`
	Lo   float64 `json:"lo"`
	Hi   float64 `json:"hi"`
}

// BootstrapOptions steers a bootstrap. The zero value means 2,000 resamples,
// 95 % and seed 0.
type BootstrapOptions struct {
	// Resamples is the number of resamples B, 2,000 if 0.
	Resamples int
	// Level is the confidence level, 0.95 if 0.
	Level float64
	// Seed of the resampling. The same seed and number of observations give
	// the same resamples, whatever the values: methods measured on common
	// prompts are resampled alike.
	Seed uint64
}

func (o BootstrapOptions) filled() (BootstrapOptions, error) {
	if o.Resamples == 0 {
		o.Resamples = 2000
	}
	if o.Level == 0 {
		o.Level = 0.95
	}
	if o.Resamples < 2 {
		return o, fmt.Errorf("bootstrap: %d resamples; at least 2 are needed", o.Resamples)
	}
	if !(o.Level > 0 && o.Level < 1) {
		return o, fmt.Errorf("bootstrap: level %v is not between 0 and 1", o.Level)
	}
	return o, nil
}

// BootstrapMean returns the mean of values with its percentile bootstrap
// interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
// section 13.3). Values are one per prompt, in any unit, all finite.
func BootstrapMean(values []float64, opt BootstrapOptions) (Interval, error) {
	if i := slices.IndexFunc(values, notFinite); i >= 0 {
		return Interval{}, fmt.Errorf("bootstrap: value %d is %v; only finite values can be resampled", i, values[i])
	}
	return Bootstrap(len(values), opt, func(sample []int32) float64 {
		var sum float64
		for _, i := range sample {
			sum += values[i]
		}
		return sum / float64(len(sample))
	})
}

// BootstrapPaired returns the mean of a[i]−b[i] over common prompts with its
// percentile bootstrap interval. Prompts are resampled, so what a and b share
// (hard prompts are hard for both) does not widen the interval.
func BootstrapPaired(a, b []float64, opt BootstrapOptions) (Interval, error) {
	if len(a) != len(b) {
		return Interval{}, fmt.Errorf("bootstrap: %d against %d values; a paired bootstrap needs one of each per prompt", len(a), len(b))
	}
	d := make([]float64, len(a))
	for i := range d {
		d[i] = a[i] - b[i]
	}
	return BootstrapMean(d, opt)
}

// Bootstrap returns stat over all n observations and the percentile interval
// of stat over resamples of n indices drawn with replacement. It serves
// statistics that are no plain mean, such as a precision (calls differ from
// resample to resample) or PGR. A resample where stat is NaN (no call in it)
// is left out; the mean is NaN where stat of the whole is, and the bounds are
// where it is NaN in every resample. stat must not keep the slice.
func Bootstrap(n int, opt BootstrapOptions, stat func(sample []int32) float64) (Interval, error) {
	opt, err := opt.filled()
	if err != nil {
		return Interval{}, err
	}
	if n <= 0 {
		return Interval{}, errors.New("bootstrap: no observations")
	}
	if n > math.MaxInt32 {
		return Interval{}, fmt.Errorf("bootstrap: %d observations are too many", n)
	}
	sample := make([]int32, n)
	for i := range sample {
		sample[i] = int32(i)
	}
	iv := Interval{Mean: stat(sample)}

	rng := rand.NewPCG(opt.Seed, 0x9e3779b97f4a7c15)
	stats := make([]float64, 0, opt.Resamples)
	for range opt.Resamples {
		resample(sample, rng)
		if s := stat(sample); !math.IsNaN(s) {
			stats = append(stats, s)
		}
	}
	slices.Sort(stats)
	tail := (1 - opt.Level) / 2
	iv.Lo, iv.Hi = quantile(stats, tail), quantile(stats, 1-tail)
	return iv, nil
}

// resample fills sample with indices drawn from [0, len(sample)). One 64-bit
// draw gives two indices by Lemire's multiply-shift; its bias, below n/2³²,
// is far under the bootstrap's own noise.
func resample(sample []int32, rng *rand.PCG) {
	n := uint64(len(sample))
	i := 0
	for ; i+1 < len(sample); i += 2 {
		u := rng.Uint64()
		sample[i] = int32((u & math.MaxUint32) * n >> 32)
		sample[i+1] = int32((u >> 32) * n >> 32)
	}
	if i < len(sample) {
		sample[i] = int32((rng.Uint64() >> 32) * n >> 32)
	}
}

// quantile interpolates linearly between order statistics of sorted values
// (Hyndman and Fan, 1996, type 7). NaN if there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	h := q * float64(len(sorted)-1)
	lo := int(math.Floor(h))
	hi := min(lo+1, len(sorted)-1)
	return sorted[lo] + (h-float64(lo))*(sorted[hi]-sorted[lo])
}

func notFinite(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
