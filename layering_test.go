package updraft

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/updraft-ml/updraft/"

// layers is the table of CONTRIBUTING.md: what each package may import of this
// module outside its tests. A trailing /... covers everything below.
var layers = map[string][]string{
	"cmd/...":                   {"gapg/...", "serve/...", "bench/...", "model/...", "engine/...", "cuda", "cmd/...", "internal/..."},
	"gapg":                      {"gapg/cloud", "gapg/report", "model/...", "engine"},
	"gapg/task":                 {"gapg", "gapg/cloud", "gapg/task/answer", "model/tokenizer"},
	"gapg/task/answer":          {},
	"gapg/cloud":                {},
	"gapg/report":               {},
	"model":                     {"engine", "model/checkpoint", "internal/half"},
	"model/tokenizer":           {"model/checkpoint"},
	"model/chat":                {},
	"model/hub":                 {"model/checkpoint"},
	"model/checkpoint":          {"internal/half"},
	"engine":                    {},
	"engine/cpu":                {"engine", "simd", "internal/half", "internal/hugepages"},
	"engine/gpu":                {"engine", "cuda", "kernels", "internal/half"},
	"engine/enginetest":         {"engine", "internal/..."},
	"simd":                      {"internal/half"},
	"cuda":                      {},
	"kernels":                   {"kernels/internal/manifest"},
	"kernels/emu":               {},
	"kernels/kerneltest":        {"kernels", "kernels/emu", "cuda", "internal/testx"},
	"kernels/mkptx":             {"kernels/internal/manifest"},
	"kernels/ptxtable":          {"kernels"},
	"bench/...":                 {"bench/...", "gapg/...", "model/...", "engine/...", "cuda", "kernels", "simd", "internal/..."},
	"internal/half":             {},
	"internal/hugepages":        {},
	"kernels/internal/manifest": {},
	"internal/ref":              {"engine"},
	"internal/testx":            {},
}

// TestLayering holds every import against the table.
func TestLayering(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "." {
			return nil
		}
		allowed, ok := rule(pkg)
		require.True(t, ok, "%s: package %s has no row in the table of layers", path, pkg)
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if own, ok := strings.CutPrefix(imp, module); ok {
				require.True(t, matches(allowed, own), "%s: package %s may not import %s", path, pkg, own)
				seen++
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, seen, "the walk found no imports")
}

func rule(pkg string) ([]string, bool) {
	if r, ok := layers[pkg]; ok {
		return r, true
	}
	for name, r := range layers {
		if matches([]string{name}, pkg) {
			return r, true
		}
	}
	return nil, false
}

func matches(patterns []string, pkg string) bool {
	for _, p := range patterns {
		prefix, tree := strings.CutSuffix(p, "/...")
		if p == pkg || tree && (pkg == prefix || strings.HasPrefix(pkg, prefix+"/")) {
			return true
		}
	}
	return false
}

// The table itself must not allow what the architecture forbids.
func TestLayeringHasTeeth(t *testing.T) {
	for _, bad := range [][2]string{{"model", "engine/cpu"}, {"gapg", "engine/cpu"}, {"engine", "model"}, {"gapg/report", "gapg"}, {"simd", "engine"}} {
		allowed, ok := rule(bad[0])
		require.True(t, ok)
		require.False(t, matches(allowed, bad[1]), "%s must not import %s", bad[0], bad[1])
	}
}
