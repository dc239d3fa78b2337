package gapg

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/gapg/report"
)

// Outcome is one prompt as one method of dividing work sees it: what the
// device would answer by itself, what the cloud would answer, and how much the
// method wants the cloud. Every figure of a comparison follows from these.
type Outcome struct {
	ID     string
	Device bool // the device's own answer, calls disabled, is right
	Cloud  bool // the cloud's answer is right
	// Score ranks prompts: the larger, the sooner the method asks. +Inf always
	// asks, −Inf never does by itself.
	Score float64
	// TokensBeforeCall is what the device generates if the prompt goes to the
	// cloud, TokensSolution if it does not.
	TokensBeforeCall, TokensSolution int
	CostUSD                          float64 // of the cloud's answer
}

// right reports whether the user gets a right answer.
func (o *Outcome) right(asked bool) bool {
	if asked {
		return o.Cloud
	}
	return o.Device
}

// askingOrder returns the indices of the outcomes in the order in which a
// growing number of calls reaches them: by falling score. Ties are broken by a
// hash of the prompt's ID, which knows nothing of the outcome; a NaN comes
// last.
func askingOrder(o []Outcome) []int {
	keys := make([]uint64, len(o))
	order := make([]int, len(o))
	for i := range o {
		order[i], keys[i] = i, hash64("ties", o[i].ID)
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(o[b].Score, o[a].Score), cmp.Compare(keys[a], keys[b]), cmp.Compare(a, b))
	})
	return order
}

// hash64 maps (domain, key) to 64 even bits: the first eight bytes of SHA-256.
func hash64(domain, key string) uint64 {
	h := sha256.Sum256([]byte(domain + "\x00" + key))
	return binary.BigEndian.Uint64(h[:])
}

// TopCalls sends exactly the k prompts with the largest scores to the cloud
// (at most all, at least none).
func TopCalls(o []Outcome, k int) []bool {
	asked := make([]bool, len(o))
	for _, i := range askingOrder(o)[:min(max(k, 0), len(o))] {
		asked[i] = true
	}
	return asked
}

// Curve is a method's overall accuracy for every number of calls from none to
// all. Prompts that the method would never ask about come last.
type Curve struct {
	Accuracy []float64 // Accuracy[k] with k calls; n+1 entries for n prompts
}

// NewCurve returns the curve of the outcomes.
func NewCurve(o []Outcome) Curve {
	c := Curve{make([]float64, 0, len(o)+1)}
	right := 0
	for i := range o {
		if o[i].Device {
			right++
		}
	}
	n := float64(max(1, len(o)))
	c.Accuracy = append(c.Accuracy, float64(right)/n)
	for _, i := range askingOrder(o) {
		if o[i].Device {
			right--
		}
		if o[i].Cloud {
			right++
		}
		c.Accuracy = append(c.Accuracy, float64(right)/n)
	}
	return c
}

// PGR is the share of the gap between a weak and a strong accuracy that acc
// recovers, (acc − weak)/(strong − weak). It is NaN where the strong one is not
// above the weak one: there is no gap then.
func PGR(acc, weak, strong float64) float64 {
	if !(strong > weak) {
		return math.NaN()
	}
	return (acc - weak) / (strong - weak)
}

// APGR is the mean of PGR over call ratios 0..1, the exact mean of the curve
// drawn with straight lines between its points (Ong et al. 2024, who take ten
// points).
func (c Curve) APGR(weak, strong float64) float64 {
	n := len(c.Accuracy) - 1
	if n < 1 {
		return math.NaN()
	}
	sum := (c.Accuracy[0] + c.Accuracy[n]) / 2
	for _, a := range c.Accuracy[1:n] {
		sum += a
	}
	return PGR(sum/float64(n), weak, strong)
}

// CPT returns the smallest call ratio with PGR ≥ target ("call-performance
// threshold": CPT(50) has target 0.5), and whether there is one.
func (c Curve) CPT(target, weak, strong float64) (ratio float64, ok bool) {
	n := len(c.Accuracy) - 1
	for k, a := range c.Accuracy {
		if PGR(a, weak, strong) >= target {
			return float64(k) / float64(max(1, n)), true
		}
	}
	return 0, false
}

// Points returns the curve at steps+1 evenly spaced ratios, for a chart.
func (c Curve) Points(steps int) []report.Point {
	n := len(c.Accuracy) - 1
	steps = min(steps, n)
	if steps < 1 {
		return nil
	}
	points := make([]report.Point, 0, steps+1)
	for i := range steps + 1 {
		k := i * n / steps
		points = append(points, report.Point{Ratio: float64(k) / float64(n), Accuracy: c.Accuracy[k]})
	}
	return points
}

// Figures are the figures of one method at one division of the prompts. A
// share of nothing is NaN.
type Figures struct {
	Prompts, Calls int
	Denied         int     // requests that a hard budget refused: answered on the device
	Overall        float64 // accuracy, the cloud's answers counted
	Device         float64 // accuracy among the prompts answered on the device
	Solo           float64 // accuracy with calls disabled
	Ratio          float64 // calls per prompt
	HelpPrecision  float64 // P(the device would fail | asked)
	HelpRecall     float64 // P(asked | the device would fail)
	Harmful        float64 // share of calls where the device was right and the cloud wrong
	// TokensBeforeCall is the mean over calls, TokensSolution over the prompts
	// answered on the device.
	TokensBeforeCall, TokensSolution float64
	CostPer1000                      float64 // of the cloud, US dollars per 1,000 prompts
}

// Measure returns the figures of the outcomes when exactly the prompts of
// asked go to the cloud.
func Measure(o []Outcome, asked []bool) Figures {
	var right, local, localRight, solo, needed, failing, harmful, before, solution int
	cost := 0.0
	f := Figures{Prompts: len(o)}
	for i := range o {
		p := &o[i]
		right += count(p.right(asked[i]))
		solo += count(p.Device)
		failing += count(!p.Device)
		if !asked[i] {
			local++
			localRight += count(p.Device)
			solution += p.TokensSolution
			continue
		}
		f.Calls++
		needed += count(!p.Device)
		harmful += count(p.Device && !p.Cloud)
		before += p.TokensBeforeCall
		cost += p.CostUSD
	}
	n := float64(len(o))
	share := func(a, b int) float64 {
		if b == 0 {
			return math.NaN()
		}
		return float64(a) / float64(b)
	}
	f.Overall, f.Device, f.Solo, f.Ratio = share(right, len(o)), share(localRight, local), share(solo, len(o)), share(f.Calls, len(o))
	f.HelpPrecision, f.HelpRecall, f.Harmful = share(needed, f.Calls), share(needed, failing), share(harmful, f.Calls)
	f.TokensBeforeCall, f.TokensSolution = share(before, f.Calls), share(solution, local)
	f.CostPer1000 = cost / n * 1000
	return f
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// values returns 1 for each prompt whose user gets a right answer, 0 for the
// others: what a bootstrap resamples.
func values(o []Outcome, asked []bool) []float64 {
	v := make([]float64, len(o))
	for i := range o {
		v[i] = float64(count(o[i].right(asked[i])))
	}
	return v
}
