package engine

// Ticket names a point in a backend's stream; Wait waits until it is reached.
type Ticket uint64

// Program is a recorded sequence of operations (see Backend.Record).
type Program interface {
	// Ops returns the number of recorded operations.
	Ops() int
}

// Backend is one compute device's memory and operations. Argument structs are
// documented beside their types in ops.go; unless said otherwise, tensors are
// F32, outputs are overwritten, and inputs and outputs must not overlap.
type Backend interface {
	// Name says what computes, e.g. "cpu (avx2, 2 threads)".
	Name() string

	// Alloc returns n zeroed elements. The error names the bytes asked for.
	Alloc(d DType, n int) (Buffer, error)
	// Free returns a buffer to the device. No program that uses it may run after.
	Free(b Buffer)
	// Sync waits for everything submitted and returns the first failure since
	// the last Sync or Wait.
	Sync() error
	// Close frees all memory and ends the backend's workers.
	Close() error

	// UploadF32 copies src into dst, which must hold len(src) elements densely.
	// src may be reused as soon as the call returns.
	UploadF32(dst Tensor, src []float32)
	UploadI32(dst Tensor, src []int32)
	// DownloadF32 copies src, which must be dense, to dst. dst holds the values
	// only after Wait on the ticket (or Sync).
	DownloadF32(dst []float32, src Tensor) Ticket
	DownloadI32(dst []int32, src Tensor) Ticket
	// Wait waits for t and returns the first failure up to it.
	Wait(t Ticket) error

	// Record calls build once; the operations that it submits are kept instead
	// of carried out. Upload, Download, Alloc and Free are not allowed inside.
	Record(build func()) Program
	// Run submits the operations of a recorded program.
	Run(p Program)

	// PrepareWeight allocates w.Prepared where the backend wants its own layout
	// of a weight, and fills it.
	PrepareWeight(w *Weight) error
	// RefreshWeight brings w.Prepared up to date with w's elements.
	RefreshWeight(w Weight)

	// Fill sets every element of dst (F32 or I32) to v.
	Fill(dst Tensor, v float32)
	// Copy copies src to dst (same shape and dtype, any strides).
	Copy(dst, src Tensor)

	Gather(GatherArgs)
	ScatterAdd(ScatterAddArgs)
	RMSNorm(RMSNormArgs)
	RMSNormBackward(RMSNormBackwardArgs)
	Linear(LinearArgs)
	LinearBackwardInput(LinearBackwardInputArgs)
	LinearBackwardWeight(LinearBackwardWeightArgs)
	RoPE(RoPEArgs)
	Attention(AttentionArgs)
	AttentionBackward(AttentionBackwardArgs)
	SwiGLU(SwiGLUArgs)
	SwiGLUBackward(SwiGLUBackwardArgs)
	LogProb(LogProbArgs)
	LogProbBackward(LogProbBackwardArgs)

	KVWrite(KVWriteArgs)
	DecodeAttention(DecodeAttentionArgs)
	Sample(SampleArgs)

	SumSquares(SumSquaresArgs)
	AdamW(AdamWArgs)
}
