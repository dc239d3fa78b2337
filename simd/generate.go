package simd

//go:generate go -C _gen run . -dir ..
