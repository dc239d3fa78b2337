// Instructions that Go's assembler has no mnemonic for, as words. Arguments are
// the numbers of vector registers, in the order of Go's assembler: sources first
// (the second operand before the first), destination last. The comment before
// each is the instruction as the architecture's manual writes it;
// TestNEONEncodings compares the two.

// FADD Vd.4S, Vn.4S, Vm.4S
#define FADD_4S(m, n, d) WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d))

// FSUB Vd.4S, Vn.4S, Vm.4S
#define FSUB_4S(m, n, d) WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d))

// FMUL Vd.4S, Vn.4S, Vm.4S
#define FMUL_4S(m, n, d) WORD $(0x6e20dc00 | (m)<<16 | (n)<<5 | (d))

// FDIV Vd.4S, Vn.4S, Vm.4S
#define FDIV_4S(m, n, d) WORD $(0x6e20fc00 | (m)<<16 | (n)<<5 | (d))

// FMLA Vd.4S, Vn.4S, Vm.S[0]
#define FMLA_4S_LANE0(m, n, d) WORD $(0x4f801000 | (m)<<16 | (n)<<5 | (d))

// FSQRT Vd.4S, Vn.4S
#define FSQRT_4S(n, d) WORD $(0x6ea1f800 | (n)<<5 | (d))

// FNEG Vd.4S, Vn.4S
#define FNEG_4S(n, d) WORD $(0x6ea0f800 | (n)<<5 | (d))

// FMAX Vd.4S, Vn.4S, Vm.4S
#define FMAX_4S(m, n, d) WORD $(0x4e20f400 | (m)<<16 | (n)<<5 | (d))

// FMIN Vd.4S, Vn.4S, Vm.4S
#define FMIN_4S(m, n, d) WORD $(0x4ea0f400 | (m)<<16 | (n)<<5 | (d))

// FMAXV Sd, Vn.4S
#define FMAXV_4S(n, d) WORD $(0x6e30f800 | (n)<<5 | (d))

// FADDP Sd, Vn.2S
#define FADDP_2S(n, d) WORD $(0x7e30d800 | (n)<<5 | (d))

// FCMGE Vd.4S, Vn.4S, Vm.4S
#define FCMGE_4S(m, n, d) WORD $(0x6e20e400 | (m)<<16 | (n)<<5 | (d))

// FCMGT Vd.4S, Vn.4S, Vm.4S
#define FCMGT_4S(m, n, d) WORD $(0x6ea0e400 | (m)<<16 | (n)<<5 | (d))

// CMGT Vd.4S, Vn.4S, Vm.4S
#define CMGT_4S(m, n, d) WORD $(0x4ea03400 | (m)<<16 | (n)<<5 | (d))

// SSHR Vd.4S, Vn.4S, #shift
#define SSHR_4S(shift, n, d) WORD $(0x4f400400 - (shift)<<16 | (n)<<5 | (d))

// SHLL Vd.4S, Vn.4H, #16
#define SHLL_4S(n, d) WORD $(0x2e613800 | (n)<<5 | (d))

// SHLL2 Vd.4S, Vn.8H, #16
#define SHLL2_4S(n, d) WORD $(0x6e613800 | (n)<<5 | (d))

// FADD Vd.2D, Vn.2D, Vm.2D
#define FADD_2D(m, n, d) WORD $(0x4e60d400 | (m)<<16 | (n)<<5 | (d))

// FSUB Vd.2D, Vn.2D, Vm.2D
#define FSUB_2D(m, n, d) WORD $(0x4ee0d400 | (m)<<16 | (n)<<5 | (d))

// FMUL Vd.2D, Vn.2D, Vm.2D
#define FMUL_2D(m, n, d) WORD $(0x6e60dc00 | (m)<<16 | (n)<<5 | (d))

// FMAX Vd.2D, Vn.2D, Vm.2D
#define FMAX_2D(m, n, d) WORD $(0x4e60f400 | (m)<<16 | (n)<<5 | (d))

// FADDP Dd, Vn.2D
#define FADDP_2D(n, d) WORD $(0x7e70d800 | (n)<<5 | (d))

// FCVTL Vd.2D, Vn.2S
#define FCVTL_2D(n, d) WORD $(0x0e617800 | (n)<<5 | (d))

// FCVTL2 Vd.2D, Vn.4S
#define FCVTL2_2D(n, d) WORD $(0x4e617800 | (n)<<5 | (d))

// FCVTN Vd.2S, Vn.2D
#define FCVTN_2S(n, d) WORD $(0x0e616800 | (n)<<5 | (d))

// FCVTN2 Vd.4S, Vn.2D
#define FCVTN2_4S(n, d) WORD $(0x4e616800 | (n)<<5 | (d))

// Loops and sums that the kernels share.

// EACH runs STEP for the R9 elements left: on whole vectors as STEP(FMOVQ, 16),
// then on single ones as STEP(FMOVS, 4), which loads zeros into the other lanes.
// STEP moves its pointers on by its second argument. R9 is destroyed.
#define EACH(STEP) \
	SUBS $4, R9, R9; \
	BLT  rest; \
