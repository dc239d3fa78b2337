package engine

// Element types in this file: W is the type of the matrices that are multiplied
// by, A that of the activations that go with them (Backend.Precision): F32 and
// F32; or BF16 and BF16 on a GPU, BF16 and F32 on the CPU. A tensor without a type
// is F32. "F32 or A" is a choice of the caller's, which the operation learns from
// the tensor itself. A result stored as BF16 is the float32 result rounded once, to
// nearest even; what is rounded besides stands with the operation. No other
// combination of types is accepted.

// GatherArgs: Dst[t] = Table[IDs[t]]. Rows with IDs[t] < 0 become zero.
// The embedding's forward.
type GatherArgs struct {
	Dst   Tensor // [T, C] F32, or Table's type
	Table Tensor // [V, C] F32 or W
	IDs   Tensor // [T] I32
}

// ScatterAddArgs: Table[IDs[t]] += Src[t] in ascending t. Rows with IDs[t] < 0
// are left out. The embedding's backward.
type ScatterAddArgs struct {
	Table Tensor // [V, C]
	Src   Tensor // [T, C]
	IDs   Tensor // [T] I32
}

// RMSNormArgs normalises each of Groups runs of D = Cols/Groups columns
// (Zhang and Sennrich 2019): Y = X · rstd · W with
// rstd = 1/√(mean(X²) + Eps). Groups is 1 for a layer's norm and the number of
// heads for QK-norm. Y may be X where no backward follows and their types are
// equal.
type RMSNormArgs struct {
	Y      Tensor // [T, Groups*D] A
	X      Tensor // [T, Groups*D] F32 or A
	W      Tensor // [D]
	Rstd   Tensor // [T, Groups]; absent: not kept
	Groups int
	Eps    float32
}

// RMSNormBackwardArgs: with x̂ = X·rstd, per group
//
//	DX = or += rstd · (W·DY − x̂ · mean(W·DY·x̂)),   DW += Σ_t DY·x̂.
//
// DX may be DY where Accumulate is false and their types are equal.
type RMSNormBackwardArgs struct {
	DX         Tensor // [T, Groups*D] X's type; F32 where Accumulate is true
	DW         Tensor // [D]; absent: not wanted
	DY         Tensor // [T, Groups*D] A
	X          Tensor // [T, Groups*D] F32 or A
	W          Tensor // [D]
	Rstd       Tensor // [T, Groups]
	Groups     int
	Accumulate bool // into DX; DW is always added to
}

// LinearArgs: Y = X·Wᵀ + Bias + Residual. Residual may be Y itself.
type LinearArgs struct {
	Y        Tensor // [T, N] F32 or A
	X        Tensor // [T, K] A
	W        Weight // [N, K] W
	Bias     Tensor // [N]; optional
	Residual Tensor // [T, N]; optional, and only where Y is F32
}

// LinearBackwardInputArgs: DX = or += DY·W.
type LinearBackwardInputArgs struct {
	DX         Tensor // [T, K] A; with Accumulate the sum is rounded, once
	DY         Tensor // [T, N] A
	W          Weight // [N, K] W
	Accumulate bool
}

// LinearBackwardWeightArgs: DW += DYᵀ·X and DBias += Σ_t DY.
type LinearBackwardWeightArgs struct {
	DW    Tensor // [N, K]
	DBias Tensor // [N]; optional
	DY    Tensor // [T, N] A
	X     Tensor // [T, K] A
}

// RoPEArgs rotates each head of X in place by its row's position (Su et al.
// 2021, in the half-split layout of the Hugging Face checkpoints): for j < D/2
//
//	x_j, x_{j+D/2} = x_j·cos − x_{j+D/2}·sin, x_{j+D/2}·cos + x_j·sin.
//
// Inverse rotates back, which is the backward. Rows at a negative position are
// left alone.
type RoPEArgs struct {
	X         Tensor // [T, heads*D] A
	Positions Tensor // [T] I32
	Cos, Sin  Tensor // [positions, D/2]
	HeadDim   int
	Inverse   bool
}

