package enginetest

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/updraft-ml/updraft/engine"
)

// Check is one case of the suite.
type Check struct {
	Op      string       // the operation or contract, e.g. "Linear"
	Name    string       // the case, e.g. "bias/T=3,K=17,N=5" or, at another precision, "BF16/bias/T=3,K=17,N=5"
	Weights engine.DType // the precision that it needs of a backend

	kind   string // what it tests, at whatever size
	work   int    // about how many operations it takes; 0: few
	layout int    // of its tensors
	run    func(e *env) error
}

// list is a list of checks under construction.
type list []Check

// add appends a check of one kind at one shape, which takes about work
// operations. i chooses a layout, so that every list of shapes meets every
// layout without multiplying the number of cases.
func (l *list) add(op, kind, shape string, work, i int, run func(*env) error) {
	name := shape
	if kind != "" {
		name = kind + "/" + shape
	}
	l.named(op, kind, name, work, i, run)
}

// named is add for a name that does not begin with the kind.
func (l *list) named(op, kind, name string, work, i int, run func(*env) error) {
	i %= len(layouts)
	*l = append(*l, Check{Op: op, Name: name, kind: kind, work: work, layout: i, run: func(e *env) error {
		e.layout = layouts[i]
		return run(e)
	}})
}

// one appends the only check of a kind.
func (l *list) one(op, name string, run func(*env) error) {
	*l = append(*l, Check{Op: op, Name: name, kind: name, run: run})
}

// Checks returns the whole suite: everything at F32, and once more at BF16 what
// has matrices or activations.
func Checks() []Check {
	checks := slices.Concat(memoryChecks(), scatterChecks(), sampleChecks(), samplingStatisticsChecks(), sampleContractChecks(),
		optimizerChecks(), misuseChecks())
	for _, w := range []engine.DType{engine.F32, engine.BF16} {
		at := slices.Concat(programChecks(), gatherChecks(w), normChecks(w), linearChecks(w), ropeChecks(),
			swigluChecks(), linearSwiGLUChecks(), attentionChecks(), attentionBackwardChecks(), decodeChecks(), logprobChecks(),
			contractChecks(), isolationChecks(), precisionMisuseChecks(w))
		for i := range at {
			if at[i].Weights = w; w != engine.F32 {
				at[i].Name = w.String() + "/" + at[i].Name
			}
		}
		checks = append(checks, at...)
	}
	return checks
}

// Option changes what Run does.
type Option func(*options)

type options struct {
	thin bool
	only map[string]bool
}

// Thin is for backends that are very slow, an emulated device: of each kind of
// check it leaves one or two shapes for each layout, and makes the loops inside
// checks shorter. No kind of check is left out.
func Thin() Option { return func(o *options) { o.thin = true } }

// Only leaves the checks of some operations, named as the suite names them: for a
// second run on a device that computes those in another way.
func Only(ops ...string) Option {
	return func(o *options) {
		o.only = map[string]bool{}
		for _, op := range ops {
			o.only[op] = true
		}
	}
}

// thinWork is how many operations a check may take that Thin leaves.
const thinWork = 1 << 15

// thinned keeps, of every kind and layout, the largest check up to thinWork, and
// those that take next to nothing; and the smallest of a kind that has none.
func thinned(checks []Check) (kept []Check) {
	type key struct {
		op, kind string
		weights  engine.DType
	}
	type place struct {
		key
		layout int
	}
	largest, smallest := map[place]int{}, map[key]int{}
	for i, c := range checks {
		k := key{c.Op, c.kind, c.Weights}
		if j, ok := smallest[k]; !ok || c.work < checks[j].work {
			smallest[k] = i
		}
		at := place{k, c.layout}
		if j, ok := largest[at]; c.work <= thinWork && (!ok || c.work > checks[j].work) {
			largest[at] = i
		}
	}
	for i, c := range checks {
		k := key{c.Op, c.kind, c.Weights}
		if j, ok := largest[place{k, c.layout}]; c.work == 0 || ok && j == i || smallest[k] == i {
			kept = append(kept, c)
		}
	}
	return kept
}

// Run puts a backend through the whole suite, at every precision that it
// supports. open is called once for each operation; Run closes what it returns.
func Run(t *testing.T, open func(t testing.TB) engine.Backend, opts ...Option) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	checks := Checks()
	if o.thin {
		checks = thinned(checks)
	}
	supported := precisionsOf(t, open)
	byOp := map[string][]Check{}
	var ops []string
	for _, c := range checks {
		if !supported[c.Weights] || o.only != nil && !o.only[c.Op] {
			continue
		}
		if byOp[c.Op] == nil {
			ops = append(ops, c.Op)
		}
		byOp[c.Op] = append(byOp[c.Op], c)
	}
	for op := range o.only {
		if byOp[op] == nil {
			t.Errorf("the suite has no checks of %s", op)
		}
	}
	for _, op := range ops {
		t.Run(op, func(t *testing.T) {
			b := open(t)
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			var worst budget
			for _, c := range byOp[op] {
				t.Run(c.Name, func(t *testing.T) {
					used, err := c.execute(b, o.thin)
					if err != nil {
						t.Error(err)
					}
					if used.percent > worst.percent {
						worst = used
						worst.by += " of " + c.Name
					}
				})
			}
			if worst.percent > 0 {
				t.Logf("at most %.0f%% of a tolerance used, by %s", worst.percent, worst.by)
			}
		})
	}
}

// budget is the largest share of a tolerance that an element has used.
type budget struct {
	percent float64
	by      string
}

// Run carries the case out on b. A panic is returned as an error.
func (c Check) Run(b engine.Backend) error {
	_, err := c.execute(b, false)
	return err
}

// precisionsOf asks a backend which types of weights it supports.
func precisionsOf(t *testing.T, open func(t testing.TB) engine.Backend) map[engine.DType]bool {
	b := open(t)
	defer func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	supported := map[engine.DType]bool{}
	for _, w := range []engine.DType{engine.F32, engine.BF16} {
		_, err := b.Precision(w)
		supported[w] = err == nil
	}
	return supported
}

func (c Check) execute(b engine.Backend, thin bool) (used budget, err error) {
	e := newEnv(b, c.Weights, thin)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		used = budget{e.used, e.usedBy}
		e.free()
	}()
	if err := c.run(e); err != nil {
		return used, err
	}
	return used, e.err
}

// sortChecks puts checks that come from a map into one order.
func sortChecks(checks []Check) {
	slices.SortFunc(checks, func(a, b Check) int { return strings.Compare(a.Name, b.Name) })
}
