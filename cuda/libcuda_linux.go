//go:build linux && cgo

package cuda

/*
#cgo LDFLAGS: -ldl
#cgo noescape ud_launch
#cgo nocallback ud_launch
#include "libcuda.h"
*/
import "C"

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"
)

// libraryPaths are tried in turn: the loader's own search, then the places where
// container runtimes and WSL put the library without telling the loader.
func libraryPaths() []string {
	return []string{"libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
}

// libcuda calls the driver. Its table lives in C memory and, like the library,
// stays to the end of the process: the driver does not survive a dlclose.
type libcuda struct{ c *C.ud_lib }

// load opens the first of paths that is there and looks up every function.
func load(paths []string) (api, *UnavailableError) {
	var messages []string
	for _, path := range paths {
		p := C.CString(path)
		var message *C.char
		h := C.ud_open(p, &message)
		C.free(unsafe.Pointer(p))
		if h == nil {
			messages = append(messages, C.GoString(message))
			C.free(unsafe.Pointer(message))
			continue
		}
		lib := (*C.ud_lib)(C.calloc(1, C.sizeof_ud_lib))
		if missing := C.ud_resolve(h, lib); missing != nil {
			C.free(unsafe.Pointer(lib))
			return nil, &UnavailableError{
				Reason: fmt.Sprintf("the driver library %s has no function %s", path, C.GoString(missing)),
				Remedy: remedyUpdate,
			}
		}
		return &libcuda{lib}, nil
	}
	// "No such file" is the usual case and says nothing; anything else does.
	for _, m := range messages {
		if !strings.Contains(m, "No such file") {
			return nil, &UnavailableError{Reason: "the driver library cannot be loaded: " + m, Remedy: remedyInstall}
		}
	}
	return nil, &UnavailableError{Reason: paths[0] + " was not found", Remedy: remedyInstall}
}

func h(p handle) C.ud_handle { return C.ud_handle(p) }

func out(p C.ud_handle) handle { return handle(p) }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func (l *libcuda) cuInit() Code { return Code(C.ud_init(l.c)) }

func (l *libcuda) cuGetErrorName(c Code) string   { return text(C.ud_error_name(l.c, C.int(c))) }
func (l *libcuda) cuGetErrorString(c Code) string { return text(C.ud_error_string(l.c, C.int(c))) }

func text(s *C.char) string {
	if s == nil {
		return ""
	}
	return C.GoString(s)
}

func (l *libcuda) cuDriverGetVersion() (int, Code) {
	var v C.int
	r := C.ud_version(l.c, &v)
	return int(v), Code(r)
}

func (l *libcuda) cuDeviceGetCount() (int, Code) {
	var n C.int
	r := C.ud_count(l.c, &n)
	return int(n), Code(r)
}

func (l *libcuda) cuDeviceGet(ordinal int) (int32, Code) {
	var d C.int
	r := C.ud_device(l.c, &d, C.int(ordinal))
	return int32(d), Code(r)
}

func (l *libcuda) cuDeviceGetName(dev int32) (string, Code) {
	var name [256]C.char
	r := C.ud_name(l.c, &name[0], C.int(len(name)), C.int(dev))
	name[len(name)-1] = 0
	return C.GoString(&name[0]), Code(r)
}

func (l *libcuda) cuDeviceGetAttribute(attr int, dev int32) (int, Code) {
	var v C.int
	r := C.ud_attr(l.c, &v, C.int(attr), C.int(dev))
	return int(v), Code(r)
}

func (l *libcuda) cuDeviceTotalMem(dev int32) (uint64, Code) {
	var n C.size_t
	r := C.ud_total(l.c, &n, C.int(dev))
	return uint64(n), Code(r)
}

func (l *libcuda) cuDevicePrimaryCtxRetain(dev int32) (handle, Code) {
	var c C.ud_handle
	r := C.ud_retain(l.c, &c, C.int(dev))
	return out(c), Code(r)
}

func (l *libcuda) cuDevicePrimaryCtxRelease(dev int32) Code {
	return Code(C.ud_release(l.c, C.int(dev)))
}

func (l *libcuda) cuCtxSynchronize(ctx handle) Code { return Code(C.ud_ctx_sync(l.c, h(ctx))) }

func (l *libcuda) cuMemGetInfo(ctx handle) (free, total uint64, code Code) {
	var f, t C.size_t
	r := C.ud_mem_info(l.c, h(ctx), &f, &t)
	return uint64(f), uint64(t), Code(r)
}

func (l *libcuda) cuMemAlloc(ctx handle, n uint64) (devicePtr, Code) {
	var p C.ud_ptr
	r := C.ud_alloc(l.c, h(ctx), &p, C.size_t(n))
	return devicePtr(p), Code(r)
}

func (l *libcuda) cuMemFree(ctx handle, p devicePtr) Code {
	return Code(C.ud_free(l.c, h(ctx), C.ud_ptr(p)))
}

func (l *libcuda) cuMemHostAlloc(ctx handle, n uint64) (unsafe.Pointer, Code) {
	var p unsafe.Pointer
	r := C.ud_host_alloc(l.c, h(ctx), &p, C.size_t(n))
	return p, Code(r)
}

func (l *libcuda) cuMemFreeHost(ctx handle, p unsafe.Pointer) Code {
	return Code(C.ud_host_free(l.c, h(ctx), p))
}

func (l *libcuda) cuMemcpyHtoDAsync(ctx handle, dst devicePtr, src unsafe.Pointer, n uint64, stream handle, wait bool) Code {
	return Code(C.ud_h2d(l.c, h(ctx), C.ud_ptr(dst), src, C.size_t(n), h(stream), flag(wait)))
}

func (l *libcuda) cuMemcpyDtoHAsync(ctx handle, dst unsafe.Pointer, src devicePtr, n uint64, stream handle, wait bool) Code {
	return Code(C.ud_d2h(l.c, h(ctx), dst, C.ud_ptr(src), C.size_t(n), h(stream), flag(wait)))
}

func (l *libcuda) cuMemcpyDtoDAsync(ctx handle, dst, src devicePtr, n uint64, stream handle) Code {
	return Code(C.ud_d2d(l.c, h(ctx), C.ud_ptr(dst), C.ud_ptr(src), C.size_t(n), h(stream)))
}

func (l *libcuda) cuMemsetD8Async(ctx handle, dst devicePtr, value byte, n uint64, stream handle) Code {
	return Code(C.ud_memset(l.c, h(ctx), C.ud_ptr(dst), C.uchar(value), C.size_t(n), h(stream)))
}

func (l *libcuda) cuMemsetD32Async(ctx handle, dst devicePtr, value uint32, words uint64, stream handle) Code {
	return Code(C.ud_memset32(l.c, h(ctx), C.ud_ptr(dst), C.uint(value), C.size_t(words), h(stream)))
}

func (l *libcuda) cuCtxGetStreamPriorityRange(ctx handle) (least, greatest int, code Code) {
	var a, b C.int
	r := C.ud_priorities(l.c, h(ctx), &a, &b)
	return int(a), int(b), Code(r)
}

func (l *libcuda) cuStreamCreateWithPriority(ctx handle, priority int) (handle, Code) {
	var s C.ud_handle
	r := C.ud_stream_new(l.c, h(ctx), &s, C.int(priority))
	return out(s), Code(r)
}

func (l *libcuda) cuStreamDestroy(ctx, stream handle) Code {
	return Code(C.ud_stream_free(l.c, h(ctx), h(stream)))
}

func (l *libcuda) cuStreamSynchronize(ctx, stream handle) Code {
	return Code(C.ud_stream_sync(l.c, h(ctx), h(stream)))
}

func (l *libcuda) cuStreamWaitEvent(ctx, stream, event handle) Code {
	return Code(C.ud_stream_wait(l.c, h(ctx), h(stream), h(event)))
}

func (l *libcuda) cuStreamBeginCapture(ctx, stream handle) Code {
	return Code(C.ud_capture(l.c, h(ctx), h(stream)))
}

func (l *libcuda) cuStreamEndCapture(ctx, stream handle) (graph handle, code Code) {
	var g C.ud_handle
	r := C.ud_capture_end(l.c, h(ctx), h(stream), &g)
	return out(g), Code(r)
}

func (l *libcuda) cuGraphGetNodes(ctx, graph handle) (int, Code) {
	var n C.size_t
	r := C.ud_graph_nodes(l.c, h(ctx), h(graph), &n)
	return int(n), Code(r)
}

func (l *libcuda) cuGraphInstantiate(ctx, graph handle) (exec handle, code Code) {
	var x C.ud_handle
	r := C.ud_graph_new(l.c, h(ctx), h(graph), &x)
	return out(x), Code(r)
}

func (l *libcuda) cuGraphLaunch(ctx, exec, stream handle) Code {
	return Code(C.ud_graph_launch(l.c, h(ctx), h(exec), h(stream)))
}

func (l *libcuda) cuGraphExecDestroy(ctx, exec handle) Code {
	return Code(C.ud_graph_exec_free(l.c, h(ctx), h(exec)))
}

func (l *libcuda) cuGraphDestroy(ctx, graph handle) Code {
	return Code(C.ud_graph_free(l.c, h(ctx), h(graph)))
}

func (l *libcuda) cuEventCreate(ctx handle) (handle, Code) {
	var e C.ud_handle
	r := C.ud_event_new(l.c, h(ctx), &e)
	return out(e), Code(r)
}

func (l *libcuda) cuEventDestroy(ctx, event handle) Code {
	return Code(C.ud_event_free(l.c, h(ctx), h(event)))
}

func (l *libcuda) cuEventRecord(ctx, event, stream handle) Code {
	return Code(C.ud_event_record(l.c, h(ctx), h(event), h(stream)))
}

func (l *libcuda) cuEventQuery(ctx, event handle) Code {
	return Code(C.ud_event_query(l.c, h(ctx), h(event)))
}

func (l *libcuda) cuEventSynchronize(ctx, event handle) Code {
	return Code(C.ud_event_sync(l.c, h(ctx), h(event)))
}

func (l *libcuda) cuEventElapsedTime(ctx, start, end handle) (milliseconds float32, code Code) {
	var ms C.float
	r := C.ud_event_time(l.c, h(ctx), &ms, h(start), h(end))
	return float32(ms), Code(r)
}

func (l *libcuda) cuModuleLoadDataEx(ctx handle, image []byte) (mod handle, errorLog string, code Code) {
	log := make([]byte, 16<<10)
	var m C.ud_handle
	r := C.ud_load(l.c, h(ctx), &m, unsafe.Pointer(unsafe.SliceData(image)), (*C.char)(unsafe.Pointer(&log[0])), C.uint(len(log)))
	log, _, _ = bytes.Cut(log, []byte{0})
	return out(m), string(log), Code(r)
}

func (l *libcuda) cuModuleUnload(ctx, mod handle) Code {
	return Code(C.ud_unload(l.c, h(ctx), h(mod)))
}

func (l *libcuda) cuModuleGetFunction(ctx, mod handle, name string) (handle, Code) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	var f C.ud_handle
	r := C.ud_function(l.c, h(ctx), &f, h(mod), n)
	return out(f), Code(r)
}

