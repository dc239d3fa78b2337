package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// TestMain plays the peer program where the environment says so.
func TestMain(m *testing.M) {
	if how := os.Getenv("UPDRAFT_TEST_PEER"); how != "" {
		playPeer(how)
		return
	}
	os.Exit(m.Run())
}

// playPeer knows products, in 2 ms, and nothing else.
func playPeer(how string) {
	fmt.Println("a library's greeting")
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var r request
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			panic(err)
		}
		switch {
		case r["do"] == "open" && r["kind"] == "gemm":
			fmt.Println(`{"name": "a peer"}`)
		case r["do"] == "open":
			fmt.Println(`{"missing": "not here"}`)
		case r["do"] == "round" && how == "ends":
			return
		case r["do"] == "round":
			fmt.Println(`{"seconds": 0.002}`)
		default:
			fmt.Println(`{}`)
		}
	}
}

// emulated lets this process and its children find the emulated driver.
func emulated(t *testing.T, m emu.Mode) {
	t.Helper()
	library, err := emu.Library(emu.Options{})
	testx.Have(t, "c++", !errors.Is(err, errors.ErrUnsupported))
	require.NoError(t, err)
	_, err = cuda.Open(cuda.WithLibrary(library))
	testx.Have(t, "cgo", err == nil)
	t.Setenv(cuda.LibraryEnv, library)
	t.Setenv(emu.Variable, m.String())
}

// The whole program on an emulated Hopper: every workload's result is right and has
// a time, products with both families of kernels; the peer's are merged; all files
// are written.
func TestRun(t *testing.T) {
	emulated(t, emu.Mode{Capability: "9.0"})
	t.Setenv("UPDRAFT_TEST_PEER", "plays")
	dir := t.TempDir()
	var out strings.Builder
	o := options{quick: true, out: dir, peer: os.Args[0]}
	if testing.Short() {
		o.groups = "copy,gemm,memory"
	}
	require.NoError(t, run(o, &out), "%s", &out)
	all, err := readResults(dir)
	require.NoError(t, err)
	chosen, err := choose(workloads(true), o.groups)
	require.NoError(t, err)
	families := 0
	seen := map[string]int{}
	for _, r := range all {
		seen[r.Group+"/"+r.Name]++
		if r.Group == "machine" {
			require.Equal(t, 9, r.Device.Major)
			continue
		}
		require.Empty(t, r.Error, r.Name)
		require.Positive(t, r.Compared, r.Name)
		require.LessOrEqual(t, r.Worst, 1.0, r.Name)
		require.Equal(t, 2, r.Rounds, r.Name)
		for _, p := range r.Peers {
			if r.Group == "gemm" {
				require.Equal(t, "a peer", p.Name)
				require.InEpsilon(t, 2000, p.Microseconds, 1e-9)
				require.InEpsilon(t, 2000/r.Microseconds, p.Ratio, 1e-6)
			} else {
				require.Equal(t, "not here", p.Missing)
				require.Zero(t, p.Ratio)
			}
		}
	}
	for _, x := range chosen {
		want := 1
		if x.families {
			want = 2
			families++
		}
		require.Equal(t, want, seen[x.group+"/"+x.name], x.name)
	}
	require.Positive(t, families)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "checks.txt"), []byte("suite: passed\n"), 0o644))
	require.NoError(t, run(options{report: true, out: dir}, &out))
	md, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	for _, want := range []string{"these are no measurements", "- suite: passed", "| gemm | sm_90a | a peer | 3 of 3 |", "| gemm | sm_80 | a peer |", "missing (not here)"} {
		require.Contains(t, string(md), want)
	}
	var j struct {
		Checks  []string
		Results []result
	}
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &j))
	require.Len(t, j.Results, len(all))
	require.Equal(t, []string{"suite: passed"}, j.Checks)
}

// A peer that ends in the middle is missing from there on, and ours go on.
func TestPeerEnds(t *testing.T) {
	emulated(t, emu.Mode{})
	t.Setenv("UPDRAFT_TEST_PEER", "ends")
	dir := t.TempDir()
	require.NoError(t, run(options{quick: true, out: dir, peer: os.Args[0], groups: "gemm"}, &strings.Builder{}))
	all, err := readResults(dir)
	require.NoError(t, err)
	require.Len(t, all, 4)
	for _, r := range all[1:] {
		require.Positive(t, r.Microseconds)
		require.Contains(t, r.Peers[0].Missing, "the peer program ended")
	}
}

