// Package emu builds the emulated CUDA driver: a shared library with the
// functions of libcuda.so.1 that package cuda uses, in which the kernels of
// package kernels, compiled by a C++ compiler from the same .cu files, run on
// the CPU. Tests open it with cuda.WithLibrary and are then, down to the PTX that
// they load, programs that would run on a GPU.
//
// It is for tests: no program that is shipped uses it.
//
// A block's threads are fibers (machine.h, driver/machine.cc) that switch where
// threads meet; a run is deterministic for given settings. The emulator is built
// to disagree with wrong kernels:
//
//   - shared and device memory start as NaN;
//   - an asynchronous copy lands as late as a wait permits, or at once, or at a
//     random moment between: a missing wait and a missing barrier each fail in
//     one of the modes; copies that are not waited for at the end are errors;
//   - threads run as far ahead of each other as barriers let them, or in random
//     order;
//   - every access to shared and to device memory, plain ones through pointers
//     too, is checked for range and alignment: allocations touch nowhere, and
//     between them lies what no thread may read or write;
//   - races are found: two threads that use the same bytes, one of them writing,
//     with nothing between that orders them. In a block barriers, named barriers and
//     warp_sync order accesses (shuffles and the like do not); between blocks, a
//     fence() before an atomic_add and one after it, or st_release and ld_acquire;
//     shared memory that an asynchronous copy will write is nobody's until its
//     thread has waited. driver/race.h says what is missed;
//   - ld_nc of memory that the launch has written is an error;
//   - of sm_90a: barriers in shared memory with their phases and byte counts, copies
//     by tensor maps, wgmma that reads its operands and writes its accumulators at
//     any time before its wait, proxies, registers that warpgroups hand over;
//     hopper.h says what of it is honest. One block runs at a time;
//   - lanes that meet in different instructions, barriers with counts that
//     disagree, and threads that wait for ever end the launch with an error.
//
// A kernel's error becomes the code of the launch (cuda.LaunchFailed), and its
// text, which names kernel, block and thread, the error's Text.
//
// It cannot show speed, nor orderings weaker than those of the CPU.
//
// The environment variable UPDRAFT_EMULATOR, read when a device's context is
// made, has settings as name=value, separated by commas; Mode writes them:
//
//	capability=8.0      of the device; 9.0 runs the kernels for sm_90a
//	devices=1           number of devices
//	version=12000       the CUDA version that the driver states
//	memory=4294967296   bytes of device memory
//	multiprocessors=4   of the device
//	compute-mode=0      3: exclusive to a process, 2: prohibited
//	streams=late        work of a stream runs when somebody waits for it, or at-once
//	landing=late        of asynchronous copies: late, at-once or random
//	resident=1          blocks that run at once, at most 8
//	mma=round           the sums of mma are rounded once; cut: what a tensor core may
//	                    lose is lost
//	bank-conflicts=fail make one of ldmatrix an error
//	seed=0              of the random choices; above 0, threads run in random order
//	init=N retain=N     the code that cuInit, cuDevicePrimaryCtxRetain return
//	fail-launch=N       the context's Nth launch fails, counted from 1
//	fail-allocation=N   its Nth allocation does
//
// Start reading at library.go, then device.cuh, emulator.h, driver/machine.cc.
package emu