vector: \
	STEP(FMOVQ, 16); \
	SUBS $4, R9, R9; \
	BGE  vector; \
rest: \
	ADDS $4, R9, R9; \
	BEQ  done; \
element: \
	STEP(FMOVS, 4); \
	SUBS $1, R9, R9; \
	BNE  element; \
done:

// LANES_ZERO puts zeros into V16 … V23: 32 lanes of float32 or 16 of float64.
#define LANES_ZERO \
	VEOR V16.B16, V16.B16, V16.B16; \
	VEOR V17.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V18.B16, V18.B16; \
	VEOR V19.B16, V19.B16, V19.B16; \
	VEOR V20.B16, V20.B16, V20.B16; \
	VEOR V21.B16, V21.B16, V21.B16; \
	VEOR V22.B16, V22.B16, V22.B16; \
	VEOR V23.B16, V23.B16, V23.B16

// LANES_STORE and LANES_LOAD move the lanes to and from memory at p.
#define LANES_STORE(p) \
	FSTPQ (F16, F17), 0(p); \
	FSTPQ (F18, F19), 32(p); \
	FSTPQ (F20, F21), 64(p); \
	FSTPQ (F22, F23), 96(p)

#define LANES_LOAD(p) \
	FLDPQ 0(p), (F16, F17); \
	FLDPQ 32(p), (F18, F19); \
	FLDPQ 64(p), (F20, F21); \
	FLDPQ 96(p), (F22, F23)

// LANE_SUM32 adds the float32 lanes in the order of the Go function laneSum32;
// the sum is in F16.
#define LANE_SUM32 \
	FADD_4S(18, 16, 16); \
	FADD_4S(22, 20, 20); \
	FADD_4S(19, 17, 17); \
	FADD_4S(23, 21, 21); \
	FADD_4S(20, 16, 16); \
	FADD_4S(21, 17, 17); \
	FADD_4S(17, 16, 16); \
	VEXT $8, V16.B16, V16.B16, V17.B16; \
	FADD_4S(17, 16, 16); \
	FADDP_2S(16, 16)

// LANE_SUM64 adds the float64 lanes in the order of laneSum64; the sum is in F16.
#define LANE_SUM64 \
	FADD_2D(18, 16, 16); \
	FADD_2D(22, 20, 20); \
	FADD_2D(19, 17, 17); \
	FADD_2D(23, 21, 21); \
	FADD_2D(20, 16, 16); \
	FADD_2D(21, 17, 17); \
	FADD_2D(17, 16, 16); \
	FADDP_2D(16, 16)

// EXP_CONSTS loads what EXP needs: R15 and V23 … V31 stay its own.
#define EXP_CONSTS \
	MOVD  $·expTable(SB), R15; \
	FLDPQ 80(R15), (F23, F24); \
	FLDPQ 112(R15), (F25, F26); \
	FLDPQ 144(R15), (F27, F28); \
	FLDPQ 176(R15), (F29, F30); \
	FMOVQ 208(R15), F31

// EXP computes Vd = exp(V0); it destroys V0 … V5. See exp_neon_arm64.s.
#define EXP(d) \
	FMIN_4S(24, 0, 0);             \ // clamp; a NaN survives
	FMAX_4S(25, 0, 0);             \
	VORR  V30.B16, V30.B16, V1.B16; \
	VFMLA V26.S4, V0.S4, V1.S4;    \ // n in the low bits of V1, as a float in V2
	FSUB_4S(30, 1, 2);             \
	VFMLS V27.S4, V2.S4, V0.S4;    \ // r
	VFMLS V28.S4, V2.S4, V0.S4;    \
	FLDPQ 0(R15), (F3, F4);        \ // polynomial, each step in the register of its coefficient
	VFMLA V23.S4, V0.S4, V3.S4;    \
	VFMLA V3.S4, V0.S4, V4.S4;     \
	FLDPQ 32(R15), (F3, F5);       \
	VFMLA V4.S4, V0.S4, V3.S4;     \
	VFMLA V3.S4, V0.S4, V5.S4;     \
	FMOVQ 64(R15), F3;             \
	VFMLA V5.S4, V0.S4, V3.S4;     \
	FMUL_4S(0, 0, 4);              \
	VFMLA V4.S4, V3.S4, V0.S4;     \
	FADD_4S(29, 0, 0);             \
	VSUB  V30.S4, V1.S4, V1.S4;    \ // 2ⁿ in two halves
	SSHR_4S(1, 1, 2);              \
	VSUB  V2.S4, V1.S4, V1.S4;     \
	VADD  V31.S4, V2.S4, V2.S4;    \
	VADD  V31.S4, V1.S4, V1.S4;    \
	VSHL  $23, V2.S4, V2.S4;       \
	VSHL  $23, V1.S4, V1.S4;       \
	FMUL_4S(2, 0, 0);              \
	FMUL_4S(1, 0, d)
