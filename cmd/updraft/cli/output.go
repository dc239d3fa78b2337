package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/gapg/report"
)

// printJSON writes one object on one line.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// finiteMap leaves out what JSON cannot say.
func finiteMap(m map[string]float64) map[string]float64 {
	out := make(map[string]float64, len(m))
	for k, v := range m {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out[k] = v
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// version describes this build.
type version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Time    string `json:"commit_time,omitempty"`
	Dirty   bool   `json:"modified,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func buildVersion() version {
	v := version{Version: "(unknown)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Dirty = s.Value == "true"
		}
	}
	return v
}

func (v version) String() string {
	s := v.Version
	if len(v.Commit) >= 12 {
		s += " (" + v.Commit[:12]
		if v.Dirty {
			s += ", modified"
		}
		s += ")"
	}
	return s
}

// about fills in what every report says of its making.
func about(cmd *cobra.Command, d report.Data, deviceName string, seed uint64) report.Data {
	d.Created = time.Now()
	for _, s := range settings(cmd) {
		d.Config = append(d.Config, report.Entry{Key: s.Key, Value: s.Value})
	}
	v := buildVersion()
	d.Versions = append(d.Versions, report.Entry{Key: "updraft", Value: v.String()},
		report.Entry{Key: "Go", Value: v.Go + " " + v.OS + "/" + v.Arch}, report.Entry{Key: "device", Value: deviceName},
		report.Entry{Key: "seed", Value: fmt.Sprint(seed)})
	d.Command = commandLine(cmd)
	return d
}

// commandLine is the shortest command that gives this configuration.
func commandLine(cmd *cobra.Command) string {
	parts := []string{cmd.CommandPath()}
	for _, s := range settings(cmd) {
		f := cmd.Flags().Lookup(s.Key)
		if s.Value == f.DefValue || s.list != nil && len(s.list) == 0 {
			continue
		}
		value := s.Value
		if s.list != nil {
			value = strings.Join(s.list, ",")
		}
		if strings.ContainsAny(value, " \t\"'$&|;()<>*?") || value == "" {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		if f.Value.Type() == "bool" {
			parts = append(parts, "--"+s.Key+"="+value)
			continue
		}
		parts = append(parts, "--"+s.Key+" "+value)
	}
	return strings.Join(parts, " ")
}
