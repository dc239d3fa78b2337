// Package gpu is the engine.Backend that computes on an NVIDIA GPU, with the
// kernels of package kernels through the driver binding of package cuda.
//
// What it is not: it has no arithmetic of its own, and it knows nothing of models.
// It checks an operation's arguments, resolves its tensors to addresses, chooses
// kernels by element types, shapes and alignment, and puts launches into a stream.
//
// # Execution
//
// A Backend is one CUDA stream. Nothing waits for the device but Wait, Sync and
// Close, and an upload or a download that finds its staging memory full. Host
// slices are copied through page-locked rings (staging.go); tickets stand for
// events behind the copies. Inside Record, launches are kept as a list, from
// which a CUDA graph is captured when the recording ends; Run is one call.
//
// Memory comes from a pool that gives freed blocks out again in the stream's
// order. Scratch memory and the tables that attention needs of a packing are made
// when they are first needed and kept: a step that was run once makes the driver
// allocate nothing when it runs again with the same shapes.
//
// # Failures
//
// Misuse panics with a constant string when an operation is submitted. What the
// driver reports is kept and returned by the next Wait or Sync, with the name of
// the operation. A kernel that fails on the device shows later than it was
// submitted: the message then names the last operation before the failure was
// seen.
//
// # Operations and their kernels
//
// W is F32 or BF16, the type of the matrices. Each operation's method checks the
// types that engine/ops.go allows and refuses all others.
//
//	Fill, Copy            dense 4-byte fills and plain dense copies by the driver; else fill_b8/16/32,
//	                      copy_b8/16/32, copy_bf16_f32, copy_f32_bf16
//	Gather                gather_f32_f32, gather_f32_bf16, gather_bf16_bf16
//	ScatterAdd            scatter_add_f32
//	RMSNorm               rmsnorm_<Y>_<X>: f32_f32, bf16_f32, bf16_bf16; a warp or a block to a line
//	RMSNormBackward       rmsnorm_backward_<DX>_<DY>_<X>, then rmsnorm_weight for DW
//	Linear                F32: gemm_f32_nt; BF16: gemm_bf16_nt_*, or wgmma_* on compute capability 9.0,
//	                      by kernels.Product
//	LinearBackwardInput   the same with nn
//	LinearBackwardWeight  the same with tn; bias_grad_<W> for DBias
//	LinearSwiGLU          gemm_bf16_gated_<tile> where one fits, else Linear and SwiGLU
//	RoPE, SwiGLU, -Backward   rope_<W>, swiglu_<W>, swiglu_backward_<W>
//	Attention             attention_bf16_d64/96/128; attention_simt_<W> for F32 and other heads
//	AttentionBackward     attention_delta_<W>, attention_dq_*, attention_dkv_*
//	KVWrite               kv_write_bf16, kv_write_simt_<W>
//	DecodeAttention       decode_attention_plan once for the layers of a step, decode_attention_bf16_d*,
//	                      decode_attention_merge_bf16; decode_attention_simt_<W>
//	LogProb               Linear's product in F32, head_stats_f32, chunk by chunk of the vocabulary
//	LogProbBackward       the product again, head_gradient_<W>, the products of both gradients
//	Sample                sample_f32
//	SumSquares, AdamW     sum_squares_f32 and sum_partials_f32; adamw_f32, adamw_u8
//
// Start reading at backend.go, then program.go and launch.go; attention.go and
// head.go are the hardest parts.
package gpu
