package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// SummaryLine is what a summary says of the workloads of one class.
type SummaryLine struct {
	What      string  `json:"what"`
	Variant   string  `json:"variant,omitempty"`
	Against   string  `json:"against,omitempty"` // whom the ratio is to; empty: none
	Ratio     float64 `json:"ratio,omitempty"`   // geometric mean: above 1, ours is faster
	Least     float64 `json:"least,omitempty"`
	Workloads int     `json:"workloads"`
	OfFloor   float64 `json:"of_floor,omitempty"` // ours; geometric mean
}

// Summary takes workloads of a class together, one line for each of our variants
// and what it was compared with. Lone kernels that nothing was compared with are
// not in it.
func (r *Results) Summary() []SummaryLine {
	type key struct{ what, variant, against string }
	ratios, floors := map[key][]float64{}, map[key][]float64{}
	var order []key
	add := func(k key, ratio, floor float64) {
		if _, ok := floors[k]; !ok {
			order = append(order, k)
		}
		floors[k] = append(floors[k], floor)
		if ratio > 0 {
			ratios[k] = append(ratios[k], ratio)
		}
	}
	for _, res := range r.Results {
		what := res.Class
		if what == "" {
			what = strings.TrimSuffix(res.Shape+": "+res.Group+", "+res.Name, ", ")
		}
		for _, row := range res.Rows {
			if row.Who != Ours || len(row.Samples) == 0 {
				continue
			}
			alone := true
			for _, c := range res.Compared {
				if c.Ours == row.Variant {
					add(key{what, row.Variant, strings.TrimSpace(c.Who + " " + c.Variant)}, c.Ratio.Median, row.OfFloor.Median)
					alone = false
				}
			}
			if alone && (res.Class != "" || res.Group != "kernels" && row.Variant == "") {
				add(key{what, row.Variant, ""}, 0, row.OfFloor.Median)
			}
		}
	}
	var out []SummaryLine
	for _, k := range order {
		l := SummaryLine{What: k.what, Variant: k.variant, Against: k.against, Workloads: len(floors[k])}
		if !slices.Contains(floors[k], 0) { // on other threads there is none
			l.OfFloor = geometricMean(floors[k])
		}
		if x := ratios[k]; len(x) > 0 {
			l.Ratio, l.Least = geometricMean(x), slices.Min(x)
		}
		out = append(out, l)
	}
	return out
}

// Warnings are what a reader must know before any figure: that the machine was
// busy, that the run was a small one, that peers are missing.
func (r *Results) Warnings() (out []string) {
	for _, s := range r.Sessions {
		if s.LoadBegun > busyLoad {
			out = append(out, fmt.Sprintf("The machine was busy: its load average was %.1f when the run began (%s). Shares and ratios are of interleaved samples; times are not this machine's.",
				s.LoadBegun, s.Begun.Format("2006-01-02 15:04")))
		}
	}
	for _, p := range r.Peers {
		if p.Missing != "" {
			out = append(out, fmt.Sprintf("%s is missing, not beaten: %s.", p.Name, strings.TrimSuffix(p.Missing, ".")))
		}
	}
	if r.Settings.Miniature {
		out = append(out, "Miniature models: these are no measurements.")
	}
	if failed := r.Failed(); failed > 0 {
		out = append(out, fmt.Sprintf("%s failed.", count(failed, "workload")))
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// The texts of figures, for every kind of output.

func (s Spread) text(format func(float64) string) string {
	if s == (Spread{}) {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", format(s.Median), format(s.Q1), format(s.Q3))
}

// duration prints seconds with three digits.
func duration(v float64) string {
	switch {
	case v >= 1:
		return digits(v) + " s"
	case v >= 1e-3:
		return digits(1e3*v) + " ms"
	}
	return digits(1e6*v) + " µs"
}

// times prints a spread of durations in the unit of its median.
func (s Spread) times() string {
	if s == (Spread{}) {
		return "–"
	}
	unit, by := "s", 1.0
	switch {
	case s.Median < 1e-3:
		unit, by = "µs", 1e6
	case s.Median < 1:
		unit, by = "ms", 1e3
	}
	return fmt.Sprintf("%s (%s–%s) %s", digits(by*s.Median), digits(by*s.Q1), digits(by*s.Q3), unit)
}

// digits prints three significant digits, or a whole number.
func digits(v float64) string {
	a := math.Abs(v)
	decimals := 0
	switch {
	case a == 0:
	case a < 1:
		decimals = min(2-int(math.Floor(math.Log10(a))), 8)
	case a < 10:
		decimals = 2
	case a < 100:
		decimals = 1
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

func ratioText(v float64) string { return fmt.Sprintf("%.2f", v) }

func percent(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 0.005:
		return "<1 %"
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

// rate is the speed that says the most of a row.
func (r Row) rate() string {
	switch {
	case len(r.Samples) == 0:
		return "–"
	case r.TokensPerSecond > 0:
		return digits(r.TokensPerSecond) + " tokens/s"
	case r.FLOPS > 0 && r.FLOP > r.Bytes: // more than an operation for each byte
		return digits(r.FLOPS/1e9) + " GFLOP/s"
	}
	return digits(r.Rate/1e9) + " GB/s"
}

// name is who computed a row, and how.
func (r Row) name() string { return strings.TrimSpace(r.Who + " " + r.Variant) }

// against says how a row of a peer's, or a slower variant of ours, compares.
func (res *Result) against(r Row) string {
	switch {
	case r.Missing != "":
		return "missing: " + r.Missing
	case r.Wrong != "":
		return "wrong result: " + r.Wrong
	}
	var parts []string
	for _, c := range res.Compared {
		if c.Who == r.Who && c.Variant == r.Variant {
			name := cmp.Or(c.Ours, Ours)
			parts = append(parts, fmt.Sprintf("%s %s×", name, c.Ratio.text(ratioText)))
		}
	}
	return strings.Join(parts, "; ")
}
