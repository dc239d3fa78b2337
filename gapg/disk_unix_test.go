//go:build unix

package gapg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

const fullDiskEnv = "UPDRAFT_TEST_FULL_DISK"

// On a full disk a checkpoint fails with a clear error, the one before it stays
// whole, and with room again the run goes on to the end that it would have had.
// The disk is a limit on the size of files, under which a checkpoint of the
// process's second half does not fit.
func TestFullDisk(t *testing.T) {
	alg := func() Algorithm { return NewDAGRPO() }
	r := newRunner(t, alg, RunConfig{SaveSteps: 3}, nil)
	if dir := os.Getenv(fullDiskEnv); dir != "" {
		r.dir = dir
		_, err := r.train(t, false, 4, 0)
		require.ErrorIs(t, err, ErrStopped)
		signal.Ignore(syscall.SIGXFSZ)
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 12 << 10, Max: 12 << 10}))
		_, err = r.train(t, true, 0, 0)
		fmt.Printf("full disk: %v\n", err)
		if !errors.Is(err, syscall.EFBIG) {
			os.Exit(3)
		}
		os.Exit(0)
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestFullDisk$")
	cmd.Env = append(os.Environ(), fullDiskEnv+"="+r.dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	_, message, _ := strings.Cut(string(out), "full disk: ")
	t.Log(strings.ReplaceAll(message, r.dir, "RUN"))
	require.Contains(t, message, "checkpoint of step 6")
	require.Contains(t, message, r.dir)

	steps, err := checkpoints(r.dir)
	require.NoError(t, err)
	require.Equal(t, []int{3, 4}, steps)
	w, err := r.train(t, true, 0, 0)
	require.NoError(t, err)
	whole := newRunner(t, alg, RunConfig{SaveSteps: 3}, nil)
	want, err := whole.train(t, false, 0, 0)
	require.NoError(t, err)
	require.True(t, sameBits(want, w))
}

// A directory that cannot be written to is an error that names it, before any
// step is made; one that becomes so leaves the checkpoints as they are.
func TestUnwritableDirectory(t *testing.T) {
	testx.Have(t, "a user without root's rights", os.Geteuid() != 0)
	r := newRunner(t, func() Algorithm { return GAPG{} }, RunConfig{SaveSteps: 1}, nil)
	_, err := r.train(t, false, 2, 0)
	require.ErrorIs(t, err, ErrStopped)
	before := listing(t, filepath.Join(r.dir, "checkpoint-2"))
	require.NoError(t, os.Chmod(r.dir, 0o555))
	defer os.Chmod(r.dir, 0o755)
	_, err = r.train(t, true, 0, 0)
	require.ErrorContains(t, err, r.dir)
	require.Equal(t, before, listing(t, filepath.Join(r.dir, "checkpoint-2")))
}
