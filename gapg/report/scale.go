package report

import (
	"math"
	"strconv"
	"strings"
)

// Unit says how the values of an axis are printed.
type Unit int

// The units of an axis.
const (
	Number  Unit = iota // as it is
	Percent             // a share in [0, 1], printed as percent
	Decades             // a base-10 logarithm, printed as the number: an axis of powers of ten
)

// scale maps a finite interval to pixels. Its ticks are round numbers inside
// the interval. hi > lo always.
type scale struct {
	lo, hi float64
	from   float64 // pixel of lo
	to     float64 // pixel of hi
	ticks  []float64
	step   float64
	unit   Unit
}

// span is the extent of the finite values seen so far.
type span struct {
	lo, hi float64
	any    bool
}

func (s *span) add(values ...float64) {
	for _, v := range values {
		if notFinite(v) {
			continue
		}
		v = max(min(v, maxCoord), -maxCoord)
		if math.Abs(v) < minCoord {
			v = 0
		}
		if !s.any {
			s.lo, s.hi, s.any = v, v, true
			continue
		}
		s.lo, s.hi = min(s.lo, v), max(s.hi, v)
	}
}

// What is drawn lies between these: differences do not overflow, and steps of
// a scale are no denormals.
const (
	maxCoord = 1e300
	minCoord = 1e-280
)

// newScale makes a scale over s with about n ticks, widened to round numbers
// if nice. An empty span gives [0, 1], a constant one gets room on both sides.
func newScale(s span, unit Unit, n int, from, to float64, nice bool) scale {
	lo, hi := s.lo, s.hi
	switch {
	case !s.any:
		lo, hi = 0, 1
	case lo == hi && lo == 0:
		lo, hi = 0, 1
	case !(hi-lo > 1e-12*max(math.Abs(lo), math.Abs(hi))):
		pad := math.Abs(lo) * 0.1
		lo, hi = lo-pad, hi+pad
	}
	step := tickStep(hi-lo, n)
	if unit == Decades {
		step, nice = math.Ceil(step), true
	}
	if nice {
		lo, hi = math.Floor(lo/step+1e-9)*step, math.Ceil(hi/step-1e-9)*step
	}
	sc := scale{lo: lo, hi: hi, from: from, to: to, step: step, unit: unit}
	first := math.Ceil(lo/step - 1e-9)
	for i := range 64 {
		t := (first + float64(i)) * step
		if t > hi+step*1e-9 {
			break
		}
		sc.ticks = append(sc.ticks, t+0) // +0 turns −0 into 0
	}
	return sc
}

// tickStep is the round step (1, 2, 2.5 or 5 times a power of ten) that puts
// about n ticks into extent.
func tickStep(extent float64, n int) float64 {
	raw := extent / float64(max(n, 1))
	if !(raw > 1e-300) || math.IsInf(raw, 0) {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if raw <= m*base*1.0001 {
			return m * base
		}
	}
	return 10 * base
}

// px maps v to a pixel; always finite, NaN goes to the start. Values outside
// are held a little beyond the ends, where the clip path hides them.
func (s *scale) px(v float64) float64 {
	if math.IsNaN(v) {
		return s.from
	}
	f := (v - s.lo) / (s.hi - s.lo)
	f = max(min(f, 2), -1)
	return s.from + f*(s.to-s.from)
}

// label prints a tick with the decimals that its step needs.
func (s *scale) label(t float64) string {
	v, step := t, s.step
	if s.unit == Decades {
		return strconv.FormatFloat(math.Pow(10, math.Round(t)), 'g', -1, 64)
	}
	if s.unit == Percent {
		v, step = v*100, step*100
	}
	out := fixed(v, step)
	if s.unit == Percent {
		out += " %"
	}
	return out
}

// fixed prints v with as many decimals as multiples of step need.
func fixed(v, step float64) string {
	if v == 0 {
		return "0"
	}
	if a := math.Abs(v); a >= 1e6 || a < 1e-4 {
		e := strconv.FormatFloat(v, 'e', -1, 64)
		if len(e) > 8 {
			e = strconv.FormatFloat(v, 'e', 1, 64)
		}
		mant, exp, _ := strings.Cut(e, "e")
		n, _ := strconv.Atoi(exp)
		return minus(mant) + "e" + minus(strconv.Itoa(n))
	}
	dec := 0
	for p := step; dec < 6 && math.Abs(p-math.Round(p)) > 1e-6*max(p, 1e-3); p *= 10 {
		dec++
	}
	return minus(groupDigits(strconv.FormatFloat(v, 'f', dec, 64)))
}

// minus replaces the hyphen by the minus sign.
func minus(s string) string { return strings.ReplaceAll(s, "-", "−") }

// groupDigits puts commas between the thousands of a decimal number.
func groupDigits(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, frac, dot := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dot {
		whole += "." + frac
	}
	return sign + whole
}

// Figures of the report. nbsp keeps a number and its unit on one line.
const nbsp = "\u00a0"

// percent prints a share with the given decimals, "–" if it is not finite.
func percent(share float64, dec int) string {
	if notFinite(share) {
		return "–"
	}
	s := strconv.FormatFloat(share*100, 'f', dec, 64)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	return minus(groupDigits(s)) + nbsp + "%"
}

// points prints a difference of shares in percentage points, always signed.
func points(d float64, dec int) string {
	if notFinite(d) {
		return "–"
	}
	s := strconv.FormatFloat(d*100, 'f', dec, 64)
	if strings.Trim(s, "-0.") == "" {
		return "±" + strings.TrimPrefix(s, "-")
	}
	if d > 0 {
		s = "+" + s
	}
	return minus(s)
}

// number prints v with up to sig significant digits and no exponent where it
// stays readable without.
func number(v float64, sig int) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "∞"
	case math.IsInf(v, -1):
		return "−∞"
	case v == 0:
		return "0"
	}
	s := strconv.FormatFloat(v, 'g', sig, 64)
	if a := math.Abs(v); a >= 1e-4 && a < 1e6 {
		dec := max(0, sig-1-int(math.Floor(math.Log10(a))))
		s = strconv.FormatFloat(v, 'f', dec, 64)
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		s = groupDigits(s)
	}
	return minus(s)
}
