package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/updraft-ml/updraft/cuda"
)

// timing is the time of one run of a workload, over rounds.
type timing struct {
	Microseconds float64 `json:"microseconds,omitempty"` // median
	Least        float64 `json:"microseconds_least,omitempty"`
	Most         float64 `json:"microseconds_most,omitempty"`
	Rounds       int     `json:"rounds,omitempty"`
}

// result is a line of results.jsonl: a workload's, or in the group "machine" where
// and how a run of this program was made.
type result struct {
	Group   string    `json:"group"`
	Name    string    `json:"name"`
	Date    time.Time `json:"date"`
	Kernels string    `json:"kernels,omitempty"` // sm_80 or sm_90a
	verdict
	timing
	Runs   int          `json:"runs_per_round,omitempty"`
	Sets   int          `json:"operand_sets,omitempty"`
	TFLOPS float64      `json:"tflops,omitempty"`
	GBs    float64      `json:"gigabytes_per_second,omitempty"`
	OfCopy float64      `json:"share_of_copy_bandwidth,omitempty"`
	Peers  []peerResult `json:"peers,omitempty"`
	Error  string       `json:"error,omitempty"`

	Device  *cuda.DeviceInfo `json:"device,omitempty"`
	Quick   bool             `json:"quick,omitempty"` // tiny shapes: no measurement
	Command string           `json:"command,omitempty"`
	Machine string           `json:"machine,omitempty"` // what nvidia-smi says of driver and clocks
}

// peerResult is what a peer took for the same workload, in turns with ours.
type peerResult struct {
	Name string `json:"name"`
	timing
	Ratio   float64 `json:"ratio,omitempty"`   // the peer's time over ours: above 1, ours is faster
	Missing string  `json:"missing,omitempty"` // why there is no time: no statement about the peer
}

// String is a line for people.
func (r result) String() string {
	s := fmt.Sprintf("%-12s %-44s %-7s", r.Group, r.Name, r.Kernels)
	if r.Error != "" {
		return s + " FAILED: " + r.Error
	}
	s += fmt.Sprintf(" %10.1f µs (%.1f to %.1f)", r.Microseconds, r.Least, r.Most)
	if r.TFLOPS > 0 {
		s += fmt.Sprintf(" %7.1f TFLOP/s", r.TFLOPS)
	}
	if r.GBs > 0 {
		s += fmt.Sprintf(" %7.0f GB/s", r.GBs)
	}
	for _, p := range r.Peers {
		if p.Missing != "" {
			s += fmt.Sprintf("; %s: missing, %s", p.Name, p.Missing)
		} else {
			s += fmt.Sprintf("; %s %.1f µs, ratio %.2f", p.Name, p.Microseconds, p.Ratio)
		}
	}
	return s
}

// results appends to results.jsonl.
type results struct{ f *os.File }

const resultsFile = "results.jsonl"

func openResults(dir string) (*results, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, resultsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &results{f}, err
}

func (r *results) close() error { return r.f.Close() }

// add writes a line at once, so that it is there when the run is killed.
func (r *results) add(x result) error {
	x.Date = time.Now().UTC().Truncate(time.Second)
	line, err := json.Marshal(x)
	if err != nil {
		return err
	}
	_, err = r.f.Write(append(line, '\n'))
	return err
}

// readResults reads a directory's lines. A last line that was cut off by a kill is
// left out.
func readResults(dir string) (all []result, err error) {
	f, err := os.Open(filepath.Join(dir, resultsFile))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var r result
		if json.Unmarshal(s.Bytes(), &r) == nil {
			all = append(all, r)
		}
	}
	return all, s.Err()
}

func commandLine() string { return strings.Join(os.Args, " ") }

// machine asks nvidia-smi for what the driver's interface does not tell: its
// version, clocks and power limit. "" where it is not there.
func machine() string {
	cmd := exec.Command("nvidia-smi", "--query-gpu=index,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu", "--format=csv,noheader")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), "; ")
}
