package report

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
)

// budgetFigure is the chart of accuracy over the share of cloud calls, drawn
// twice: wide for a screen or a page, narrow for a phone.
type budgetFigure struct {
	Wide, Narrow template.HTML
	Legend       []legendItem
	Caption      string
}

// legendItem is an entry of a legend below a chart.
type legendItem struct {
	Name, Class string
	PGR, APGR   string
	Dashed      bool
}

// legend lists the chart's series, those of a group once.
func (c *Chart) legend() []legendItem {
	var items []legendItem
	for i, s := range c.Series {
		it := legendItem{Name: s.Name, Class: colorClass(s.Color, i), Dashed: s.Dashed}
		if s.Group != "" {
			it.Name, it.Dashed = s.Group, false
		}
		if !slices.Contains(items, it) {
			items = append(items, it)
		}
	}
	return items
}

// dashedMethods are drawn as broken lines: bounds and untrained baselines.
var dashedMethods = map[string]bool{"oracle": true, "naive-offloading": true, "base-help-bias": true, "da-grpo": false}

// budgetFigure makes the figure, or nil if there are no curves.
func (d *Data) budgetFigure() *budgetFigure {
	c := Chart{Title: "Overall accuracy over the share of cloud calls", XLabel: "prompts sent to the cloud", XUnit: Percent, YUnit: Percent}
	fig := &budgetFigure{}
	for i, bc := range d.BudgetCurves {
		s := Series{Name: bc.Method, Color: methodColor(bc.Method, i), Dashed: dashedMethods[bc.Method], Strong: bc.Method == d.reference()}
		for _, p := range bc.Points {
			s.X, s.Y = append(s.X, p.Ratio), append(s.Y, p.Accuracy)
		}
		if one := (Chart{Series: []Series{s}}); !one.drawable() {
			continue
		}
		c.Series = append(c.Series, s)
		pgr, apgr := bc.PGR, bc.APGR
		if m := d.method(bc.Method); m != nil {
			if pgr == nil {
				pgr = m.PGR
			}
			if apgr == nil {
				apgr = m.APGR
			}
		}
		fig.Legend = append(fig.Legend, legendItem{Name: bc.Method, Class: colorClass(s.Color, i), Dashed: s.Dashed,
			PGR: optPercent(pgr, 0), APGR: optPercent(apgr, 0)})
	}
	if !c.drawable() {
		return nil
	}
	// The reference goes last, on top of the others.
	for i, s := range c.Series {
		if s.Strong {
			c.Series = append(append(c.Series[:i:i], c.Series[i+1:]...), s)
			break
		}
	}
	if m := d.method(d.weak()); m != nil {
		c.Lines = append(c.Lines, Line{Value: m.OverallAccuracy, Name: "weak: " + m.Name + " " + percent(m.OverallAccuracy, 1)})
	}
	if m := d.method(d.strong()); m != nil {
		c.Lines = append(c.Lines, Line{Value: m.OverallAccuracy, Left: true, Name: "strong: " + m.Name + " " + percent(m.OverallAccuracy, 1)})
	}
	if d.Budget > 0 {
		c.Lines = append(c.Lines, Line{Value: d.Budget, Name: "budget " + percent(d.Budget, 0), Vertical: true})
	}
	var marks []mark
	for i, bc := range d.BudgetCurves {
		m := d.method(bc.Method)
		if m == nil || notFinite(m.OverallAccuracy) || notFinite(m.CloudRatio) {
			continue
		}
		mk := mark{x: m.CloudRatio, y: m.OverallAccuracy, class: colorClass(methodColor(bc.Method, i), i),
			title: fmt.Sprintf("%s: %s at %s calls", m.Name, percent(m.OverallAccuracy, 1), percent(m.CloudRatio, 1))}
		if m.Name == d.reference() {
			mk.strong = true
			mk.label = m.Name + " " + percent(m.OverallAccuracy, 1)
			if m.hasInterval() {
				mk.lo, mk.hi = m.CI95[0], m.CI95[1]
			}
			marks = append(marks, mk)
			continue
		}
		marks = append([]mark{mk}, marks...)
	}
	fig.Wide = template.HTML(c.svg("budget-w", 1040, 470, marks))
	fig.Narrow = template.HTML(c.svg("budget-n", 360, 330, marks))
	return fig
}

// methodColor is a method's colour class, or a numbered one for others.
func methodColor(name string, index int) string {
	if _, known := explanations[name]; known {
		return name
	}
	return fmt.Sprint(index % 8)
}

// intervalSVG draws a method's accuracy with its interval on an axis common
// to all rows, and the reference's accuracy as a line.
func intervalSVG(m *Method, sc scale, ref *Method, w, h float64) template.HTML {
	var b strings.Builder
	title := percent(m.OverallAccuracy, 1)
	if m.hasInterval() {
		title += fmt.Sprintf(", 95%s%% interval %s to %s", nbsp, percent(m.CI95[0], 1), percent(m.CI95[1], 1))
	}
	fmt.Fprintf(&b, `<svg class="ci %s" viewBox="0 0 %s %s" role="img" aria-label="%s"><title>%s</title>`, colorClass(methodColor(m.Name, 0), 0), px(w), px(h), esc(title), esc(title))
	fmt.Fprintf(&b, `<line class="track" x1="0" x2="%s" y1="%s" y2="%s"/>`, px(w), px(h/2), px(h/2))
	if ref != nil && !notFinite(ref.OverallAccuracy) {
		x := px(sc.px(ref.OverallAccuracy))
		fmt.Fprintf(&b, `<line class="at" x1="%s" x2="%s" y1="0" y2="%s"/>`, x, x, px(h))
	}
	if m.hasInterval() {
		lo, hi := sc.px(m.CI95[0]), sc.px(m.CI95[1])
		fmt.Fprintf(&b, `<rect class="iv" x="%s" y="%s" width="%s" height="6" rx="3"/>`, px(lo), px(h/2-3), px(max(hi-lo, 1)))
	}
	if !notFinite(m.OverallAccuracy) {
		fmt.Fprintf(&b, `<circle cx="%s" cy="%s" r="3.5"/>`, px(sc.px(m.OverallAccuracy)), px(h/2))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// barSVG draws v of a whole as a bar.
func barSVG(v, whole float64, class, title string) template.HTML {
	const w, h = 120.0, 8.0
	f := 0.0
	if whole > 0 && !notFinite(v) && !notFinite(whole) {
		f = max(min(v/whole, 1), 0)
	}
	return template.HTML(fmt.Sprintf(`<svg class="bar %s" viewBox="0 0 %s %s" preserveAspectRatio="none" role="img" aria-label="%s"><title>%s</title><rect class="track" width="%s" height="%s" rx="2"/><rect class="fill" width="%s" height="%s" rx="2"/></svg>`,
		class, px(w), px(h), esc(title), esc(title), px(w), px(h), px(f*w), px(h)))
}

// optPercent prints an optional share, "–" if it does not apply.
func optPercent(v *float64, dec int) string {
	if v == nil {
		return "–"
	}
	return percent(*v, dec)
}
