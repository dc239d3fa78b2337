//go:build !noasm

// Name: kernels of attention over one split of 32 keys: softmaxRows, its gradient
// softmaxGradRows, and the merge of splits, softmaxMerge and mergeRows.
//
// Computes: the equation in each function's comment, stated in full at the
// exported function or at the generic twin of the same name.
//
// Shapes: s, p, ds: rows of 32 floats without gaps; o, part: rows of d floats
// without gaps; the rest one float for each row. Row r has min(seen + r·step, 32)
// keys.
//
// Requires: rows ≥ 1, seen ≥ 1, step ≥ 0, d ≥ 1; no alignment.
//
// Registers: R0, R1 rows of 32, R2 and R3 one float a row, R9 the rows left, R14
// the lanes' indices; V8 keys seen and V9 step in all lanes, V10 … V13 scalars, V6
// and V7 temporaries, V0 … V5, R15 and V23 … V31 the exponential's; a row's vectors
// are V16 … V22 and V14.
//
// Numerics: the exponential of exp_neon_arm64.s and the sum in the order of
// laneSum32, so that a row has the bits of scale, max and expSub one after the
// other. softmaxMerge computes its exponential in float64 (Taylor's series to the
// twelfth power after reduction by ln 2, below 2⁻⁵⁰ of relative error) and rounds
// it once. The bits are those of the AVX2 kernels.
//
// Checked by TestSoftmax*, TestMergeRows, TestGoldenBits under qemu. Not measured
// on hardware yet.

#include "textflag.h"
#include "neon_arm64.h"

// The lanes' indices, and the constants of EXP64.
DATA ·laneTable+0(SB)/8, $0x0000000100000000
DATA ·laneTable+8(SB)/8, $0x0000000300000002
DATA ·laneTable+16(SB)/8, $0x0000000500000004
DATA ·laneTable+24(SB)/8, $0x0000000700000006
DATA ·laneTable+32(SB)/8, $0x0000000900000008
DATA ·laneTable+40(SB)/8, $0x0000000b0000000a
DATA ·laneTable+48(SB)/8, $0x0000000d0000000c
DATA ·laneTable+56(SB)/8, $0x0000000f0000000e
DATA ·laneTable+64(SB)/8, $0x0000001100000010
DATA ·laneTable+72(SB)/8, $0x0000001300000012
DATA ·laneTable+80(SB)/8, $0x0000001500000014
DATA ·laneTable+88(SB)/8, $0x0000001700000016
DATA ·laneTable+96(SB)/8, $0x0000001900000018
DATA ·laneTable+104(SB)/8, $0x0000001b0000001a
DATA ·laneTable+112(SB)/8, $0x0000001d0000001c
DATA ·laneTable+120(SB)/8, $0x0000001f0000001e
GLOBL ·laneTable(SB), RODATA|NOPTR, $128

DATA ·exp64Table+0(SB)/8, $0xc069000000000000 // smallest argument
DATA ·exp64Table+8(SB)/8, $0x3ff71547652b82fe // log2 e
DATA ·exp64Table+16(SB)/8, $0x4338000000000000 // 1.5·2⁵²
DATA ·exp64Table+24(SB)/8, $0x3fe62e42fee00000 // ln 2, its first bits (fdlibm's e_exp.c)
DATA ·exp64Table+32(SB)/8, $0x3dea39ef35793c76 // ln 2, the rest
DATA ·exp64Table+40(SB)/8, $0x3e21eed8eff8d898 // 1/12!
DATA ·exp64Table+48(SB)/8, $0x3e5ae64567f544e4 // 1/11!
DATA ·exp64Table+56(SB)/8, $0x3e927e4fb7789f5c // 1/10!
DATA ·exp64Table+64(SB)/8, $0x3ec71de3a556c734 // 1/9!
DATA ·exp64Table+72(SB)/8, $0x3efa01a01a01a01a // 1/8!
DATA ·exp64Table+80(SB)/8, $0x3f2a01a01a01a01a // 1/7!
DATA ·exp64Table+88(SB)/8, $0x3f56c16c16c16c17 // 1/6!
DATA ·exp64Table+96(SB)/8, $0x3f81111111111111 // 1/5!
DATA ·exp64Table+104(SB)/8, $0x3fa5555555555555 // 1/4!
DATA ·exp64Table+112(SB)/8, $0x3fc5555555555555 // 1/3!
DATA ·exp64Table+120(SB)/8, $0x3fe0000000000000 // 1/2!
DATA ·exp64Table+128(SB)/8, $0x3ff0000000000000 // 1/1!
DATA ·exp64Table+136(SB)/8, $0x3ff0000000000000 // 1/0!
GLOBL ·exp64Table(SB), RODATA|NOPTR, $144

