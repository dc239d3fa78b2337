package report

import (
	"bytes"
	"encoding/xml"
	"flag"
	"html"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// -samples DIR keeps the rendered sample reports, to be looked at.
var samples = flag.String("samples", "", "write the sample reports into this directory")

func render(t *testing.T, d Data) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Render(&b, d))
	wellFormed(t, b.String())
	return b.String()
}

// shows says that the page's source, its entities resolved, holds text.
func shows(t *testing.T, page string, texts ...string) {
	t.Helper()
	page = html.UnescapeString(page)
	for _, text := range texts {
		require.True(t, strings.Contains(page, text), "the page lacks %q", text)
	}
}

// lacks is the opposite of shows, on the source as it is.
func lacks(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.False(t, strings.Contains(page, text), "the page holds %q", text)
	}
}

// wellFormed parses a page as strict XML: every tag closed, every attribute
// quoted, every reference known; and checks that ids are unique, that numbers
// in drawings are finite and that nothing is to be loaded.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	require.True(t, strings.HasPrefix(page, "<!DOCTYPE html>"))
	dec := xml.NewDecoder(strings.NewReader(page))
	ids := map[string]bool{}
	number := regexp.MustCompile(`^-?\d+(\.\d+)?$`)
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, "at byte %d: …%s…", dec.InputOffset(), page[max(0, int(dec.InputOffset())-120):min(len(page), int(dec.InputOffset())+40)])
		el, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch el.Name.Local {
		case "link", "img", "iframe", "object", "embed", "base", "form", "image", "use", "foreignObject":
			t.Fatalf("<%s> in a report", el.Name.Local)
		}
		for _, a := range el.Attr {
			switch a.Name.Local {
			case "id":
				require.False(t, ids[a.Value], "id %q twice", a.Value)
				ids[a.Value] = true
			case "src", "href", "srcset", "action", "poster":
				t.Fatalf("%s=%q on <%s>", a.Name.Local, a.Value, el.Name.Local)
			case "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "width", "height":
				if el.Name.Local == "meta" {
					continue
				}
				require.Regexp(t, number, a.Value, "<%s %s>", el.Name.Local, a.Name.Local)
				v, err := strconv.ParseFloat(a.Value, 64)
				require.NoError(t, err)
				require.Less(t, math.Abs(v), 5000.0, "<%s %s>", el.Name.Local, a.Name.Local)
			case "points", "viewBox", "data-x", "data-y":
				require.NotContains(t, a.Value, "NaN")
				require.NotContains(t, a.Value, "Inf")
			}
			require.False(t, strings.HasPrefix(a.Name.Local, "on"), "inline handler %s", a.Name.Local)
		}
	}
	require.NotRegexp(t, `(?i)https?://|url\((?:[^#)]|$)|@import|@font-face`, stripText(page))
}

// stripText removes character data, where prompts may well hold addresses,
// but keeps style and script.
func stripText(page string) string {
	dec := xml.NewDecoder(strings.NewReader(page))
	var b strings.Builder
	keep := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return b.String()
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			keep = tok.Name.Local == "style" || tok.Name.Local == "script"
			for _, a := range tok.Attr {
				if a.Name.Local != "aria-label" && !strings.HasPrefix(a.Name.Local, "data-") {
					b.WriteString(a.Value + "\n")
				}
			}
		case xml.EndElement:
			keep = false
		case xml.CharData:
			if keep {
				b.Write(tok)
			}
		}
	}
}

func TestSamples(t *testing.T) {
	full := render(t, sampleData())
	interim := sampleData()
	interim.Progress = "step 40 of 90"
	interim.Methods, interim.BudgetCurves, interim.Transcripts = nil, nil, interim.Transcripts[:2]
	part := render(t, interim)
	runs := render(t, sampleRuns())
	if *samples != "" {
		for name, page := range map[string]string{"full.html": full, "interim.html": part, "runs.html": runs} {
			require.NoError(t, os.WriteFile(filepath.Join(*samples, name), []byte(page), 0o666))
		}
	}
}

