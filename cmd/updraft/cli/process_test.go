//go:build unix

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
)

// process starts this test binary as the command.
func process(t testing.TB, calls string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asMain+"=1", callLog+"="+calls)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	return cmd, &stderr
}

// entries are a ledger's lines of every purpose, and the questions with an
// answer on record.
func entries(t testing.TB, path string) (all []cloud.Entry, answered map[string]bool) {
	t.Helper()
	answered = map[string]bool{}
	if _, err := os.Stat(path); err != nil {
		return nil, answered
	}
	s, err := cloud.Open(path, cloud.OpenOptions{})
	require.NoError(t, err)
	defer s.Close()
	for _, run := range []string{"train", "eval"} {
		e, err := s.Entries(run)
		require.NoError(t, err)
		for _, x := range e {
			answered[x.ID] = answered[x.ID] || x.Status == cloud.Answered
		}
		all = append(all, e...)
	}
	return all, answered
}

// A run killed at random instants and resumed each time ends as one that was
// never killed: weights, optimizer, trainer state, metrics but for wall-clock
// figures, ledger. No answer on record is asked for again.
func TestKilledAndResumed(t *testing.T) {
	kills := 10
	if testing.Short() {
		kills = 3
	}
	from, dir := tinyModel(t), t.TempDir()
	whole, killed := filepath.Join(dir, "whole"), filepath.Join(dir, "killed")
	args := func(out string) []string {
		return small(from, out, "--algorithm", "gapg", "--max-steps", "150", "--save-steps", "4", "--eval-steps", "10", "--eval-prompts", "16", "--train-prompts", "60",
			"--lr-scheduler-type", "linear", "--learning-rate", "5e-3", "--log-level", "warn")
	}
	start := time.Now()
	cmd, stderr := process(t, filepath.Join(dir, "whole.calls"), args(whole)...)
	require.NoError(t, cmd.Wait(), stderr.String())
	took := time.Since(start)
	t.Logf("uninterrupted: %v", took)

	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	calls := filepath.Join(dir, "killed.calls")
	resume := func() []string {
		a := args(killed)
		if _, err := os.Stat(killed); err == nil {
			a = append(a, "--resume-from-checkpoint")
		}
		return a
	}
	hits := 0
	for done := false; !done; {
		_, answered := entries(t, filepath.Join(killed, ledgerFile))
		seen := lineCount(calls)
		cmd, stderr := process(t, calls, resume()...)
		var delay time.Duration
		if hits < kills {
			delay = time.Duration(rng.Int64N(int64(took)/9 + 1))
			time.Sleep(delay)
			require.NoError(t, cmd.Process.Kill())
		}
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case err == nil:
			done = true
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
			hits++
		default:
			t.Fatalf("after %d kills, %v: %v\n%s", hits, delay, err, stderr)
		}
		if data, err := os.ReadFile(calls); err == nil {
			for _, id := range strings.Fields(strings.ReplaceAll(string(data), " ", "_"))[seen:] {
				require.False(t, answered[strings.ReplaceAll(id, "_", " ")], "%s was on record and asked for again", id)
			}
		}
	}
	t.Logf("killed %d times", hits)
	require.Equal(t, kills, hits)

	for _, name := range []string{"final/model.safetensors", "checkpoint-150/model.safetensors", "checkpoint-150/optimizer.safetensors"} {
		require.True(t, read(t, whole, name) == read(t, killed, name), "%s differs", name)
	}
	require.Equal(t, untimed(t, whole), untimed(t, killed))
	state := func(dir string) map[string]any {
		var s map[string]any
		require.NoError(t, json.Unmarshal([]byte(read(t, dir, "checkpoint-150", "trainer_state.json")), &s))
		delete(s, "metrics") // a length in bytes, of wall-clock figures too
		return s
	}
	require.Equal(t, state(whole), state(killed))
	want, _ := entries(t, filepath.Join(whole, ledgerFile))
	got, _ := entries(t, filepath.Join(killed, ledgerFile))
	require.Equal(t, want, got)
	left, err := filepath.Glob(filepath.Join(killed, ".checkpoint-*"))
	require.NoError(t, err)
	require.Empty(t, left, "half-written checkpoints are cleared away")
}

// The built program: an interrupt finishes the step, saves and exits with 130, a
// termination with 143, a second signal ends it at once; the run goes on after.
func TestSignals(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	exe := filepath.Join(dir, "updraft")
	build := exec.Command("go", "build", "-o", exe, "github.com/updraft-ml/updraft/cmd/updraft")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	run := filepath.Join(dir, "run")
	shape := strings.Fields("--hidden-size 16 --num-hidden-layers 1 --num-attention-heads 2 --num-key-value-heads 1 --head-dim 8 --intermediate-size 16 " +
		"--max-position-embeddings 128 --per-device-train-batch-size 4 --threads 1 --max-steps 1000000 --save-steps 0 --lr-scheduler-type constant")
	begin := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(exe, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		return cmd, &stderr
	}
	steps := func() int { return lineCount(filepath.Join(run, "metrics.jsonl")) }
	wait := func(at int) {
		require.Eventually(t, func() bool { return steps() > at }, 30*time.Second, 5*time.Millisecond)
	}
	code := func(cmd *exec.Cmd) int {
		err := cmd.Wait()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		return exit.ExitCode()
	}

	cmd, stderr := begin(append([]string{"sft", "--output-dir", run}, shape...)...)
	wait(0)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 130, code(cmd), stderr.String())
	require.Equal(t, "updraft: stopped by an interrupt", lastLine(stderr.String()))
	newest, err := gapg.NewestCheckpoint(run)
	require.NoError(t, err)
	first := steps()
	require.Equal(t, filepath.Join(run, "checkpoint-"+strconv.Itoa(first)), newest, "the step that was running is saved")

	cmd, stderr = begin("sft", "--output-dir", run, "--resume-from-checkpoint")
	wait(first)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 143, code(cmd), stderr.String())
	require.Greater(t, steps(), first)

	// A command without steps stops where it is.
	cmd, stderr = begin("demo", "--model", newest, "--output-dir", filepath.Join(dir, "demo"), "--max-steps", "100000")
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Equal(t, 130, code(cmd), stderr.String())

	// In a step that takes long, a second signal ends the process at once.
	long := filepath.Join(dir, "long")
	cmd, stderr = begin("sft", "--output-dir", long, "--per-device-train-batch-size", "1000000", "--threads", "1")
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(long, configFile)); return err == nil }, 30*time.Second, 5*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.Signal(0)), "the first one waits for the step")
	second := time.Now()
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	err = cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, stderr.String())
	require.Equal(t, syscall.SIGINT, exit.Sys().(syscall.WaitStatus).Signal())
	require.Less(t, time.Since(second), 5*time.Second)
}
