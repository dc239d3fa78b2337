//go:build !noasm

// Name: element-wise kernels and reductions over float32 slices that need no
// exponential: sums, products, maximum, RMSNorm's passes, rotation, AdamW.
//
// Computes: the equation in each function's comment, stated in full at the
// exported function or at the generic twin of the same name.
//
// Shapes: n elements behind each pointer; scalars by value.
//
// Requires: n ≥ 0; no alignment. Outputs may be an input, not overlap one partly.
// The last n mod 4 elements go one by one through the vectors' instructions, or
// through the scalar ones that give the same bits.
//
// Registers: R0 … R4 pointers, R9 the elements left, V24 … V31 scalars in all
// lanes. Reductions hold their lanes in V16 … V23 while whole sets of them are
// left, then on the stack, where R11 points to the lane of the next element.
//
// Numerics: multiply-adds are fused. float32 reductions: element i to lane i mod
// 32; float64 ones: lane i mod 16, products of float32 being exact; then the
// pairwise order of laneSum32 and laneSum64. The bits are those of the AVX2
// kernels.
//
// Checked by TestVec*, FuzzVec, TestGoldenBits under qemu. Not measured on
// hardware yet.

#include "textflag.h"
#include "neon_arm64.h"

#define ADD_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	MOV.P w(R2), F1; \
	FADD_4S(1, 0, 0); \
	MOV.P F0, w(R0)

TEXT ·addNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD a+8(FP), R1
	MOVD b+16(FP), R2
	MOVD n+24(FP), R9
	EACH(ADD_STEP)
	RET

#define MUL_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	MOV.P w(R2), F1; \
	FMUL_4S(1, 0, 0); \
	MOV.P F0, w(R0)

TEXT ·mulNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD a+8(FP), R1
	MOVD b+16(FP), R2
	MOVD n+24(FP), R9
	EACH(MUL_STEP)
	RET

#define SCALE_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	FMUL_4S(0, 31, 0); \
	MOV.P F0, w(R0)

