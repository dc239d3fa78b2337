package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"strings"

	"github.com/updraft-ml/updraft/gapg/report"
)

//go:embed assets/report.html.tmpl
var pageTemplate string

// page is what the template sees.
type page struct {
	CSS      template.CSS
	Lead     string
	Meta     []string
	Tiles    []report.Tile
	Warnings []string
	HowTo    string
	Limits   string
	Summary  []SummaryLine
	Bars     []barChart
	Roofline *figure
	Decode   []figure
	Groups   []groupTable
	About    [][2]string
}

type groupTable struct {
	Name string
	Rows []tableRow
}

type tableRow struct {
	What, By, Time, Rate         string
	OfPeak, OfBandwidth, OfFloor string
	Class, Failed                string
	Against                      []string
	Samples                      int
	Span                         int // rows that What stands beside; 0: What stands above
}

// HTML is the content of report.html: one file, which needs no network.
func (r *Results) HTML() ([]byte, error) {
	t, err := template.New("bench").Funcs(template.FuncMap{"ratio": ratioText, "percent": percent}).Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	p := page{CSS: template.CSS(report.StyleSheet()), Lead: r.lead(), Warnings: r.Warnings(), HowTo: howToRead, Limits: r.limits(), Summary: r.Summary(),
		Bars: r.bars(), Roofline: r.rooflineFigure(), Decode: r.decodeFigures(), About: r.about(), Tiles: r.tiles()}
	p.Meta = []string{r.Machine.CPU, count(r.Settings.Threads, "thread")}
	if n := len(r.Sessions); n > 0 {
		p.Meta = append(p.Meta, r.Sessions[n-1].Ended.Format("2006-01-02"))
	}
	for i := range r.Results {
		res := &r.Results[i]
		if len(p.Groups) == 0 || p.Groups[len(p.Groups)-1].Name != res.Group {
			p.Groups = append(p.Groups, groupTable{Name: res.Group})
		}
		g := &p.Groups[len(p.Groups)-1]
		g.Rows = append(g.Rows, res.tableRows()...)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (res *Result) tableRows() (out []tableRow) {
	what := res.Shape + ", " + res.Name
	if res.Error != "" {
		return []tableRow{{What: what, Failed: res.Error, Span: 1}}
	}
	for _, row := range res.Rows {
		x := tableRow{What: what, By: row.name(), Time: row.Seconds.times(), Rate: row.rate(), OfPeak: percent(row.OfPeak.Median), OfBandwidth: percent(row.OfBandwidth.Median),
			OfFloor: percent(row.OfFloor.Median), Against: strings.Split(res.against(row), "; "), Samples: len(row.Samples)}
		if row.Who == Ours {
			x.Class = "ours"
		}
		if row.Missing != "" || row.Wrong != "" {
			x.Class = "gone"
		}
		out, what = append(out, x), ""
	}
	for _, f := range res.Figures {
		out, what = append(out, tableRow{What: what, By: f.Name, Time: f.text()}), ""
	}
	for _, p := range res.phases() {
		out = append(out, tableRow{By: p[0], Time: p[1], Class: "phase"})
	}
	if len(out) > 0 {
		out[0].Span = len(out)
	}
	return out
}

// lead is the headline: how near the limits the engine is, and how it stands beside
// the fastest peer of each workload.
func (r *Results) lead() string {
	var floors, ratios []float64
	for _, res := range r.Results {
		ours, theirs, floor := math.Inf(1), math.Inf(1), 0.0
		for _, row := range res.Rows {
			switch {
			case len(row.Samples) == 0 || row.Wrong != "":
			case row.Who != Ours:
				theirs = min(theirs, row.Seconds.Median)
			case row.Bytes == res.Rows[0].Bytes: // not those that read narrower weights
				ours, floor = min(ours, row.Seconds.Median), max(floor, row.OfFloor.Median)
			}
		}
		if floor > 0 {
			floors = append(floors, floor)
		}
		if ratio := theirs / ours; ratio > 0 && !math.IsInf(ratio, 1) {
			ratios = append(ratios, ratio)
		}
	}
	if len(floors) == 0 {
		return "Nothing was measured"
	}
	s := fmt.Sprintf("%s of this machine’s limits over %s", percent(geometricMean(floors)), count(len(floors), "workload"))
	if len(ratios) > 0 {
		s += fmt.Sprintf("; %s times the speed of the fastest peer over %d", ratioText(geometricMean(ratios)), len(ratios))
	}
	return s
}

// tiles are the figures that a reader looks for first.
func (r *Results) tiles() (out []report.Tile) {
	for _, want := range []struct{ group, label string }{{"prefill", "prefill"}, {"decode", "decode"}, {"train", "training"}} {
		var res *Result // the last that was measured is the largest
		for i := range r.Results {
			if x := &r.Results[i]; x.Group == want.group && x.Error == "" && x.Shape == SmolLM2 {
				res = x
			}
		}
		if res == nil || len(res.Rows) == 0 {
			continue
		}
		row := res.Rows[0]
		out = append(out, report.Tile{Label: want.label + ", " + res.Shape, Value: digits(row.TokensPerSecond), Note: fmt.Sprintf("tokens per second, %s; %s of the floor", res.Name, percent(row.OfFloor.Median))})
	}
	return out
}
