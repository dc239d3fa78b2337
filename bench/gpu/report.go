package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/updraft-ml/updraft/cuda"
)

// report is what results.json holds.
type report struct {
	Date      string                    `json:"date"`
	Device    cuda.DeviceInfo           `json:"device"`
	Functions map[string]functionReport `json:"functions"`
	Checks    []checkReport             `json:"checks"`
	Timings   []timingReport            `json:"timings"`
	Peer      string                    `json:"peer,omitempty"` // "PyTorch 2.6.0, CUDA 12.4"
}

type functionReport struct {
	cuda.FunctionInfo
	BlocksPerSM int `json:"blocks_per_sm"`
}

type checkReport struct {
	Entry    string  `json:"entry"`
	M        int     `json:"m"`
	N        int     `json:"n"`
	K        int     `json:"k"`
	Pad      int     `json:"pad"`
	Compared int     `json:"compared"`           // elements compared with float64
	Worst    float64 `json:"worst_of_tolerance"` // the largest error as a share of its tolerance
	Error    string  `json:"error,omitempty"`
}

type timingReport struct {
	Entry string `json:"entry"`
	shape
	Microseconds     float64 `json:"microseconds"` // median
	Least            float64 `json:"microseconds_least"`
	Most             float64 `json:"microseconds_most"`
	TFLOPS           float64 `json:"tflops"`
	Launches         int     `json:"launches"`
	Copies           int     `json:"operand_copies"`
	PeerMicroseconds float64 `json:"peer_microseconds,omitempty"`
	PeerTFLOPS       float64 `json:"peer_tflops,omitempty"`
	Ratio            float64 `json:"ratio,omitempty"` // the peer's time over ours: above 1 is faster
}

// peerFile is what peer.py writes.
type peerFile struct {
	Peer         string             `json:"peer"`
	Microseconds map[string]float64 `json:"microseconds"`
}

func readPeer(name string) (peerFile, error) {
	var p peerFile
	if name == "" {
		return p, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.md"), []byte(r.markdown()), 0o644)
}

func (r *report) markdown() string {
	var s strings.Builder
	fmt.Fprintf(&s, "# GPU results\n\n%s, %s.\n\n## Correctness\n\n", r.Date, r.Device)
	s.WriteString("| kernel | M × N × K | elements compared | largest error, share of tolerance | verdict |\n|---|---|---|---|---|\n")
	for _, c := range r.Checks {
		verdict := "ok"
		if c.Error != "" {
			verdict = "**" + c.Error + "**"
		}
		fmt.Fprintf(&s, "| %s | %d × %d × %d | %d | %.2f | %s |\n", c.Entry, c.M, c.N, c.K, c.Compared, c.Worst, verdict)
	}
	s.WriteString("\n## Time\n\n")
	if len(r.Timings) == 0 {
		s.WriteString("Nothing was timed.\n")
		return s.String()
	}
	if r.Peer == "" {
		s.WriteString("No peer was there to compare with.\n\n")
	} else {
		fmt.Fprintf(&s, "Peer: %s, same shapes, same run. A ratio above 1 is faster than the peer.\n\n", r.Peer)
	}
	s.WriteString("| kernel | shape | M × N × K | µs (median) | TFLOP/s | peer TFLOP/s | ratio |\n|---|---|---|---|---|---|---|\n")
	for _, t := range r.Timings {
		peer, ratio := "–", "–"
		if t.Ratio > 0 {
			peer, ratio = fmt.Sprintf("%.1f", t.PeerTFLOPS), fmt.Sprintf("%.2f", t.Ratio)
		}
		fmt.Fprintf(&s, "| %s | %s | %d × %d × %d | %.1f | %.1f | %s | %s |\n",
			t.Entry, t.Name, t.M, t.N, t.K, t.Microseconds, t.TFLOPS, peer, ratio)
	}
	return s.String()
}
