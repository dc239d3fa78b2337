//go:build unix

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model"
)

// asPeer makes the test binary act as a peer: honest, or with a defect.
const asPeer = "UPDRAFT_TEST_PEER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(asPeer); mode != "" {
		os.Exit(fakePeer(mode))
	}
	os.Exit(m.Run())
}

// peersDir makes a directory with a peer for each name, which behaves as its mode
// says.
func peersDir(t *testing.T, modes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	for name, mode := range modes {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		// Not with exec: what a script starts must end with it.
		script := fmt.Sprintf("#!/bin/sh\n%s=%s '%s'\n", asPeer, mode, self)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "run"), []byte(script), 0o755))
	}
	return dir
}

// fakeRequest has every key of the protocol.
type fakeRequest struct {
	Op, Work, Variant, File, A, B, Model, GGUF, Tokens string
	M, N, K, Repeat, Sequences, Length, Batch, Prompt  int
	New                                                int
}

func fakePeer(mode string) int {
	if mode == "says-it-starts" {
		fmt.Fprintln(os.Stderr, "started")
	}
	if mode == "not-set-up" {
		fmt.Fprintln(os.Stderr, "run setup.sh first")
		return exitNotSetUp
	}
	if mode == "broken" {
		fmt.Fprintln(os.Stderr, "libfoo.so.3: cannot open shared object file")
		return 127
	}
	out := json.NewEncoder(os.Stdout)
	fmt.Println("a library's banner") // must be skipped
	works := []string{"gemm", "train", "prefill", "decode"}
	if mode == "gemm-only" {
		works = works[:1]
	}
	out.Encode(map[string]any{"peer": "fake", "version": "1.2", "detail": mode + ", " + os.Getenv("UPDRAFT_THREADS") + " threads", "works": works})
	var result []float32
	var work func() []float32
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var q fakeRequest
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			out.Encode(map[string]any{"error": err.Error()})
			continue
		}
		switch q.Op {
		case "prepare":
			if mode == "hangs" {
				time.Sleep(time.Hour)
			}
			if mode == "refuses" {
				out.Encode(map[string]any{"error": "too large\nfor me"})
				continue
			}
			f, err := fakeWork(q)
			if err != nil {
				out.Encode(map[string]any{"error": err.Error()})
				continue
			}
			work = f
			variants := []string{q.Work}
			if mode == "one-dies" {
				variants = []string{"first", "fatal", "last"}
			}
			out.Encode(map[string]any{"ok": true, "variants": variants})
		case "run":
			if mode == "dies" || q.Variant == "fatal" {
				fmt.Fprintln(os.Stderr, "segmentation fault")
				return 139
			}
			begun := time.Now()
			for range q.Repeat {
				result = work()
			}
			out.Encode(map[string]any{"seconds": time.Since(begun).Seconds()})
		case "output":
			if mode == "wrong" {
				result[len(result)/2] += 0.25
			}
			if err := guard(func() { writeFloats(q.File, result) }); err != nil {
				out.Encode(map[string]any{"error": err.Error()})
				continue
			}
			out.Encode(map[string]any{"ok": true})
		case "close":
			out.Encode(map[string]any{"ok": true})
		case "quit":
			return 0
		}
	}
	return 0
}

