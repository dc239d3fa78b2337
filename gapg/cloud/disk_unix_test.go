//go:build unix

package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// helperSmallDisk is a process that may not write files beyond 64 KiB: the
// kernel refuses further writes as a full disk does.
func helperSmallDisk(path string) {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := Open(path, OpenOptions{})
	check1(err)
	check1(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}))
	l, err := NewLedger(&scripted{name: "c", answer: killAnswer}, s, LedgerConfig{Run: "r"})
	check1(err)
	for step := range 10_000 {
		if _, err := l.AnswerAll(context.Background(), step, killQuestions(step)); err != nil {
			var se *StoreError
			if !errors.As(err, &se) {
				check1(fmt.Errorf("not a StoreError: %w", err))
			}
			fmt.Printf("%d\n%v\n", step, err)
			os.Exit(0) // as a run that stops here does: the store is not used further
		}
	}
	os.Exit(4)
}

func TestFullDisk(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "journal")
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperEnv+"=small-disk", helperPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	var steps int
	_, err = fmt.Sscanf(string(out), "%d", &steps)
	require.NoError(t, err)
	require.Contains(t, string(out), path)
	require.Contains(t, string(out), "what was recorded before is safe")

	s, err := Open(path, OpenOptions{})
	require.NoError(t, err)
	defer s.Close()
	entries, err := s.Entries("r")
	require.NoError(t, err)
	require.Greater(t, steps, 3)
	require.GreaterOrEqual(t, len(entries), steps*killPerStep, "every step that had ended is there")
	l := ledger(t, &scripted{name: "c", answer: killAnswer}, s, "r")
	_, err = l.AnswerAll(t.Context(), steps, killQuestions(steps))
	require.NoError(t, err, "with room again the run goes on")
}
