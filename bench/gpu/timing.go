package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/updraft-ml/updraft/cuda"
)

// shape is a product to time; peer.py times the same ones.
type shape struct {
	Name string `json:"name"`
	M    int    `json:"m"`
	N    int    `json:"n"`
	K    int    `json:"k"`
}

// timedShapes are squares, and the forward products of Qwen2.5-0.5B and 1.5B
// (hidden sizes 896 and 1536) for 4,096 tokens and for a decode step of 256.
func timedShapes(quick bool) []shape {
	if quick {
		return []shape{{"quick", 64, 64, 64}}
	}
	return []shape{
		{"square-4096", 4096, 4096, 4096},
		{"square-8192", 8192, 8192, 8192},
		{"qwen2.5-0.5b-qkv", 4096, 1152, 896},
		{"qwen2.5-0.5b-o", 4096, 896, 896},
		{"qwen2.5-0.5b-gate-up", 4096, 9728, 896},
		{"qwen2.5-0.5b-down", 4096, 896, 4864},
		{"qwen2.5-1.5b-qkv", 4096, 2048, 1536},
		{"qwen2.5-1.5b-o", 4096, 1536, 1536},
		{"qwen2.5-1.5b-gate-up", 4096, 17920, 1536},
		{"qwen2.5-1.5b-down", 4096, 1536, 8960},
		{"qwen2.5-1.5b-gate-up-decode", 256, 17920, 1536},
	}
}

const (
	rounds   = 15                    // timed rounds; the median is reported
	roundFor = 20 * time.Millisecond // aimed length of a round
	l2Turns  = 4                     // operands together are this many times L2
)

func (b *bench) timeAll(quick bool, peer peerFile, r *report, w io.Writer) error {
	for _, s := range timedShapes(quick) {
		for _, k := range b.kernels {
			t, err := b.time(k, s)
			if err != nil {
				return fmt.Errorf("timing %s %s: %w", k.name, s.Name, err)
			}
			// The peer's result is bf16, so only the same is compared.
			if p, ok := peer.Microseconds[s.Name]; ok && k.size == 2 {
				t.PeerMicroseconds = p
				t.PeerTFLOPS = tflops(s, p)
				t.Ratio = p / t.Microseconds
			}
			r.Timings = append(r.Timings, t)
			fmt.Fprintf(w, "time  %-15s %-28s %9.1f µs  %7.1f TFLOP/s\n", t.Entry, s.Name, t.Microseconds, t.TFLOPS)
		}
	}
	return nil
}

func tflops(s shape, microseconds float64) float64 {
	return 2 * float64(s.M) * float64(s.N) * float64(s.K) / microseconds / 1e6
}

// time measures one kernel on one shape by events around many launches, which
// walk through copies of the operands that together exceed L2.
func (b *bench) time(k kernel, s shape) (t timingReport, err error) {
	t = timingReport{Entry: k.name, shape: s}
	free := func(c interface{ Free() error }) { err = errors.Join(err, c.Free()) }
	size := 2*(s.M+s.N)*s.K + k.size*s.M*s.N
	copies := min(max(l2Turns*b.dev.Info().L2/size, 1)+1, 256)
	type operands struct{ c, x, y *cuda.Buffer }
	r := rand.New(rand.NewPCG(1, 1))
	x, y := randomMatrix(r, s.M, s.K, s.K), randomMatrix(r, s.N, s.K, s.K)
	sets := make([]operands, copies)
	for i := range sets {
		o := &sets[i]
		if o.x, err = b.upload(x); err != nil {
			return t, err
		}
		defer free(o.x)
		if o.y, err = b.upload(y); err != nil {
			return t, err
		}
		defer free(o.y)
		if o.c, err = b.dev.Alloc(k.size * s.M * s.N); err != nil {
			return t, err
		}
		defer free(o.c)
	}
	start, err := b.dev.NewEvent()
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, start.Close()) }()
	end, err := b.dev.NewEvent()
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, end.Close()) }()

	var args cuda.Args
	next := 0
	round := func(launches int) (time.Duration, error) {
		if err := b.stream.Record(start); err != nil {
			return 0, err
		}
		for range launches {
			o := sets[next%len(sets)]
			next++
			if err := b.launch(k, &args, o.c, o.x, o.y, 0, s.M, s.N, s.K, s.N, s.K, s.K); err != nil {
				return 0, err
			}
		}
		if err := errors.Join(b.stream.Record(end), end.Sync()); err != nil {
			return 0, err
		}
		return end.Since(start)
	}
	// Warm up, and learn how many launches fill a round.
	warm, err := round(2 * copies)
	if err != nil {
		return t, err
	}
	launches := max(int(roundFor/max(warm/time.Duration(2*copies), time.Microsecond)), 1)
	var times []float64
	for range rounds {
		d, err := round(launches)
		if err != nil {
			return t, err
		}
		times = append(times, float64(d.Nanoseconds())/1e3/float64(launches))
	}
	slices.Sort(times)
	t.Microseconds, t.Least, t.Most = times[rounds/2], times[0], times[rounds-1]
	t.TFLOPS = tflops(s, t.Microseconds)
	t.Launches, t.Copies = launches*rounds, copies
	return t, nil
}
