//go:build !noasm

// Name: micro-kernels of the float32 matrix product, gemm<R>x<C>NEON, for a tile
// of R rows and C columns.
//
// Computes: c[i,j] = init[i,j] + Σ_p a[i,p]·b[p,j], p = 0 … k−1 in rising order.
//
// Shapes: strides in bytes. a[i,p] at a + i·rsa + p·csa. b in panels of 16
// columns: b[p, 16q+l] at b + q·bps + p·ldb + 4l. c[i,j] at c + i·ldc + 4j.
// init[i,j] at init + i·ldi + 4j: zeros or a bias with ldi = 0, or c itself to
// continue chains.
//
// Requires: k ≥ 0; no alignment; whole tiles: the caller goes through a scratch
// tile at the right edge. init may be c; c overlaps neither a nor b.
//
// Registers: see gemm_neon_arm64.h; R5 ldb. Tiles but the narrow ones at the edge
// have at least 16 independent chains: four pipes of latency four.
//
// Numerics: one fused multiply-add per p and element, in order: see simd/doc.go.
// The bits are those of the AVX2 kernels.
//
// Source: outer-product formulation of Goto and van de Geijn (2008).
//
// Beside them, rowProductsNEON is two tiles of one row and 32 columns, each with
// operands of its own; copyPanelNEON, copyTiles<R>NEON and transpose8NEON move
// operands into panels and tiles.
//
// Checked by TestGemm*, TestRowProducts, TestPackNT, TestTranspose, FuzzGemm,
// TestGoldenBits under qemu. Not measured on hardware yet.

#include "textflag.h"
#include "neon_arm64.h"
#include "gemm_neon_arm64.h"

#define ARGUMENTS \
	MOVD k+0(FP), R0; \
	MOVD a+8(FP), R1; \
	MOVD rsa+16(FP), R2; \
	MOVD csa+24(FP), R3; \
	MOVD b+32(FP), R4; \
	MOVD ldb+40(FP), R5; \
	MOVD bps+48(FP), R6; \
	MOVD c+56(FP), R7; \
	MOVD ldc+64(FP), R8; \
	MOVD init+72(FP), R9; \
	MOVD ldi+80(FP), R10

// COPY_TILES moves columns of tiles; a column of one tile is what MOVE moves from
// R1 to R2, both of which it leaves behind it, and has the given size in bytes.
#define COPY_TILES(bytes, MOVE) \
	MOVD dst+0(FP), R0; \
	MOVD a+8(FP), R5; \
	MOVD csa+16(FP), R6; \
	MOVD k+24(FP), R3; \
	MOVD tiles+32(FP), R7; \
	MOVD $(bytes), R8; \
	MUL  R8, R3, R8;      \ // from tile to tile
	SUB  $(bytes), R8, R8; \
column: \
	MOVD R5, R1; \
	MOVD R0, R2; \
	MOVD R7, R4; \
tile: \
	MOVE; \
	ADD  R8, R2; \
	SUBS $1, R4, R4; \
	BNE  tile; \
	ADD  R6, R5; \
	ADD  $(bytes), R0; \
	SUBS $1, R3, R3; \
	BNE  column

// ROW_OF_B loads a panel's row and moves p to the next one.
#define ROW_OF_B(p) \
	LOAD16(p, 0, F24, F25, F26, F27); \
	ADD R5, p

// KERNEL is the whole of one.
#define KERNEL(START, STEP, END) \
	ARGUMENTS; \
	START; \
	CBZ R0, store; \
step: \
	STEP(ROW_OF_B); \
	SUBS $1, R0, R0; \
	BNE  step; \
store: \
	END

TEXT ·gemm1x64NEON(SB), NOSPLIT, $0-88
	KERNEL(START_1x64, STEP_1x64, END_1x64)
	RET

TEXT ·gemm1x32NEON(SB), NOSPLIT, $0-88
	KERNEL(START_1x32, STEP_1x32, END_1x32)
	RET

TEXT ·gemm1x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_1x16, STEP_1x16, END_1x16)
	RET

TEXT ·gemm2x32NEON(SB), NOSPLIT, $0-88
	KERNEL(START_2x32, STEP_2x32, END_2x32)
	RET

TEXT ·gemm2x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_2x16, STEP_2x16, END_2x16)
	RET

TEXT ·gemm3x32NEON(SB), NOSPLIT, $0-88
	KERNEL(START_3x32, STEP_3x32, END_3x32)
	RET

TEXT ·gemm3x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_3x16, STEP_3x16, END_3x16)
	RET

TEXT ·gemm4x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_4x16, STEP_4x16, END_4x16)
	RET

TEXT ·gemm5x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_5x16, STEP_5x16, END_5x16)
	RET

TEXT ·gemm6x16NEON(SB), NOSPLIT, $0-88
	KERNEL(START_6x16, STEP_6x16, END_6x16)
	RET

TEXT ·copyPanelNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD b+8(FP), R4
	MOVD ldb+16(FP), R5
	MOVD k+24(FP), R3

