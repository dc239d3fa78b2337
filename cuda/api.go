package cuda

import "unsafe"

// Handles of the driver. A device pointer is an address in the device's space.
type (
	devicePtr = uint64
	handle    = uintptr
)

// api is the part of the driver that this package uses, one method per driver
// function; methods with a first parameter ctx make that context current on the
// calling thread in the same step. libcuda (linux with cgo) implements it; what
// stands above is the same on every platform.
type api interface {
	cuInit() Code
	cuGetErrorName(Code) string
	cuGetErrorString(Code) string
	cuDriverGetVersion() (int, Code)
	cuDeviceGetCount() (int, Code)
	cuDeviceGet(ordinal int) (int32, Code)
	cuDeviceGetName(dev int32) (string, Code)
	cuDeviceGetAttribute(attr int, dev int32) (int, Code)
	cuDeviceTotalMem(dev int32) (uint64, Code)
	cuDevicePrimaryCtxRetain(dev int32) (handle, Code)
	cuDevicePrimaryCtxRelease(dev int32) Code

	cuCtxSynchronize(ctx handle) Code
	cuMemGetInfo(ctx handle) (free, total uint64, code Code)
	cuMemAlloc(ctx handle, n uint64) (devicePtr, Code)
	cuMemFree(ctx handle, p devicePtr) Code
	cuMemHostAlloc(ctx handle, n uint64) (unsafe.Pointer, Code)
	cuMemFreeHost(ctx handle, p unsafe.Pointer) Code

	// The copies with wait end when the copy has, so src and dst may be Go memory.
	cuMemcpyHtoDAsync(ctx handle, dst devicePtr, src unsafe.Pointer, n uint64, stream handle, wait bool) Code
	cuMemcpyDtoHAsync(ctx handle, dst unsafe.Pointer, src devicePtr, n uint64, stream handle, wait bool) Code
	cuMemcpyDtoDAsync(ctx handle, dst, src devicePtr, n uint64, stream handle) Code
	cuMemsetD8Async(ctx handle, dst devicePtr, value byte, n uint64, stream handle) Code
	cuMemsetD32Async(ctx handle, dst devicePtr, value uint32, words uint64, stream handle) Code

	cuCtxGetStreamPriorityRange(ctx handle) (least, greatest int, code Code)
	cuStreamCreateWithPriority(ctx handle, priority int) (handle, Code)
	cuStreamDestroy(ctx, stream handle) Code
	cuStreamSynchronize(ctx, stream handle) Code
	cuStreamWaitEvent(ctx, stream, event handle) Code
	cuStreamBeginCapture(ctx, stream handle) Code
	cuStreamEndCapture(ctx, stream handle) (graph handle, code Code)
	cuGraphGetNodes(ctx, graph handle) (int, Code)
	cuGraphInstantiate(ctx, graph handle) (exec handle, code Code)
	cuGraphLaunch(ctx, exec, stream handle) Code
	cuGraphExecDestroy(ctx, exec handle) Code
	cuGraphDestroy(ctx, graph handle) Code
	cuEventCreate(ctx handle) (handle, Code)
	cuEventDestroy(ctx, event handle) Code
	cuEventRecord(ctx, event, stream handle) Code
	cuEventQuery(ctx, event handle) Code
	cuEventSynchronize(ctx, event handle) Code
	cuEventElapsedTime(ctx, start, end handle) (milliseconds float32, code Code)

	cuModuleLoadDataEx(ctx handle, image []byte) (mod handle, errorLog string, code Code)
	cuModuleUnload(ctx, mod handle) Code
	cuModuleGetFunction(ctx, mod handle, name string) (handle, Code)
	cuFuncSetAttribute(ctx, fn handle, attr, value int) Code
	cuFuncGetAttribute(ctx handle, attr int, fn handle) (int, Code)
	cuOccupancyMaxActiveBlocksPerMultiprocessor(ctx, fn handle, block, shared int) (int, Code)
	// The matrix has dims columns and rows, stride bytes apart, and the box is as many.
	cuTensorMapEncodeTiled(ctx handle, m *TensorMap, p devicePtr, dims [2]uint64, stride uint64, box [2]uint32) Code
	// Argument i starts at slots[first[i]].
	cuLaunchKernel(ctx, fn handle, c LaunchConfig, stream handle, slots []uint64, first []uint8) Code
}

// Numbers from the driver API's reference (CUdevice_attribute,
// CUfunction_attribute).
const (
	attrMaxSharedPerBlockOptin = 97
	attrComputeMode            = 20
	attrMultiprocessorCount    = 16
	attrClockRate              = 13
	attrL2CacheSize            = 38
	attrMajor                  = 75
	attrMinor                  = 76

	funcAttrStaticShared = 1
	funcAttrLocal        = 3
	funcAttrRegisters    = 4
	funcAttrMaxDynShared = 8

	computeModeProhibited = 2
	computeModeExclusive  = 3
)
