package gapg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/updraft-ml/updraft/model"
)

// A router decides before any reasoning: a classifier reads the prompt alone
// (features of the task and the model's hidden state at the prompt's last
// token) and predicts whether the device would fail.

// PromptFeaturer is a Task that describes its prompts by numbers, as many for
// each prompt, for a router to read.
type PromptFeaturer interface {
	PromptFeatures(p Prompt) []float64
}

// routerInputs returns a row of numbers for each prompt: the task's features,
// where it has some, then the model's hidden state. fromTask is the number of
// the former.
func routerInputs(ctx context.Context, m *model.Model, task Task, prompts []Prompt, tokens [][]int32) (x [][]float64, fromTask int, err error) {
	hidden, err := m.Hidden(ctx, tokens)
	if err != nil {
		return nil, 0, fmt.Errorf("router: %w", err)
	}
	f, _ := task.(PromptFeaturer)
	x = make([][]float64, len(prompts))
	for i, p := range prompts {
		if f != nil {
			x[i] = append(x[i], f.PromptFeatures(p)...)
			if i == 0 {
				fromTask = len(x[0])
			}
			if len(x[i]) != fromTask {
				return nil, 0, fmt.Errorf("router: the task gives %d features for prompt %q, %d for the first", len(x[i]), p.ID, fromTask)
			}
		}
		for _, v := range hidden[i] {
			x[i] = append(x[i], float64(v))
		}
	}
	return x, fromTask, nil
}

// RouterConfig is the shape and training of a router. The zero value of a
// field means its default.
type RouterConfig struct {
	Columns      int // how many leading numbers of a row are read; 0: all
	Hidden       int // units of the hidden layer; 0: none, a logistic regression
	L2           float64
	LearningRate float64 // of Adam: 0.01, with a hidden layer 0.003
	Epochs       int     // at most: 60
	Patience     int     // epochs without a better held-out loss: 8
	BatchSize    int     // 32
	HeldOut      float64 // share of the examples for early stopping: 0.2
	Seed         uint64
}

// Router is a trained classifier of prompts. It is safe for concurrent use.
type Router struct {
	cols        int
	mean, scale []float64
	net         network
	loss        float64 // on the held-out examples, nats
}

// TrainRouter fits a router to rows of numbers and whether the device failed:
// numbers are standardised, the logistic loss with an L2 penalty on the
// weights is minimised by Adam on small batches, and the weights of the epoch
// with the least loss on held-out examples are kept. The same arguments give
// the same router.
func TrainRouter(x [][]float64, fails []bool, c RouterConfig) (*Router, error) {
	if len(x) == 0 || len(x) != len(fails) {
		return nil, fmt.Errorf("router: %d rows and %d outcomes: at least one of each, as many of both, are needed", len(x), len(fails))
	}
	if c.Columns == 0 {
		c.Columns = len(x[0])
	}
	for i := range x {
		if len(x[i]) < c.Columns || c.Columns < 1 {
			return nil, fmt.Errorf("router: row %d has %d numbers, %d are to be read", i, len(x[i]), c.Columns)
		}
		for _, v := range x[i][:c.Columns] {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("router: row %d holds %v; only finite numbers can be learnt from", i, v)
			}
		}
	}
	if c.Hidden < 0 || !(c.L2 >= 0) {
		return nil, errors.New("router: hidden units and the L2 penalty must not be negative")
	}
	def(&c.LearningRate, 0.01)
	if c.Hidden > 0 && c.LearningRate == 0.01 {
		c.LearningRate = 0.003
	}
	def(&c.Epochs, 60)
	def(&c.Patience, 8)
	def(&c.BatchSize, 32)
	def(&c.HeldOut, 0.2)

	r := &Router{cols: c.Columns}
	r.standardise(x)
	z := make([][]float64, len(x))
	for i := range x {
		z[i] = r.row(x[i])
	}
	rng := rand.New(rand.NewPCG(c.Seed, 0x726f75746572))
	order := rng.Perm(len(x))
	held := int(c.HeldOut * float64(len(x)))
	check, learn := order[:held], order[held:]
	if held == 0 {
		check = learn // too few examples to hold any out
	}
	r.net = newNetwork(c.Columns, c.Hidden, rng)
	best := r.net.clone()
	r.loss = best.meanLoss(z, fails, check)
	opt := newAdam(r.net.params)
	grad := make([]float64, len(r.net.params))
	since := 0
	for epoch := range c.Epochs {
		rng.Shuffle(len(learn), func(i, j int) { learn[i], learn[j] = learn[j], learn[i] })
		rate := c.LearningRate * (1 - float64(epoch)/float64(c.Epochs))
		for from := 0; from < len(learn); from += c.BatchSize {
			batch := learn[from:min(from+c.BatchSize, len(learn))]
			clear(grad)
			for _, i := range batch {
				r.net.addGradient(grad, z[i], fails[i])
			}
			for j := range grad {
				grad[j] /= float64(len(batch))
			}
			r.net.addPenalty(grad, c.L2)
			opt.step(r.net.params, grad, rate)
		}
		if loss := r.net.meanLoss(z, fails, check); loss < r.loss {
			r.loss, since = loss, 0
			copy(best.params, r.net.params)
		} else if since++; since >= c.Patience {
			break
		}
	}
	r.net = best
	return r, nil
}

