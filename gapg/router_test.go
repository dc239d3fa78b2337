package gapg

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logisticData is n rows of d numbers of very different sizes, of which the
// first few decide how probable a failure is.
func logisticData(seed uint64, n, d int, logit func(x []float64) float64) (x [][]float64, fails []bool, odds []float64) {
	rng := rand.New(rand.NewPCG(seed, 9))
	for range n {
		row := make([]float64, d)
		for j := range row {
			row[j] = rng.NormFloat64()
		}
		l := logit(row)
		fails = append(fails, rng.Float64() < 1/(1+math.Exp(-l)))
		odds = append(odds, l)
		for j := range row {
			row[j] = 1000*float64(j+1) + row[j]*math.Pow(10, float64(j%7-3))
		}
		x = append(x, row)
	}
	return x, fails, odds
}

// separation is the chance that a prompt that fails is scored above one that
// does not: the area under the ROC curve.
func separation(score func(i int) float64, fails []bool) float64 {
	wins, pairs := 0.0, 0.0
	for i := range fails {
		for j := range fails {
			if fails[i] && !fails[j] {
				pairs++
				switch a, b := score(i), score(j); {
				case a > b:
					wins++
				case a == b:
					wins += 0.5
				}
			}
		}
	}
	return wins / pairs
}

// The logistic regression comes close to the true log-odds where those are
// linear, standardisation and 38 useless columns notwithstanding.
func TestRouterLearnsALine(t *testing.T) {
	logit := func(x []float64) float64 { return 2*x[0] - 1.5*x[1] + 0.5 }
	x, fails, _ := logisticData(1, 2000, 40, logit)
	fresh, freshFails, odds := logisticData(2, 1000, 40, logit)
	best := separation(func(i int) float64 { return odds[i] }, freshFails)
	for name, l2 := range map[string]float64{"none": 0, "some": 1e-2} {
		r, err := TrainRouter(x, fails, RouterConfig{L2: l2, Seed: 3})
		require.NoError(t, err)
		got := separation(func(i int) float64 { return r.Score(fresh[i]) }, freshFails)
		t.Logf("L2 %s: %v of %v", name, got, best)
		require.Greater(t, got, best-0.025, "L2 %s; the true odds reach %v", name, best)
	}
}

// What no line separates, the network does: failure where two signs differ.
func TestRouterNetwork(t *testing.T) {
	logit := func(x []float64) float64 {
		if x[0]*x[1] > 0 {
			return 3
		}
		return -3
	}
	x, fails, _ := logisticData(1, 2000, 10, logit)
	fresh, freshFails, _ := logisticData(2, 600, 10, logit)
	line, err := TrainRouter(x, fails, RouterConfig{Seed: 3})
	require.NoError(t, err)
	net, err := TrainRouter(x, fails, RouterConfig{Hidden: 16, L2: 1e-3, Seed: 3})
	require.NoError(t, err)
	require.Less(t, separation(func(i int) float64 { return line.Score(fresh[i]) }, freshFails), 0.6)
	require.Greater(t, separation(func(i int) float64 { return net.Score(fresh[i]) }, freshFails), 0.9)
	require.Less(t, net.Loss(), line.Loss())
}

// The slopes agree with central differences of the loss.
func TestRouterGradient(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, hidden := range []int{0, 3} {
		n := newNetwork(4, hidden, rng)
		for i := range n.params {
			n.params[i] = rng.NormFloat64()
		}
		x := [][]float64{{0.3, -1, 2, 0.5}, {1, 1, -0.4, 0}}
		fails := []bool{true, false}
		grad := make([]float64, len(n.params))
		for i := range x {
			n.addGradient(grad, x[i], fails[i])
		}
		for i := range n.params {
			const h = 1e-6
			up, down := n.clone(), n.clone()
			up.params[i] += h
			down.params[i] -= h
			slope := (up.meanLoss(x, fails, []int{0, 1}) - down.meanLoss(x, fails, []int{0, 1})) / h // two examples
			require.InDelta(t, slope, grad[i], 1e-7, "hidden %d, parameter %d", hidden, i)
		}
	}
}

func TestRouterIsDeterministicAndQuick(t *testing.T) {
	x, fails, _ := logisticData(1, 600, 150, func(x []float64) float64 { return x[0] })
	start := time.Now()
	a, err := trainRouters(x, fails, 20, 5)
	require.NoError(t, err)
	t.Logf("three candidates on 600 examples of 150 numbers: %v", time.Since(start))
	require.Len(t, a, 3)
	b, err := TrainRouter(x, fails, RouterConfig{Hidden: 16, L2: 1e-3, Seed: 5})
	require.NoError(t, err)
	c, err := TrainRouter(x, fails, RouterConfig{Hidden: 16, L2: 1e-3, Seed: 5})
	require.NoError(t, err)
	d, err := TrainRouter(x, fails, RouterConfig{Hidden: 16, L2: 1e-3, Seed: 6})
	require.NoError(t, err)
	require.Equal(t, b.Score(x[0]), c.Score(x[0]))
	require.NotEqual(t, b.Score(x[0]), d.Score(x[0]))
}

func TestRouterEdges(t *testing.T) {
	// A constant column and outcomes that are all alike.
	r, err := TrainRouter([][]float64{{1, 2}, {1, 3}, {1, 4}}, []bool{true, true, true}, RouterConfig{})
	require.NoError(t, err)
	require.False(t, math.IsNaN(r.Score([]float64{1, 9})))
	for _, bad := range [][][]float64{nil, {{1}, {math.NaN()}}, {{}, {}}, {{1}, {math.Inf(1)}}, {{1, 2}, {1}}} {
		_, err := TrainRouter(bad, make([]bool, len(bad)), RouterConfig{})
		require.Error(t, err, "%v", bad)
	}
	_, err = TrainRouter([][]float64{{1}}, nil, RouterConfig{})
	require.Error(t, err)
	_, err = TrainRouter([][]float64{{1}}, []bool{true}, RouterConfig{L2: -1})
	require.Error(t, err)
}