// sections lists the ids of the page's sections in order.
func sections(page string) []string {
	var ids []string
	for _, m := range regexp.MustCompile(`<section id="([a-z]+)">`).FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

func TestReportStructure(t *testing.T) {
	page := render(t, sampleData())
	require.Equal(t, []string{"methods", "budget", "help", "training", "transcripts", "about"}, sections(page))
	shows(t, page, "GAPG answers 91.2\u00a0% of 1,000 held-out problems right with 29.4\u00a0% cloud calls; the naive split reaches 74.8\u00a0%")
	shows(t, page, "default-src 'none'")
	for _, name := range []string{"base", "base-help-bias", "task-tuning", "naive-offloading", "router", "confidence", "self-check",
		"collaboration-aware", "gapg", "da-grpo", "cloud", "oracle"} {
		shows(t, page, `<span class="name">`+name+`</span>`)
		require.Contains(t, explanations, name)
		require.Contains(t, styleSheet, ".k-"+name, "every method has a colour")
	}
	require.Equal(t, 12, strings.Count(page, `<svg class="ci `))
	require.Equal(t, 1, strings.Count(page, `<tr class="ref-row"><th scope="row"><span class="name">gapg</span><span class="why">`))
	require.Equal(t, 2, strings.Count(page, "weak: task-tuning"), "wide and narrow")
	require.Equal(t, 10, strings.Count(page, `<article class="sample `))
	for kind, n := range map[string]int{"solved": 4, "asked-early": 2, "asked-late": 2, "wrong": 2} {
		require.Equal(t, n, strings.Count(page, `<article class="sample t-`+kind+`">`))
	}
	shows(t, page, "updraft demo --all --seed 1", "natural 31.8\u00a0%", "−18.2 to −14.5", "budget 30\u00a0%", "ρ = 0.429",
		"exactly 0 at all 90 steps", "PGR\u00a090\u00a0%</span> <span>APGR\u00a088\u00a0%", "learning-rate", "training cloud calls", "would have been right: 18 + 21.")
	for _, chart := range []string{"Reward", "Accuracy", "Cloud calls per prompt", "Prompts kept by the filter", "Entropy", "Completion length",
		"Groups without gradient", "Gradient norm", "Largest log-prob difference"} {
		shows(t, page, "<h3>"+chart+"</h3>")
	}
	require.Less(t, len(page), 400_000)
	require.Equal(t, page, render(t, sampleData()), "the same data give the same page")
}

func TestReportLeavesOutWhatIsMissing(t *testing.T) {
	page := render(t, Data{})
	require.Empty(t, sections(page))
	shows(t, page, "<h1>Updraft run</h1>")
	lacks(t, page, "NaN")

	page = render(t, Data{Task: "countdown", Progress: "step 3 of 90", Budget: 0.3, Training: TrainingCharts(0.3, Run{"a", sampleMetrics(1, 3)})})
	require.Equal(t, []string{"training"}, sections(page))
	shows(t, page, "<h1>Training under way: step 3 of 90</h1>")

	d := sampleData()
	d.Progress = "step 40 of 90"
	shows(t, render(t, d), "<h1>So far, GAPG answers")

	// A comparison without gapg, without intervals, without anything optional.
	page = render(t, Data{Methods: []Method{{Name: "base", OverallAccuracy: 0.5}, {Name: "odd <one>", OverallAccuracy: math.NaN(), CloudRatio: math.Inf(1)}}})
	require.Equal(t, []string{"methods", "about"}, sections(page))
	lacks(t, page, "against gapg</th>")
	shows(t, page, "odd <one>")

	page = render(t, sampleRuns())
	require.Equal(t, []string{"runs", "training"}, sections(page))
	shows(t, page, "<h1>3 runs side by side</h1>")
	shows(t, page, "runs/gapg − runs/no-filter")
	shows(t, page, "+0.4 to +3.9")
	shows(t, page, "runs/long, device", "whole lines: overall; broken: device")
	require.Equal(t, 9, strings.Count(page, `</svg>runs/long</li>`), "each chart's legend names a run once")
}

func TestReportEscapesHostileText(t *testing.T) {
	hostile := "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;]]>{{.}}`${1}` \x00\x1b[31m\u202egnol\xff https://evil.example/ <answer>"
	d := sampleData()
	d.Task, d.Progress, d.Headline, d.Standfirst, d.Command = hostile, hostile, hostile, hostile, hostile
	d.Tiles = []Tile{{hostile, hostile, hostile}}
	d.Config, d.Versions = []Entry{{hostile, hostile}}, []Entry{{hostile, hostile}}
	d.Notes = []string{hostile}
	d.Methods = append(d.Methods, Method{Name: hostile, Explanation: hostile, OverallAccuracy: 0.5, HelpPrecision: new(0.4)})
	d.Reference, d.Weak = hostile, hostile
	d.BudgetCurves = append(d.BudgetCurves, BudgetCurve{Method: hostile, Points: []Point{{0, 0.5}, {1, 0.9}}})
	d.Training = append(d.Training, Chart{Title: hostile, Note: hostile, XLabel: hostile, Lines: []Line{{Value: 0.3, Name: hostile}, {Value: 1, Name: hostile, Vertical: true}},
		Series: []Series{{Name: hostile, Color: hostile, X: []float64{1, 2}, Y: []float64{0, 1}}, {Name: hostile, X: []float64{1}, Y: []float64{1}}}})
	d.Runs = []RunSummary{{hostile, 1, []Entry{{hostile, hostile}}}}
	d.Comparisons = []Comparison{{A: hostile, B: hostile, Metric: hostile}}
	d.Transcripts = []Transcript{{Kind: TranscriptKind(hostile), Prompt: hostile, Response: hostile + strings.Repeat(" long", 300), Answer: hostile},
		{Kind: AskedLate, Asked: true, Cloud: hostile, Forced: hostile, ForcedCorrect: new(true)}}
	page := render(t, d) // strict XML, no element or attribute that loads
	require.Equal(t, 1, strings.Count(page, "<script"))
	lacks(t, page, "<img")
	lacks(t, page, "\x1b")
	lacks(t, page, "\u202e")
	lacks(t, page, "\x00")
	shows(t, page, "alert(1)</script>") // the text itself is shown
	shows(t, page, "␛[31m")
	shows(t, page, "<details><summary>") // a long response is folded
}

func TestChartsOfDegenerateSeries(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	steps := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(i)
		}
		return x
	}
	repeat := func(n int, v ...float64) []float64 {
		y := make([]float64, n)
		for i := range y {
			y[i] = v[i%len(v)]
		}
		return y
	}
	for name, c := range map[string]struct {
		y     []float64
		drawn bool
	}{
		"empty": {nil, false}, "all NaN": {repeat(5, nan), false}, "all Inf": {repeat(5, inf, -inf), false},
		"one point": {[]float64{3}, true}, "constant": {repeat(20, 0.7), true}, "zero": {repeat(20, 0), true},
		"negative": {repeat(20, -4), true}, "gaps": {repeat(30, 1, nan, 2, inf, 3, -inf, 4), true}, "lonely": {repeat(30, nan, 1, nan), true},
		"huge": {repeat(30, 1e308, -1e308), true}, "max": {repeat(30, math.MaxFloat64, 1), true}, "tiny": {repeat(30, 5e-324, 0), true},
		"small difference": {repeat(30, 1, 1+1e-16, 1+3e-16), true}, "long": {repeat(20000, 1, 5, nan, 2, 0), true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, smooth := range []bool{false, true} {
				for _, unit := range []Unit{Number, Percent} {
					chart := Chart{Title: "T" + name, YUnit: unit, XLabel: "step", Lines: []Line{{Value: 0.3, Name: "budget"}, {Value: nan, Name: "none"}},
						Series: []Series{{Name: "s", X: steps(len(c.y)), Y: c.y, Smooth: smooth, Dots: !smooth}, {Name: "short", X: steps(1), Y: nil}}}
					require.Equal(t, c.drawn, chart.drawable())
					page := render(t, Data{Training: []Chart{chart}})
					require.Equal(t, c.drawn, strings.Contains(page, "T"+name))
					require.Less(t, len(page), 90_000)
					// Not left out by the guard alone: the drawing itself is finite.
					wellFormed(t, "<!DOCTYPE html>"+chart.svg("id", 350, 200, []mark{{x: nan, y: inf, title: "m"}, {x: 1, y: 1, lo: nan, hi: inf}}))
				}
			}
		})
	}
}

