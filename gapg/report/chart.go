package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Chart is a line chart over one x axis. Values that are NaN or infinite
// leave a gap; a chart without any finite point is left out of the report.
type Chart struct {
	Title  string
	Note   string // a line under the title: what is drawn, what to look for
	XLabel string
	XUnit  Unit
	YUnit  Unit
	Series []Series
	Lines  []Line
	// YMin and YMax widen the y axis to at least these values.
	YMin, YMax *float64
}

// Series is a line of a chart. X and Y are of one length (surplus values of
// the longer are ignored); X should not decrease.
type Series struct {
	Name string
	// Group is the entry in the legend, shared by the series of one group, such
	// as the curves of one run; Name if empty.
	Group string
	X, Y  []float64
	// Color is a colour class of the style sheet: a method's name, or "0".."7".
	// Chosen by position if empty.
	Color string
	// Dashed draws a broken line: lesser or derived series.
	Dashed bool
	// Strong draws a heavier line: the one that the reader should follow.
	Strong bool
	// Smooth draws the values faintly and a moving mean over them.
	Smooth bool
	// Dots marks each value: few points, such as evaluations.
	Dots bool
}

// Line is a straight reference line across the chart, such as a budget.
type Line struct {
	Value    float64
	Name     string
	Vertical bool // at an x value; a y value otherwise
	Left     bool // the name of a y value stands at the left end
}

// SVG draws the chart alone, in the style of StyleSheet, into w × h pixels. id
// must be unique in the page; the legend is the caller's.
func (c *Chart) SVG(id string, w, h float64) string { return c.svg(id, w, h, nil) }

// drawable says whether there is a finite point to draw.
func (c *Chart) drawable() bool {
	for _, s := range c.Series {
		for i := range min(len(s.X), len(s.Y)) {
			if !notFinite(s.X[i]) && !notFinite(s.Y[i]) {
				return true
			}
		}
	}
	return false
}

// frame is the geometry of a chart being drawn.
type frame struct {
	w, h                     float64
	left, right, top, bottom float64 // margins
	x, y                     scale
}

// mark is a dot with an interval, drawn over the lines: a method's operating
// point.
type mark struct {
	x, y, lo, hi float64
	class, title string
	label        string
	strong       bool
}

// svg draws the chart into a viewBox of w × h pixels; text is 11 pixels at
// scale one. id makes the clip path's name unique in the document. marks go
// on top.
func (c *Chart) svg(id string, w, h float64, marks []mark) string {
	fr := c.layout(w, h, marks)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %s %s" role="img" aria-label="%s" data-x="%s" data-y="%s" data-xl="%s">`,
		px(w), px(h), esc(c.describe()), scaleAttr(&fr.x), scaleAttr(&fr.y), esc(c.XLabel))
	fmt.Fprintf(&b, `<clipPath id="%s"><rect x="%s" y="%s" width="%s" height="%s"/></clipPath>`, esc(id),
		px(fr.left-3), px(fr.top-3), px(w-fr.left-fr.right+6), px(h-fr.top-fr.bottom+6))
	c.axes(&b, &fr)
	fmt.Fprintf(&b, `<g clip-path="url(#%s)">`, esc(id))
	for i := range c.Series {
		c.Series[i].draw(&b, &fr, i)
	}
	for _, m := range marks {
		m.draw(&b, &fr)
	}
	b.WriteString("</g>")
	c.lineLabels(&b, &fr)
	for _, m := range marks {
		if m.label != "" {
			// Above and left of the point: curves of this kind rise steeply to it.
			x, anchor := fr.x.px(m.x)-10, "end"
			if x-7*float64(len([]rune(m.label))) < fr.left {
				x, anchor = x+20, "start"
			}
			fmt.Fprintf(&b, `<text class="lbl halo %s" x="%s" y="%s" text-anchor="%s">%s</text>`, m.class,
				px(x), px(fr.y.px(m.y)-6), anchor, esc(m.label))
		}
	}
	fmt.Fprintf(&b, `<line class="cross" x1="0" x2="0" y1="%s" y2="%s"/></svg>`, px(fr.top), px(h-fr.bottom))
	return b.String()
}