// SEEN puts into V7 ones for the seen lanes among the four at off.
#define SEEN(off) \
	FMOVQ (off)(R14), F7; \
	CMGT_4S(7, 8, 7)

// SCORES puts four scaled scores into Vd, −Inf (V11) for those not seen.
#define SCORES(off, d, dst) \
	FMOVQ (off)(R0), F6; \
	FMUL_4S(6, 10, d); \
	SEEN(off); \
	VBIF V7.B16, V11.B16, dst.B16

// WEIGHTS puts exp(Vd − m) into Vd and s, with m in V12, and 0 where not seen.
// What is not seen passes through the exponential as 0: some machines are slow
// where a result is subnormal.
#define WEIGHTS(off, d, dst, fdst) \
	SEEN(off); \
	FSUB_4S(12, d, 0); \
	VAND V7.B16, V0.B16, V0.B16; \
	EXP(d); \
	VAND V7.B16, dst.B16, dst.B16; \
	FMOVQ fdst, (off)(R0)

// func softmaxRowsNEON(s *float32, rows int, scale float32, seen, step int, m, sum *float32)
TEXT ·softmaxRowsNEON(SB), NOSPLIT, $0-56
	MOVD  s+0(FP), R0
	MOVD  rows+8(FP), R9
	FMOVS scale+16(FP), F10
	MOVD  seen+24(FP), R4
	MOVD  step+32(FP), R5
	MOVD  m+40(FP), R2
	MOVD  sum+48(FP), R3
	MOVD  $·laneTable(SB), R14
	VDUP  V10.S[0], V10.S4
	VDUP  R4, V8.S4
	VDUP  R5, V9.S4
	MOVW  $0xff800000, R6
	VDUP  R6, V11.S4
	EXP_CONSTS

row:
	SCORES(0, 16, V16)
	SCORES(16, 17, V17)
	SCORES(32, 18, V18)
	SCORES(48, 19, V19)
	SCORES(64, 20, V20)
	SCORES(80, 21, V21)
	SCORES(96, 22, V22)
	SCORES(112, 14, V14)
	FMAX_4S(17, 16, 0)
	FMAX_4S(19, 18, 1)
	FMAX_4S(21, 20, 2)
	FMAX_4S(14, 22, 3)
	FMAX_4S(1, 0, 0)
	FMAX_4S(3, 2, 2)
	FMAX_4S(2, 0, 0)
	FMAXV_4S(0, 12)
	FMOVS.P F12, 4(R2)
	VDUP  V12.S[0], V12.S4
	WEIGHTS(0, 16, V16, F16)
	WEIGHTS(16, 17, V17, F17)
	WEIGHTS(32, 18, V18, F18)
	WEIGHTS(48, 19, V19, F19)
	WEIGHTS(64, 20, V20, F20)
	WEIGHTS(80, 21, V21, F21)
	WEIGHTS(96, 22, V22, F22)
	WEIGHTS(112, 14, V14, F14)
	VORR  V23.B16, V23.B16, V13.B16 // a constant of the exponential makes room
	VORR  V14.B16, V14.B16, V23.B16
	LANE_SUM32
	VORR  V13.B16, V13.B16, V23.B16
	FMOVS.P F16, 4(R3)
	VADD  V9.S4, V8.S4, V8.S4
	ADD   $128, R0
	SUBS  $1, R9, R9
	BNE   row
	RET

