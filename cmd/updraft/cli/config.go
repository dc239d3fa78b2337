package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// configFile is the effective configuration in a run directory.
const configFile = "config.yaml"

// aliases are other projects' names of our flags.
var aliases = map[string]string{
	"model-name-or-path": "model",
	"dataset-name":       "dataset",
	"max-new-tokens":     "max-completion-length",
	"budget":             "cloud-budget",
	"lr-scheduler":       "lr-scheduler-type",
}

// normalize accepts snake case and other projects' names.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	name = strings.ReplaceAll(name, "_", "-")
	if n, ok := aliases[name]; ok {
		name = n
	}
	return pflag.NormalizedName(name)
}

// choice is a flag whose values are names.
type choice struct {
	value   *string
	allowed []string
}

func newChoice(p *string, value string, allowed ...string) *choice {
	*p = value
	return &choice{p, allowed}
}

func (c *choice) String() string { return *c.value }
func (c *choice) Type() string   { return "name" }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("must be %s%s", orList(c.allowed), hint(s, c.allowed))
	}
	*c.value = s
	return nil
}

func orList(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// Flags of a session, not of a run: they are in no configuration.
var sessionFlags = []string{"config", "help", "json", "log-level", "dry-run", "resume-from-checkpoint"}

func inConfig(f *pflag.Flag) bool { return !slices.Contains(sessionFlags, f.Name) }

// readConfig fills the flags that were not given from --config, or, where a run
// is resumed without one, from the run's own config.yaml.
func readConfig(cmd *cobra.Command) error {
	f := cmd.Flags().Lookup("config")
	if f == nil {
		return nil
	}
	path, own := f.Value.String(), false
	if resume := cmd.Flags().Lookup("resume-from-checkpoint"); path == "" && resume != nil && resume.Changed && resume.Value.String() != "false" {
		dir := cmd.Flags().Lookup("output-dir").Value.String()
		path, own = filepath.Join(dir, configFile), true
		if _, err := os.Stat(path); err != nil {
			return nil // the run was killed before it began, or is not one: resuming says so
		}
	}
	if path == "" {
		return nil
	}
	entries, err := parseConfig(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		flag := cmd.Flags().Lookup(e.key)
		if flag == nil || !inConfig(flag) {
			return inputf("%s:%d: unknown key %q%s", path, e.line, e.key, hint(e.key, configKeys(cmd)))
		}
		if flag.Changed {
			continue
		}
		if _, list := flag.Value.(pflag.SliceValue); !list && len(e.values) != 1 {
			return inputf("%s:%d: %s takes one value, not a list", path, e.line, e.key)
		}
		if err := setFlag(flag, e.values); err != nil {
			return inputf("%s:%d: %s %q: %s", path, e.line, e.key, strings.Join(e.values, ", "), valueProblem(flag, err))
		}
		if !own {
			flag.Changed = true
		}
	}
	return nil
}

func setFlag(flag *pflag.Flag, values []string) error {
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return flag.Value.Set(values[0])
}

func configKeys(cmd *cobra.Command) []string {
	var keys []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if inConfig(f) {
			keys = append(keys, f.Name)
		}
	})
	return keys
}

// configEntry is a line of run.yaml.
type configEntry struct {
	key    string
	values []string
	line   int
}