func TestPeerThatIsNotThere(t *testing.T) {
	p := startPeer("/nowhere/python3 peer.py", t.TempDir(), 0)
	_, ok := p.ask(request{"do": "open"}, time.Second)
	require.False(t, ok)
	require.Contains(t, p.gone, "/nowhere/python3")
	p.close()
}

// A kernel that computes wrongly is found, and its time is not taken; the others go
// on.
func TestWrongKernelsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a module again")
	}
	emulated(t, emu.Mode{})
	library, err := emu.Library(emu.Options{Edit: func(module, text string) string {
		if module == "optimizer" {
			require.Equal(t, 1, strings.Count(text, "* s.rsqrt2 + s.eps"))
			return strings.Replace(text, "* s.rsqrt2 + s.eps", "* s.rsqrt2 * 1.01f + s.eps", 1)
		}
		return text
	}})
	require.NoError(t, err)
	t.Setenv(cuda.LibraryEnv, library)
	dir := t.TempDir()
	require.ErrorContains(t, run(options{quick: true, out: dir, groups: "adamw,memory"}, &strings.Builder{}), "wrong result: P[")
	all, err := readResults(dir)
	require.NoError(t, err)
	for _, r := range all[1:] {
		require.Equal(t, r.Group == "adamw", r.Error != "", r.Name)
		require.Equal(t, r.Group == "adamw", r.Microseconds == 0, r.Name)
	}
}

func TestNoDevice(t *testing.T) {
	t.Setenv(cuda.LibraryEnv, filepath.Join(t.TempDir(), "libcuda.so.1"))
	err := run(options{quick: true, out: t.TempDir()}, &strings.Builder{})
	var none *cuda.UnavailableError
	require.ErrorAs(t, err, &none)
	require.NotContains(t, err.Error(), "\n")
}

func TestChoose(t *testing.T) {
	var s strings.Builder
	require.NoError(t, run(options{list: true, groups: "gemm,copy"}, &s))
	require.Contains(t, s.String(), "T 8192, N 8192, K 8192")
	require.NotContains(t, s.String(), "attention")
	require.ErrorContains(t, run(options{list: true, groups: "gem"}, &s), `group "gem": there are copy, gemm, gemm-decode`)
	names := map[string]bool{}
	for _, x := range workloads(false) {
		require.False(t, names[x.group+x.name], "two workloads have the name %s", x.name)
		names[x.group+x.name] = true
		require.True(t, x.host || x.operands > 0, x.name)
	}
}

// A check that finds a wrong element says so, and NaN is wrong.
func TestCompared(t *testing.T) {
	var c compared
	c.element("a", 1.5, 1, 1)
	require.NoError(t, c.err)
	require.Equal(t, 0.5, c.Worst)
	c.element("b", math.NaN(), 1, 1)
	require.ErrorContains(t, c.err, "b is NaN")
	c.element("c", 9, 1, 1)
	require.ErrorContains(t, c.err, "b is NaN", "the first is kept")
	sum, tol := dot(20, func(k int) float64 { return 1 }, func(k int) float64 { return float64(k) })
	require.Equal(t, 190.0, sum)
	require.InDelta(t, 18*0x1p-23*(120+190), tol, 1e-12)
}

// A last line that was cut off does not hide the others.
func TestKilledRun(t *testing.T) {
	dir := t.TempDir()
	r, err := openResults(dir)
	require.NoError(t, err)
	require.NoError(t, r.add(result{Group: "gemm", Name: "a", timing: timing{Microseconds: 3}}))
	_, err = r.f.WriteString(`{"group": "gemm", "na`)
	require.NoError(t, err)
	require.NoError(t, r.close())
	require.NoError(t, writeReport(dir))
	md, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(md), "| a |  | 3.0 (0.0–0.0)")
	require.Contains(t, string(md), "No peer was asked.")
}

// The peer's files compile, where there is a Python.
func TestPeerCompiles(t *testing.T) {
	python, err := exec.LookPath("python3")
	testx.Have(t, "python3", err == nil)
	files, err := filepath.Glob("peer/*.py")
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, f := range files {
		msg, err := exec.Command(python, "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", f).CombinedOutput()
		require.NoError(t, err, "%s", msg)
	}
}