// GRADIENT turns the four scores and gradients at off into probabilities and
// gradients of the scores, with lse in V12 and delta in V13.
#define GRADIENT(off) \
	SEEN(off); \
	FMOVQ (off)(R0), F0; \
	FMUL_4S(0, 10, 0); \
	FSUB_4S(12, 0, 0); \
	EXP(0); \
	VAND  V7.B16, V0.B16, V0.B16; \
	FMOVQ F0, (off)(R0); \
	FMOVQ (off)(R1), F1; \
	FSUB_4S(13, 1, 1); \
	FMUL_4S(0, 10, 0); \
	FMUL_4S(1, 0, 0); \
	VAND  V7.B16, V0.B16, V0.B16; \
	FMOVQ F0, (off)(R1)

// func softmaxGradRowsNEON(p, ds *float32, rows int, scale float32, seen, step int, lse, delta *float32)
TEXT ·softmaxGradRowsNEON(SB), NOSPLIT, $0-64
	MOVD  p+0(FP), R0
	MOVD  ds+8(FP), R1
	MOVD  rows+16(FP), R9
	FMOVS scale+24(FP), F10
	MOVD  seen+32(FP), R4
	MOVD  step+40(FP), R5
	MOVD  lse+48(FP), R2
	MOVD  delta+56(FP), R3
	MOVD  $·laneTable(SB), R14
	VDUP  V10.S[0], V10.S4
	VDUP  R4, V8.S4
	VDUP  R5, V9.S4
	EXP_CONSTS

row:
	VLD1R.P 4(R2), [V12.S4]
	VLD1R.P 4(R3), [V13.S4]
	GRADIENT(0)
	GRADIENT(16)
	GRADIENT(32)
	GRADIENT(48)
	GRADIENT(64)
	GRADIENT(80)
	GRADIENT(96)
	GRADIENT(112)
	VADD  V9.S4, V8.S4, V8.S4
	ADD   $128, R0
	ADD   $128, R1
	SUBS  $1, R9, R9
	BNE   row
	RET

#define MERGE_STEP(MOV, w) \
	MOV   (R0), F0; \
	MOV.P w(R1), F1; \
	FMUL_4S(0, 10, 0); \
	VFMLA V1.S4, V11.S4, V0.S4; \
	MOV.P F0, w(R0)

// func mergeRowsNEON(o, part *float32, rows, d int, a, b *float32)
TEXT ·mergeRowsNEON(SB), NOSPLIT, $0-48
	MOVD o+0(FP), R0
	MOVD part+8(FP), R1
	MOVD rows+16(FP), R5
	MOVD d+24(FP), R6
	MOVD a+32(FP), R2
	MOVD b+40(FP), R3

row:
	VLD1R.P 4(R2), [V10.S4]
	VLD1R.P 4(R3), [V11.S4]
	MOVD R6, R9
	EACH(MERGE_STEP)
	SUBS $1, R5, R5
	BNE  row
	RET

// EXP64_TERMS computes p = p·x + the next coefficient twice, over four float64s: p
// in V6 and V7, x in V4 and V5.
#define EXP64_TERMS \
	VLD1R.P 8(R7), [V14.D2]; \
	VORR  V14.B16, V14.B16, V15.B16; \
	VFMLA V6.D2, V4.D2, V14.D2; \
	VFMLA V7.D2, V5.D2, V15.D2; \
	VLD1R.P 8(R7), [V6.D2]; \
	VORR  V6.B16, V6.B16, V7.B16; \
	VFMLA V14.D2, V4.D2, V6.D2; \
	VFMLA V15.D2, V5.D2, V7.D2

