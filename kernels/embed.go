package kernels

import "embed"

// files holds every module's PTX.
//
//go:embed *.ptx
var files embed.FS

// ptx returns the text of a module, which is named as its .cu file.
func ptx(module string) string {
	b, err := files.ReadFile(module + ".ptx")
	if err != nil {
		panic("kernels: no such module")
	}
	return string(b)
}
