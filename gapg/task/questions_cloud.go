package task

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task/answer"
)

// SimulatedAnswers completes a simulated cloud that answers questions of any data
// set from their gold answers: rightly by repeating them, wrongly by an answer of
// the same kind that is not right. What c says of accuracy, latency and price is
// kept.
func SimulatedAnswers(c cloud.SimulatedConfig) (*cloud.Simulated, error) {
	c.Right = func(q cloud.Question) (string, error) {
		g, err := goldQuestion(q)
		if err != nil {
			return "", err
		}
		return "The answer is " + g.mark(g.Answer), nil
	}
	c.Wrong = func(q cloud.Question) (string, error) {
		g, err := goldQuestion(q)
		if err != nil {
			return "", err
		}
		return g.wrongAnswer(q.ID), nil
	}
	return cloud.NewSimulated(c)
}

func goldQuestion(q cloud.Question) (Question, error) {
	g, ok := q.Gold.(Question)
	if !ok || g.Answer == "" {
		return g, errors.New("a simulated cloud knows no answer to a question without a gold answer")
	}
	return g, nil
}

// mark writes an answer where Verifier.Answer finds it.
func (g Question) mark(s string) string {
	if g.Verifier == VerifyExact {
		return AnswerOpen + s + AnswerClose
	}
	return `\boxed{` + s + "}"
}

// wrongAnswer is a plausible answer that is not right: another number such as
// people slip to, another letter, the gold with one of its numbers changed. It is
// fixed by the question.
func (g Question) wrongAnswer(id string) string {
	r := Hash64("wrong answer", id)
	var candidates []string
	switch {
	case g.Verifier == VerifyChoice:
		for i := range 4 {
			candidates = append(candidates, string(rune('A'+(int(r%4)+i)%4)))
		}
	case g.Verifier == VerifyNumeric:
		n, _ := answer.Number(g.Answer)
		for i := range 6 {
			candidates = append(candidates, decimalText(slip(n, int((r+uint64(i))%6))))
		}
	default:
		candidates = append(slips(g.Answer, r), opposite[strings.ToLower(strings.Trim(g.Answer, " ."))], `-`+g.Answer)
	}
	for _, c := range candidates {
		if c != "" && !g.Verifier.Same(c, g.Answer) {
			return "The answer is " + g.mark(c)
		}
	}
	return "I could not determine the answer."
}

// slip is a number near n, or one that a slip of the pen or of reasoning gives.
func slip(n *big.Rat, kind int) *big.Rat {
	if n == nil {
		n = new(big.Rat)
	}
	out := new(big.Rat)
	switch kind {
	case 0:
		return out.Add(n, big.NewRat(1, 1))
	case 1:
		return out.Sub(n, big.NewRat(1, 1))
	case 2:
		return out.Mul(n, big.NewRat(2, 1))
	case 3:
		return out.Quo(n, big.NewRat(2, 1))
	case 4:
		return out.Mul(n, big.NewRat(10, 1))
	}
	return out.Add(n, big.NewRat(10, 1))
}

// decimalText writes a number as people do: a decimal where it ends soon, else a
// fraction.
func decimalText(n *big.Rat) string {
	if n.IsInt() {
		return n.RatString()
	}
	for digits := range 8 {
		if s := n.FloatString(digits); equalRat(s, n) {
			return s
		}
	}
	return n.RatString()
}

func equalRat(s string, n *big.Rat) bool {
	r, ok := new(big.Rat).SetString(s)
	return ok && r.Cmp(n) == 0
}

// slips are copies of an answer with one of its whole numbers one larger,
// beginning with a number that r chooses.
func slips(s string, r uint64) []string {
	var places [][2]int
	for i := 0; i < len(s); {
		n := 0
		for i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '9' {
			n++
		}
		if n > 0 && n < 10 {
			places = append(places, [2]int{i, i + n})
		}
		i += max(n, 1)
	}
	var out []string
	for k := range places {
		p := places[(int(r%uint64(len(places)))+k)%len(places)]
		v, err := strconv.Atoi(s[p[0]:p[1]])
		if err != nil {
			continue
		}
		out = append(out, fmt.Sprintf("%s%d%s", s[:p[0]], v+1, s[p[1]:]))
	}
	return out
}

// opposite are words whose contrary is the plausible slip.
var opposite = map[string]string{
	"yes": "no", "no": "yes", "true": "false", "false": "true", "even": "odd", "odd": "even", "left": "right", "right": "left",
	"increasing": "decreasing", "decreasing": "increasing", "positive": "negative", "negative": "positive",
}
