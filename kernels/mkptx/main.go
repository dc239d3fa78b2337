// Command mkptx compiles the kernels to PTX with clang and writes the manifest.
// `make ptx` runs it; nobody needs it, nor clang, to build or use Updraft.
//
// Usage: mkptx [-clang clang-19] [-kernels DIR] [-out DIR]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/kernels/internal/manifest"
)

// module is a PTX file to make.
type module struct {
	source, arch string
}

// modules lists all of them. Every module has a build for sm_80, which runs on
// every later chip; what is added for one chip alone is named for it.
var modules = []module{
	{"gemm_bf16.cu", "sm_80"},
}

func main() {
	clang := flag.String("clang", "clang-19", "the compiler")
	dir := flag.String("kernels", "kernels", "the directory of the kernels")
	out := flag.String("out", "", "where to write the PTX files and the manifest (default: beside the kernels)")
	flag.Parse()
	if *out == "" {
		*out = *dir
	}
	if err := run(*clang, *dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "mkptx:", err)
		os.Exit(1)
	}
}

func run(clang, dir, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	version, err := exec.Command(clang, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w (on Debian: apt install clang-19)", clang, err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	m := &manifest.Manifest{Compiler: strings.TrimSpace(first)}
	for _, mod := range modules {
		entry, err := compile(clang, dir, out, mod)
		if err != nil {
			return err
		}
		m.Modules = append(m.Modules, entry)
	}
	return m.Write(out)
}

// flags gives the compiler's arguments. The path that does not exist keeps clang
// from finding, and judging, a toolkit that happens to be installed; PTX ISA 8.0
// is what drivers from R525 (CUDA 12.0) on can load.
func flags(arch string) []string {
	return []string{
		"-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=" + arch, "--cuda-feature=+ptx80",
		"--cuda-path=/nonexistent", "-nocudainc", "-nocudalib", "-nostdinc", "-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-S",
	}
}

func compile(clang, dir, out string, mod module) (manifest.Module, error) {
	base := strings.TrimSuffix(mod.source, ".cu")
	if mod.arch != "sm_80" {
		base += "_" + strings.ReplaceAll(mod.arch, "_", "")
	}
	entry := manifest.Module{PTX: base + ".ptx", Source: mod.source, Arch: mod.arch, Flags: flags(mod.arch)}
	tmp, err := os.MkdirTemp("", "mkptx")
	if err != nil {
		return entry, err
	}
	defer os.RemoveAll(tmp)
	ptx, deps := filepath.Join(tmp, entry.PTX), filepath.Join(tmp, "deps")
	// Run inside the directory, so that no path of this machine gets into the output.
	cmd := exec.Command(clang, append(flags(mod.arch), "-MD", "-MF", deps, "-o", ptx, mod.source)...)
	cmd.Dir = dir
	if msg, err := cmd.CombinedOutput(); err != nil {
		return entry, fmt.Errorf("%s: %w\n%s", mod.source, err, msg)
	}
	code, err := os.ReadFile(ptx)
	if err != nil {
		return entry, err
	}
	code = bytes.TrimLeft(code, "\n")
	entry.SHA256 = manifest.Hash(code)
	list, err := os.ReadFile(deps)
	if err != nil {
		return entry, err
	}
	for _, name := range inputs(string(list)) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return entry, err
		}
		entry.Inputs = append(entry.Inputs, manifest.Input{Name: filepath.ToSlash(name), SHA256: manifest.Hash(b)})
	}
	return entry, os.WriteFile(filepath.Join(out, entry.PTX), code, 0o644)
}

// inputs reads a make rule "target: file file \⏎ file" and returns its files, sorted.
func inputs(rule string) []string {
	_, list, _ := strings.Cut(rule, ":")
	names := strings.Fields(strings.ReplaceAll(list, "\\\n", " "))
	for i, n := range names {
		names[i] = filepath.Clean(n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