// Score returns the log-odds that the device fails: the larger, the sooner a
// prompt goes to the cloud.
func (r *Router) Score(x []float64) float64 {
	return r.net.logit(r.row(x), make([]float64, r.net.hidden))
}

// Loss returns the mean logistic loss on the held-out examples, in nats.
func (r *Router) Loss() float64 { return r.loss }

// standardise finds the mean and spread of each column.
func (r *Router) standardise(x [][]float64) {
	r.mean, r.scale = make([]float64, r.cols), make([]float64, r.cols)
	n := float64(len(x))
	for _, row := range x {
		for j := range r.mean {
			r.mean[j] += row[j] / n
		}
	}
	for _, row := range x {
		for j := range r.scale {
			d := row[j] - r.mean[j]
			r.scale[j] += d * d / n
		}
	}
	for j, v := range r.scale {
		r.scale[j] = 0 // a constant column says nothing
		if sd := math.Sqrt(v); sd > 1e-9*(1+math.Abs(r.mean[j])) {
			r.scale[j] = 1 / sd
		}
	}
}

func (r *Router) row(x []float64) []float64 {
	z := make([]float64, r.cols)
	for j := range z {
		z[j] = (x[j] - r.mean[j]) * r.scale[j]
	}
	return z
}

// network is logit(x) = b + w·x, or with a hidden layer b + w·tanh(A·x + a).
// params holds A by rows (hidden × in), a, w, b in this order.
type network struct {
	in, hidden int
	params     []float64
}

func newNetwork(in, hidden int, rng *rand.Rand) network {
	n := network{in: in, hidden: hidden}
	if hidden == 0 {
		n.params = make([]float64, in+1) // the loss is convex: zero is as good a start as any
		return n
	}
	n.params = make([]float64, hidden*in+hidden+hidden+1)
	for i := range hidden * in {
		n.params[i] = rng.NormFloat64() / math.Sqrt(float64(in))
	}
	w := n.params[hidden*in+hidden:]
	for i := range hidden {
		w[i] = rng.NormFloat64() / math.Sqrt(float64(hidden))
	}
	return n
}

func (n network) clone() network {
	n.params = append([]float64(nil), n.params...)
	return n
}

// logit runs the network; h receives the hidden units.
func (n network) logit(x, h []float64) float64 {
	if n.hidden == 0 {
		return dot(n.params[:n.in], x) + n.params[n.in]
	}
	a := n.params[n.hidden*n.in:]
	for k := range h {
		h[k] = math.Tanh(dot(n.params[k*n.in:(k+1)*n.in], x) + a[k])
	}
	w := a[n.hidden:]
	return dot(w[:n.hidden], h) + w[n.hidden]
}

