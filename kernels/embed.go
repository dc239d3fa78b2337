package kernels

import (
	"embed"
	"io/fs"
	"strings"
	"sync"
)

// files holds every module's PTX.
//
//go:embed *.ptx
var files embed.FS

// ptx returns the text of a module, which is named as its .cu file.
func ptx(module string) string {
	text, ok := texts()[module]
	if !ok {
		panic("kernels: no such module")
	}
	return text
}

// texts reads the files once: to name a kernel costs no copy of its module's text.
var texts = sync.OnceValue(func() map[string]string {
	m := map[string]string{}
	names, err := fs.Glob(files, "*.ptx")
	for _, name := range names {
		var b []byte
		if b, err = files.ReadFile(name); err != nil {
			break
		}
		m[strings.TrimSuffix(name, ".ptx")] = string(b)
	}
	if err != nil {
		panic("kernels: embedded files cannot be read")
	}
	return m
})
