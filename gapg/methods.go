package gapg

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/gapg/report"
)

// SelfChecker is a Task with a rule that reads a response and says whether it
// looks right, without knowing the gold answer.
type SelfChecker interface {
	SelfCheck(p Prompt, response string) bool
}

// Evidence is all that a comparison of methods rests on: what each model would
// do by itself and what the cloud answers, per prompt. Compare turns it into
// figures; nothing is generated any more.
type Evidence struct {
	Budget    Budget
	Seed      uint64
	Margin    float64  // standard errors kept below the budget in calibration
	Resamples int      // of each bootstrap; 0: 2000
	Methods   []string // rows, in any order

	Validation, Test []Prompt
	// What the cloud answers, by prompt.
	ValidationCloud, TestCloud []CloudOutcome
	// Models has the records of base, task-tuning, collaboration-aware, gapg and
	// da-grpo, as far as the methods need them.
	Models map[string]Measured
	// Routers are the candidates of the router row, with scores by prompt.
	Routers []RankedBy
	// Confidence are the candidates of the confidence row.
	Confidence []ConfidenceScore
	// SelfCheck is the task's rule; nil: no such row.
	SelfCheck func(p Prompt, response string) bool
}

// Measured holds one model's records.
type Measured struct {
	Validation, Test []Record
	// Calibration of the help bias; nil: Compare makes it.
	Calibration *Calibration
	// Generated, where it is not nil, is what the model really generated for the
	// test prompts at its calibrated bias; its figures are then the method's.
	Generated []Generated
}

// RankedBy is a named score of each prompt.
type RankedBy struct {
	Name             string
	Validation, Test []float64
}

// Generated is a response that was generated at a help bias.
type Generated struct {
	Tokens     []int32 // of the device, without the marker where it asks
	Text       string
	Finish     Finish
	Verdict    Verdict
	Unresolved string // why it could not be judged
}

// Outcomes returns the model's prompts as a trained model divides them: the
// score is the log-odds by which it prefers to ask, −AskBias, so that it asks
// by itself where the score is at least 0. A response that asks even with calls
// disabled (with the marker at a place where none may begin) always asks.
func Outcomes(records []Record, answers []CloudOutcome) []Outcome {
	o := make([]Outcome, len(records))
	for i := range records {
		r := &records[i]
		o[i] = Outcome{ID: r.Prompt.ID, Device: r.Verdict.Correct && !r.Verdict.Help, Cloud: answers[i].Correct, Score: -r.AskBias(),
			TokensBeforeCall: len(r.Tokens), TokensSolution: len(r.Tokens), CostUSD: answers[i].Answer.Cost()}
		if r.Verdict.Help {
			o[i].Score = math.Inf(1)
		}
	}
	return o
}

// Rescored returns the outcomes with other scores.
func Rescored(o []Outcome, score func(i int) float64) []Outcome {
	out := slices.Clone(o)
	for i := range out {
		out[i].Score = score(i)
	}
	return out
}

// upfront returns the outcomes of a method that decides before any reasoning.
func upfront(o []Outcome) []Outcome {
	for i := range o {
		o[i].TokensBeforeCall = 0
	}
	return o
}

// oracleScore is 1 where only the cloud is right, −1 where only the device is.
func oracleScore(o *Outcome) float64 {
	return float64(count(o.Cloud) - count(o.Device))
}

// Compare makes the table.
func Compare(ev Evidence) (*Result, error) {
	c, err := newComparison(ev)
	if err != nil {
		return nil, err
	}
	for _, name := range AllMethods() {
		if !slices.Contains(ev.Methods, name) {
			continue
		}
		row, err := c.row(name)
		if err != nil {
			return nil, err
		}
		if row != nil {
			c.rows = append(c.rows, row)
		}
	}
	if len(c.rows) == 0 {
		return nil, errors.New("comparison: no methods")
	}
	return c.result()
}

// comparison is a Compare under way, over the prompts that count.
type comparison struct {
	ev         Evidence
	unresolved int
	val, test  map[string][]Outcome // by model
	rows       []*methodRow
	res        *Result
}

