// Package checkpoint reads and writes named tensors in the safetensors and GGUF
// formats, and replaces files and directories such that a crash leaves the old or the
// new one whole.
//
// A safetensors file is an 8-byte little-endian length, a JSON header of that
// length that maps names to dtype, shape and byte range, and the tensors'
// bytes (https://github.com/huggingface/safetensors). Model weights are kept
// in it in Hugging Face's layout, optimizer state under names of its own.
//
// Large checkpoints are several such files, shards, and an index that says which
// tensor is in which: OpenWeights and WriteWeights see to that.
//
// It knows nothing of models: package model decides which tensors there are.
// Start reading at Open and Create, and at OpenGGUF for llama.cpp's format.
package checkpoint
