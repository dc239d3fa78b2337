package kernels

import _ "embed"

// gemmBF16PTX is made from gemm_bf16.cu for sm_80, and runs on every later chip.
//
//go:embed gemm_bf16.ptx
var gemmBF16PTX string