// methodRow is one method on its way into the table.
type methodRow struct {
	name      string
	model     string    // whose answers the device gives; "" for the cloud
	test      []Outcome // with the method's scores
	ranked    bool      // the scores mean something: the row has a curve
	asked     []bool
	denied    []bool
	natural   *float64 // share that asks without calibration
	mostCalls int      // more of them do not help: the oracle's gains
	calibrate *Calibration
	generated bool // the answers are those of Measured.Generated
}

// newComparison drops the prompts that some model or the cloud left
// unresolved: every row is over the same prompts.
func newComparison(ev Evidence) (*comparison, error) {
	c := &comparison{val: map[string][]Outcome{}, test: map[string][]Outcome{}, res: &Result{
		Seed: ev.Seed, Budget: ev.Budget, Details: map[string]*Detail{}}}
	if len(ev.Test) == 0 {
		return nil, errors.New("comparison: no test prompts")
	}
	if len(ev.TestCloud) != len(ev.Test) || len(ev.ValidationCloud) != len(ev.Validation) {
		return nil, errors.New("comparison: the cloud's answers and the prompts differ in number")
	}
	models := map[string]Measured{}
	keepVal, keepTest := resolved(ev.ValidationCloud), resolved(ev.TestCloud)
	for name, m := range ev.Models {
		if len(m.Test) != len(ev.Test) || len(m.Validation) != len(ev.Validation) || m.Generated != nil && len(m.Generated) != len(ev.Test) {
			return nil, fmt.Errorf("comparison: the records of %s and the prompts differ in number", name)
		}
		for i := range m.Validation {
			keepVal[i] = keepVal[i] && m.Validation[i].Unresolved == ""
		}
		for i := range m.Test {
			keepTest[i] = keepTest[i] && m.Test[i].Unresolved == "" && (m.Generated == nil || m.Generated[i].Unresolved == "")
		}
	}
	for name, m := range ev.Models {
		m.Validation, m.Test = pick(m.Validation, keepVal), pick(m.Test, keepTest)
		if m.Generated != nil {
			m.Generated = pick(m.Generated, keepTest)
		}
		models[name] = m
	}
	n := len(ev.Test)
	routers := slices.Clone(ev.Routers)
	for i, r := range routers {
		routers[i] = RankedBy{r.Name, pick(r.Validation, keepVal), pick(r.Test, keepTest)}
	}
	ev.Models, ev.Routers = models, routers
	ev.Validation, ev.Test = pick(ev.Validation, keepVal), pick(ev.Test, keepTest)
	ev.ValidationCloud, ev.TestCloud = pick(ev.ValidationCloud, keepVal), pick(ev.TestCloud, keepTest)
	if len(ev.Test) == 0 {
		return nil, errors.New("comparison: no test prompt was resolved by every model and the cloud")
	}
	for name, m := range models {
		c.val[name], c.test[name] = Outcomes(m.Validation, ev.ValidationCloud), Outcomes(m.Test, ev.TestCloud)
	}
	c.ev = ev
	c.res.TestPrompts, c.res.ValidationPrompts, c.res.Unresolved = len(ev.Test), len(ev.Validation), n-len(ev.Test)
	return c, nil
}

func resolved(answers []CloudOutcome) []bool {
	keep := make([]bool, len(answers))
	for i := range answers {
		keep[i] = answers[i].Asked
	}
	return keep
}

func pick[T any](v []T, keep []bool) []T {
	out := make([]T, 0, len(v))
	for i := range v {
		if keep[i] {
			out = append(out, v[i])
		}
	}
	return out
}

// need returns the outcomes of a model, or an error that names it.
func (c *comparison) need(model, row string) (val, test []Outcome, err error) {
	if c.test[model] == nil {
		return nil, nil, fmt.Errorf("comparison: the method %s needs the model %s", row, model)
	}
	return c.val[model], c.test[model], nil
}

