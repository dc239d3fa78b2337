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
	Op   string // the operation or contract, e.g. "Linear"
	Name string // the case, e.g. "forward/T=3,K=17,N=5"
	run  func(e *env) error
}

// Checks returns the whole suite.
func Checks() []Check {
	return slices.Concat(
		memoryChecks(), programChecks(), gatherChecks(), normChecks(), linearChecks(), ropeChecks(),
		swigluChecks(), attentionChecks(), attentionBackwardChecks(), decodeChecks(), logprobChecks(),
		sampleChecks(), samplingStatisticsChecks(), optimizerChecks(), contractChecks(), isolationChecks(), misuseChecks(),
	)
}

// Run puts a backend through the whole suite. open is called once for each
// operation; Run closes what it returns.
func Run(t *testing.T, open func(t testing.TB) engine.Backend) {
	byOp := map[string][]Check{}
	var ops []string
	for _, c := range Checks() {
		if byOp[c.Op] == nil {
			ops = append(ops, c.Op)
		}
		byOp[c.Op] = append(byOp[c.Op], c)
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
					used, err := c.execute(b)
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
	_, err := c.execute(b)
	return err
}

func (c Check) execute(b engine.Backend) (used budget, err error) {
	e := newEnv(b)
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
