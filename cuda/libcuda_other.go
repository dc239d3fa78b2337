//go:build !linux || !cgo

package cuda

import "runtime"

func libraryPaths() []string { return nil }

// load says why there is no driver in this build.
func load([]string) (api, *UnavailableError) {
	if runtime.GOOS != "linux" {
		return nil, &UnavailableError{Reason: "CUDA is used on Linux only, and this is " + runtime.GOOS}
	}
	return nil, &UnavailableError{
		Reason: "this program was built without cgo",
		Remedy: "build it with CGO_ENABLED=1 and a C compiler",
	}
}
