// Package peer speaks the protocol of bench/peers/README.md for peers in Go, all of which do one work: gemm.
package peer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

// Gemm is C = A·Bᵀ: A is M×K, B N×K, C M×N, row-major.
type Gemm struct {
	M, N, K int
	A, B, C []float32
}

// A Product makes of a Gemm's operands what computes C, once a call.
type Product func(*Gemm) (func() error, error)

type request struct {
	Op, Work, Variant, File string
	A, B                    string
	M, N, K, Repeat         int
}

// Main serves stdin until it ends. path is the library's module, whose version is reported.
func Main(name, path string, product Product) {
	if n, err := strconv.Atoi(os.Getenv("UPDRAFT_THREADS")); err == nil && n > 0 {
		runtime.GOMAXPROCS(n)
	}
	out := json.NewEncoder(os.Stdout)
	reply := func(v any) {
		if err := out.Encode(v); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	reply(map[string]any{
		"peer": name, "version": version(path), "works": []string{"gemm"},
		"detail": fmt.Sprintf("%s, %d threads", runtime.Version(), runtime.GOMAXPROCS(0)),
	})
	var s session
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r request
		err := json.Unmarshal(in.Bytes(), &r)
		if err == nil && r.Op == "quit" {
			return
		}
		var answer any
		if err == nil {
			answer, err = s.answer(r, product)
		}
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		reply(answer)
	}
}

// version is the version of a module that this program was built with.
func version(path string) string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "unknown"
}

type session struct {
	gemm *Gemm
	call func() error
}

func (s *session) answer(r request, product Product) (any, error) {
	ok := map[string]any{"ok": true}
	switch r.Op {
	case "prepare":
		if r.Work != "gemm" {
			return nil, fmt.Errorf("unknown work %q", r.Work)
		}
		ok["variants"] = []string{"gemm"}
		return ok, s.prepare(r, product)
	case "close":
		*s = session{}
		return ok, nil
	}
	if s.gemm == nil {
		return nil, errors.New("nothing is prepared")
	}
	switch r.Op {
	case "run":
		start := time.Now()
		for range r.Repeat {
			if err := s.call(); err != nil {
				return nil, err
			}
		}
		return map[string]float64{"seconds": time.Since(start).Seconds()}, nil
	case "output":
		if err := s.call(); err != nil {
			return nil, err
		}
		raw, err := binary.Append(nil, binary.LittleEndian, s.gemm.C)
		if err != nil {
			return nil, err
		}
		return ok, os.WriteFile(r.File, raw, 0o644)
	}
	return nil, fmt.Errorf("unknown op %q", r.Op)
}

func (s *session) prepare(r request, product Product) error {
	g := &Gemm{M: r.M, N: r.N, K: r.K, C: make([]float32, r.M*r.N)}
	var err error
	if g.A, err = read(r.A, r.M*r.K); err != nil {
		return err
	}
	if g.B, err = read(r.B, r.N*r.K); err != nil {
		return err
	}
	call, err := product(g)
	if err != nil {
		return err
	}
	s.gemm, s.call = g, call
	return nil
}

func read(file string, n int) ([]float32, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(raw) != 4*n {
		return nil, fmt.Errorf("%s does not hold %d elements", file, n)
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v, nil
}
