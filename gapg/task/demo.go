package task

import (
	"errors"
	"fmt"
	"strings"
)

// The marks of a demonstration's trace. An attempt is followed by one of them.
//
//	trace    = "<think>" { attempt ";" } ending
//	ending   = attempt "!" "</think><answer>" expression "</answer>"    solved
//	         | attempt "?" "</think><answer>" expression "</answer>"    gives up, answers with its last attempt
//	         | attempt "?" Marker                                       gives up, asks
//	         | Marker                                                   asks early
//	attempt  = step { "," step }
//	step     = number op number "=" number
//
// That an attempt failed is written down before anything follows from it:
// without that step a small model cannot tell success from failure at its last
// attempt, and asking for help dies out in training.
const (
	MarkSolved = "!" // this attempt reaches the target
	MarkRetry  = ";" // it does not; another follows
	MarkGiveUp = "?" // it does not; no other follows
)

// Ending says how a demonstration ends.
type Ending int

// The endings.
const (
	EndSolved  Ending = iota // with a right answer
	EndGivenUp               // after a failed attempt: with a wrong answer, or by asking (DemoConfig.Help)
	EndAsks                  // by asking, without a last word on the attempt before
)

// DemoKind is one shape of demonstration and its relative frequency.
type DemoKind struct {
	// Failures is the number of failed attempts that another attempt or the
	// marker follows. EndGivenUp has one more failed attempt, its last.
	Failures int
	Ending   Ending
	Weight   float64
}

// DemoConfig says what demonstrations show.
type DemoConfig struct {
	Kinds []DemoKind

	// Help is the probability that a demonstration that has given up asks for
	// help instead of answering.
	Help float64

	// TrainLaterOperands trains the operands of a wrong attempt's later steps too.
	// Of the first step they are never trained: arithmetic must be honest, but
	// nobody should learn to choose wrong operands.
	TrainLaterOperands bool
}

// DefaultDemo returns the mixture of the built-in demonstration.
func DefaultDemo() DemoConfig {
	return DemoConfig{
		// Giving up after one failure is so frequent (0.36 of 0.60 that fail first)
		// that the base, decoded greedily, does it: that trying on pays is what
		// training has to find. Help stays below one half, so that the base does not
		// ask by itself.
		Kinds: []DemoKind{
			{0, EndSolved, 0.39},
			{1, EndSolved, 0.08},
			{2, EndSolved, 0.06},
			{0, EndGivenUp, 0.36},
			{1, EndGivenUp, 0.04},
			{2, EndGivenUp, 0.05},
			{0, EndAsks, 0.01},
			{1, EndAsks, 0.01},
		},
		Help: 0.4,
	}
}

// Validate reports the first field that cannot be meant.
func (c DemoConfig) Validate() error {
	sum := 0.0
	for _, k := range c.Kinds {
		if k.Failures < 0 || k.Failures > 16 || k.Ending < EndSolved || k.Ending > EndAsks {
			return fmt.Errorf("demonstrations: kind %+v: failures must be from 0 to 16 and the ending a known one", k)
		}
		if !(k.Weight >= 0) || k.Weight > 1e9 {
			return fmt.Errorf("demonstrations: weight %v: give a number from 0 up", k.Weight)
		}
		sum += k.Weight
	}
	if sum == 0 {
		return errors.New("demonstrations: no kind has a weight")
	}
	if !(c.Help >= 0 && c.Help <= 1) {
		return fmt.Errorf("demonstrations: help %v: it is a probability", c.Help)
	}
	return nil
}

// Span is a stretch of a demonstration's response.
type Span struct {
	Text  string
	Train bool // whether its tokens count in the loss
}

// Demo is one demonstration. The end token that follows the response counts in
// the loss, the prompt does not.
type Demo struct {
	Problem Countdown
	Spans   []Span // the response in order; no tag or marker is cut by a span's end
	Ending  Ending
	Asks    bool // ends in the marker
	Tries   int  // attempts shown
}

// Response is the whole response.
func (d *Demo) Response() string {
	var b strings.Builder
	for _, s := range d.Spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

// Mask returns, for each byte of Response, whether it counts in the loss. All
// bytes of a tag agree.
func (d *Demo) Mask() []bool {
	var m []bool
	for _, s := range d.Spans {
		for range len(s.Text) {
			m = append(m, s.Train)
		}
	}
	return m
}

func (d *Demo) put(text string, train bool) {
	if n := len(d.Spans); n > 0 && d.Spans[n-1].Train == train {
		d.Spans[n-1].Text += text
		return
	}
	d.Spans = append(d.Spans, Span{text, train})
}

// failed writes an attempt of which only results and delimiters are trained, or
// also the later operands.
func (d *Demo) failed(a Attempt, laterOperands bool) {
	for i, st := range a.Expr.Steps() {
		if i > 0 {
			d.put(",", true)
		}
		d.put(st.A.String()+string(st.Op)+st.B.String(), laterOperands && i > 0)
		d.put("="+st.Value.String(), true)
	}
	d.Tries++
}

// Demonstrate writes demonstration number index of a seed for p, which must be of
// the universe. It depends on its arguments alone. Failed attempts are drawn
// uniformly from the attempts that miss the target, none twice; where too few
// exist, fewer are shown. The solution is drawn uniformly from those that hit it.
func (u *Universe) Demonstrate(p Countdown, c DemoConfig, seed, index uint64) (Demo, error) {
	if err := c.Validate(); err != nil {
		return Demo{}, err
	}
	var right, wrong []Attempt
	for _, a := range u.Attempts(p) {
		if a.Value == Int(int64(p.Target)) {
			right = append(right, a)
		} else {
			wrong = append(wrong, a)
		}
	}
	if len(right) == 0 {
		return Demo{}, fmt.Errorf("demonstrations: %v is not a problem of the universe", p)
	}

	r := newStream(purposeDemo, seed, index)
	weights := make([]float64, len(c.Kinds))
	for i, k := range c.Kinds {
		weights[i] = k.Weight
	}
	kind := c.Kinds[r.pick(weights)]
	fails := kind.Failures
	if kind.Ending == EndGivenUp {
		fails++
	}
	fails = min(fails, len(wrong))
	if kind.Ending == EndGivenUp && fails == 0 {
		kind.Ending = EndSolved // nothing can go wrong with these numbers
	}

	d := Demo{Problem: p, Ending: kind.Ending}
	d.put(ThinkOpen, true)
	var last Attempt
	for i := range fails {
		j := i + r.intn(len(wrong)-i)
		wrong[i], wrong[j] = wrong[j], wrong[i]
		last = wrong[i]
		d.failed(last, c.TrainLaterOperands)
		if i == fails-1 && kind.Ending == EndGivenUp {
			d.put(MarkGiveUp, true)
		} else {
			d.put(MarkRetry, true)
		}
	}
	switch kind.Ending {
	case EndSolved:
		last = right[r.intn(len(right))]
		d.put(last.Trace()+MarkSolved, true)
		d.Tries++
	case EndGivenUp:
		d.Asks = r.float() < c.Help
	case EndAsks:
		d.Asks = true
	}
	if d.Asks {
		d.put(Marker, true)
	} else {
		d.put(ThinkClose+AnswerOpen+last.Expr.Bracketed()+AnswerClose, true)
	}
	return d, nil
}

// Demonstration draws a problem of a split and demonstrates it: the
// training example number index of a seed.
func (u *Universe) Demonstration(s Split, c DemoConfig, seed, index uint64) (Demo, error) {
	p, err := u.Sample(s, seed, index)
	if err != nil {
		return Demo{}, err
	}
	return u.Demonstrate(p, c, seed, index)
}