// parseConfig reads a mapping of scalars and lists of scalars.
func parseConfig(path string) ([]configEntry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, missing("config", path, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, inputf("%s: not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if doc.Kind == 0 {
		return nil, nil // empty
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, inputf("%s:%d: must be lines of the form key: value", path, top.Line)
	}
	var entries []configEntry
	seen := map[string]int{}
	for i := 0; i < len(top.Content); i += 2 {
		k, v := top.Content[i], top.Content[i+1]
		e := configEntry{key: string(normalize(nil, k.Value)), line: k.Line}
		if first, ok := seen[e.key]; ok {
			return nil, inputf("%s:%d: key %q stands in line %d already", path, k.Line, e.key, first)
		}
		seen[e.key] = k.Line
		switch v.Kind {
		case yaml.ScalarNode:
			e.values = []string{v.Value}
		case yaml.SequenceNode:
			for _, item := range v.Content {
				if item.Kind != yaml.ScalarNode {
					return nil, inputf("%s:%d: %s: the items of the list must be plain values", path, item.Line, e.key)
				}
				e.values = append(e.values, item.Value)
			}
		default:
			return nil, inputf("%s:%d: %s: must be a plain value or a list of them", path, v.Line, e.key)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// setting is a flag of the effective configuration.
type setting struct {
	Key   string
	Value string
	list  []string
	text  bool // quoted in YAML where it must be
}

// settings lists the effective configuration in the order of the help.
func settings(cmd *cobra.Command) []setting {
	var out []setting
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !inConfig(f) || f.Name == spellingBF16 || cmd.InheritedFlags().Lookup(f.Name) != nil {
			return
		}
		s := setting{Key: f.Name, Value: f.Value.String()}
		if l, ok := f.Value.(pflag.SliceValue); ok {
			s.list = l.GetSlice()
			s.Value = strings.Join(s.list, ", ")
		}
		switch f.Value.Type() {
		case "bool", "int", "int64", "uint64", "float64":
		default:
			s.text = true
		}
		out = append(out, s)
	})
	return out
}

// configYAML writes the effective configuration as run.yaml has it.
func configYAML(cmd *cobra.Command) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# the effective configuration of %s\n", cmd.CommandPath())
	for _, s := range settings(cmd) {
		var v any = s.Value
		switch {
		case s.list != nil:
			v = s.list
		case !s.text:
			fmt.Fprintf(&b, "%s: %s\n", s.Key, s.Value)
			continue
		}
		line, err := yaml.Marshal(map[string]any{s.Key: v})
		if err != nil {
			return nil, err
		}
		b.Write(line)
	}
	return b.Bytes(), nil
}

// configMap is the effective configuration for --json.
func configMap(cmd *cobra.Command) map[string]any {
	m := map[string]any{}
	for _, s := range settings(cmd) {
		switch {
		case s.list != nil:
			m[s.Key] = s.list
		case s.text:
			m[s.Key] = s.Value
		default:
			if b, err := strconv.ParseBool(s.Value); err == nil && (s.Value == "true" || s.Value == "false") {
				m[s.Key] = b
			} else if n, err := strconv.ParseInt(s.Value, 10, 64); err == nil {
				m[s.Key] = n
			} else if x, err := strconv.ParseFloat(s.Value, 64); err == nil {
				m[s.Key] = x
			} else {
				m[s.Key] = s.Value
			}
		}
	}
	return m
}

// Keys that a resumed run may change: they touch neither weights nor metrics.
var freeKeys = []string{"threads", "device", "save-steps", "save-total-limit", "output-dir"}

// keepConfig writes config.yaml into a new run's directory, or, where the run is
// resumed, demands that the two agree in all that decides its outcome.
func keepConfig(cmd *cobra.Command, dir string, resume bool) error {
	path := filepath.Join(dir, configFile)
	text, err := configYAML(cmd)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		old, err := parseConfig(path)
		if err != nil {
			return err
		}
		now := map[string]string{}
		for _, s := range settings(cmd) {
			now[s.Key] = s.Value
		}
		for _, e := range old {
			v, known := now[e.key]
			was := strings.Join(e.values, ", ")
			if !known || v == was || isFreeKey(e.key) {
				continue
			}
			if resume {
				return inputf("--%s %s: the run in %s has %s; resume with the same value or choose another --output-dir", e.key, show(v), dir, show(was))
			}
		}
		if resume {
			return nil
		}
	}
	return input(checkpoint.WriteFile(path, func(w io.Writer) error { _, err := w.Write(text); return err }))
}

func show(v string) string {
	if v == "" {
		return `""`
	}
	return v
}

// newRunDirectory refuses a directory that another run has used.
func newRunDirectory(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return inputf("--output-dir %s: %w; choose another directory", dir, cause(err))
	}
	for _, e := range entries {
		name := e.Name()
		info, err := e.Info()
		begun := err == nil && info.Size() > 0 // a run that failed before its first step is none
		if name == report.MetricsFile && begun || name == predictionsFile || strings.HasPrefix(name, "checkpoint-") {
			return inputf("--output-dir %s: holds another run (%s); go on with it by --resume-from-checkpoint, or choose another directory", dir, name)
		}
	}
	return nil
}
