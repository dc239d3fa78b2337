// What the micro-kernels over panels of float32 and of BF16 share. A tile of R rows
// and C columns is STEP_RxC between START_RxC and END_RxC.
//
// Registers: R·C/4 accumulators from V0 up, row by row, for the whole call; V24 …
// V27 one panel's row of b; V28 … V30 elements of a, of which the multiply-add takes
// lane 0, so that none is copied into all lanes. R0 k, R1 a, R2 rsa, R3 csa, R4 b,
// R6 bps, R7 c, R8 ldc, R9 init, R10 ldi; R11 … R13 further panels of b, R16 and R17
// rows 2 and 4 of a.

// LOAD16 and STORE16 move 16 floats at p + off.
#define LOAD16(p, off, f0, f1, f2, f3) \
	FLDPQ (off)(p), (f0, f1); \
	FLDPQ (off+32)(p), (f2, f3)

#define STORE16(f0, f1, f2, f3, p, off) \
	FSTPQ (f0, f1), (off)(p); \
	FSTPQ (f2, f3), (off+32)(p)

// FMLA16 continues the 16 chains from Vacc on with the element in lane 0 of Va.
#define FMLA16(a, acc) \
	FMLA_4S_LANE0(a, 24, acc); \
	FMLA_4S_LANE0(a, 25, acc+1); \
	FMLA_4S_LANE0(a, 26, acc+2); \
	FMLA_4S_LANE0(a, 27, acc+3)

// START loads the accumulators and makes the addresses of rows and panels.
#define PANELS_2 \
	ADD R6, R4, R11

#define PANELS_4 \
	PANELS_2; \
	ADD R6, R11, R12; \
	ADD R6, R12, R13

#define ROWS_3 \
	ADD R2<<1, R1, R16

#define ROWS_5 \
	ROWS_3; \
	ADD R2<<1, R16, R17

#define START_1x64 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	LOAD16(R9, 64, F4, F5, F6, F7); \
	LOAD16(R9, 128, F8, F9, F10, F11); \
	LOAD16(R9, 192, F12, F13, F14, F15); \
	PANELS_4

#define START_1x32 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	LOAD16(R9, 64, F4, F5, F6, F7); \
	PANELS_2

#define START_1x16 \
	LOAD16(R9, 0, F0, F1, F2, F3)

#define START_2x32 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	LOAD16(R9, 64, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	LOAD16(R9, 64, F12, F13, F14, F15); \
	PANELS_2

#define START_2x16 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	ADD R10, R9; \
	LOAD16(R9, 0, F4, F5, F6, F7)

#define START_3x32 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	LOAD16(R9, 64, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	LOAD16(R9, 64, F12, F13, F14, F15); \
	ADD R10, R9; \
	LOAD16(R9, 0, F16, F17, F18, F19); \
	LOAD16(R9, 64, F20, F21, F22, F23); \
	PANELS_2; \
	ROWS_3

