//go:build linux && cgo

package cuda

const canLoad = true