func (l *libcuda) cuFuncSetAttribute(ctx, fn handle, attr, value int) Code {
	return Code(C.ud_func_set(l.c, h(ctx), h(fn), C.int(attr), C.int(value)))
}

func (l *libcuda) cuFuncGetAttribute(ctx handle, attr int, fn handle) (int, Code) {
	var v C.int
	r := C.ud_func_get(l.c, h(ctx), &v, C.int(attr), h(fn))
	return int(v), Code(r)
}

func (l *libcuda) cuOccupancyMaxActiveBlocksPerMultiprocessor(ctx, fn handle, block, shared int) (int, Code) {
	var n C.int
	r := C.ud_occupancy(l.c, h(ctx), &n, h(fn), C.int(block), C.size_t(shared))
	return int(n), Code(r)
}

func (l *libcuda) cuTensorMapEncodeTiled(ctx handle, m *TensorMap, p devicePtr, dims [2]uint64, stride uint64, box [2]uint32) Code {
	cDims, cBox := [2]C.uint64_t{C.uint64_t(dims[0]), C.uint64_t(dims[1])}, [2]C.uint32_t{C.uint32_t(box[0]), C.uint32_t(box[1])}
	return Code(C.ud_tensor_map(l.c, h(ctx), (*C.uint64_t)(unsafe.Pointer(&m.words[0])), C.ud_ptr(p), &cDims[0], C.uint64_t(stride), &cBox[0]))
}

func (l *libcuda) cuLaunchKernel(ctx, fn handle, c LaunchConfig, stream handle, slots []uint64, first []uint8) Code {
	shape := [7]C.uint32_t{
		C.uint32_t(c.Grid[0]), C.uint32_t(c.Grid[1]), C.uint32_t(c.Grid[2]),
		C.uint32_t(c.Block[0]), C.uint32_t(c.Block[1]), C.uint32_t(c.Block[2]), C.uint32_t(c.Shared),
	}
	return Code(C.ud_launch(l.c, h(ctx), h(fn), &shape[0], h(stream), (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(slots))),
		(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(first))), C.int(len(first))))
}