func (c *Chart) layout(w, h float64, marks []mark) frame {
	var xs, ys span
	for _, s := range c.Series {
		for i := range min(len(s.X), len(s.Y)) {
			if !notFinite(s.X[i]) && !notFinite(s.Y[i]) {
				xs.add(s.X[i])
				ys.add(s.Y[i])
			}
		}
	}
	for _, l := range c.Lines {
		if l.Vertical {
			xs.add(l.Value)
		} else {
			ys.add(l.Value)
		}
	}
	for _, m := range marks {
		xs.add(m.x)
		ys.add(m.y)
		if m.hi > m.lo {
			ys.add(m.lo, m.hi)
		}
	}
	if c.YMin != nil {
		ys.add(*c.YMin)
	}
	if c.YMax != nil {
		ys.add(*c.YMax)
	}
	fr := frame{w: w, h: h, right: 12, top: 10, bottom: 26}
	if c.XLabel != "" {
		fr.bottom = 38
	}
	fr.y = newScale(ys, c.YUnit, int(max(3, (h-fr.top-fr.bottom)/42)), h-fr.bottom, fr.top, true)
	widest := 0
	for _, t := range fr.y.ticks {
		widest = max(widest, len([]rune(fr.y.label(t))))
	}
	fr.left = 10 + 6.3*float64(widest)
	fr.x = newScale(xs, c.XUnit, int(max(3, (w-fr.left-fr.right)/58)), fr.left, w-fr.right, false)
	return fr
}