// AttentionArgs: causal softmax attention over packed segments, with grouped
// queries: query head h reads key-value head h/(H/KV).
//
//	O = softmax(Scale · Q·Kᵀ)·V over the keys that Packing lets a row see,
//	LSE = log Σ exp(Scale · q·k).
//
// Where A is BF16, the exponentials are rounded to BF16 before they multiply V;
// the sum that they are divided by is of the unrounded ones.
type AttentionArgs struct {
	O, Q    Tensor // [T, H*D] A
	K, V    Tensor // [T, KV*D] A
	LSE     Tensor // [T, H]; absent where no backward follows
	HeadDim int
	Scale   float32
	Packing *Packing
}

// AttentionBackwardArgs: with P = exp(Scale · Q·Kᵀ − LSE),
//
//	DV = Pᵀ·DO,  dS = P·(DO·Vᵀ − Σ DO·O),  DQ = Scale · dS·K,  DK = Scale · dSᵀ·Q.
//
// DQ, DK and DV are overwritten. A prefix's DK and DV are the sums over all the
// segments that see it, in ascending segment order, and over the query heads
// that share them. Where A is BF16, P and dS are rounded to BF16 before their
// products, and the sums are float32 until the end.
type AttentionBackwardArgs struct {
	DQ      Tensor // [T, H*D] A
	DK, DV  Tensor // [T, KV*D] A
	DO      Tensor // [T, H*D] A
	Q, O    Tensor // [T, H*D] A
	K, V    Tensor // [T, KV*D] A
	LSE     Tensor // [T, H]
	HeadDim int
	Scale   float32
	Packing *Packing
}

// SwiGLUArgs: Y = silu(Gate)·Up, silu(x) = x/(1+e^−x) (Shazeer 2020).
type SwiGLUArgs struct {
	Y, Gate, Up Tensor // [T, F] A
}

// SwiGLUBackwardArgs: with σ = 1/(1+e^−Gate)
//
//	DGate = DY·Up·σ·(1 + Gate·(1−σ)),   DUp = DY·Gate·σ.
//
// DGate may be Gate and DUp may be Up.
type SwiGLUBackwardArgs struct {
	DGate, DUp   Tensor // [T, F] A
	DY, Gate, Up Tensor // [T, F] A
}

// LogProbArgs is the fused language-model head. With z = Scale · X·Wᵀ, which is
// never held whole,
//
//	LSE = log Σ_v e^z_v,  LogProb = z_target − LSE,  Entropy = LSE − Σ_v p_v z_v.
//
// Scale is the inverse temperature. z is not rounded: it is the float32 result
// that Linear gives for the same operands, times Scale.
type LogProbArgs struct {
	X       Tensor // [T, C] A
	W       Weight // [V, C] W
	Targets Tensor // [T] I32, in [0, V)
	LogProb Tensor // [T]
	Entropy Tensor // [T]
	LSE     Tensor // [T]
	Scale   float32
}

// LogProbBackwardArgs: with p = softmax(z)
//
//	dz = DLogProb·(onehot(target) − p) − DEntropy·p·(log p + Entropy),
//	DX = Scale · dz·W,   DW += Scale · dzᵀ·X.
//
// Where A is BF16, dz (or Scale · dz) is rounded to BF16 before its products.
type LogProbBackwardArgs struct {
	DX       Tensor // [T, C] A
	DW       Tensor // [V, C]; absent: not wanted
	X        Tensor // [T, C] A
	W        Weight // [V, C] W
	Targets  Tensor // [T] I32
	LSE      Tensor // [T]
	Entropy  Tensor // [T]; needed where DEntropy is present
	DLogProb Tensor // [T]
	DEntropy Tensor // [T]; optional
	Scale    float32
}

// KVCache is one layer's paged keys and values: Pages pages of PageSize tokens.
// The layout inside a page is the backend's own.
type KVCache struct {
	K, V    Buffer // Pages*PageSize*KV*D elements of A each
	Pages   int
	KVHeads int
	HeadDim int
}

// KVWriteArgs stores row Rows[i] of K and V at Slots[i] = page*PageSize+offset.
// Entries with Slots[i] < 0 are left out. A prompt's last, partly filled page
// is written once for each of its continuations.
type KVWriteArgs struct {
	Cache KVCache
	K, V  Tensor // [T, KV*D] A
	Rows  Tensor // [n] I32
	Slots Tensor // [n] I32
}

