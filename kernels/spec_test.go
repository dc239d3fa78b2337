package kernels

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/kernels/internal/manifest"
)

func allSpecs() []Spec {
	return []Spec{GEMMBF16F32().Spec, GEMMBF16BF16().Spec}
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
	re := regexp.MustCompile(`(?s)\.visible \.entry ` + entry + `\(\n(.*?)\n\)\n(.*?)\{\n(.*?)\n\}\n`)
	m := re.FindStringSubmatch(ptx)
	require.NotNil(t, m, "no entry %s", entry)
	return m[1], m[2], m[3]
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
	letters := map[string]string{"u64": "p", "u32": "i", "f32": "f"} // and l, a 64-bit integer, which PTX does not tell from a pointer
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

func TestGEMMSpecAgreesWithSource(t *testing.T) {
	src, err := os.ReadFile("gemm_bf16.cu")
	require.NoError(t, err)
	constant := func(name string) int {
		m := regexp.MustCompile(`\b` + name + ` = (\d+)`).FindSubmatch(src)
		require.NotNil(t, m, name)
		v, err := strconv.Atoi(string(m[1]))
		require.NoError(t, err)
		return v
	}
	for _, g := range []GEMM{GEMMBF16F32(), GEMMBF16BF16()} {
		require.Equal(t, constant("kTileM"), g.TileM)
		require.Equal(t, constant("kTileN"), g.TileN)
		require.Equal(t, constant("kTileK"), g.TileK)
		require.Equal(t, constant("kStages"), g.Stages)
		require.Equal(t, constant("kThreads"), g.Block)
		require.Equal(t, g.Stages*(g.TileM+g.TileN)*g.TileK*2, g.Shared)
		require.Contains(t, string(src), fmt.Sprintf("%d bytes of", g.Shared), "the header comment states it too")
	}
}

func TestGEMMGridAndCheck(t *testing.T) {
	g := GEMMBF16F32()
	require.Equal(t, 1, g.Grid(1, 1))
	require.Equal(t, 1, g.Grid(128, 128))
	require.Equal(t, 6, g.Grid(129, 257))
	require.NoError(t, g.Check(1, 1, 0, 1, 0, 0))
	require.NoError(t, g.Check(8192, 151936, 8192, 151936, 8192, 8192))
	for _, bad := range []struct {
		args [6]int
		says string
	}{
		{[6]int{0, 1, 8, 1, 8, 8}, "M = 0"},
		{[6]int{1, 1, -1, 1, 8, 8}, "K = -1"},
		{[6]int{1, 9, 8, 8, 8, 8}, "ldc = 8"},
		{[6]int{1, 1, 9, 1, 8, 16}, "lda = 8"},
		{[6]int{1, 1, 9, 1, 12, 16}, "multiples of 8"},
		{[6]int{1, 1, 9, 1, 16, 12}, "multiples of 8"},
		{[6]int{math.MaxInt32, 1, 8, 1, 8, 8}, "too large"},
		{[6]int{1 << 30, 1 << 30, 8, 1 << 30, 8, 8}, "too large"},
	} {
		a := bad.args
		require.ErrorContains(t, g.Check(a[0], a[1], a[2], a[3], a[4], a[5]), bad.says)
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