// addGradient adds the slope of one example's logistic loss.
func (n network) addGradient(grad, x []float64, fails bool) {
	h := make([]float64, n.hidden)
	p := 1 / (1 + math.Exp(-n.logit(x, h)))
	d := p - float64(count(fails)) // d loss / d logit
	if n.hidden == 0 {
		axpy(d, x, grad[:n.in])
		grad[n.in] += d
		return
	}
	at := n.hidden * n.in
	w := n.params[at+n.hidden:]
	for k, hk := range h {
		s := d * w[k] * (1 - hk*hk)
		axpy(s, x, grad[k*n.in:(k+1)*n.in])
		grad[at+k] += s
		grad[at+n.hidden+k] += d * hk
	}
	grad[at+2*n.hidden] += d
}

// addPenalty adds the slope of l2/2·Σ w², biases left out.
func (n network) addPenalty(grad []float64, l2 float64) {
	if n.hidden == 0 {
		axpy(l2, n.params[:n.in], grad[:n.in])
		return
	}
	at := n.hidden * n.in
	axpy(l2, n.params[:at], grad[:at])
	axpy(l2, n.params[at+n.hidden:at+2*n.hidden], grad[at+n.hidden:at+2*n.hidden])
}

func (n network) meanLoss(x [][]float64, fails []bool, rows []int) float64 {
	h := make([]float64, n.hidden)
	loss := 0.0
	for _, i := range rows {
		l := n.logit(x[i], h)
		if fails[i] {
			l = -l
		}
		loss += max(l, 0) + math.Log1p(math.Exp(-math.Abs(l))) // log(1 + e^l)
	}
	return loss / float64(len(rows))
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

// axpy adds s·x to y.
func axpy(s float64, x, y []float64) {
	for i, v := range x {
		y[i] += s * v
	}
}

// adam is Adam (Kingma and Ba 2015) over one slice.
type adam struct {
	m, v []float64
	t    int
}

func newAdam(params []float64) *adam {
	return &adam{m: make([]float64, len(params)), v: make([]float64, len(params))}
}

func (a *adam) step(params, grad []float64, rate float64) {
	const b1, b2, eps = 0.9, 0.999, 1e-8
	a.t++
	c1, c2 := 1-math.Pow(b1, float64(a.t)), 1-math.Pow(b2, float64(a.t))
	for i, g := range grad {
		a.m[i] = b1*a.m[i] + (1-b1)*g
		a.v[i] = b2*a.v[i] + (1-b2)*g*g
		params[i] -= rate * (a.m[i] / c1) / (math.Sqrt(a.v[i]/c2) + eps)
	}
}

// namedRouter is a candidate of the comparison.
type namedRouter struct {
	name   string
	router *Router
}

// trainRouters fits the candidates among which validation chooses: logistic
// regressions on everything and on the task's features alone, and a small
// network, each with the L2 penalty that does best on its held-out examples.
// They are fitted side by side; the outcome does not depend on that.
func trainRouters(x [][]float64, fails []bool, fromTask int, seed uint64) ([]namedRouter, error) {
	kinds := []struct {
		name      string
		config    RouterConfig
		penalties []float64
	}{
		{"logistic regression", RouterConfig{Seed: seed}, []float64{0, 1e-3, 1e-2, 1e-1}},
		{"network with 16 hidden units", RouterConfig{Seed: seed, Hidden: 16}, []float64{1e-3, 1e-2}},
		{"logistic regression on the task's features", RouterConfig{Seed: seed, Columns: fromTask}, []float64{0, 1e-3, 1e-2, 1e-1}},
	}
	if fromTask == 0 {
		kinds = kinds[:2]
	}
	out := make([]namedRouter, len(kinds))
	errs := make([]error, len(kinds))
	var wg sync.WaitGroup
	for i, k := range kinds {
		wg.Go(func() {
			out[i].name = k.name
			for _, l2 := range k.penalties {
				k.config.L2 = l2
				r, err := TrainRouter(x, fails, k.config)
				if err != nil {
					errs[i] = err
					return
				}
				if best := out[i].router; best == nil || r.loss < best.loss {
					out[i].router = r
				}
			}
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}
