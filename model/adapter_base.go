package model

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"github.com/updraft-ml/updraft/internal/half"
)

// openAdapted opens the base model of an adapter directory, whose weights are read
// with the adapter added: in float64, rounded once to float32.
func openAdapted(dir string) (*Checkpoint, error) {
	base, err := baseOf(dir)
	if err != nil {
		return nil, err
	}
	l, err := readAdapterConfig(dir)
	if err != nil {
		return nil, err
	}
	c, err := OpenCheckpoint(base)
	if err != nil {
		return nil, fmt.Errorf("%w (the base model of the adapter in %s)", err, dir)
	}
	layout, read := newLayout(&c.cfg), c.read
	s := newAdapterSet(l, layout)
	v, err := s.read(dir, func() (string, error) { return digest(context.Background(), layout.params, read) })
	if err != nil {
		c.Close()
		return nil, err
	}
	of := make(map[string]adapter)
	for _, ad := range s.list {
		of[ad.target.Name] = ad
	}
	c.read = func(p Param, w []float32) error {
		if err := read(p, w); err != nil {
			return err
		}
		if ad, ok := of[p.Name]; ok {
			s.addOnHost(w, v, &ad)
		}
		return nil
	}
	return c, nil
}

// addOnHost adds to w [N, K] an adapter's product, from the masters v.
func (s *adapterSet) addOnHost(w, v []float32, ad *adapter) {
	scale := s.lora.Alpha / float64(s.lora.R)
	N, K, R := ad.target.Rows, ad.target.Cols, s.lora.R
	A, B := v[ad.a.off:], v[ad.b.off:]
	sum := make([]float64, K)
	for n := range N {
		clear(sum)
		for r := range R {
			b := scale * float64(B[n*R+r])
			for k, a := range A[r*K : (r+1)*K] {
				sum[k] += b * float64(a)
			}
		}
		for k, x := range sum {
			w[n*K+k] = float32(float64(w[n*K+k]) + x)
		}
	}
}

// baseDigest identifies the weights that adapters are added to. It is computed
// once.
func (m *Model) baseDigest(ctx context.Context) (sum string, err error) {
	if m.baseSum == "" {
		m.baseSum, err = digest(ctx, m.layout.params, func(p Param, v []float32) error {
			t, err := m.source(p)
			if err != nil {
				return err
			}
			return m.be.Wait(m.be.DownloadF32(v, t))
		})
	}
	return m.baseSum, err
}

// digest is a SHA-256 of every parameter's name, shape and CRC-32C, in BF16 so that
// weights in either type have the same.
func digest(ctx context.Context, params []Param, read func(Param, []float32) error) (string, error) {
	sum := sha256.New()
	table := crc32.MakeTable(crc32.Castagnoli)
	var values []float32
	var bits []uint16
	var raw []byte
	for _, p := range params {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		values, bits, raw = grown(values, p.len()), grown(bits, p.len()), grown(raw, 2*p.len())
		if err := read(p, values); err != nil {
			return "", fmt.Errorf("model: digest of the base model: %w", err)
		}
		half.EncodeBF16(bits, values)
		for i, x := range bits {
			binary.LittleEndian.PutUint16(raw[2*i:], x)
		}
		fmt.Fprintln(sum, p.Name, p.Shape(), crc32.Checksum(raw, table))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
