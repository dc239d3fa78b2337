// Gorgonia is the matrix product of gorgonia.org/tensor as a peer of updraft bench.
package main

import (
	"gorgonia.org/tensor"

	"github.com/updraft-ml/updraft/bench/peers/golang/peer"
)

func main() {
	peer.Main("gorgonia", "gorgonia.org/tensor", func(g *peer.Gemm) (func() error, error) {
		a := tensor.New(tensor.WithShape(g.M, g.K), tensor.WithBacking(g.A))
		b := tensor.New(tensor.WithShape(g.N, g.K), tensor.WithBacking(g.B))
		c := tensor.New(tensor.WithShape(g.M, g.N), tensor.WithBacking(g.C))
		if err := b.T(); err != nil { // a view, which the product passes on to BLAS
			return nil, err
		}
		return func() error {
			_, err := tensor.MatMul(a, b, tensor.WithReuse(c))
			return err
		}, nil
	})
}