// row makes a method's row; nil where the task has no such method.
func (c *comparison) row(name string) (*methodRow, error) {
	none := make([]bool, len(c.ev.Test))
	switch name {
	case MethodBase, MethodTaskTuning:
		_, test, err := c.need(name, name)
		return &methodRow{name: name, model: name, test: test, asked: none}, err
	case MethodCloud:
		test := make([]Outcome, len(c.ev.Test))
		all := make([]bool, len(test))
		for i := range test {
			a := &c.ev.TestCloud[i]
			test[i] = Outcome{ID: c.ev.Test[i].ID, Cloud: a.Correct, CostUSD: a.Answer.Cost()}
			all[i] = true
		}
		return &methodRow{name: name, test: test, asked: all}, nil
	case MethodBaseHelpBias, MethodCollaborationAware, MethodGAPG, MethodDAGRPO:
		model := name
		if name == MethodBaseHelpBias {
			model = MethodBase
		}
		val, test, err := c.need(model, name)
		if err != nil {
			return nil, err
		}
		return c.trained(name, model, val, test), nil
	}

	val, test, err := c.need(MethodTaskTuning, name)
	if err != nil {
		return nil, err
	}
	tuned := c.ev.Models[MethodTaskTuning]
	row := &methodRow{name: name, model: MethodTaskTuning, ranked: true}
	switch name {
	case MethodNaive:
		// A share that nothing decides needs no calibration: exactly the budget.
		domain := fmt.Sprintf("naive offloading, seed %d", c.ev.Seed)
		row.test = upfront(Rescored(test, func(i int) float64 { return float64(hash64(domain, test[i].ID)>>11) / (1 << 53) }))
		row.asked = TopCalls(row.test, c.ev.Budget.Calls(len(test)))
	case MethodOracle:
		row.test = upfront(Rescored(test, func(i int) float64 { return oracleScore(&test[i]) }))
		row.limitToGains()
		row.asked = TopCalls(row.test, min(c.ev.Budget.Calls(len(test)), row.mostCalls))
	case MethodRouter:
		if len(c.ev.Routers) == 0 {
			return nil, errors.New("comparison: the method router needs router scores")
		}
		best := c.best(val, len(c.ev.Routers), func(k, i int) float64 { return c.ev.Routers[k].Validation[i] })
		r := c.ev.Routers[best]
		c.res.Router = r.Name
		row.test = upfront(Rescored(test, func(i int) float64 { return r.Test[i] }))
		c.atBudget(row, val, r.Validation)
	case MethodConfidence:
		if len(c.ev.Confidence) == 0 {
			return nil, errors.New("comparison: the method confidence needs confidence scores")
		}
		scores := make([][]float64, len(c.ev.Confidence))
		for k, s := range c.ev.Confidence {
			for i := range tuned.Validation {
				scores[k] = append(scores[k], s.Score(&tuned.Validation[i]))
			}
		}
		best := c.best(val, len(scores), func(k, i int) float64 { return scores[k][i] })
		s := c.ev.Confidence[best]
		c.res.Confidence = s.Name
		row.test = Rescored(test, func(i int) float64 { return s.Score(&tuned.Test[i]) })
		c.atBudget(row, val, scores[best])
	case MethodSelfCheck:
		if c.ev.SelfCheck == nil {
			return nil, nil
		}
		// The rule says yes or no; among equals a hash of the prompt decides.
		score := func(r *Record) float64 {
			tie := float64(hash64("self-check", r.Prompt.ID)>>11) / (1 << 53)
			if c.ev.SelfCheck(r.Prompt, r.Text) {
				return tie - 1
			}
			return tie
		}
		var scores []float64
		for i := range tuned.Validation {
			scores = append(scores, score(&tuned.Validation[i]))
		}
		row.test = Rescored(test, func(i int) float64 { return score(&tuned.Test[i]) })
		row.natural = new(shareOf(wants(row.test, 0)))
		c.calibrate(row, val, scores)
		row.deny(wants(row.test, row.calibrate.Threshold), c.ev.Budget)
	default:
		return nil, fmt.Errorf("comparison: unknown method %q", name)
	}
	return row, nil
}