// fakeWork does a work in the plainest way: products by loops, models by this
// module, read from the files as any peer would.
func fakeWork(q fakeRequest) (func() []float32, error) {
	if q.Work == "gemm" {
		a, errA := readFloats(q.A)
		b, errB := readFloats(q.B)
		return func() []float32 {
			c := make([]float32, q.M*q.N)
			for i := range c {
				var s float32
				for k := range q.K {
					s += a[i/q.N*q.K+k] * b[i%q.N*q.K+k]
				}
				c[i] = s
			}
			return c
		}, errors.Join(errA, errB)
	}
	ctx := context.Background()
	raw, err := readFloats(q.Tokens)
	if err != nil {
		return nil, err
	}
	tokens := make([]int32, len(raw))
	for i, v := range raw {
		tokens[i] = int32(math.Float32bits(v))
	}
	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	if q.Work == "train" {
		m, err := model.Load(ctx, be, q.Model, model.Options{Trainable: true, MaxRows: len(tokens), MaxContext: q.Length})
		t := &trainer{m: m}
		for i := range q.Sequences {
			x := tokens[i*q.Length : (i+1)*q.Length]
			t.batch.Groups = append(t.batch.Groups, model.Group{Prompt: x[:1], Responses: [][]int32{x[1:]}})
		}
		return func() []float32 {
			t.step(nil, true)
			out := []float32{float32(t.losses[0]), float32(t.norms[0])}
			for _, l := range t.losses[1:] {
				out = append(out, float32(l))
			}
			return out
		}, err
	}
	open := func() (*model.Model, error) { return model.Load(ctx, be, q.Model, model.Options{MaxRows: 1024}) }
	if q.GGUF != "" && q.Work == "decode" { // one work from each file
		open = func() (*model.Model, error) { return model.LoadGGUF(ctx, be, q.GGUF, model.Options{MaxRows: 1024}) }
	}
	m, err := open()
	if err != nil {
		return nil, err
	}
	rows, length := max(q.Batch, 1), len(tokens)/max(q.Batch, 1)
	embed, err := m.ReadParam(ctx, model.Weights, "model.embed_tokens.weight")
	return func() (logits []float32) {
		for i := range rows {
			h, err := m.Hidden(ctx, [][]int32{tokens[i*length : (i+1)*length]})
			must(err)
			c := m.Config().HiddenSize
			for v := range m.Config().VocabSize {
				var s float32
				for j := range c {
					s += h[0][j] * embed[v*c+j]
				}
				logits = append(logits, s)
			}
		}
		return logits
	}, err
}

// An honest peer does every work and is compared; its files are what any peer
// reads.
func TestHonestPeer(t *testing.T) {
	dir, temp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	res, err := Run(t.Context(), blink(Options{Groups: []string{"kernels", "prefill", "decode", "train"}, Shapes: []string{SmolLM2}, OutputDir: dir,
		Peers: []string{"openblas", "pytorch"}, PeersDir: peersDir(t, map[string]string{"openblas": "gemm-only", "pytorch": "honest"})}))
	require.NoError(t, err)
	require.Zero(t, res.Failed(), res.Markdown())
	require.Equal(t, []PeerInfo{{Name: "openblas", Version: "1.2", Detail: "gemm-only, 2 threads"}, {Name: "pytorch", Version: "1.2", Detail: "honest, 2 threads"}}, res.Peers)
	compared := map[string]int{}
	for _, x := range res.Results {
		for _, row := range x.Rows {
			require.Empty(t, row.Missing, "%s %s", x.Name, row.name())
			require.Empty(t, row.Wrong, "%s %s", x.Name, row.name())
			if row.Who != Ours {
				require.Len(t, row.Samples, 2)
			}
		}
		for _, c := range x.Compared {
			require.Positive(t, c.Ratio.Median)
			require.Equal(t, 2, c.Pairs)
			compared[x.Group+" "+c.Who]++
		}
	}
	require.Equal(t, map[string]int{"kernels openblas": 40, "kernels updraft": 10, "prefill pytorch": 1, "decode pytorch": 3, "train pytorch": 1}, compared)
	require.FileExists(t, filepath.Join(dir, "pytorch.log"))
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left, "files for peers were left")
}

