package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Results is everything that a run measured: the content of results.json.
type Results struct {
	Machine  Machine    `json:"machine"`
	Command  string     `json:"command"`
	Version  string     `json:"version"`
	Settings Settings   `json:"settings"`
	Sessions []Session  `json:"sessions"` // more than one where a run was resumed
	Peers    []PeerInfo `json:"peers,omitempty"`
	Results  []Result   `json:"results"`
}

// Settings are what must be equal for a run to be resumed.
type Settings struct {
	Full      bool   `json:"full"`
	Miniature bool   `json:"miniature,omitempty"`
	Pairs     int    `json:"pairs"` // rounds of a workload, unless its time runs out
	Threads   int    `json:"threads"`
	DType     string `json:"dtype"` // of the weights of whole models
}

// Session is a process that contributed, and how busy the machine was: the load
// averages are over a minute, -1 where the system does not tell. Other is the
// share of the processors' time that other programs had.
type Session struct {
	Begun     time.Time `json:"begun"`
	Ended     time.Time `json:"ended"`
	LoadBegun float64   `json:"load_average_begun"`
	LoadEnded float64   `json:"load_average_ended"`
}

// PeerInfo is what a peer says of itself, or why it says nothing.
type PeerInfo struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Missing string `json:"missing,omitempty"`
}

// Result is one workload.
type Result struct {
	Group     string       `json:"group"`
	Name      string       `json:"name"`
	Shape     string       `json:"shape"`
	Class     string       `json:"class,omitempty"` // of what a summary takes together
	Date      time.Time    `json:"date"`
	Seconds   float64      `json:"wall_seconds"` // of all of it, setting up included
	Error     string       `json:"error,omitempty"`
	Checked   string       `json:"checked,omitempty"`
	Set       float64      `json:"working_set_bytes,omitempty"`
	Peak      []float64    `json:"peak_flops,omitempty"`                 // measured in each round
	Bandwidth []float64    `json:"bandwidth_bytes_per_second,omitempty"` // the same
	Rows      []Row        `json:"rows,omitempty"`
	Compared  []Comparison `json:"comparisons,omitempty"`
	Figures   []Figure     `json:"figures,omitempty"`
}

// Ours is the name of our rows.
const Ours = "updraft"

// Row is one variant of ours or of a peer's, with all its samples.
type Row struct {
	Who     string  `json:"who"` // Ours or a peer's name
	Variant string  `json:"variant,omitempty"`
	Threads int     `json:"threads,omitempty"`
	FLOP    float64 `json:"flop_per_run,omitempty"`
	Bytes   float64 `json:"bytes_per_run,omitempty"`
	Tokens  int     `json:"tokens_per_run,omitempty"`
	Missing string  `json:"missing,omitempty"` // why there are no samples
	Wrong   string  `json:"wrong,omitempty"`   // what is wrong with a peer's result

	Runs    int                  `json:"runs_per_sample,omitempty"`
	Samples []float64            `json:"samples_seconds,omitempty"` // seconds of a run, a round each
	Laps    map[string][]float64 `json:"laps_seconds,omitempty"`
	Phases  []string             `json:"phases,omitempty"` // Laps' keys in their order

	Seconds         Spread  `json:"seconds,omitzero"`
	FLOPS           float64 `json:"flops,omitempty"`
	Rate            float64 `json:"bytes_per_second,omitempty"`
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
	// Shares of the limits measured in the same rounds; OfFloor is that of the time
	// which the slower of the two leaves at least.
	OfPeak      Spread `json:"of_peak,omitzero"`
	OfBandwidth Spread `json:"of_bandwidth,omitzero"`
	OfFloor     Spread `json:"of_floor,omitzero"`
}

// Comparison is how many times as long another variant took as one of ours, the
// median over the rounds that have both: above 1, ours is faster.
type Comparison struct {
	Ours    string `json:"ours"`
	Who     string `json:"who"`
	Variant string `json:"variant,omitempty"`
	Ratio   Spread `json:"ratio"`
	Pairs   int    `json:"pairs"`
}

// Figure is what is no time: a bound, a share, bytes.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
}

