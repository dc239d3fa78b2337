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

// arch returns the architecture that a source is compiled for: that of its
// name's ending where it has one, for what one chip alone can do, and else sm_80,
// which every later chip runs.
func arch(source string) string {
	if strings.HasSuffix(source, "_sm90a.cu") {
		return "sm_90a"
	}
	return "sm_80"
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
	old, err := manifest.Read(out)
	if err != nil || old.Compiler != m.Compiler {
		old = &manifest.Manifest{}
	}
	sources, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, path := range sources {
		source := filepath.Base(path)
		entry, ok := unchanged(old, dir, out, source)
		if !ok {
			if entry, err = compile(clang, dir, out, source); err != nil {
				return err
			}
		}
		m.Modules = append(m.Modules, entry)
		keep[entry.PTX] = true
	}
	made, err := filepath.Glob(filepath.Join(out, "*.ptx"))
	if err != nil {
		return err
	}
	for _, path := range made {
		if !keep[filepath.Base(path)] {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return m.Write(out)
}

// unchanged returns the old manifest's entry for a source if what it was made
// from and what was made are still the same.
func unchanged(old *manifest.Manifest, dir, out, source string) (manifest.Module, bool) {
	same := func(dir, name, hash string) bool {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		return err == nil && manifest.Hash(b) == hash
	}
	for _, m := range old.Modules {
		if m.Source != source {
			continue
		}
		ok := m.Arch == arch(source) && slices.Equal(m.Flags, flags(m.Arch)) && same(out, m.PTX, m.SHA256)
		for _, in := range m.Inputs {
			ok = ok && same(dir, in.Name, in.SHA256)
		}
		return m, ok
	}
	return manifest.Module{}, false
}

// flags gives the compiler's arguments. The path that does not exist keeps clang
// from finding, and judging, a toolkit that happens to be installed; PTX ISA 8.0
// is what drivers from R525 (CUDA 12.0) on can load.
func flags(arch string) []string {
	return []string{
		"-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=" + arch, "--cuda-feature=+ptx80",
		"--cuda-path=/nonexistent", "-nocudainc", "-nocudalib", "-nostdinc", "-std=c++17", "-O3",
		"-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Werror", "-S",
	}
}

func compile(clang, dir, out, source string) (manifest.Module, error) {
	base, arch := strings.TrimSuffix(source, ".cu"), arch(source)
	entry := manifest.Module{PTX: base + ".ptx", Source: source, Arch: arch, Flags: flags(arch)}
	tmp, err := os.MkdirTemp("", "mkptx")
	if err != nil {
		return entry, err
	}
	defer os.RemoveAll(tmp)
	ptx, deps := filepath.Join(tmp, entry.PTX), filepath.Join(tmp, "deps")
	// Run inside the directory, so that no path of this machine gets into the output.
	cmd := exec.Command(clang, append(flags(arch), "-MD", "-MF", deps, "-o", ptx, source)...)
	cmd.Dir = dir
	if msg, err := cmd.CombinedOutput(); err != nil {
		return entry, fmt.Errorf("%s: %w\n%s", source, err, msg)
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
