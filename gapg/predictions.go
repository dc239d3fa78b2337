package gapg

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/updraft-ml/updraft/gapg/report"
)

// ReadPredictions reads a predictions.jsonl: one Prediction per line.
func ReadPredictions(path string) ([]Prediction, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Prediction
	br := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := br.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if len(line) > 0 {
			var p Prediction
			if jerr := json.Unmarshal(line, &p); jerr != nil {
				return nil, fmt.Errorf("%s:%d: malformed JSON (%w); make the file again with updraft eval", path, n, jerr)
			}
			if p.Method == "" || p.ID == "" {
				return nil, fmt.Errorf("%s:%d: fields method and id are missing; this is no file of predictions", path, n)
			}
			out = append(out, p)
		}
		if err != nil {
			return out, nil
		}
	}
}

// PairPredictions compares two lists of predictions, each of one method, over
// the prompts that both have: the mean difference a − b of overall accuracy
// with its paired bootstrap interval. Prompts counts the common ones; without
// any there is no comparison, and the error says so.
func PairPredictions(a, b []Prediction, opt report.BootstrapOptions) (difference report.Interval, prompts int, err error) {
	right := map[string]float64{}
	for _, p := range b {
		right[p.ID] = float64(count(p.Correct))
	}
	var va, vb []float64
	sorted := slices.Clone(a)
	slices.SortStableFunc(sorted, func(x, y Prediction) int {
		switch {
		case x.ID < y.ID:
			return -1
		case x.ID > y.ID:
			return 1
		}
		return 0
	})
	for i, p := range sorted {
		if v, ok := right[p.ID]; ok && (i == 0 || sorted[i-1].ID != p.ID) {
			va, vb = append(va, float64(count(p.Correct))), append(vb, v)
		}
	}
	if len(va) == 0 {
		return report.Interval{}, 0, errors.New("no common prompts")
	}
	difference, err = report.BootstrapPaired(va, vb, opt)
	return difference, len(va), err
}
