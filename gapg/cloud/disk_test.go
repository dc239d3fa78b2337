package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// The test binary plays the process that is killed: see TestMain.
const (
	helperEnv  = "UPDRAFT_CLOUD_TEST_HELPER"
	helperPath = "UPDRAFT_CLOUD_TEST_PATH"
)

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "":
		os.Exit(m.Run())
	case "steps":
		helperSteps(os.Getenv(helperPath))
	case "small-disk":
		helperSmallDisk(os.Getenv(helperPath))
	}
}

// The run that is killed: steps of questions that overlap from step to step, some
// of which fail for good.
const (
	killSteps   = 12
	killPerStep = 6
)

func killQuestions(step int) []Question {
	var qs []Question
	for i := range killPerStep {
		qs = append(qs, questions(step*killPerStep/2+i)...)
	}
	return qs
}

func killAnswer(_ context.Context, q Question) (Answer, error) {
	n, _ := strconv.Atoi(q.ID[1:])
	if n%11 == 3 {
		return Answer{}, errors.New("refused")
	}
	if n%13 == 5 {
		return Answer{}, Transient(errors.New("busy"))
	}
	return Answer{Text: "A " + q.ID, CostUSD: 0.001 * float64(n), Usage: Usage{n, 2 * n}}, nil
}

// helperSteps goes through all steps, logging each call to PATH.calls before it
// is made, and each answer that it was given to PATH.answers after.
func helperSteps(path string) {
	calls, err := os.OpenFile(path+".calls", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check1(err)
	used, err := os.OpenFile(path+".used", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check1(err)
	s, err := Open(path, OpenOptions{LockTimeout: 10 * time.Second})
	check1(err)
	c := &scripted{name: "c", answer: func(ctx context.Context, q Question) (Answer, error) {
		fmt.Fprintln(calls, q.ID)
		time.Sleep(2 * time.Millisecond)
		return killAnswer(ctx, q)
	}}
	l, err := NewLedger(c, s, LedgerConfig{Run: "r", Concurrency: 3})
	check1(err)
	for step := range killSteps {
		qs := killQuestions(step)
		r, err := l.AnswerAll(context.Background(), step, qs)
		check1(err)
		for i := range r {
			if r[i].Err == nil {
				fmt.Fprintln(used, qs[i].ID)
			}
		}
	}
	check1(s.Close())
	os.Exit(0)
}

func check1(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func lines(t *testing.T, path string) []string {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var out []string
	for _, l := range bytes.Split(b, []byte("\n")) {
		if len(l) > 0 {
			out = append(out, string(l))
		}
	}
	return out
}

// TestKill kills a run at many instants, lets it go on each time, and compares
// what it leaves with a run that was never killed.
func TestKill(t *testing.T) {
	clean := NewMemory()
	l := ledger(t, &scripted{name: "c", answer: killAnswer}, clean, "r")
	for step := range killSteps {
		_, err := l.AnswerAll(t.Context(), step, killQuestions(step))
		require.NoError(t, err)
	}
	want, err := clean.Entries("r")
	require.NoError(t, err)
	require.NotEmpty(t, want)

	exe, err := os.Executable()
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 3 {
		path := filepath.Join(t.TempDir(), "journal")
		kills, usedBefore := 0, 0
		for {
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), helperEnv+"=steps", helperPath+"="+path)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			require.NoError(t, cmd.Start())
			if kills < 6 {
				timer := time.AfterFunc(time.Duration(rng.IntN(70_000))*time.Microsecond, func() { cmd.Process.Kill() })
				defer timer.Stop()
			}
			err := cmd.Wait()
			if err == nil {
				break
			}
			require.Equal(t, -1, cmd.ProcessState.ExitCode(), "%s", stderr.String())
			kills++
		}
		s, err := Open(path, OpenOptions{})
		require.NoError(t, err)
		got, err := s.Entries("r")
		require.NoError(t, err)
		require.Equal(t, want, got)
		for step := range killSteps {
			require.Equal(t, clean.Totals("r", step), s.Totals("r", step))
		}
		// Every call is accounted for: recorded as sent, or as sent and unanswered.
		left, err := s.Unanswered()
		require.NoError(t, err)
		calls := lines(t, path+".calls")
		recorded := 0
		for _, e := range got {
			if !e.Cached {
				recorded++
			}
		}
		require.LessOrEqual(t, len(calls), recorded+len(left), "a call was not accounted for")
		// An answer that was used was never asked for again: each question is called
		// at most once more than it was left unanswered, and failures once per step.
		atMost := make(map[string]int)
		for _, e := range got {
			if !e.Cached {
				atMost[e.ID]++
			}
		}
		for _, in := range left {
			atMost[in.ID]++
		}
		n := make(map[string]int)
		for _, id := range calls {
			n[id]++
		}
		for id := range n {
			require.LessOrEqual(t, n[id], atMost[id], id)
		}
		require.NoError(t, s.Close())
		t.Logf("trial %d: %d kills, %d calls, %d unanswered, %d answers used before the end", trial, kills, len(calls), len(left), usedBefore)
	}
}

// filled makes a ledger file with some of everything in it.
func filled(t testing.TB) (path string) {
	path = filepath.Join(t.TempDir(), "journal")
	s, err := Open(path, OpenOptions{NoSync: true})
	require.NoError(t, err)
	l := ledger(t, &scripted{name: "c", answer: killAnswer}, s, "r")
	for step := range 20 {
		_, err := l.AnswerAll(t.Context(), step, killQuestions(step))
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	return path
}

func TestOpenAgain(t *testing.T) {
	path := filled(t)
	s, err := Open(path, OpenOptions{})
	require.NoError(t, err)
	entries, err := s.Entries("r")
	require.NoError(t, err)
	require.Len(t, entries, 20*killPerStep)
	c := &scripted{name: "c"}
	l := ledger(t, c, s, "r")
	for step := range 20 {
		_, err := l.AnswerAll(t.Context(), step, killQuestions(step))
		require.NoError(t, err)
	}
	require.Zero(t, c.total(), "everything is on record")
	require.NoError(t, s.Close())
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s, err := Open(path, OpenOptions{})
	require.NoError(t, err)
	_, err = Open(path, OpenOptions{LockTimeout: 50 * time.Millisecond})
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "wait for the other run to end")
	require.NoError(t, s.Close())
	s, err = Open(path, OpenOptions{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

func TestOpenBadPlaces(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("not a directory"), 0o644))
	for _, path := range []string{dir, filepath.Join(dir, "missing", "journal"), filepath.Join(file, "journal")} {
		_, err := Open(path, OpenOptions{})
		var se *StoreError
		require.ErrorAs(t, err, &se)
		require.Equal(t, path, se.Path)
		require.ErrorContains(t, err, path)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left behind")
}

// requireUntouched opens a damaged file and wants a clear error and no change.
func requireUntouched(t *testing.T, path string) {
	t.Helper()
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	s, err := Open(path, OpenOptions{})
	if err == nil {
		s.Close()
	}
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, path)
	require.ErrorContains(t, err, "left untouched")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after), "the damaged file was written to")
}