func TestTrainingChartsFollowTheLog(t *testing.T) {
	charts := TrainingCharts(0.3, Run{"a", sampleMetrics(1, 30)}, Run{"none", nil})
	require.Len(t, charts, 9)
	byTitle := map[string]Chart{}
	for _, c := range charts {
		byTitle[c.Title] = c
	}
	calls := byTitle["Cloud calls per prompt"]
	require.Equal(t, []Line{{Value: 0.3, Name: "budget 30\u00a0%", Left: true}}, calls.Lines)
	require.Len(t, calls.Series, 2)
	require.Len(t, calls.Series[0].Y, 30)
	require.Equal(t, []float64{15, 30}, calls.Series[1].X, "validation has its own, fewer steps")
	require.Contains(t, byTitle["Largest log-prob difference"].Note, "exactly 0 at all 30 steps")

	bad := sampleMetrics(1, 30)
	bad.Records[12].Values["sampling/sampling_logp_difference/max"] = 1.2e-7
	for _, c := range TrainingCharts(0, Run{"a", bad}) {
		require.Empty(t, c.Lines, "no budget, no line")
		require.NotContains(t, c.Note, "exactly 0")
	}
	require.Empty(t, TrainingCharts(0.3, Run{"a", &Metrics{}}))
}

func TestWriteFileIsAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.html")
	require.NoError(t, WriteFile(path, Data{Headline: "first"}))
	require.NoError(t, WriteFile(path, Data{Headline: "second"}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(b), "second")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary file stays")

	// A target that cannot be replaced: the error names it, nothing is left.
	blocked := filepath.Join(dir, "blocked.html")
	require.NoError(t, os.MkdirAll(filepath.Join(blocked, "inside"), 0o777))
	require.ErrorContains(t, WriteFile(blocked, Data{}), "blocked.html")
	left, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
	require.ErrorContains(t, WriteFile(filepath.Join(dir, "absent", "r.html"), Data{}), "absent")
}
