package bench

import (
	"html/template"
	"math"
	"strings"

	"github.com/updraft-ml/updraft/gapg/report"
)

// figure is a chart with its legend.
type figure struct {
	Title, Note string
	SVG         template.HTML
	Legend      []legendItem
}

type legendItem struct {
	Name, Class string
	Dashed      bool
}

// barChart holds one workload's rows beside one another.
type barChart struct {
	Title string
	Bars  []bar
}

type bar struct {
	Name, Rate, Note string
	Width            float64 // percent of the fastest
	Ours             bool
}

// bars are the workloads that a peer has computed too, by rate.
func (r *Results) bars() (out []barChart) {
	for i := range r.Results {
		res := &r.Results[i]
		fastest, others := math.Inf(1), 0
		for _, row := range res.Rows {
			if row.Who != Ours && row.Missing == "" {
				others++
			}
			if len(row.Samples) > 0 {
				fastest = min(fastest, row.Seconds.Median)
			}
		}
		if others == 0 || res.Error != "" {
			continue
		}
		c := barChart{Title: res.Shape + ", " + res.Name}
		for _, row := range res.Rows {
			b := bar{Name: row.name(), Ours: row.Who == Ours}
			if len(row.Samples) > 0 {
				b.Rate, b.Width = row.rate(), 100*fastest/row.Seconds.Median
			} else {
				b.Note = res.against(row)
			}
			c.Bars = append(c.Bars, b)
		}
		out = append(out, c)
	}
	return out
}

// rooflineFigure places every row of ours by its operations per byte and per second
// under the limits. nil where there is none.
func (r *Results) rooflineFigure() *figure {
	var peaks, bandwidths []float64
	dots := map[string]*report.Series{}
	var order []string
	lo, hi := 0.0, 0.0 // decades of operations per byte
	for _, res := range r.Results {
		if res.Set >= mostRead/4 {
			bandwidths = append(bandwidths, res.Bandwidth...)
		}
		peaks = append(peaks, res.Peak...)
		for _, row := range res.Rows {
			if row.Who != Ours || row.FLOP == 0 || row.Bytes == 0 || row.OfFloor.Median == 0 {
				continue
			}
			s := dots[res.Group]
			if s == nil {
				s = &report.Series{Name: res.Group}
				dots[res.Group], order = s, append(order, res.Group)
			}
			x, y := math.Log10(row.FLOP/row.Bytes), math.Log10(row.FLOPS/1e9)
			lo, hi = min(lo, x), max(hi, x)
			s.X, s.Y = append(s.X, x, math.NaN()), append(s.Y, y, math.NaN()) // gaps leave dots
		}
	}
	if len(order) == 0 {
		return nil
	}
	c := report.Chart{Title: "Roofline", XLabel: "floating-point operations per byte", XUnit: report.Decades, YUnit: report.Decades}
	lo, hi = math.Floor(lo), math.Ceil(hi)
	peak := math.Log10(spreadOf(peaks).Median / 1e9)
	if len(bandwidths) > 0 {
		roof := report.Series{Name: "limits from memory", Color: "oracle"}
		slope := math.Log10(spreadOf(bandwidths).Median / 1e9)
		for _, x := range []float64{lo, min(max(peak-slope, lo), hi), hi} {
			roof.X, roof.Y = append(roof.X, x), append(roof.Y, min(peak, x+slope))
		}
		c.Series = append(c.Series, roof)
	} else {
		c.Lines = append(c.Lines, report.Line{Value: peak, Name: "multiply-adds"})
	}
	f := &figure{Title: c.Title, Note: "GFLOP/s over the operations that a byte of traffic serves. The line is what memory and the multiply-add units give; what lies above its slope is read from a cache."}
	for i, g := range order {
		s := *dots[g]
		s.Color = seriesColors[i%len(seriesColors)]
		c.Series = append(c.Series, s)
	}
	for _, s := range c.Series {
		f.Legend = append(f.Legend, legendItem{Name: s.Name, Class: "k-" + s.Color})
	}
	f.SVG = template.HTML(c.SVG("roofline", 1080, 420))
	return f
}

// seriesColors are classes of the style sheet; the first is ours.
var seriesColors = []string{"0", "1", "2", "3", "4", "5", "6", "7"}

// decodeFigures show tokens per second against the batch, with the floor.
func (r *Results) decodeFigures() (out []figure) {
	type line struct {
		name string
		x, y []float64
	}
	for _, s := range Shapes() {
		var lines []line
		add := func(name string, x, y float64) {
			for i := range lines {
				if lines[i].name == name {
					lines[i].x, lines[i].y = append(lines[i].x, x), append(lines[i].y, y)
					return
				}
			}
			lines = append(lines, line{name, []float64{x}, []float64{y}})
		}
		for _, res := range r.Results {
			batch := res.batch()
			if res.Group != "decode" || res.Shape != s.Name || batch == 0 {
				continue
			}
			for _, row := range res.Rows {
				if len(row.Samples) == 0 {
					continue
				}
				add(row.name(), batch, row.TokensPerSecond)
				if row.Who == Ours && row.OfFloor.Median > 0 {
					add("floor", batch, row.TokensPerSecond/row.OfFloor.Median)
				}
			}
		}
		if len(lines) == 0 {
			continue
		}
		zero := 0.0
		c := report.Chart{Title: s.Name + ": decoding, tokens per second against the batch", XLabel: "sequences in the batch", YMin: &zero}
		f := figure{Title: s.Name}
		for i, l := range lines {
			x := report.Series{Name: l.name, X: l.x, Y: l.y, Dots: true, Color: seriesColors[i%len(seriesColors)], Strong: l.name == Ours}
			if l.name == "floor" {
				x.Color, x.Dashed = "oracle", true
			}
			c.Series = append(c.Series, x)
			f.Legend = append(f.Legend, legendItem{Name: l.name, Class: "k-" + x.Color, Dashed: x.Dashed})
		}
		f.SVG = template.HTML(c.SVG("decode-"+strings.ReplaceAll(s.Name, ".", "-"), 530, 300))
		out = append(out, f)
	}
	return out
}

// batch is the number of sequences of a decode step.
func (res *Result) batch() float64 {
	for _, f := range res.Figures {
		if f.Name == batchFigure {
			return f.Value
		}
	}
	return 0
}
