// Command glibc prints the newest version of glibc whose symbols the given programs
// need, and fails where it is newer than -most, or where one of them is linked with
// the CUDA driver's library, which must be opened only when it is used.
package main

import (
	"debug/elf"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	most := flag.String("most", "", "fail where a newer version than this is needed")
	flag.Parse()
	newest := "2.0"
	for _, name := range flag.Args() {
		version, err := needs(name)
		if err == nil && *most != "" && newer(version, *most) {
			err = fmt.Errorf("needs glibc %s", version)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		if newer(version, newest) {
			newest = version
		}
	}
	fmt.Println(newest)
}

// needs returns the newest version of glibc that a program asks for.
func needs(name string) (string, error) {
	f, err := elf.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return "", err
	}
	for _, l := range libraries {
		if strings.HasPrefix(l, "libcuda") || strings.HasPrefix(l, "libnv") {
			return "", fmt.Errorf("is linked with %s: it would not start without a driver", l)
		}
	}
	versions, err := f.DynamicVersionNeeds()
	if err != nil {
		return "", err
	}
	newest := "2.0"
	for _, library := range versions {
		for _, d := range library.Needs {
			if v, ok := strings.CutPrefix(d.Dep, "GLIBC_"); ok && newer(v, newest) {
				newest = v
			}
		}
	}
	return newest, nil
}

// newer reports whether version a is above b; each is numbers between dots.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m > n
		}
	}
	return len(x) > len(y)
}