func TestCorrupt(t *testing.T) {
	good, err := os.ReadFile(filled(t))
	require.NoError(t, err)
	write := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "journal")
		require.NoError(t, os.WriteFile(path, b, 0o644))
		return path
	}
	t.Run("empty", func(t *testing.T) { requireUntouched(t, write(nil)) })
	t.Run("text", func(t *testing.T) { requireUntouched(t, write([]byte("{\"nums\": [1, 2]}\n"))) })
	t.Run("zeros", func(t *testing.T) { requireUntouched(t, write(make([]byte, 1<<16))) })
	for _, n := range []int{1, 100, 4096, 8192, 16384, len(good) / 2} {
		t.Run(fmt.Sprint("cut at ", n), func(t *testing.T) { requireUntouched(t, write(good[:n])) })
	}
	t.Run("another database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "journal")
		db, err := bbolt.Open(path, 0o644, nil)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		requireUntouched(t, path)
	})
	t.Run("an answer changed", func(t *testing.T) {
		b := bytes.ReplaceAll(good, []byte(`"text":"A q2"`), []byte(`"text":"B q2"`))
		require.NotEqual(t, good, b)
		requireUntouched(t, write(b))
	})
}

// TestDamagedAnywhere flips bits and clears stretches at many places. What Open
// accepts must be whole, what it refuses untouched, and nothing may panic.
func TestDamagedAnywhere(t *testing.T) {
	src := filled(t)
	good, err := os.ReadFile(src)
	require.NoError(t, err)
	s, err := Open(src, OpenOptions{})
	require.NoError(t, err)
	want, err := s.Entries("r")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	good, err = os.ReadFile(src)
	require.NoError(t, err)

	rng := rand.New(rand.NewPCG(3, 4))
	path := filepath.Join(t.TempDir(), "journal")
	refused := 0
	const trials = 150
	for trial := range trials {
		b := bytes.Clone(good)
		i := rng.IntN(len(b))
		if trial%4 == 0 {
			i = rng.IntN(4) * 4096 // heads of pages matter most
			i += rng.IntN(64)
		}
		if trial%3 == 0 {
			clear(b[i:min(len(b), i+1+rng.IntN(5000))])
		} else {
			b[i] ^= 1 << rng.IntN(8)
		}
		require.NoError(t, os.WriteFile(path, b, 0o644))
		s, err := Open(path, OpenOptions{NoSync: true})
		if err != nil {
			refused++
			require.ErrorIs(t, err, ErrCorrupt, "trial %d", trial)
			after, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, after), "trial %d: the damaged file was written to", trial)
			continue
		}
		got, err := s.Entries("r")
		require.NoError(t, err)
		// bbolt keeps two meta pages and falls back to the older one if the newer is
		// damaged: then the last transaction is gone, as if killed before it.
		require.GreaterOrEqual(t, len(got), len(want)-killPerStep, "trial %d", trial)
		require.Subset(t, want, got, "trial %d", trial)
		require.NoError(t, s.Close())
	}
	require.Greater(t, refused, trials/10)
	require.Less(t, refused, trials)
	t.Logf("%d of %d damaged files refused", refused, trials)
}