// trained makes the row of a model that decides by itself, moved to the budget
// by its help bias.
func (c *comparison) trained(name, model string, val, test []Outcome) *methodRow {
	row := &methodRow{name: name, model: model, ranked: true, test: slices.Clone(test)}
	row.natural = new(shareOf(wants(test, 0)))
	m := c.ev.Models[model]
	if row.calibrate = m.Calibration; row.calibrate == nil {
		c.calibrate(row, val, scoresOf(val))
	}
	bias := -row.calibrate.Threshold
	for i := range row.test {
		row.test[i].TokensBeforeCall, _ = m.Test[i].AsksAt(bias)
	}
	asking := wants(row.test, row.calibrate.Threshold)
	if m.Generated != nil && name == model {
		row.generated = true
		c.res.ShortcutMismatches += mismatches(m, row.test, asking)
		for i, g := range m.Generated {
			asking[i] = g.Verdict.Help
			if g.Verdict.Help {
				row.test[i].TokensBeforeCall = len(g.Tokens)
				continue
			}
			row.test[i].Device, row.test[i].TokensSolution = g.Verdict.Correct, len(g.Tokens)
		}
	}
	row.deny(asking, c.ev.Budget)
	return row
}

// mismatches counts the prompts where generating differed from what the records
// say: another decision, or another answer.
func mismatches(m Measured, o []Outcome, asking []bool) int {
	n := 0
	for i, g := range m.Generated {
		want := m.Test[i].Tokens
		if asking[i] {
			want = want[:o[i].TokensBeforeCall]
		}
		if g.Verdict.Help != asking[i] || !slices.Equal(g.Tokens, want) {
			n++
		}
	}
	return n
}

// best returns the candidate that ranks the validation prompts best.
func (c *comparison) best(val []Outcome, candidates int, score func(k, i int) float64) int {
	ranked := make([][]Outcome, candidates)
	for k := range ranked {
		ranked[k] = Rescored(val, func(i int) float64 { return score(k, i) })
	}
	return bestRanking(ranked, c.ev.Budget)
}

// calibrate chooses the row's threshold on validation scores.
func (c *comparison) calibrate(row *methodRow, val []Outcome, scores []float64) {
	ranked := Rescored(val, func(i int) float64 { return scores[i] })
	row.calibrate = new(Calibrate(ranked, c.ev.Budget, c.ev.Margin))
}

// atBudget calibrates the row and applies its threshold and the hard budget.
func (c *comparison) atBudget(row *methodRow, val []Outcome, scores []float64) {
	c.calibrate(row, val, scores)
	row.deny(wants(row.test, row.calibrate.Threshold), c.ev.Budget)
}

// deny applies the hard budget to what a method asks for.
func (r *methodRow) deny(asking []bool, b Budget) {
	r.asked, _ = HardBudget(asking, b)
	r.denied = make([]bool, len(asking))
	for i := range asking {
		r.denied[i] = asking[i] && !r.asked[i]
	}
}

// limitToGains keeps the oracle from calls that gain nothing.
func (r *methodRow) limitToGains() {
	r.mostCalls = 0
	for i := range r.test {
		r.mostCalls += count(r.test[i].Score > 0)
	}
}

func scoresOf(o []Outcome) []float64 {
	s := make([]float64, len(o))
	for i := range o {
		s[i] = o[i].Score
	}
	return s
}

func shareOf(v []bool) float64 {
	n := 0
	for _, b := range v {
		n += count(b)
	}
	return float64(n) / float64(max(1, len(v)))
}