// EXP64 computes V4 = exp(V4) of four float32s ≤ 0 or NaN in float64, rounded
// once; it destroys V5 … V7, V14 … V19. V20 … V24 are the first constants of
// exp64Table, R6 points to the coefficients.
#define EXP64 \
	FCVTL2_2D(4, 5); \
	FCVTL_2D(4, 4); \
	FMAX_2D(20, 4, 4);               \ // below, the result is 0 as well; a NaN survives
	FMAX_2D(20, 5, 5); \
	VORR  V22.B16, V22.B16, V16.B16; \
	VORR  V22.B16, V22.B16, V17.B16; \
	VFMLA V21.D2, V4.D2, V16.D2;     \ // n in the low bits of V16 and V17
	VFMLA V21.D2, V5.D2, V17.D2; \
	FSUB_2D(22, 16, 18); \
	FSUB_2D(22, 17, 19); \
	VFMLS V23.D2, V18.D2, V4.D2; \
	VFMLS V23.D2, V19.D2, V5.D2; \
	VFMLS V24.D2, V18.D2, V4.D2; \
	VFMLS V24.D2, V19.D2, V5.D2; \
	MOVD  R6, R7; \
	VLD1R.P 8(R7), [V6.D2]; \
	VORR  V6.B16, V6.B16, V7.B16; \
	EXP64_TERMS; \
	EXP64_TERMS; \
	EXP64_TERMS; \
	EXP64_TERMS; \
	EXP64_TERMS; \
	EXP64_TERMS; \
	VSHL  $52, V16.D2, V16.D2;       \ // to the exponent's place
	VSHL  $52, V17.D2, V17.D2; \
	VADD  V16.D2, V6.D2, V6.D2; \
	VADD  V17.D2, V7.D2, V7.D2; \
	FCVTN_2S(6, 4); \
	FCVTN2_4S(7, 4)

// V2: ones where the maximum stays. V0, V1: the larger and the smaller, or with a
// NaN the split's and the old one.
#define SOFTMAX_MERGE_STEP(MOV, w) \
	MOV   (R0), F3; \
	MOV.P w(R2), F1; \
	FCMGE_4S(1, 3, 2); \
	VORR  V1.B16, V1.B16, V0.B16; \
	VBIT  V2.B16, V3.B16, V0.B16; \
	VBIF  V2.B16, V3.B16, V1.B16; \
	MOV.P F0, w(R0); \
	FSUB_4S(0, 1, 4); \
	EXP64; \
	MOV   (R1), F0; \
	MOV.P w(R3), F1; \
	VORR  V1.B16, V1.B16, V3.B16;    \ // the sum with the larger maximum
	VBIT  V2.B16, V0.B16, V3.B16; \
	VBIF  V2.B16, V0.B16, V1.B16; \
	FMUL_4S(4, 1, 1); \
	FADD_4S(1, 3, 3); \
	MOV.P F3, w(R1); \
	VORR  V4.B16, V4.B16, V0.B16; \
	VBIT  V2.B16, V25.B16, V0.B16; \
	VBIF  V2.B16, V25.B16, V4.B16; \
	MOV.P F0, w(R4); \
	MOV.P F4, w(R5)

// func softmaxMergeNEON(m, sum, ms, sums *float32, n int, a, b *float32)
TEXT ·softmaxMergeNEON(SB), NOSPLIT, $0-56
	MOVD m+0(FP), R0
	MOVD sum+8(FP), R1
	MOVD ms+16(FP), R2
	MOVD sums+24(FP), R3
	MOVD n+32(FP), R9
	MOVD a+40(FP), R4
	MOVD b+48(FP), R5
	MOVD $·exp64Table(SB), R6
	VLD1R.P 8(R6), [V20.D2]
	VLD1R.P 8(R6), [V21.D2]
	VLD1R.P 8(R6), [V22.D2]
	VLD1R.P 8(R6), [V23.D2]
	VLD1R.P 8(R6), [V24.D2]
	FMOVS $1.0, F25
	VDUP V25.S[0], V25.S4
	EACH(SOFTMAX_MERGE_STEP)
	RET
