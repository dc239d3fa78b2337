// Package model is a Llama-style decoder over an engine.Backend: its
// configuration and parameters, the packed forward and backward of training,
// the optimizer, and generation by continuous batching over a paged KV cache.
//
// It covers the architectures llama, qwen2 (biases on the query, key and value
// projections) and qwen3 (norms on queries and keys), with grouped-query
// attention, rotary positions, RMSNorm, SwiGLU and tied or separate
// embeddings, in the layout of the Hugging Face checkpoints.
//
// It is not an automatic differentiation library: one decoder layer is written
// out forward (forward.go) and backward (backward.go), and training, prefill
// and decoding all run the same layer code, so that the log-probs of a rollout
// equal those of the training forward bit for bit. It knows token ids only;
// text is package tokenizer's business. It never reads device memory inside a
// step and depends on no concrete backend.
//
// Matrices are F32, or BF16 where the device computes with it (Options.Weights):
// then a trainable model keeps F32 masters, from which the optimizer makes the
// working copy in the same pass, and activations are of the type that
// engine.Backend.Precision gives, but for the residual stream and its gradient.
//
// With Options.LoRA the weights are frozen and thin adapters trained (lora.go):
// products are computed with the sum of the two, which is made anew after each
// update, so that generation costs what it does without.
//
// Start reading at model.go (what a Model holds), then forward.go, backward.go
// and scheduler.go. The shape letters are those of package engine.
package model
