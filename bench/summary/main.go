// Command summary turns the JSON objects of several demonstrations into one
// Markdown table: each figure's mean over the runs with its range, and the
// paired differences to gapg with each run's interval.
//
//	for s in 1 2 3; do updraft demo --all --seed $s --json > demo-$s.json; done
//	go run ./bench/summary demo-1.json demo-2.json demo-3.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/report"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(2)
	}
}

func run(paths []string) error {
	if len(paths) == 0 {
		return fmt.Errorf("no files; give the outputs of updraft demo --json")
	}
	var runs []gapg.Summary
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		var s gapg.Summary
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		runs = append(runs, s)
	}
	fmt.Println("| method | overall | solo | call ratio | natural ratio | PGR | APGR | help precision | help recall | difference to gapg at its number of calls: mean, each seed's 95 % interval |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, first := range runs[0].Methods {
		var rows []report.Method
		for _, r := range runs {
			for _, m := range r.Methods {
				if m.Name == first.Name {
					rows = append(rows, m)
				}
			}
		}
		cell := func(unit string, f func(report.Method) *float64) string {
			sum, lo, hi := 0.0, 0.0, 0.0
			for i, m := range rows {
				v := f(m)
				if v == nil {
					return "–"
				}
				x := *v
				if unit == "%" {
					x *= 100
				}
				if i == 0 {
					lo, hi = x, x
				}
				sum, lo, hi = sum+x, min(lo, x), max(hi, x)
			}
			mean := sum / float64(len(rows))
			if unit == "%" {
				return fmt.Sprintf("%.1f (%.1f–%.1f)", mean, lo, hi)
			}
			return fmt.Sprintf("%.2f (%.2f–%.2f)", mean, lo, hi)
		}
		difference, mean := "–", 0.0
		var each []string
		for _, m := range rows {
			if m.Difference != nil {
				mean += 100 * m.Difference.Mean / float64(len(rows))
				each = append(each, fmt.Sprintf("%+.1f to %+.1f", 100*m.Difference.Lo, 100*m.Difference.Hi))
			}
		}
		if len(each) > 0 {
			difference = fmt.Sprintf("%+.1f (%s)", mean, strings.Join(each, "; "))
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", first.Name,
			cell("%", func(m report.Method) *float64 { return &m.OverallAccuracy }),
			cell("%", func(m report.Method) *float64 { return m.SoloAccuracy }),
			cell("%", func(m report.Method) *float64 { return &m.CloudRatio }),
			cell("%", func(m report.Method) *float64 { return m.NaturalCloudRatio }),
			cell("", func(m report.Method) *float64 { return m.PGR }),
			cell("", func(m report.Method) *float64 { return m.APGR }),
			cell("%", func(m report.Method) *float64 { return m.HelpPrecision }),
			cell("%", func(m report.Method) *float64 { return m.HelpRecall }), difference)
	}
	fmt.Println()
	for i, r := range runs {
		fmt.Printf("- %s: seed %d, %d test problems, %.0f s, %d steps, %d cloud calls in training, largest log-prob difference %g, %.0f tokens/s generated, %.0f trained\n",
			paths[i], r.Seed, r.TestPrompts, r.Seconds, r.Train.Steps, r.Train.TrainingCloudCalls, r.Train.MaxLogpDifference, r.Train.RolloutTokensPerSecond, r.Train.TrainTokensPerSecond)
	}
	return nil
}
