package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// writeReport writes results.json and results.md from the lines that are there, and
// from the logs of the checks that run.sh made.
func writeReport(dir string) error {
	all, err := readResults(dir)
	if err != nil {
		return err
	}
	checks, err := os.ReadFile(filepath.Join(dir, "checks.txt"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	all = latest(all)
	b, err := json.MarshalIndent(map[string]any{"checks": lines(string(checks)), "results": all}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.md"), []byte(markdown(all, lines(string(checks)))), 0o644)
}

func lines(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }) }

// latest leaves of each workload the last result, and every machine line that is
// not the same as the one before.
func latest(all []result) (kept []result) {
	last := map[string]int{}
	key := func(r result) string { return r.Group + "\x00" + r.Name + "\x00" + r.Kernels + "\x00" + r.Command }
	for i, r := range all {
		last[key(r)] = i
	}
	for i, r := range all {
		if last[key(r)] == i {
			kept = append(kept, r)
		}
	}
	return kept
}

func markdown(all []result, checks []string) string {
	var s strings.Builder
	s.WriteString("# GPU results\n\n")
	quick := false
	for _, r := range all {
		if r.Group != "machine" {
			continue
		}
		quick = quick || r.Quick
		fmt.Fprintf(&s, "- %s: %s; `%s`", r.Date.Format("2006-01-02 15:04"), r.Name, r.Command)
		if r.Machine != "" {
			fmt.Fprintf(&s, "; nvidia-smi (index, driver, SM clock now and at most, memory clock, power limit, °C): %s", r.Machine)
		}
		s.WriteString("\n")
	}
	if quick {
		s.WriteString("\n**Tiny shapes and few rounds (-quick): these are no measurements.**\n")
	}
	s.WriteString("\n## Correctness\n\n")
	if len(checks) == 0 {
		s.WriteString("Nothing was checked by `run.sh check` here; each workload below was compared with float64 before it was timed.\n")
	}
	for _, c := range checks {
		fmt.Fprintf(&s, "- %s\n", c)
	}
	s.WriteString("\n## Against peers\n\nA ratio is the peer's time over ours, geometric mean of a group's workloads: above 1, ours is faster. Peers that are missing are in no mean.\n\n")
	summary(&s, all)
	group := ""
	for _, r := range all {
		if r.Group == "machine" {
			continue
		}
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(&s, "\n## %s\n\n| workload | kernels | µs: median (least–most) | TFLOP/s | GB/s | of copy | error, share of tolerance | peers: µs, ratio |\n|---|---|---|---|---|---|---|---|\n", group)
		}
		row(&s, r)
	}
	return s.String()
}

func row(s *strings.Builder, r result) {
	if r.Error != "" {
		fmt.Fprintf(s, "| %s | %s | **%s** | | | | | |\n", r.Name, r.Kernels, strings.ReplaceAll(r.Error, "\n", " "))
		return
	}
	number := func(format string, v float64) string {
		if v == 0 {
			return "–"
		}
		return fmt.Sprintf(format, v)
	}
	var peers []string
	for _, p := range r.Peers {
		if p.Missing != "" {
			peers = append(peers, fmt.Sprintf("%s: missing (%s)", p.Name, p.Missing))
		} else {
			peers = append(peers, fmt.Sprintf("%s: %.1f, **%.2f**", p.Name, p.Microseconds, p.Ratio))
		}
	}
	checked := "–"
	if r.Compared > 0 {
		checked = fmt.Sprintf("%.2f of %d", r.Worst, r.Compared)
	}
	fmt.Fprintf(s, "| %s | %s | %.1f (%.1f–%.1f) | %s | %s | %s | %s | %s |\n", r.Name, r.Kernels, r.Microseconds, r.Least, r.Most,
		number("%.1f", r.TFLOPS), number("%.0f", r.GBs), number("%.2f", r.OfCopy), checked, strings.Join(peers, "; "))
}

// summary gives each group's mean ratio to each peer.
func summary(s *strings.Builder, all []result) {
	type key struct{ group, kernels, peer string }
	type mean struct {
		log     float64
		n       int
		missing int
	}
	means := map[key]*mean{}
	var order []key
	for _, r := range all {
		for _, p := range r.Peers {
			k := key{r.Group, r.Kernels, p.Name}
			m := means[k]
			if m == nil {
				m = &mean{}
				means[k], order = m, append(order, k)
			}
			if p.Missing != "" {
				m.missing++
			} else {
				m.log += math.Log(p.Ratio)
				m.n++
			}
		}
	}
	if len(order) == 0 {
		s.WriteString("No peer was asked.\n")
		return
	}
	s.WriteString("| group | kernels | peer | workloads | ratio |\n|---|---|---|---|---|\n")
	for _, k := range order {
		m := means[k]
		ratio := "missing"
		if m.n > 0 {
			ratio = fmt.Sprintf("%.2f", math.Exp(m.log/float64(m.n)))
		}
		fmt.Fprintf(s, "| %s | %s | %s | %d of %d | %s |\n", k.group, k.kernels, k.peer, m.n, m.n+m.missing, ratio)
	}
}