// result fills in the table.
func (c *comparison) result() (*Result, error) {
	res := c.res
	c.gap()
	opt := report.BootstrapOptions{Resamples: c.ev.Resamples, Seed: c.ev.Seed}
	res.Reference = referenceOf(c.ev.Methods)
	var reference *methodRow
	for _, r := range c.rows {
		if r.name == res.Reference {
			reference = r
			if r.generated {
				res.Transcripts = c.transcripts(r)
			}
		}
	}
	for _, r := range c.rows {
		f := Measure(r.test, r.asked)
		for i := range r.denied {
			f.Denied += count(r.denied[i])
		}
		d := &Detail{Figures: f, Calibration: r.calibrate, Predictions: c.predictions(r)}
		res.Details[r.name] = d
		m := report.Method{Name: r.name, OverallAccuracy: f.Overall, CloudRatio: f.Ratio, NaturalCloudRatio: r.natural,
			PGR: finite(PGR(f.Overall, res.WeakAcc, res.StrongAcc))}
		ci, err := report.BootstrapMean(values(r.test, r.asked), opt)
		if err != nil {
			return nil, err
		}
		m.CI95 = [2]float64{ci.Lo, ci.Hi}
		m.CostPer1000 = finite(f.CostPer1000)
		if r.model != "" {
			m.DeviceAccuracy, m.SoloAccuracy, m.TokensSolution = finite(f.Device), finite(f.Solo), finite(f.TokensSolution)
		}
		if r.ranked {
			m.HelpPrecision, m.HelpRecall, m.HarmfulCalls = finite(f.HelpPrecision), finite(f.HelpRecall), finite(f.Harmful)
			m.TokensBeforeCall = finite(f.TokensBeforeCall)
			curve := NewCurve(r.test)
			m.APGR = finite(curve.APGR(res.WeakAcc, res.StrongAcc))
			if v, ok := curve.CPT(0.5, res.WeakAcc, res.StrongAcc); ok {
				d.CPT50 = &v
			}
			if v, ok := curve.CPT(0.8, res.WeakAcc, res.StrongAcc); ok {
				d.CPT80 = &v
			}
			res.Curves = append(res.Curves, report.BudgetCurve{Method: r.name, Points: curve.Points(100), PGR: m.PGR, APGR: m.APGR})
		}
		if reference != nil && r != reference {
			if m.Difference, err = c.against(reference, r, opt); err != nil {
				return nil, err
			}
		}
		res.Methods = append(res.Methods, m)
	}
	return res, nil
}

// gap finds the accuracies that PGR stands on: task-tuning's alone (the base's
// where there is none, else that of the first model there is) and the cloud's.
func (c *comparison) gap() {
	right := 0
	for i := range c.ev.TestCloud {
		right += count(c.ev.TestCloud[i].Correct)
	}
	c.res.Strong, c.res.StrongAcc = MethodCloud, float64(right)/float64(len(c.ev.TestCloud))
	for _, name := range []string{MethodTaskTuning, MethodBase, MethodGAPG, MethodDAGRPO, MethodCollaborationAware} {
		if o := c.test[name]; o != nil {
			c.res.Weak, c.res.WeakAcc = name, NewCurve(o).Accuracy[0]
			return
		}
	}
}

// against compares r with the reference at the reference's number of calls,
// where r has a ranking that can be cut anywhere, and records the comparison.
func (c *comparison) against(ref, r *methodRow, opt report.BootstrapOptions) (*report.Interval, error) {
	asked, what := r.asked, "overall accuracy"
	if r.ranked {
		calls := 0
		for _, a := range ref.asked {
			calls += count(a)
		}
		k := calls
		if r.name == MethodOracle {
			k = min(k, r.mostCalls)
		}
		asked, what = TopCalls(r.test, k), fmt.Sprintf("overall accuracy with %d calls each", calls)
	}
	mine, theirs := values(r.test, asked), values(ref.test, ref.asked)
	d, err := report.BootstrapPaired(mine, theirs, opt)
	if err != nil {
		return nil, err
	}
	c.res.Comparisons = append(c.res.Comparisons, report.Comparison{A: ref.name, B: r.name, Metric: what, Prompts: len(mine),
		Difference: report.Interval{Mean: -d.Mean, Lo: -d.Hi, Hi: -d.Lo}})
	return &d, nil
}

// predictions lists what became of each test prompt.
func (c *comparison) predictions(r *methodRow) []Prediction {
	p := make([]Prediction, len(r.test))
	for i := range p {
		o := &r.test[i]
		p[i] = Prediction{Method: r.name, ID: o.ID, Asked: r.asked[i], Correct: o.right(r.asked[i]), DeviceCorrect: o.Device,
			CloudCorrect: o.Cloud, Tokens: o.TokensSolution, Score: o.Score}
		if r.denied != nil {
			p[i].Denied = r.denied[i]
		}
		if r.model != "" {
			m := c.ev.Models[r.model]
			p[i].Answer = m.Test[i].Verdict.Answer
			if r.generated && !p[i].Denied {
				p[i].Answer = m.Generated[i].Verdict.Answer
			}
		}
		if r.asked[i] {
			p[i].Answer, p[i].Tokens = c.ev.TestCloud[i].Answer.Text, o.TokensBeforeCall
		}
	}
	return p
}

func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}