#define START_3x16 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	ADD R10, R9; \
	LOAD16(R9, 0, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	ROWS_3

#define START_4x16 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	ADD R10, R9; \
	LOAD16(R9, 0, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	ADD R10, R9; \
	LOAD16(R9, 0, F12, F13, F14, F15); \
	ROWS_3

#define START_5x16 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	ADD R10, R9; \
	LOAD16(R9, 0, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	ADD R10, R9; \
	LOAD16(R9, 0, F12, F13, F14, F15); \
	ADD R10, R9; \
	LOAD16(R9, 0, F16, F17, F18, F19); \
	ROWS_5

#define START_6x16 \
	LOAD16(R9, 0, F0, F1, F2, F3); \
	ADD R10, R9; \
	LOAD16(R9, 0, F4, F5, F6, F7); \
	ADD R10, R9; \
	LOAD16(R9, 0, F8, F9, F10, F11); \
	ADD R10, R9; \
	LOAD16(R9, 0, F12, F13, F14, F15); \
	ADD R10, R9; \
	LOAD16(R9, 0, F16, F17, F18, F19); \
	ADD R10, R9; \
	LOAD16(R9, 0, F20, F21, F22, F23); \
	ROWS_5

// STEP takes a step of k, for which ROW(p) loads the row of the panel at p and moves
// p on.
#define STEP_1x64(ROW) \
	FMOVS (R1), F28; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	ROW(R11); \
	FMLA16(28, 4); \
	ROW(R12); \
	FMLA16(28, 8); \
	ROW(R13); \
	FMLA16(28, 12)

#define STEP_1x32(ROW) \
	FMOVS (R1), F28; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	ROW(R11); \
	FMLA16(28, 4)

#define STEP_1x16(ROW) \
	FMOVS (R1), F28; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0)

#define STEP_2x32(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMLA16(29, 8); \
	ROW(R11); \
	FMLA16(28, 4); \
	FMLA16(29, 12)

#define STEP_2x16(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMLA16(29, 4)

#define STEP_3x32(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	FMOVS (R16), F30; \
	ADD R3, R1; \
	ADD R3, R16; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMLA16(29, 8); \
	FMLA16(30, 16); \
	ROW(R11); \
	FMLA16(28, 4); \
	FMLA16(29, 12); \
	FMLA16(30, 20)

#define STEP_3x16(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	FMOVS (R16), F30; \
	ADD R3, R1; \
	ADD R3, R16; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMLA16(29, 4); \
	FMLA16(30, 8)

#define STEP_4x16(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	FMOVS (R16), F30; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMOVS (R16)(R2), F28; \
	ADD R3, R16; \
	FMLA16(29, 4); \
	FMLA16(30, 8); \
	FMLA16(28, 12)

#define STEP_5x16(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	FMOVS (R16), F30; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMOVS (R16)(R2), F28; \
	ADD R3, R16; \
	FMLA16(29, 4); \
	FMOVS (R17), F29; \
	FMLA16(30, 8); \
	ADD R3, R17; \
	FMLA16(28, 12); \
	FMLA16(29, 16)

#define STEP_6x16(ROW) \
	FMOVS (R1), F28; \
	FMOVS (R1)(R2), F29; \
	FMOVS (R16), F30; \
	ADD R3, R1; \
	ROW(R4); \
	FMLA16(28, 0); \
	FMOVS (R16)(R2), F28; \
	ADD R3, R16; \
	FMLA16(29, 4); \
	FMOVS (R17), F29; \
	FMLA16(30, 8); \
	FMOVS (R17)(R2), F30; \
	ADD R3, R17; \
	FMLA16(28, 12); \
	FMLA16(29, 16); \
	FMLA16(30, 20)

// END stores the accumulators.
#define END_1x64 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	STORE16(F4, F5, F6, F7, R7, 64); \
	STORE16(F8, F9, F10, F11, R7, 128); \
	STORE16(F12, F13, F14, F15, R7, 192)

#define END_1x32 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	STORE16(F4, F5, F6, F7, R7, 64)

#define END_1x16 \
	STORE16(F0, F1, F2, F3, R7, 0)

#define END_2x32 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	STORE16(F4, F5, F6, F7, R7, 64); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0); \
	STORE16(F12, F13, F14, F15, R7, 64)

#define END_2x16 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	ADD R8, R7; \
	STORE16(F4, F5, F6, F7, R7, 0)

#define END_3x32 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	STORE16(F4, F5, F6, F7, R7, 64); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0); \
	STORE16(F12, F13, F14, F15, R7, 64); \
	ADD R8, R7; \
	STORE16(F16, F17, F18, F19, R7, 0); \
	STORE16(F20, F21, F22, F23, R7, 64)

#define END_3x16 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	ADD R8, R7; \
	STORE16(F4, F5, F6, F7, R7, 0); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0)

#define END_4x16 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	ADD R8, R7; \
	STORE16(F4, F5, F6, F7, R7, 0); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0); \
	ADD R8, R7; \
	STORE16(F12, F13, F14, F15, R7, 0)

#define END_5x16 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	ADD R8, R7; \
	STORE16(F4, F5, F6, F7, R7, 0); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0); \
	ADD R8, R7; \
	STORE16(F12, F13, F14, F15, R7, 0); \
	ADD R8, R7; \
	STORE16(F16, F17, F18, F19, R7, 0)

#define END_6x16 \
	STORE16(F0, F1, F2, F3, R7, 0); \
	ADD R8, R7; \
	STORE16(F4, F5, F6, F7, R7, 0); \
	ADD R8, R7; \
	STORE16(F8, F9, F10, F11, R7, 0); \
	ADD R8, R7; \
	STORE16(F12, F13, F14, F15, R7, 0); \
	ADD R8, R7; \
	STORE16(F16, F17, F18, F19, R7, 0); \
	ADD R8, R7; \
	STORE16(F20, F21, F22, F23, R7, 0)
