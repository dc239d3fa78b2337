package model

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// moment is one of Adam's two moments of the flat vector: F32 values of the
// elements from number from on, and 8-bit codes with a scale for every block of
// those before.
type moment struct {
	values        engine.Buffer
	from          int
	codes, scales engine.Buffer // nil where from is 0
}

// momentBlocks returns the scales that n codes have.
func momentBlocks(n int) int { return (n + engine.MomentBlock - 1) / engine.MomentBlock }

// view views elements [from, to), which are all codes or all values, and the
// scales of codes. Codes are viewed from the first on.
func (s *moment) view(from, to int) (t, scales engine.Tensor) {
	if from < s.from {
		return engine.Vector(s.codes, from, to-from), engine.Vector(s.scales, 0, momentBlocks(to))
	}
	return engine.Vector(s.values, from-s.from, to-from), engine.Tensor{}
}

func (s *moment) buffers() []engine.Buffer { return []engine.Buffer{s.values, s.codes, s.scales} }

// clearCodes makes every element zero, those between parameters too, which no
// file holds.
func (m *Model) clearCodes(r Role) {
	s := m.moment(r)
	if s.from == 0 {
		return
	}
	values := momentValues(r)
	m.be.Fill(engine.Vector(s.codes, 0, s.from), float32(slices.Index(values[:], 0)))
}

// momentValues returns what the codes of a role stand for.
func momentValues(r Role) [256]float32 {
	if r == Moment1 {
		return engine.SignedMomentMap()
	}
	return engine.UnsignedMomentMap()
}

// moment returns the moment of a role.
func (m *Model) moment(r Role) *moment {
	if r == Moment1 {
		return &m.moment1
	}
	return &m.moment2
}

// readCodes returns the values of a matrix's codes.
func (m *Model) readCodes(r Role, p Param) ([]float32, error) {
	s, first := m.moment(r), p.off/engine.MomentBlock
	codes, scales := make([]int32, p.len()), make([]float32, momentBlocks(p.off+p.len())-first)
	m.be.DownloadI32(codes, engine.Vector(s.codes, p.off, p.len()))
	if err := m.be.Wait(m.be.DownloadF32(scales, engine.Vector(s.scales, first, len(scales)))); err != nil {
		return nil, fmt.Errorf("model: %s: %w", p.Name, err)
	}
	values := momentValues(r)
	out := make([]float32, p.len())
	for i, c := range codes {
		out[i] = values[c] * scales[(p.off+i)/engine.MomentBlock-first]
	}
	return out, nil
}