// Whatever a peer does, the run goes on, and one line says what became of it.
func TestPeersThatFail(t *testing.T) {
	for mode, want := range map[string]string{
		"missing":    "has no program run",
		"not-set-up": "not set up: run setup.sh first",
		"broken":     "the last line of its log: libfoo.so.3: cannot open shared object file",
		"refuses":    "too large for me",
		"dies":       "the process ended (at run); see openblas.log",
		"hangs":      "no answer within 300ms (at prepare); see openblas.log",
		"wrong":      "ours is",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			modes := map[string]string{"openblas": mode}
			if mode == "missing" {
				modes = nil
			}
			o := blink(Options{Groups: []string{"kernels"}, Shapes: []string{SmolLM2}, Peers: []string{"openblas"}, PeersDir: peersDir(t, modes), Pairs: 1})
			o.limits = usualLimits()
			if mode == "hangs" {
				o.limits.prepare = 300 * time.Millisecond
			}
			res, err := Run(t.Context(), o)
			require.NoError(t, err)
			require.Zero(t, res.Failed())
			asked := 0
			for _, x := range res.Results {
				require.NotEmpty(t, x.Rows)
				for _, row := range x.Rows {
					if row.Who == Ours {
						require.NotEmpty(t, row.Samples)
						continue
					}
					asked++
					require.Empty(t, row.Samples)
					line := row.Missing + row.Wrong
					require.NotContains(t, line, "\n")
					require.Contains(t, line, want)
					require.Equal(t, asked > 1 && (mode == "dies" || mode == "hangs"), strings.HasPrefix(line, "not asked again: "))
					require.Equal(t, mode == "wrong", row.Wrong != "")
				}
				for _, c := range x.Compared {
					require.Equal(t, Ours, c.Who, "a peer that failed is compared with")
				}
			}
			require.Equal(t, 15, asked)
			var text strings.Builder
			require.NoError(t, res.Text(&text))
			require.Contains(t, text.String(), want)
		})
	}
}

// A variant that ends the process costs the others of its peer nothing, and is run
// once.
func TestVariantThatEndsThePeer(t *testing.T) {
	dir := t.TempDir()
	res, err := Run(t.Context(), blink(Options{Groups: []string{"kernels"}, Shapes: []string{SmolLM2}, OutputDir: dir,
		Peers: []string{"openblas"}, PeersDir: peersDir(t, map[string]string{"openblas": "one-dies"})}))
	require.NoError(t, err)
	asked := 0
	for _, x := range res.Results {
		for _, row := range x.Rows {
			if row.Who == Ours {
				continue
			}
			asked++
			if row.Variant == "fatal" {
				require.Contains(t, row.Missing, "the process ended (at run)")
				continue
			}
			require.Empty(t, row.Missing)
			require.Len(t, row.Samples, 2)
		}
	}
	require.Equal(t, 3*15, asked)
	log, err := os.ReadFile(filepath.Join(dir, "openblas.log"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(log), "segmentation fault"))
}

// Where memory is short, peers give theirs back, and start again when they are asked.
func TestPeersMakeRoom(t *testing.T) {
	dir, asked := t.TempDir(), 0
	o := blink(Options{Groups: []string{"prefill", "train"}, Shapes: []string{SmolLM2}, OutputDir: dir, Pairs: 1,
		Peers: []string{"pytorch"}, PeersDir: peersDir(t, map[string]string{"pytorch": "says-it-starts"})})
	o.Available = func() (uint64, uint64, bool) { // too little whenever it is asked for the first time
		asked++
		return uint64(1-asked%2) << 40, 1 << 40, true
	}
	res, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Zero(t, res.Failed())
	for _, x := range res.Results {
		require.Len(t, x.Rows, 2)
		require.Empty(t, x.Rows[1].Missing)
	}
	log, err := os.ReadFile(filepath.Join(dir, "pytorch.log"))
	require.NoError(t, err)
	require.Greater(t, strings.Count(string(log), "started"), 1, "the peer was not asked to make room")
}

// What is wrong is found in every work.
func TestWrongResults(t *testing.T) {
	res, err := Run(t.Context(), blink(Options{Groups: []string{"prefill", "decode", "train"}, Shapes: []string{SmolLM2}, Pairs: 1,
		Peers: []string{"pytorch"}, PeersDir: peersDir(t, map[string]string{"pytorch": "wrong"})}))
	require.NoError(t, err)
	for _, x := range res.Results {
		require.Len(t, x.Rows, 2)
		require.Contains(t, x.Rows[1].Wrong, "ours is", x.Name)
		require.Empty(t, x.Compared)
	}
	require.Len(t, res.Results, 5)
}
