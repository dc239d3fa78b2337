// Gonum is gonum's own sgemm (Go and assembly, no cgo) as a peer of updraft bench.
package main

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/updraft-ml/updraft/bench/peers/golang/peer"
)

func main() {
	peer.Main("gonum", "gonum.org/v1/gonum", func(g *peer.Gemm) (func() error, error) {
		a := blas32.General{Rows: g.M, Cols: g.K, Stride: g.K, Data: g.A}
		b := blas32.General{Rows: g.N, Cols: g.K, Stride: g.K, Data: g.B}
		c := blas32.General{Rows: g.M, Cols: g.N, Stride: g.N, Data: g.C}
		return func() error {
			blas32.Gemm(blas.NoTrans, blas.Trans, 1, a, b, 0, c)
			return nil
		}, nil
	})
}
