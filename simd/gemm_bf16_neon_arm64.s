//go:build !noasm

// Name: micro-kernels of the product of float32 rows with BF16 columns,
// gemm<R>x<C>BF16NEON, and the widening of such columns into float32.
//
// Computes: c[i,j] = init[i,j] + Σ_p a[i,p]·b[p,j], p = 0 … k−1 in rising order, b
// widened to float32.
//
// Shapes: as gemm_neon_arm64.s, but b lies in panels of pairs: b[2q+h, 16r+l] is the
// h-th half of the word at b + r·bps + 64q + 4l. Of an odd k the last pair's second
// halves are not used.
//
// Requires: as gemm_neon_arm64.s. b starts at an even step.
//
// Registers: see gemm_neon_arm64.h; R15 pairs of steps, V31 ones in the upper halves
// of words. One step of a pair takes the words shifted left, the other one masked,
// so that widening is one instruction per vector.
//
// Numerics: one fused multiply-add per p and element, in order: the bits are those
// of the float32 kernels over widened panels.
//
// Source: outer-product formulation of Goto and van de Geijn (2008).
//
// Checked by TestGemmBF16*, TestPackBF16, FuzzGemmBF16 under qemu.
// Not measured on hardware yet.

#include "textflag.h"
#include "neon_arm64.h"
#include "gemm_neon_arm64.h"

#define ARGUMENTS \
	MOVD k+0(FP), R0; \
	MOVD a+8(FP), R1; \
	MOVD rsa+16(FP), R2; \
	MOVD csa+24(FP), R3; \
	MOVD b+32(FP), R4; \
	MOVD bps+40(FP), R6; \
	MOVD c+48(FP), R7; \
	MOVD ldc+56(FP), R8; \
	MOVD init+64(FP), R9; \
	MOVD ldi+72(FP), R10

#define UPPER_HALVES \
	MOVD $0xffff0000, R15; \
	VDUP R15, V31.S4

// FIRST and SECOND widen the halves of a pair of rows; SECOND moves p on.
#define FIRST(p) \
	LOAD16(p, 0, F24, F25, F26, F27); \
	VSHL $16, V24.S4, V24.S4; \
	VSHL $16, V25.S4, V25.S4; \
	VSHL $16, V26.S4, V26.S4; \
	VSHL $16, V27.S4, V27.S4

#define SECOND(p) \
	LOAD16(p, 0, F24, F25, F26, F27); \
	ADD  $64, p; \
	VAND V31.B16, V24.B16, V24.B16; \
	VAND V31.B16, V25.B16, V25.B16; \
	VAND V31.B16, V26.B16, V26.B16; \
	VAND V31.B16, V27.B16, V27.B16

// KERNEL is the whole of one.
#define KERNEL(START, STEP, END) \
	ARGUMENTS; \
	START; \
	UPPER_HALVES; \
	LSR $1, R0, R15; \
	CBZ R15, odd; \
pair: \
	STEP(FIRST); \
	STEP(SECOND); \
	SUBS $1, R15, R15; \
	BNE  pair; \
odd: \
	TBZ $0, R0, store; \
	STEP(FIRST); \
store: \
	END

TEXT ·gemm1x64BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_1x64, STEP_1x64, END_1x64)
	RET

TEXT ·gemm1x32BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_1x32, STEP_1x32, END_1x32)
	RET

TEXT ·gemm1x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_1x16, STEP_1x16, END_1x16)
	RET

TEXT ·gemm2x32BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_2x32, STEP_2x32, END_2x32)
	RET

TEXT ·gemm2x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_2x16, STEP_2x16, END_2x16)
	RET

TEXT ·gemm3x32BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_3x32, STEP_3x32, END_3x32)
	RET

TEXT ·gemm3x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_3x16, STEP_3x16, END_3x16)
	RET

TEXT ·gemm4x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_4x16, STEP_4x16, END_4x16)
	RET

TEXT ·gemm5x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_5x16, STEP_5x16, END_5x16)
	RET

TEXT ·gemm6x16BF16NEON(SB), NOSPLIT, $0-80
	KERNEL(START_6x16, STEP_6x16, END_6x16)
	RET

TEXT ·widenPairsNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD b+8(FP), R4
	MOVD pairs+16(FP), R9
	UPPER_HALVES

pair:
	FIRST(R4)
	STORE16(F24, F25, F26, F27, R0, 0)
	SECOND(R4)
	STORE16(F24, F25, F26, F27, R0, 64)
	ADD  $128, R0
	SUBS $1, R9, R9
	BNE  pair
	RET

TEXT ·widenRowsNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD b+8(FP), R4
	MOVD ldb+16(FP), R5
	MOVD k+24(FP), R9

row:
	FLDPQ (R4), (F0, F1)
	ADD  R5, R4
	SHLL_4S(0, 24)
	SHLL2_4S(0, 25)
	SHLL_4S(1, 26)
	SHLL2_4S(1, 27)
	STORE16(F24, F25, F26, F27, R0, 0)
	ADD  $64, R0
	SUBS $1, R9, R9
	BNE  row
	RET