row:
	ROW_OF_B(R4)
	STORE16(F24, F25, F26, F27, R0, 0)
	ADD  $64, R0
	SUBS $1, R3, R3
	BNE  row
	RET

#define TILE4 \
	FMOVQ.P 16(R1), F0; \
	FMOVQ.P F0, 16(R2)

#define TILE5 \
	TILE4; \
	FMOVS.P 4(R1), F1; \
	FMOVS.P F1, 4(R2)

#define TILE6 \
	TILE4; \
	FMOVD.P 8(R1), F1; \
	FMOVD.P F1, 8(R2)

TEXT ·copyTiles4NEON(SB), NOSPLIT, $0-40
	COPY_TILES(16, TILE4)
	RET

TEXT ·copyTiles5NEON(SB), NOSPLIT, $0-40
	COPY_TILES(20, TILE5)
	RET

TEXT ·copyTiles6NEON(SB), NOSPLIT, $0-40
	COPY_TILES(24, TILE6)
	RET

// TRANSPOSE4 loads 16 bytes of four rows at p, ld apart, and leaves their columns
// in V0 … V3; p moves four rows on. It destroys V4 … V7.
#define TRANSPOSE4(p, ld) \
	FMOVQ (p), F0; \
	ADD   ld, p; \
	FMOVQ (p), F1; \
	ADD   ld, p; \
	FMOVQ (p), F2; \
	ADD   ld, p; \
	FMOVQ (p), F3; \
	ADD   ld, p; \
	VTRN1 V1.S4, V0.S4, V4.S4; \ // 00 10 02 12
	VTRN2 V1.S4, V0.S4, V5.S4; \ // 01 11 03 13
	VTRN1 V3.S4, V2.S4, V6.S4; \
	VTRN2 V3.S4, V2.S4, V7.S4; \
	VTRN1 V6.D2, V4.D2, V0.D2; \
	VTRN1 V7.D2, V5.D2, V1.D2; \
	VTRN2 V6.D2, V4.D2, V2.D2; \
	VTRN2 V7.D2, V5.D2, V3.D2

TEXT ·transpose8NEON(SB), NOSPLIT, $0-40
	MOVD dst+0(FP), R0
	MOVD ldd+8(FP), R1
	MOVD src+16(FP), R2
	MOVD lds+24(FP), R3
	MOVD blocks+32(FP), R4

block:
	MOVD R2, R5
	TRANSPOSE4(R5, R3)
	VORR V0.B16, V0.B16, V16.B16
	VORR V1.B16, V1.B16, V18.B16
	VORR V2.B16, V2.B16, V20.B16
	VORR V3.B16, V3.B16, V22.B16
	TRANSPOSE4(R5, R3)
	FSTPQ (F16, F0), (R0)
	ADD  R1, R0
	FSTPQ (F18, F1), (R0)
	ADD  R1, R0
	FSTPQ (F20, F2), (R0)
	ADD  R1, R0
	FSTPQ (F22, F3), (R0)
	ADD  R1, R0
	ADD  $16, R2
	SUBS $1, R4, R4
	BNE  block
	RET

TEXT ·rowProductsNEON(SB), NOSPLIT, $0-64
	MOVD k+0(FP), R0
	MOVD a+8(FP), R1
	MOVD aAt+16(FP), R3
	MOVD b+24(FP), R4
	MOVD bAt+32(FP), R6
	MOVD ldb+40(FP), R5
	MOVD c+48(FP), R7
	MOVD cAt+56(FP), R8
	LDP  (R3), (R9, R10)
	ADD  R1, R10, R2
	ADD  R9, R1
	LDP  (R6), (R9, R10)
	ADD  R4, R10, R11
	ADD  R9, R4
	LDP  (R8), (R9, R10)
	ADD  R7, R10, R12
	ADD  R9, R7
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	VEOR V8.B16, V8.B16, V8.B16
	VEOR V9.B16, V9.B16, V9.B16
	VEOR V10.B16, V10.B16, V10.B16
	VEOR V11.B16, V11.B16, V11.B16
	VEOR V12.B16, V12.B16, V12.B16
	VEOR V13.B16, V13.B16, V13.B16
	VEOR V14.B16, V14.B16, V14.B16
	VEOR V15.B16, V15.B16, V15.B16

step:
	FMOVS.P 4(R1), F28
	FMOVS.P 4(R2), F29
	LOAD16(R4, 0, F24, F25, F26, F27)
	FMLA16(28, 0)
	LOAD16(R4, 64, F24, F25, F26, F27)
	ADD  R5, R4
	FMLA16(28, 4)
	LOAD16(R11, 0, F24, F25, F26, F27)
	FMLA16(29, 8)
	LOAD16(R11, 64, F24, F25, F26, F27)
	ADD R5, R11
	FMLA16(29, 12)
	SUBS $1, R0, R0
	BNE  step

	STORE16(F0, F1, F2, F3, R7, 0)
	STORE16(F4, F5, F6, F7, R7, 64)
	STORE16(F8, F9, F10, F11, R12, 0)
	STORE16(F12, F13, F14, F15, R12, 64)
	RET
