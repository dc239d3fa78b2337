package engine

// Ticket names a point in a backend's stream; Wait waits until it is reached.
type Ticket uint64

// Program is a recorded sequence of operations (see Backend.Record).
type Program interface {
	// Ops returns the number of recorded operations.
	Ops() int
}

// Backend is one compute device's memory and operations. Argument structs are
// documented beside their types in ops.go, element types included; unless said
// otherwise, outputs are overwritten, and inputs and outputs must not overlap.
type Backend interface {
	// Name says what computes, e.g. "cpu (avx2, 2 threads)".
	Name() string

	// Precision returns the element type A of the activations that go with
	// matrices of the given type W (see ops.go), or an error that wraps
	// errors.ErrUnsupported where the device cannot compute with them. Every
	// backend supports F32 weights with F32 activations.
	Precision(weights DType) (activations DType, err error)

	// Async reports whether operations are carried out after their calls have
	// returned, so that a caller gains by submitting ahead of what it waits for.
	Async() bool

	// Alloc returns n zeroed elements. The error names the bytes asked for.
	Alloc(d DType, n int) (Buffer, error)
	// Free returns a buffer to the device. No program that uses it may run after.
	Free(b Buffer)
	// Sync waits for everything submitted and returns the first failure since
	// the last Sync or Wait.
	Sync() error
	// Close frees all memory and ends the backend's workers.
	Close() error

	// UploadF32 copies src into dst, an F32 or BF16 tensor that holds len(src)
	// elements densely; BF16 elements are rounded to nearest even. src may be
	// reused as soon as the call returns.
	UploadF32(dst Tensor, src []float32)
	// UploadI32 does the same for an I32 tensor, or a U8 tensor and values of 0
	// to 255.
	UploadI32(dst Tensor, src []int32)
	// DownloadF32 copies src, which must be dense and F32 or BF16, to dst. dst
	// holds the values only after Wait on the ticket (or Sync).
	DownloadF32(dst []float32, src Tensor) Ticket
	// DownloadI32 does the same for an I32 or U8 tensor.
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

	// Fill sets every element of dst (F32, BF16, I32 or U8) to v, which the type
	// must hold exactly.
	Fill(dst Tensor, v float32)
	// Copy copies src to dst (same shape, any strides). Their types are equal, or
	// one is F32 and the other BF16: to BF16 it rounds to nearest even, from BF16
	// it widens.
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