// axes draws the grid, the tick labels and the reference lines.
func (c *Chart) axes(b *strings.Builder, fr *frame) {
	b.WriteString(`<g class="grid">`)
	for _, t := range fr.y.ticks {
		y := px(fr.y.px(t))
		fmt.Fprintf(b, `<line x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(fr.left), px(fr.w-fr.right), y, y)
	}
	b.WriteString(`</g><g class="tick">`)
	for _, t := range fr.y.ticks {
		fmt.Fprintf(b, `<text x="%s" y="%s" text-anchor="end">%s</text>`, px(fr.left-6), px(fr.y.px(t)+3.8), esc(fr.y.label(t)))
	}
	base := fr.h - fr.bottom
	for _, t := range fr.x.ticks {
		x := fr.x.px(t)
		anchor := "middle"
		if label := fr.x.label(t); x+3.2*float64(len([]rune(label))) > fr.w-2 {
			anchor = "end"
			x = fr.w - 2
		}
		fmt.Fprintf(b, `<line class="tk" x1="%[1]s" x2="%[1]s" y1="%[2]s" y2="%[3]s"/>`, px(fr.x.px(t)), px(base), px(base+4))
		fmt.Fprintf(b, `<text x="%s" y="%s" text-anchor="%s">%s</text>`, px(x), px(base+16), anchor, esc(fr.x.label(t)))
	}
	if c.XLabel != "" {
		fmt.Fprintf(b, `<text x="%s" y="%s" text-anchor="middle">%s</text>`, px((fr.left+fr.w-fr.right)/2), px(fr.h-5), esc(c.XLabel))
	}
	fmt.Fprintf(b, `</g><line class="axis" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(fr.left), px(fr.w-fr.right), px(base), px(base))
	for _, l := range c.Lines {
		if notFinite(l.Value) {
			continue
		}
		if l.Vertical {
			x := px(fr.x.px(l.Value))
			fmt.Fprintf(b, `<line class="ref" x1="%s" x2="%s" y1="%s" y2="%s"/>`, x, x, px(fr.top), px(base))
		} else {
			y := px(fr.y.px(l.Value))
			fmt.Fprintf(b, `<line class="ref" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(fr.left), px(fr.w-fr.right), y, y)
		}
	}
}

// lineLabels names the reference lines, over everything else.
func (c *Chart) lineLabels(b *strings.Builder, fr *frame) {
	for _, l := range c.Lines {
		if notFinite(l.Value) || l.Name == "" {
			continue
		}
		if l.Vertical {
			x, anchor := fr.x.px(l.Value)+5, "start"
			if x+6*float64(len([]rune(l.Name))) > fr.w-fr.right {
				x, anchor = x-10, "end"
			}
			fmt.Fprintf(b, `<text class="lbl refl halo" x="%s" y="%s" text-anchor="%s">%s</text>`, px(x), px(fr.h-fr.bottom-7), anchor, esc(l.Name))
			continue
		}
		y := fr.y.px(l.Value) - 5
		if y < fr.top+9 {
			y = fr.y.px(l.Value) + 13
		}
		x, anchor := fr.w-fr.right-2, "end"
		if l.Left {
			x, anchor = fr.left+4, "start"
		}
		fmt.Fprintf(b, `<text class="lbl refl halo" x="%s" y="%s" text-anchor="%s">%s</text>`, px(x), px(y), anchor, esc(l.Name))
	}
}

func (s *Series) draw(b *strings.Builder, fr *frame, index int) {
	class := "s " + colorClass(s.Color, index)
	if s.Dashed {
		class += " dash"
	}
	if s.Strong {
		class += " strong"
	}
	fmt.Fprintf(b, `<g class="%s" data-n="%s">`, class, esc(s.Name))
	n := min(len(s.X), len(s.Y))
	x, y := s.X[:n], s.Y[:n]
	smooth := s.Smooth && n >= 8
	if smooth {
		polylines(b, fr, x, y, "raw", false)
		y = movingMean(y, max(3, n/12))
		polylines(b, fr, x, y, "l", false)
	} else {
		polylines(b, fr, x, y, "l v", s.Dots)
	}
	b.WriteString("</g>")
}

// maxDrawn bounds the points drawn of one series; a screen shows no more.
const maxDrawn = 400

// polylines draws the finite stretches of a series; a stretch of one point is
// a dot.
func polylines(b *strings.Builder, fr *frame, x, y []float64, class string, dots bool) {
	if class == "raw" {
		class = "raw v"
	}
	x, y = thin(x, y, maxDrawn)
	var pts []string
	flush := func() {
		switch len(pts) {
		case 0:
		case 1:
			cx, cy, _ := strings.Cut(pts[0], ",")
			fmt.Fprintf(b, `<circle class="dot" cx="%s" cy="%s" r="2.5"/>`, cx, cy)
			fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`, class, pts[0])
		default:
			fmt.Fprintf(b, `<polyline class="%s" points="%s"/>`, class, strings.Join(pts, " "))
			if dots {
				for _, p := range pts {
					cx, cy, _ := strings.Cut(p, ",")
					fmt.Fprintf(b, `<circle class="dot" cx="%s" cy="%s" r="2.5"/>`, cx, cy)
				}
			}
		}
		pts = pts[:0]
	}
	for i := range x {
		if notFinite(x[i]) || notFinite(y[i]) {
			flush()
			continue
		}
		pts = append(pts, px(fr.x.px(x[i]))+","+px(fr.y.px(y[i])))
	}
	flush()
}

// thin keeps at most about n points: of each bucket its smallest and its
// largest value, so that no spike is lost. A bucket with a value that is not
// finite keeps that one as well: a gap stays a gap.
func thin(x, y []float64, n int) ([]float64, []float64) {
	if len(x) <= n {
		return x, y
	}
	var tx, ty []float64
	buckets := n / 2
	for k := range buckets {
		from, to := k*len(x)/buckets, (k+1)*len(x)/buckets
		lo, hi, gap := from, from, -1
		for i := from; i < to; i++ {
			switch {
			case notFinite(y[i]) || notFinite(x[i]):
				gap = i
			case y[i] < y[lo] || notFinite(y[lo]):
				lo = i
			case y[i] > y[hi] || notFinite(y[hi]):
				hi = i
			}
		}
		for i := from; i < to; i++ {
			if i == lo || i == hi || i == gap {
				tx, ty = append(tx, x[i]), append(ty, y[i])
			}
		}
	}
	return tx, ty
}

// movingMean is the centred mean over w neighbours, those that there are at the
// ends; values that are not finite are left out and stay gaps.
func movingMean(y []float64, w int) []float64 {
	out := make([]float64, len(y))
	for i := range y {
		if notFinite(y[i]) {
			out[i] = math.NaN()
			continue
		}
		var sum, n float64
		for _, v := range y[max(0, i-w/2):min(len(y), i+w/2+1)] {
			if !notFinite(v) {
				sum += max(min(v, maxCoord), -maxCoord)
				n++
			}
		}
		out[i] = sum / n
	}
	return out
}

func (m mark) draw(b *strings.Builder, fr *frame) {
	r := 3.6
	class := "mark " + m.class
	if m.strong {
		r, class = 5, class+" strong"
	}
	x, y := fr.x.px(m.x), fr.y.px(m.y)
	fmt.Fprintf(b, `<g class="%s" data-n=""><title>%s</title>`, class, esc(m.title))
	if m.hi > m.lo {
		fmt.Fprintf(b, `<line class="err" x1="%s" x2="%s" y1="%s" y2="%s"/>`, px(x), px(x), px(fr.y.px(m.lo)), px(fr.y.px(m.hi)))
	}
	fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="%s"/></g>`, px(x), px(y), px(r))
}

// describe is the chart in words, for those who do not see it.
func (c *Chart) describe() string {
	var parts []string
	for _, s := range c.Series {
		var first, last float64
		found := false
		for i := range min(len(s.X), len(s.Y)) {
			if v := s.Y[i]; !notFinite(v) {
				if !found {
					first = v
				}
				last, found = v, true
			}
		}
		if found {
			parts = append(parts, fmt.Sprintf("%s from %s to %s", s.Name, c.figure(first), c.figure(last)))
		}
	}
	return c.Title + ": " + strings.Join(parts, "; ")
}

func (c *Chart) figure(v float64) string {
	if c.YUnit == Percent {
		return percent(v, 1)
	}
	return number(v, 3)
}

// colorClass is the style sheet's class for a series.
func colorClass(name string, index int) string {
	if name == "" {
		name = strconv.Itoa(index % 8)
	}
	return "k-" + cssName(name)
}

// cssName keeps what is safe in a class name.
func cssName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, strings.ToLower(s))
}

// px prints a coordinate; always finite.
func px(v float64) string {
	if notFinite(v) {
		v = 0
	}
	s := strconv.FormatFloat(v, 'f', 2, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		s = "0"
	}
	return s
}

// scaleAttr gives the script what it needs to turn a pixel into a value.
func scaleAttr(s *scale) string {
	unit := ""
	if s.unit == Percent {
		unit = "%"
	}
	return fmt.Sprintf("%g %g %s %s %s", s.lo, s.hi, px(s.from), px(s.to), unit)
}

// esc escapes text for HTML and SVG, attributes included.
func esc(s string) string { return html.EscapeString(visible(s)) }

// visible replaces what must not be in an HTML document, or would hide in it:
// invalid UTF-8, control characters (shown as their Unicode pictures) and the
// marks that turn the direction of text.
func visible(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case r < 0x20:
			return 0x2400 + r
		case r == 0x7f:
			return 0x2421
		case r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069,
			r == 0xfffe, r == 0xffff:
			return 0xfffd
		}
		return r
	}, s)
}
