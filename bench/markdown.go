package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// figure prints a figure with its unit.
func (f Figure) text() string {
	switch f.Unit {
	case "bytes":
		return fmt.Sprintf("%s MB", digits(f.Value/1e6))
	case "s":
		return duration(f.Value)
	}
	return fmt.Sprintf("%.4g", f.Value)
}

// Text writes the results as a table for a terminal.
func (r *Results) Text(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for i := range r.Results {
		res := &r.Results[i]
		if res.Group != group {
			if group != "" {
				fmt.Fprintln(tab)
			}
			group = res.Group
			fmt.Fprintf(tab, "%s\t\ttime (quartiles)\trate\tof peak\tof bandwidth\tof floor\tours is faster by\n", strings.ToUpper(group))
		}
		what := res.Shape + ", " + res.Name
		if res.Error != "" {
			fmt.Fprintf(tab, "%s\tFAILED: %s\n", what, res.Error)
			continue
		}
		for _, row := range res.Rows {
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", what, row.name(), row.Seconds.times(), row.rate(),
				percent(row.OfPeak.Median), percent(row.OfBandwidth.Median), percent(row.OfFloor.Median), res.against(row))
			what = ""
		}
		for _, f := range res.Figures {
			fmt.Fprintf(tab, "%s\t%s\t%s\n", what, f.Name, f.text())
			what = ""
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, line := range r.Warnings() {
		fmt.Fprintln(w, "\n"+line)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.limits())
	return err
}

// limits says what the machine had, as the median over all rounds.
func (r *Results) limits() string {
	var peak, memory []float64
	for _, res := range r.Results {
		peak = append(peak, res.Peak...)
		if res.Set >= mostRead/4 {
			memory = append(memory, res.Bandwidth...)
		}
	}
	s := fmt.Sprintf("Limits measured between the samples: %s GFLOP/s of multiply-adds (%s, %s)", spreadOf(scaled(peak, 1e-9)).text(digits), r.Machine.Limits,
		count(r.Settings.Threads, "thread"))
	if len(memory) > 0 {
		s += fmt.Sprintf(", %s GB/s read from sets of %d MiB and more", spreadOf(scaled(memory, 1e-9)).text(digits), mostRead>>22)
	}
	return s + "."
}

func scaled(v []float64, by float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

// Markdown is the content of results.md.
func (r *Results) Markdown() string {
	var s strings.Builder
	s.WriteString("# CPU engine: measured speed\n\n")
	for _, e := range r.about() {
		fmt.Fprintf(&s, "- %s: %s\n", e[0], e[1])
	}
	for _, line := range r.Warnings() {
		fmt.Fprintf(&s, "\n**%s**\n", line)
	}
	fmt.Fprintf(&s, "\n%s\n\n%s\n", howToRead, r.limits())
	s.WriteString("\n## Summary\n\n| workloads | variant | against | ratio, geometric mean | least | of the floor | number |\n|---|---|---|---|---|---|---|\n")
	for _, l := range r.Summary() {
		ratio, least := "–", "–"
		if l.Ratio > 0 {
			ratio, least = "**"+ratioText(l.Ratio)+"**", ratioText(l.Least)
		}
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s | %s | %d |\n", l.What, l.Variant, l.Against, ratio, least, percent(l.OfFloor), l.Workloads)
	}
	group := ""
	for i := range r.Results {
		res := &r.Results[i]
		if res.Group != group {
			group = res.Group
			fmt.Fprintf(&s, "\n## %s\n\n| workload | by | time: median (quartiles) | samples | rate | of peak | of bandwidth | of floor | ours is faster by |\n|---|---|---|---|---|---|---|---|---|\n", group)
		}
		res.markdown(&s)
	}
	return s.String()
}

func (res *Result) markdown(s *strings.Builder) {
	what := res.Shape + ", " + res.Name
	if res.Error != "" {
		fmt.Fprintf(s, "| %s | **failed: %s** | | | | | | | |\n", what, strings.ReplaceAll(res.Error, "|", "\\|"))
		return
	}
	for _, row := range res.Rows {
		fmt.Fprintf(s, "| %s | %s | %s | %d | %s | %s | %s | %s | %s |\n", what, row.name(), row.Seconds.times(), len(row.Samples), row.rate(),
			percent(row.OfPeak.Median), percent(row.OfBandwidth.Median), percent(row.OfFloor.Median), strings.ReplaceAll(res.against(row), "|", "\\|"))
		what = ""
	}
	for _, f := range res.Figures {
		fmt.Fprintf(s, "| %s | %s | %s | | | | | | |\n", what, f.Name, f.text())
		what = ""
	}
	for _, p := range res.phases() {
		fmt.Fprintf(s, "| | %s | %s | | | | | | |\n", p[0], p[1])
	}
}

// phases are the medians of a variant's phases, with their shares of its time.
func (res *Result) phases() (out [][2]string) {
	for _, row := range res.Rows {
		for _, phase := range row.Phases {
			m := spreadOf(row.Laps[phase]).Median
			out = append(out, [2]string{strings.TrimSpace(row.Variant + " " + phase), fmt.Sprintf("%s, %s", duration(m), percent(m/row.Seconds.Median))})
		}
	}
	return out
}

const howToRead = "Each figure is a median over interleaved samples, with the quartiles. Peak and bandwidth were measured between the samples; the floor is the time that the slower of the two leaves at least. " +
	"A ratio is another's time over ours, the median over the rounds: above 1, ours is faster."

// about is where, when and with what a run was made.
func (r *Results) about() (out [][2]string) {
	m := r.Machine
	add := func(key, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); text != "" {
			out = append(out, [2]string{key, text})
		}
	}
	add("processor", "%s, %s, %s of them used", m.CPU, count(m.Threads, "thread"), fmt.Sprint(r.Settings.Threads))
	add("features", "%s", strings.Join(m.Features, " "))
	if m.Memory > 0 {
		add("memory", "%.1f GB, last-level cache %d MiB", float64(m.Memory)/1e9, m.Cache>>20)
	}
	add("system", "%s", strings.TrimSpace(m.OS+" "+m.Kernel))
	add("huge pages", "%s", m.Hugepage)
	add("engine", "%s; weights of models in %s", m.Engine, r.Settings.DType)
	add("updraft", "%s", r.Version)
	add("command", "%s", r.Command)
	for _, s := range r.Sessions {
		add("measured", "%s to %s UTC, load average %.2f at the start, %.2f at the end", s.Begun.Format("2006-01-02 15:04"), s.Ended.Format("15:04"), s.LoadBegun, s.LoadEnded)
	}
	for _, p := range r.Peers {
		if p.Missing == "" {
			add(p.Name, "%s", strings.Trim(p.Version+", "+p.Detail, ", "))
		} else {
			add(p.Name, "missing: %s", p.Missing)
		}
	}
	return out
}