// summarise fills in what follows from the samples. Limits are those of the run's
// threads: a row on others has no shares.
func (r *Row) summarise(res *Result, threads int) {
	if len(r.Samples) == 0 {
		return
	}
	r.Seconds = spreadOf(r.Samples)
	r.FLOPS, r.Rate = r.FLOP/r.Seconds.Median, r.Bytes/r.Seconds.Median
	r.TokensPerSecond = float64(r.Tokens) / r.Seconds.Median
	if r.Threads != threads || r.Wrong != "" {
		return
	}
	peak := zip(r.Samples, res.Peak, func(t, p float64) float64 { return r.FLOP / p / t })
	bandwidth := zip(r.Samples, res.Bandwidth, func(t, b float64) float64 { return r.Bytes / b / t })
	r.OfPeak, r.OfBandwidth = spreadOf(peak), spreadOf(bandwidth)
	r.OfFloor = spreadOf(zip(peak, bandwidth, func(a, b float64) float64 { return max(a, b) }))
}

// compare fills in the comparisons: pairs of ours as wanted, and each of ours with
// each peer that computed the same.
func (res *Result) compare(wanted [][2]string) {
	add := func(a, b *Row) {
		if a == nil || b == nil || len(a.Samples) == 0 || len(b.Samples) == 0 || b.Wrong != "" {
			return
		}
		ratios := zip(a.Samples, b.Samples, func(ours, theirs float64) float64 { return theirs / ours })
		res.Compared = append(res.Compared, Comparison{a.Variant, b.Who, b.Variant, spreadOf(ratios), len(ratios)})
	}
	for _, w := range wanted {
		add(res.ours(w[0]), res.ours(w[1]))
	}
	for i := range res.Rows {
		for j := range res.Rows {
			if a, b := &res.Rows[i], &res.Rows[j]; a.Who == Ours && b.Who != Ours {
				add(a, b)
			}
		}
	}
}

func (res *Result) ours(variant string) *Row {
	for i := range res.Rows {
		if r := &res.Rows[i]; r.Who == Ours && r.Variant == variant {
			return r
		}
	}
	return nil
}

// ResultsFile, MarkdownFile and HTMLFile are what a run writes.
const (
	ResultsFile  = "results.json"
	MarkdownFile = "results.md"
	HTMLFile     = "report.html"
)

// Write writes results.json, results.md and report.html to a directory, each
// whole or not at all.
func (r *Results) Write(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	page, err := r.HTML()
	if err != nil {
		return err
	}
	return errors.Join(replace(filepath.Join(dir, ResultsFile), append(b, '\n')),
		replace(filepath.Join(dir, MarkdownFile), []byte(r.Markdown())), replace(filepath.Join(dir, HTMLFile), page))
}

func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ReadResults reads a directory's results.json; nil where there is none.
func ReadResults(dir string) (*Results, error) {
	path := filepath.Join(dir, ResultsFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(Results)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Failed counts the workloads that failed.
func (r *Results) Failed() int {
	n := 0
	for _, res := range r.Results {
		if res.Error != "" {
			n++
		}
	}
	return n
}

// String is one line: what was measured, how fast the first variant is, and what
// it was compared with.
func (res *Result) String() string {
	s := fmt.Sprintf("%s, %s, %s: ", res.Group, res.Shape, res.Name)
	if res.Error != "" {
		return s + "FAILED: " + res.Error
	}
	for i, row := range res.Rows {
		if i > 0 {
			s += "; "
		}
		s += row.name()
		if len(row.Samples) > 0 {
			s += " " + row.rate()
		}
		if against := res.against(row); against != "" {
			s += ", " + against
		} else if row.OfFloor.Median > 0 {
			s += ", " + percent(row.OfFloor.Median) + " of the floor"
		}
	}
	for _, f := range res.Figures {
		s += fmt.Sprintf("; %s %s", f.Name, f.text())
	}
	return s
}

// finished reports whether a workload needs no further run.
func (r *Results) finished(w *workload) bool {
	return slices.ContainsFunc(r.Results, func(x Result) bool {
		return x.Group == w.group && x.Name == w.name && x.Shape == w.shape && x.Error == ""
	})
}

// add puts a result in the place of an earlier one of the same workload, or at the
// end.
func (r *Results) add(x Result) {
	i := slices.IndexFunc(r.Results, func(y Result) bool { return x.Group == y.Group && x.Name == y.Name && x.Shape == y.Shape })
	if i < 0 {
		r.Results = append(r.Results, x)
	} else {
		r.Results[i] = x
	}
}
