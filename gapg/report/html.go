package report

import (
	"bufio"
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

//go:embed assets/report.html.tmpl
var pageTemplate string

//go:embed assets/report.css
var styleSheet string

//go:embed assets/report.js
var script string

// StyleSheet returns the style of the report's pages, for other pages with charts
// and tables like its own.
func StyleSheet() string { return styleSheet }

// view is what the template sees: Data with everything formatted and drawn.
type view struct {
	*Data
	CSS        template.CSS
	JS         template.JS
	PageTitle  string
	Lead       string
	Intro      string
	Meta       []string
	Figures    []Tile
	Reference  string
	HasDiff    bool
	Table      []methodRow
	BudgetFig  *budgetFigure
	Help       []helpRow
	HelpTokens bool
	Charts     []chartView
	RunRows    *runTable
	Compared   []comparisonRow
	Samples    []sample
	Method     bool // definitions are wanted
	Prompts    string
	Rho        string
	WeakName   string
	StrongName string
}

type methodRow struct {
	Name, Explanation          string
	Reference                  bool
	Accuracy, Range            string
	Interval                   template.HTML
	Diff, DiffRange, DiffClass string
	Device, Solo               string
	Calls, Natural             string
	PGR, APGR                  string
	Precision, Recall          string
	Cost                       string
}

type helpRow struct {
	Name                       string
	Reference                  bool
	Precision, Recall, Harmful string
	PrecisionBar, RecallBar    template.HTML
	Before, Solution           string
	BeforeBar, SolutionBar     template.HTML
}

type chartView struct {
	Title, Note string
	Legend      []legendItem
	SVG         template.HTML
}

type runTable struct {
	Columns []string
	Rows    []runRow
}

type runRow struct {
	Name, Class, Steps string
	Cells              []string
}

type comparisonRow struct {
	A, B, Metric, Diff, Range, Class string
	Prompts                          string
}

// Render writes the report as one self-contained HTML file: style, script and
// charts are inline, and a content security policy forbids every request. Only
// what d holds is shown; every section without data is left out.
func Render(w io.Writer, d Data) error {
	t, err := template.New("report").Parse(pageTemplate)
	if err != nil {
		return fmt.Errorf("report template: %w", err)
	}
	var page bytes.Buffer
	if err := t.Execute(&page, newView(&d)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	// The template escapes; characters that no document may hold, or that hide
	// in it, are made visible here, wherever they came from.
	_, err = io.WriteString(w, visible(page.String()))
	return err
}

// WriteFile renders d into the file at path, atomically: a reader sees the old
// report or the new one, never a part. On an error the old file stays.
func WriteFile(path string, d Data) (err error) {
	dir := filepath.Dir(path)
	var suffix [6]byte
	rand.Read(suffix[:])
	tmp := filepath.Join(dir, "."+filepath.Base(path)+"."+hex.EncodeToString(suffix[:])+".tmp")
	// Not os.CreateTemp: its mode 0600 would stay on the report.
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("report %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("report %s: %w", path, err)
			f.Close()
			os.Remove(tmp)
		}
	}()
	bw := bufio.NewWriterSize(f, 1<<16)
	if err := Render(bw, d); err != nil {
		return err
	}
	if err := errors.Join(bw.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if runtime.GOOS != "windows" { // directories cannot be synced there
		if df, err := os.Open(dir); err == nil {
			df.Sync() // the report can be made again: no error if this fails
			df.Close()
		}
	}
	return nil
}

func newView(d *Data) *view {
	v := &view{
		Data: d, CSS: template.CSS(styleSheet), JS: template.JS(script),
		Lead: d.headline(), Intro: d.standfirst(), Figures: d.tiles(),
		Reference: d.reference(), WeakName: d.weak(), StrongName: d.strong(),
		BudgetFig: d.budgetFigure(),
	}
	v.PageTitle = "Updraft"
	if d.Task != "" {
		v.PageTitle += " · " + d.Task
		v.Meta = append(v.Meta, d.Task)
	}
	if d.Progress != "" {
		v.Meta = append(v.Meta, d.Progress)
	}
	if !d.Created.IsZero() {
		v.Meta = append(v.Meta, d.Created.Format("2 January 2006, 15:04 MST"))
	}
	if d.TestPrompts > 0 {
		v.Prompts = groupDigits(fmt.Sprint(d.TestPrompts))
	}
	if d.Budget > 0 {
		v.Rho = number(d.Budget/(1-d.Budget), 3)
	}
	v.methodRows()
	v.helpRows()
	v.charts()
	v.runRows()
	for _, t := range d.Transcripts {
		v.Samples = append(v.Samples, newSample(&t))
	}
	v.Method = len(v.Table) > 0 || v.BudgetFig != nil
	return v
}

func (v *view) methodRows() {
	var acc span
	for i := range v.Methods {
		m := &v.Methods[i]
		acc.add(m.OverallAccuracy)
		if m.hasInterval() {
			acc.add(m.CI95[:]...)
		}
		v.HasDiff = v.HasDiff || m.Difference != nil
	}
	sc := newScale(acc, Percent, 4, 6, 134, false)
	ref := v.Data.method(v.Reference)
	for i := range v.Methods {
		m := &v.Methods[i]
		r := methodRow{
			Name: m.Name, Explanation: m.explain(), Reference: m == ref,
			Accuracy: percent(m.OverallAccuracy, 1), Interval: intervalSVG(m, sc, ref, 140, 18),
			Device: optPercent(m.DeviceAccuracy, 1), Solo: optPercent(m.SoloAccuracy, 1),
			Calls: percent(m.CloudRatio, 1), PGR: optPercent(m.PGR, 0), APGR: optPercent(m.APGR, 0),
			Precision: optPercent(m.HelpPrecision, 0), Recall: optPercent(m.HelpRecall, 0), Cost: "–",
		}
		if m.hasInterval() {
			r.Range = fmt.Sprintf("%.1f–%.1f", m.CI95[0]*100, m.CI95[1]*100)
		}
		if m.NaturalCloudRatio != nil {
			r.Natural = percent(*m.NaturalCloudRatio, 1)
		}
		if m.CostPer1000 != nil {
			r.Cost = dollars(*m.CostPer1000)
		}
		if dd := m.Difference; dd != nil && m != ref {
			r.Diff, r.DiffRange = points(dd.Mean, 1), points(dd.Lo, 1)+" to "+points(dd.Hi, 1)
			r.DiffClass = diffClass(*dd)
		}
		v.Table = append(v.Table, r)
	}
}

// diffClass tells a difference that the interval is sure of.
func diffClass(i Interval) string {
	switch {
	case i.Lo > 0:
		return "up"
	case i.Hi < 0:
		return "down"
	}
	return "unsure"
}

func (v *view) helpRows() {
	var tokens float64
	for _, m := range v.Methods {
		for _, t := range []*float64{m.TokensBeforeCall, m.TokensSolution} {
			if t != nil && !notFinite(*t) {
				tokens, v.HelpTokens = max(tokens, *t), true
			}
		}
	}
	for i := range v.Methods {
		m := &v.Methods[i]
		if m.HelpPrecision == nil && m.HelpRecall == nil && m.HarmfulCalls == nil && m.TokensBeforeCall == nil {
			continue
		}
		class := colorClass(methodColor(m.Name, i), i)
		r := helpRow{Name: m.Name, Reference: m.Name == v.Reference,
			Precision: optPercent(m.HelpPrecision, 1), Recall: optPercent(m.HelpRecall, 1), Harmful: optPercent(m.HarmfulCalls, 1)}
		if m.HelpPrecision != nil {
			r.PrecisionBar = barSVG(*m.HelpPrecision, 1, class, "precision "+r.Precision)
		}
		if m.HelpRecall != nil {
			r.RecallBar = barSVG(*m.HelpRecall, 1, class, "recall "+r.Recall)
		}
		if m.TokensBeforeCall != nil {
			r.Before = number(*m.TokensBeforeCall, 3)
			r.BeforeBar = barSVG(*m.TokensBeforeCall, tokens, class, r.Before+" tokens before a call")
		}
		if m.TokensSolution != nil {
			r.Solution = number(*m.TokensSolution, 3)
			r.SolutionBar = barSVG(*m.TokensSolution, tokens, class+" soft", r.Solution+" tokens in a full solution")
		}
		v.Help = append(v.Help, r)
	}
}

func (v *view) charts() {
	for i := range v.Training {
		c := &v.Training[i]
		if !c.drawable() {
			continue
		}
		cv := chartView{Title: c.Title, Note: c.Note,
			SVG: template.HTML(c.svg(fmt.Sprintf("chart-%d", i), 350, 205, nil))}
		if len(c.Series) > 1 {
			cv.Legend = c.legend()
		}
		v.Charts = append(v.Charts, cv)
	}
}

func (v *view) runRows() {
	if len(v.Runs) > 0 {
		t := &runTable{}
		for _, r := range v.Runs {
			for _, e := range r.Figures {
				if !slices.Contains(t.Columns, e.Key) {
					t.Columns = append(t.Columns, e.Key)
				}
			}
		}
		for i, r := range v.Runs {
			row := runRow{Name: r.Name, Class: colorClass("", i), Steps: groupDigits(fmt.Sprint(r.Steps))}
			for _, col := range t.Columns {
				cell := "–"
				for _, e := range r.Figures {
					if e.Key == col {
						cell = e.Value
					}
				}
				row.Cells = append(row.Cells, cell)
			}
			t.Rows = append(t.Rows, row)
		}
		v.RunRows = t
	}
	for _, c := range v.Comparisons {
		row := comparisonRow{A: c.A, B: c.B, Metric: c.Metric, Diff: points(c.Difference.Mean, 1),
			Range: points(c.Difference.Lo, 1) + " to " + points(c.Difference.Hi, 1), Class: diffClass(c.Difference)}
		if c.Prompts > 0 {
			row.Prompts = groupDigits(fmt.Sprint(c.Prompts))
		}
		v.Compared = append(v.Compared, row)
	}
}
