package engine

// LinearSwiGLUArgs is the first half of a gated feed-forward: GateUp = X·Wᵀ, and
// Y = silu(Gate)·Up of GateUp's two halves, with the bits of Linear and SwiGLU
// one after the other: Y is computed from GateUp as it is stored.
type LinearSwiGLUArgs struct {
	Y      Tensor // [T, F] A
	GateUp Tensor // [T, 2F] A; kept for the backward
	X      Tensor // [T, K] A
	W      Weight // [2F, K] W
}

// FusedSwiGLU is a Backend that computes LinearSwiGLU in one pass where it can.
type FusedSwiGLU interface {
	LinearSwiGLU(LinearSwiGLUArgs)
}

// LinearSwiGLU computes a on be, by Linear and SwiGLU where be has nothing
// better.
func LinearSwiGLU(be Backend, a LinearSwiGLUArgs) {
	if f, ok := be.(FusedSwiGLU); ok {
		f.LinearSwiGLU(a)
		return
	}
	f := a.Y.Cols
	be.Linear(LinearArgs{Y: a.GateUp, X: a.X, W: a.W})
	be.SwiGLU(SwiGLUArgs{Y: a.Y, Gate: a.GateUp.ColRange(0, f), Up: a.GateUp.ColRange(f, 2*f)})
}
