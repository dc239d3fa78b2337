//go:build !noasm

// Name: exponential, softmax's inner passes, sigmoid and SwiGLU over float32
// slices.
//
// Computes: the equation in each function's comment, stated in full at the
// exported function.
//
// Shapes: n elements behind each pointer; scalars by value.
//
// Requires: n ≥ 0; no alignment. Outputs may be an input, not overlap one partly.
// The last n mod 4 elements go one by one through the vectors' instructions.
//
// Registers: R0 … R4 pointers, R9 the elements left, R15 and V23 … V31 constants.
// Where lanes are summed they lie on the stack from R10 on, at R12 that of the next
// element: it is 8 vectors until one of them is used again, more than a store
// takes to reach a load.
//
// Numerics: eˣ = 2ⁿ·eʳ with n = round(x·log2 e), r = x − n·ln2 in two parts, the
// polynomial of Cephes' expf by Horner's rule in fused multiply-adds, and 2ⁿ
// applied as two factors, so that subnormal results are rounded once. Sums:
// element i to lane i mod 32, then the order of laneSum32. The bits are those of
// the AVX2 kernels.
//
// Source: S. Moshier, Cephes mathematical library, expf: reduction and
// coefficients; the vector form, the range to subnormals and the treatment of NaN
// and infinities are ours.
//
// Checked by TestExp*, TestVec*, FuzzVec, TestGoldenBits under qemu. Not measured
// on hardware yet.

#include "textflag.h"
#include "neon_arm64.h"

// What EXP and EXP_CONSTS of neon_arm64.h read, four copies of each.
DATA ·expTable+0(SB)/8, $0x3ab743ce3ab743ce // p1
DATA ·expTable+8(SB)/8, $0x3ab743ce3ab743ce
DATA ·expTable+16(SB)/8, $0x3c0889083c088908 // p2
DATA ·expTable+24(SB)/8, $0x3c0889083c088908
DATA ·expTable+32(SB)/8, $0x3d2aa9c13d2aa9c1 // p3
DATA ·expTable+40(SB)/8, $0x3d2aa9c13d2aa9c1
DATA ·expTable+48(SB)/8, $0x3e2aaaaa3e2aaaaa // p4
DATA ·expTable+56(SB)/8, $0x3e2aaaaa3e2aaaaa
DATA ·expTable+64(SB)/8, $0x3f0000003f000000 // p5
DATA ·expTable+72(SB)/8, $0x3f0000003f000000
DATA ·expTable+80(SB)/8, $0x3950696739506967 // p0
DATA ·expTable+88(SB)/8, $0x3950696739506967
DATA ·expTable+96(SB)/8, $0x42b2000042b20000 // largest argument
DATA ·expTable+104(SB)/8, $0x42b2000042b20000
DATA ·expTable+112(SB)/8, $0xc2d00000c2d00000 // smallest argument
DATA ·expTable+120(SB)/8, $0xc2d00000c2d00000
DATA ·expTable+128(SB)/8, $0x3fb8aa3b3fb8aa3b // log2 e
DATA ·expTable+136(SB)/8, $0x3fb8aa3b3fb8aa3b
DATA ·expTable+144(SB)/8, $0x3f3180003f318000 // ln 2, its first 9 bits
DATA ·expTable+152(SB)/8, $0x3f3180003f318000
DATA ·expTable+160(SB)/8, $0xb95e8083b95e8083 // ln 2, the rest
DATA ·expTable+168(SB)/8, $0xb95e8083b95e8083
DATA ·expTable+176(SB)/8, $0x3f8000003f800000 // one
DATA ·expTable+184(SB)/8, $0x3f8000003f800000
DATA ·expTable+192(SB)/8, $0x4b4000004b400000 // 1.5·2²³
DATA ·expTable+200(SB)/8, $0x4b4000004b400000
DATA ·expTable+208(SB)/8, $0x0000007f0000007f // bias of the exponent
DATA ·expTable+216(SB)/8, $0x0000007f0000007f
GLOBL ·expTable(SB), RODATA|NOPTR, $224

#define EXP_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	EXP(0); \
	MOV.P F0, w(R0)

TEXT ·expNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD n+16(FP), R9
	EXP_CONSTS
	EACH(EXP_STEP)
	RET

// ONE_PLUS computes V0 = 1 + exp(−V0); it destroys V1 … V5.
#define ONE_PLUS \
	FNEG_4S(0, 0); \
	EXP(0); \
	FADD_4S(29, 0, 0)