TEXT ·scaleNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R9
	FMOVS alpha+24(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(SCALE_STEP)
	RET

#define AXPY_STEP(MOV, w) \
	MOV   (R0), F0; \
	MOV.P w(R1), F1; \
	VFMLA V1.S4, V31.S4, V0.S4; \
	MOV.P F0, w(R0)

TEXT ·axpyNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R9
	FMOVS alpha+24(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(AXPY_STEP)
	RET

#define SCALE_MUL_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	MOV.P w(R2), F1; \
	FMUL_4S(0, 31, 0); \
	FMUL_4S(1, 0, 0); \
	MOV.P F0, w(R0)

TEXT ·scaleMulNEON(SB), NOSPLIT, $0-36
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  w+16(FP), R2
	MOVD  n+24(FP), R9
	FMOVS alpha+32(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(SCALE_MUL_STEP)
	RET

#define MUL_AXPY_STEP(MOV, w) \
	MOV   (R0), F0; \
	MOV.P w(R1), F1; \
	MOV.P w(R2), F2; \
	FMUL_4S(1, 31, 1); \
	VFMLA V2.S4, V1.S4, V0.S4; \
	MOV.P F0, w(R0)

TEXT ·mulAxpyNEON(SB), NOSPLIT, $0-36
	MOVD  dst+0(FP), R0
	MOVD  a+8(FP), R1
	MOVD  b+16(FP), R2
	MOVD  n+24(FP), R9
	FMOVS alpha+32(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(MUL_AXPY_STEP)
	RET

// NORM_DX computes V0 = dy·w − c·x.
#define NORM_DX(MOV, w) \
	MOV.P w(R1), F0; \
	MOV.P w(R2), F1; \
	MOV.P w(R3), F2; \
	FMUL_4S(2, 0, 0); \
	VFMLS V1.S4, V30.S4, V0.S4

#define NORM_DX_STEP(MOV, w) \
	NORM_DX(MOV, w); \
	FMUL_4S(0, 31, 0); \
	MOV.P F0, w(R0)

TEXT ·rmsNormDXNEON(SB), NOSPLIT, $0-48
	MOVD  dx+0(FP), R0
	MOVD  dy+8(FP), R1
	MOVD  x+16(FP), R2
	MOVD  w+24(FP), R3
	MOVD  n+32(FP), R9
	FMOVS rstd+40(FP), F31
	FMOVS c+44(FP), F30
	VDUP  V31.S[0], V31.S4
	VDUP  V30.S[0], V30.S4
	EACH(NORM_DX_STEP)
	RET

#define NORM_DX_ACC_STEP(MOV, w) \
	NORM_DX(MOV, w); \
	MOV   (R0), F3; \
	VFMLA V0.S4, V31.S4, V3.S4; \
	MOV.P F3, w(R0)

TEXT ·rmsNormDXAccNEON(SB), NOSPLIT, $0-48
	MOVD  dx+0(FP), R0
	MOVD  dy+8(FP), R1
	MOVD  x+16(FP), R2
	MOVD  w+24(FP), R3
	MOVD  n+32(FP), R9
	FMOVS rstd+40(FP), F31
	FMOVS c+44(FP), F30
	VDUP  V31.S[0], V31.S4
	VDUP  V30.S[0], V30.S4
	EACH(NORM_DX_ACC_STEP)
	RET

#define ROTATE_STEP(MOV, w) \
	MOV   (R0), F0; \
	MOV   (R1), F1; \
	MOV.P w(R2), F2; \
	MOV.P w(R3), F3; \
	FMUL_4S(3, 31, 3); \
	FMUL_4S(3, 1, 4); \
	FNEG_4S(4, 4); \
	FMUL_4S(3, 0, 5); \
	VFMLA V0.S4, V2.S4, V4.S4; \
	VFMLA V1.S4, V2.S4, V5.S4; \
	MOV.P F4, w(R0); \
	MOV.P F5, w(R1)

TEXT ·rotateNEON(SB), NOSPLIT, $0-44
	MOVD  x+0(FP), R0
	MOVD  y+8(FP), R1
	MOVD  cos+16(FP), R2
	MOVD  sin+24(FP), R3
	MOVD  n+32(FP), R9
	FMOVS sign+40(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(ROTATE_STEP)
	RET

#define ZERO_BELOW_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	FCMGE_4S(31, 0, 1); \
	VAND  V1.B16, V0.B16, V0.B16; \
	MOV.P F0, w(R0)

TEXT ·zeroBelowNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R9
	FMOVS t+24(FP), F31
	VDUP  V31.S[0], V31.S4
	EACH(ZERO_BELOW_STEP)
	RET

// Scalars: V23 gradScale, V24 β₁, V25 1−β₁, V26 β₂, V27 1−β₂, V28 decay, V29 step,
// V30 1/√Bias2, V31 ε.
#define ADAMW_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	FMUL_4S(0, 23, 0); \
	MOV   (R2), F1; \
	FMUL_4S(1, 24, 1); \
	VFMLA V0.S4, V25.S4, V1.S4;     \ // m
	MOV.P F1, w(R2); \
	MOV   (R3), F2; \
	FMUL_4S(2, 26, 2); \
	FMUL_4S(0, 27, 3); \
	VFMLA V0.S4, V3.S4, V2.S4;      \ // v
	MOV.P F2, w(R3); \
	FSQRT_4S(2, 2); \
	VORR  V31.B16, V31.B16, V3.B16; \
	VFMLA V2.S4, V30.S4, V3.S4; \
	FDIV_4S(3, 1, 1); \
	MOV   (R0), F4; \
	FMUL_4S(4, 28, 4); \
	VFMLS V1.S4, V29.S4, V4.S4; \
	MOV.P F4, w(R0)

TEXT ·adamwNEON(SB), NOSPLIT, $0-48
	MOVD p+0(FP), R0
	MOVD grad+8(FP), R1
	MOVD m+16(FP), R2
	MOVD v+24(FP), R3
	MOVD n+32(FP), R9
	MOVD c+40(FP), R4
	VLD1R.P 4(R4), [V23.S4]
	VLD1R.P 4(R4), [V24.S4]
	VLD1R.P 4(R4), [V25.S4]
	VLD1R.P 4(R4), [V26.S4]
	VLD1R.P 4(R4), [V27.S4]
	VLD1R.P 4(R4), [V28.S4]
	VLD1R.P 4(R4), [V29.S4]
	VLD1R.P 4(R4), [V30.S4]
	VLD1R.P 4(R4), [V31.S4]
	EACH(ADAMW_STEP)
	RET

// DOT_8 continues eight lanes, in Vacc and the next.
#define DOT_8(acc, next) \
	FLDPQ.P 32(R1), (F0, F1); \
	FLDPQ.P 32(R2), (F2, F3); \
	VFMLA V2.S4, V0.S4, acc.S4; \
	VFMLA V3.S4, V1.S4, next.S4

#define DOT_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	MOV.P w(R2), F1; \
	MOV   (R11), F2; \
	VFMLA V1.S4, V0.S4, V2.S4; \
	MOV.P F2, w(R11)

TEXT ·dotNEON(SB), NOSPLIT, $128-28
	MOVD a+0(FP), R1
	MOVD b+8(FP), R2
	MOVD n+16(FP), R9
	MOVD $lanes-128(SP), R10
	LANES_ZERO
	SUBS $32, R9, R9
	BLT  rest32

set:
	DOT_8(V16, V17)
	DOT_8(V18, V19)
	DOT_8(V20, V21)
	DOT_8(V22, V23)
	SUBS $32, R9, R9
	BGE  set

rest32:
	ADDS $32, R9, R9
	BEQ  sum
	LANES_STORE(R10)
	MOVD R10, R11
	EACH(DOT_STEP)
	LANES_LOAD(R10)

sum:
	LANE_SUM32
	FMOVS F16, ret+24(FP)
	RET

// LANES64 sums what PRODUCT(MOV, w) leaves for the elements at its pointers in V4
// and V5, in float64, over the R9 elements; the result is in F16.
#define LANES64(PRODUCT) \
	LANES_ZERO; \
	SUBS $16, R9, R9; \
	BLT  rest16; \
set: \
	PRODUCT(FMOVQ, 16); \
	FADD_2D(4, 16, 16); \
	FADD_2D(5, 17, 17); \
	PRODUCT(FMOVQ, 16); \
	FADD_2D(4, 18, 18); \
	FADD_2D(5, 19, 19); \
	PRODUCT(FMOVQ, 16); \
	FADD_2D(4, 20, 20); \
	FADD_2D(5, 21, 21); \
	PRODUCT(FMOVQ, 16); \
	FADD_2D(4, 22, 22); \
	FADD_2D(5, 23, 23); \
	SUBS $16, R9, R9; \
	BGE  set; \
rest16: \
	ADDS $16, R9, R9; \
	BEQ  sum; \
	MOVD $lanes-128(SP), R10; \
	LANES_STORE(R10); \
	MOVD R10, R11; \
	SUBS $4, R9, R9; \
	BLT  rest; \
vector: \
	PRODUCT(FMOVQ, 16); \
	FLDPQ (R11), (F6, F7); \
	FADD_2D(4, 6, 6); \
	FADD_2D(5, 7, 7); \
	FSTPQ.P (F6, F7), 32(R11); \
	SUBS $4, R9, R9; \
	BGE  vector; \
rest: \
	ADDS $4, R9, R9; \
	BEQ  load; \
element: \
	PRODUCT(FMOVS, 4); \
	FMOVD (R11), F6; \
	FADDD F4, F6, F6; \
	FMOVD.P F6, 8(R11); \
	SUBS $1, R9, R9; \
	BNE  element; \
load: \
	LANES_LOAD(R10); \
sum: \
	LANE_SUM64

#define SUM_PRODUCT(MOV, w) \
	MOV.P w(R1), F0; \
	FCVTL_2D(0, 4); \
	FCVTL2_2D(0, 5)

TEXT ·sumNEON(SB), NOSPLIT, $128-24
	MOVD x+0(FP), R1
	MOVD n+8(FP), R9
	LANES64(SUM_PRODUCT)
	FMOVD F16, ret+16(FP)
	RET

#define SQUARE_PRODUCT(MOV, w) \
	SUM_PRODUCT(MOV, w); \
	FMUL_2D(4, 4, 4); \
	FMUL_2D(5, 5, 5)

TEXT ·sumSqNEON(SB), NOSPLIT, $128-24
	MOVD x+0(FP), R1
	MOVD n+8(FP), R9
	LANES64(SQUARE_PRODUCT)
	FMOVD F16, ret+16(FP)
	RET

#define DOT3_PRODUCT(MOV, w) \
	SUM_PRODUCT(MOV, w); \
	MOV.P w(R2), F0; \
	FCVTL_2D(0, 2); \
	FCVTL2_2D(0, 3); \
	FMUL_2D(2, 4, 4); \
	FMUL_2D(3, 5, 5); \
	MOV.P w(R3), F0; \
	FCVTL_2D(0, 2); \
	FCVTL2_2D(0, 3); \
	FMUL_2D(2, 4, 4); \
	FMUL_2D(3, 5, 5)

TEXT ·dot3NEON(SB), NOSPLIT, $128-40
	MOVD a+0(FP), R1
	MOVD b+8(FP), R2
	MOVD c+16(FP), R3
	MOVD n+24(FP), R9
	LANES64(DOT3_PRODUCT)
	FMOVD F16, ret+32(FP)
	RET

// ABOVE_PRODUCT takes the elements above the threshold, of which R3 points to four
// copies, and counts them, negatively, in V30. The zeros beside a single element
// meet a zero and are not counted.
#define ABOVE_PRODUCT(MOV, w) \
	MOV.P w(R1), F0; \
	MOV   (R3), F1; \
	FCMGT_4S(1, 0, 1); \
	VADD  V1.S4, V30.S4, V30.S4; \
	VAND  V1.B16, V0.B16, V0.B16; \
	FCVTL_2D(0, 4); \
	FCVTL2_2D(0, 5)

TEXT ·sumAboveNEON(SB), NOSPLIT, $144-40
	MOVD  x+0(FP), R1
	MOVD  n+8(FP), R9
	FMOVS t+16(FP), F0
	VDUP  V0.S[0], V0.S4
	MOVD  $copies-144(SP), R3
	FMOVQ F0, (R3)
	VEOR  V30.B16, V30.B16, V30.B16
	LANES64(ABOVE_PRODUCT)
	FMOVD F16, sum+24(FP)
	VADDV V30.S4, V30
	FMOVS F30, R0
	NEGW  R0, R0
	MOVD  R0, count+32(FP)
	RET

TEXT ·maxNEON(SB), NOSPLIT, $0-20
	MOVD x+0(FP), R1
	MOVD n+8(FP), R9
	MOVW $0xff800000, R2
	VDUP R2, V16.S4
	VORR V16.B16, V16.B16, V17.B16
	VORR V16.B16, V16.B16, V18.B16
	VORR V16.B16, V16.B16, V19.B16
	SUBS $16, R9, R9
	BLT  rest16

set:
	FLDPQ.P 32(R1), (F0, F1)
	FLDPQ.P 32(R1), (F2, F3)
	FMAX_4S(0, 16, 16)
	FMAX_4S(1, 17, 17)
	FMAX_4S(2, 18, 18)
	FMAX_4S(3, 19, 19)
	SUBS $16, R9, R9
	BGE  set

rest16:
	ADDS $16, R9, R9
	BEQ  fold

element:
	VLD1R.P 4(R1), [V0.S4]
	FMAX_4S(0, 16, 16)
	SUBS $1, R9, R9
	BNE  element

fold:
	FMAX_4S(17, 16, 16)
	FMAX_4S(19, 18, 18)
	FMAX_4S(18, 16, 16)
	FMAXV_4S(16, 16)
	FMOVS F16, ret+16(FP)
	RET
