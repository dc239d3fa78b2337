package kernels

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/kernels/internal/manifest"
)

func allSpecs() []Spec {
	return slices.Concat(
		ProductSpecs(),
		AttentionSpecs(),
		RowSpecs(),
	)
}

func TestPTXIsFresh(t *testing.T) {
	m, err := manifest.Read(".")
	require.NoError(t, err)
	faults, err := m.Verify(".")
	require.NoError(t, err)
	require.Empty(t, faults, "the committed PTX does not belong to the sources: run `make ptx`")
	for _, mod := range m.Modules {
		embedded := ptx(strings.TrimSuffix(mod.PTX, ".ptx"))
		require.Equal(t, mod.SHA256, manifest.Hash([]byte(embedded)), "%s is embedded as another text", mod.PTX)
	}
}

// ptxEntry finds an entry point's declaration: its parameters and what stands
// between them and the body.
func ptxEntry(t *testing.T, ptx, entry string) (params, directives, body string) {
	t.Helper()
	_, rest, ok := strings.Cut(ptx, ".visible .entry "+entry+"(\n")
	require.True(t, ok, "no entry %s", entry)
	params, rest, ok = strings.Cut(rest, "\n)\n")
	require.True(t, ok, "entry %s has no end of its parameters", entry)
	directives, rest, ok = strings.Cut(rest, "{\n")
	require.True(t, ok, "entry %s has no body", entry)
	body, _, ok = strings.Cut(rest, "\n}\n")
	require.True(t, ok, "entry %s has no end", entry)
	return params, directives, body
}

// Every entry point has a Spec, and every module is some Spec's.
func TestSpecsAreComplete(t *testing.T) {
	listed := map[string]bool{}
	for _, s := range allSpecs() {
		require.False(t, listed[s.Module+" "+s.Entry], "%s twice", s.Entry)
		listed[s.Module+" "+s.Entry] = true
	}
	names, err := filepath.Glob("*.ptx")
	require.NoError(t, err)
	for _, name := range names {
		module := strings.TrimSuffix(name, ".ptx")
		entries := regexp.MustCompile(`\.visible \.entry (\w+)`).FindAllStringSubmatch(ptx(module), -1)
		require.NotEmpty(t, entries, name)
		for _, e := range entries {
			require.True(t, listed[module+" "+e[1]], "%s: %s has no Spec in allSpecs", name, e[1])
			delete(listed, module+" "+e[1])
		}
	}
	require.Empty(t, listed, "Specs of entry points that no PTX has")
}

func TestSpecsAgreeWithPTX(t *testing.T) {
	letters := map[string]string{"u64": "p", "u32": "i", "f32": "f", "align": "t"} // and l, a 64-bit integer, which PTX does not tell from a pointer
	for _, s := range allSpecs() {
		t.Run(s.Entry, func(t *testing.T) {
			require.Contains(t, s.PTX, "\n.version 8.0\n", "drivers from R525 on load PTX ISA 8.0 and no later one")
			target := s.Arch.String()
			if strings.HasSuffix(s.Module, "_sm90a") {
				target += "a"
			}
			require.Contains(t, s.PTX, "\n.target "+target+"\n")
			require.Equal(t, ptx(s.Module), s.PTX)
			params, directives, body := ptxEntry(t, s.PTX, s.Entry)
			got := ""
			for _, m := range regexp.MustCompile(`\.param \.(\w+)`).FindAllStringSubmatch(params, -1) {
				got += letters[m[1]]
			}
			require.Equal(t, strings.ReplaceAll(s.Params, "l", "p"), got)
			require.Contains(t, directives, fmt.Sprintf(".maxntid %d, 1, 1", s.Block))
			require.NotContains(t, body, ".local", "an array went to local memory")
			// The least limit of the chips that sm_80 code runs on is that of 8.6 and 8.9.
			limit := 99 << 10
			if s.Arch == (Arch{9, 0}) {
				limit = 227 << 10
			}
			require.LessOrEqual(t, s.Shared, limit)
		})
	}
}

func TestArch(t *testing.T) {
	require.Equal(t, "sm_80", Arch{8, 0}.String())
	for _, c := range []struct {
		a, b Arch
		want bool
	}{{Arch{8, 0}, Arch{8, 0}, true}, {Arch{7, 5}, Arch{8, 0}, false}, {Arch{9, 0}, Arch{8, 6}, true}, {Arch{8, 0}, Arch{8, 6}, false}} {
		require.Equal(t, c.want, c.a.AtLeast(c.b), "%v %v", c.a, c.b)
	}
}

// Kernels stand on device.cuh alone: no NVIDIA header, nothing of the system.
func TestSourcesIncludeOnlyOurs(t *testing.T) {
	names, err := filepath.Glob("*.cu*")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		src, err := os.ReadFile(name)
		require.NoError(t, err)
		for line := range strings.Lines(string(src)) {
			if strings.HasPrefix(line, "#include") {
				require.Contains(t, line, `"`, "%s: %s", name, line)
			}
		}
	}
}