#define SIGMOID_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	ONE_PLUS; \
	FDIV_4S(0, 29, 0); \
	MOV.P F0, w(R0)

TEXT ·sigmoidNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD n+16(FP), R9
	EXP_CONSTS
	EACH(SIGMOID_STEP)
	RET

#define SWIGLU_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	VORR  V0.B16, V0.B16, V6.B16; \
	ONE_PLUS; \
	FDIV_4S(0, 6, 0); \
	MOV.P w(R2), F1; \
	FMUL_4S(1, 0, 0); \
	MOV.P F0, w(R0)

TEXT ·swiGLUNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD gate+8(FP), R1
	MOVD u+16(FP), R2
	MOVD n+24(FP), R9
	EXP_CONSTS
	EACH(SWIGLU_STEP)
	RET

#define SWIGLU_BACKWARD_STEP(MOV, w) \
	MOV.P w(R3), F0; \
	VORR  V0.B16, V0.B16, V6.B16; \
	ONE_PLUS; \
	FDIV_4S(0, 29, 0);              \ // s
	FSUB_4S(0, 29, 1);              \
	VORR  V29.B16, V29.B16, V2.B16; \
	VFMLA V1.S4, V6.S4, V2.S4;      \ // 1 + gate·(1 − s)
	MOV.P w(R2), F3; \
	MOV.P w(R4), F4; \
	FMUL_4S(0, 3, 3);               \ // dy·s
	FMUL_4S(4, 3, 4); \
	FMUL_4S(2, 4, 4); \
	FMUL_4S(6, 3, 3); \
	MOV.P F4, w(R0); \
	MOV.P F3, w(R1)

TEXT ·swiGLUBackwardNEON(SB), NOSPLIT, $0-48
	MOVD dg+0(FP), R0
	MOVD du+8(FP), R1
	MOVD dy+16(FP), R2
	MOVD gate+24(FP), R3
	MOVD u+32(FP), R4
	MOVD n+40(FP), R9
	EXP_CONSTS
	EACH(SWIGLU_BACKWARD_STEP)
	RET

// LANE puts the address of the next lane into R11; NEXT_LANE moves on by w bytes,
// round the 128 of the lanes.
#define LANE \
	ADD R12, R10, R11

#define NEXT_LANE(w) \
	ADD $(w), R12; \
	AND $127, R12

#define EXP_SUB_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	FSUB_4S(22, 0, 0); \
	EXP(0); \
	MOV.P F0, w(R0); \
	LANE; \
	MOV (R11), F1; \
	FADD_4S(0, 1, 1); \
	MOV F1, (R11); \
	NEXT_LANE(w)

TEXT ·expSubNEON(SB), NOSPLIT, $128-36
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R9
	MOVD  $lanes-128(SP), R10
	MOVD  $0, R12
	LANES_ZERO
	LANES_STORE(R10)
	FMOVS m+24(FP), F22
	VDUP  V22.S[0], V22.S4
	EXP_CONSTS
	EACH(EXP_SUB_STEP)
	LANES_LOAD(R10)
	LANE_SUM32
	FMOVS F16, ret+32(FP)
	RET

// The lanes of t follow those of s.
#define SUM_EXP_STEP(MOV, w) \
	MOV.P w(R1), F0; \
	FSUB_4S(22, 0, 0); \
	FMAX_4S(25, 0, 0);              \ // keeps −Inf·0 out of t
	VORR V0.B16, V0.B16, V6.B16; \
	EXP(0); \
	LANE; \
	MOV  (R11), F1; \
	MOV  128(R11), F2; \
	FADD_4S(0, 1, 1); \
	VFMLA V0.S4, V6.S4, V2.S4; \
	MOV  F1, (R11); \
	MOV  F2, 128(R11); \
	NEXT_LANE(w)

TEXT ·sumExpNEON(SB), NOSPLIT, $256-32
	MOVD  x+0(FP), R1
	MOVD  n+8(FP), R9
	MOVD  $lanes-256(SP), R10
	MOVD  $0, R12
	LANES_ZERO
	LANES_STORE(R10)
	ADD   $128, R10, R11
	LANES_STORE(R11)
	FMOVS m+16(FP), F22
	VDUP  V22.S[0], V22.S4
	EXP_CONSTS
	EACH(SUM_EXP_STEP)
	LANES_LOAD(R10)
	LANE_SUM32
	FMOVS F16, s+24(FP)
	ADD   $128, R10, R11
	LANES_LOAD(R11)
	LANE_SUM32
	FMOVS F16, t+28(FP)
	RET