// DecodeAttentionArgs stores the new row's key and value at its position and
// attends over positions 0..Positions[b]. Rows at a negative position are
// inactive: nothing is stored and O is zero. A sequence's page for position p
// is PageTable[b][p/PageSize]; rows whose tables begin with the same pages may
// have them read once.
//
// Where A is BF16, it rounds what Attention rounds.
type DecodeAttentionArgs struct {
	O, Q      Tensor // [B, H*D] A
	K, V      Tensor // [B, KV*D] A
	Cache     KVCache
	PageTable Tensor // [B, max pages] I32
	Positions Tensor // [B] I32
	Scale     float32
}

// Columns of SampleArgs.Params.
const (
	ParamTemperature = iota // 0: the most likely token, the lowest index on a tie
	ParamTopP               // 1: off
	ParamMinP               // 0: off
	ParamHelpBias           // added to the log-odds of the marker's first token; −Inf forbids it
	NumParams
)

// Columns of SampleArgs.Keys.
const (
	KeyTopK = iota // 0: off
	KeySeedLo
	KeySeedHi
	KeyStep
	KeyPrompt
	KeySample
	NumKeys
)

// SampleArgs draws one token for each row from its logits and moves the row
// on. The uniform number is Philox(key: seed; counter: position, sample,
// prompt, step), so a draw does not depend on the batch (Salmon et al. 2011).
// It picks by inverse transform in vocabulary order.
//
// Order of filters: help bias, temperature, top-k, top-p, min-p.
//
// The help bias is added to the logit of Marker[0] where the row's current
// token may be followed by a marker (MarkerAfter). While it is not zero, the
// rest of the marker is forced once its first token has been drawn there;
// Forced holds each row's place in the marker, 0 where nothing is forced.
//
// Afterwards Tokens[b] is the drawn token and Positions[b] has grown by one.
// Rows at a negative position are left alone.
type SampleArgs struct {
	Logits      Tensor  // [B, V]; may be overwritten
	Params      Tensor  // [B, NumParams]
	Keys        Tensor  // [B, NumKeys] I32
	Marker      []int32 // token ids; empty: no help bias
	MarkerAfter Tensor  // [V]; 1 where the marker may follow the token
	Forced      Tensor  // [B] I32, read and written

	Tokens    Tensor // [B] I32: current token in, drawn token out
	Positions Tensor // [B] I32: position of the current token in, plus one out

	LogProb         Tensor // [B] of the drawn token under softmax(logits): no bias, no temperature
	SamplingLogProb Tensor // [B] of the drawn token under the distribution it was drawn from
	Entropy         Tensor // [B] of softmax(logits)
}

// SumSquaresArgs: Out[0] = Σ X², accumulated in a fixed order.
type SumSquaresArgs struct {
	Out Tensor // [1]
	X   Tensor // dense
}

// AdamWArgs is one step of AdamW (Loshchilov and Hutter 2019) with decoupled
// weight decay and with the gradient scaled by GradScale first:
//
//	M = β1·M + (1−β1)·g,  V = β2·V + (1−β2)·g²,
//	P −= LR·( (M/(1−β1^Step)) / (√(V/(1−β2^Step)) + Eps) + WeightDecay·P ).
//
// Moments of type U8 are 8-bit codes in blocks of MomentBlock elements, counted
// from the first of the tensor (Dettmers et al. 2022; see quantize.go): element
// i has the value map[code]·scale of its block. A step widens them, computes the
// new M, V and P in float32 as above, and only then stores M and V as codes
// again: scale = max |x| over the block, code = that of the map's entry nearest
// to x/scale, for V not that of zero unless x/scale is zero. Gradients must be finite.
type AdamWArgs struct {
	P, G             Tensor // dense, equal length
	M, V             Tensor // dense, of P's length; both F32, or both U8
	MScale, VScale   Tensor // [⌈n/MomentBlock⌉]; present where M and V are U8
	Copy             Tensor // dense BF16, of P's length: the new P rounded to nearest even; optional
	LR, Beta1, Beta2 float32
	Eps, WeightDecay float32
	GradScale        float32
	Step             int // from 1
}
