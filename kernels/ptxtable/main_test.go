package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
)

// NVIDIA's assembler accepts every module for every kind of chip that runs it,
// without spills, and the committed table says what it made of them, as far as it is
// of the same release.
func TestPTXAssembles(t *testing.T) {
	ptxas, err := exec.LookPath("ptxas")
	testx.Have(t, "ptxas", err == nil)
	table, err := tabulate(ptxas)
	require.NoError(t, err)
	committed, err := os.ReadFile("../../docs/gpu-kernels.md")
	require.NoError(t, err)
	version, err := release(ptxas)
	require.NoError(t, err)
	if !strings.Contains(string(committed), "By ptxas "+version+";") {
		t.Logf("ptxas is %s, the table is another's", version)
		return
	}
	require.Equal(t, string(committed), table, "go run ./kernels/ptxtable >docs/gpu-kernels.md")
}

func TestRead(t *testing.T) {
	const good = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_80'
ptxas info    : Function properties for a
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 416 bytes cmem[0]
`
	r, err := read(good)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"a": 40}, r)
	for edit, says := range map[[2]string]string{
		{"0 bytes spill stores", "8 bytes spill stores"}:              "a spills: 8 bytes stored, 0 loaded",
		{"Used 40 registers", "used nothing"}:                         "nothing read",
		{"0 bytes gmem", "(C7510) Potential Performance Loss: wgmma"}: "Performance Loss: wgmma",
		{"0 bytes gmem", "warning : x"}:                               "warning : x",
	} {
		_, err := read(strings.Replace(good, edit[0], edit[1], 1))
		require.ErrorContains(t, err, says)
	}
}

func TestBlocksOf(t *testing.T) {
	s := kernels.Spec{Block: 128, Shared: 48 << 10}
	require.Equal(t, 3, chips[0].blocksOf(s, 128), "shared memory")
	require.Equal(t, 2, chips[0].blocksOf(s, 255), "registers")
	require.Equal(t, 16, chips[0].blocksOf(kernels.Spec{Block: 128}, 32), "threads")
	require.Equal(t, 32, chips[0].blocksOf(kernels.Spec{Block: 32}, 32), "blocks")
}
