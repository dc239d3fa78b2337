// Command ptxtable writes a table of what NVIDIA's assembler makes of the kernels:
// registers for each architecture, shared memory, and the blocks that fit on a
// multiprocessor. It needs ptxas on the PATH (PyPI: nvidia-cuda-nvcc-cu12), no GPU.
//
//	go run ./kernels/ptxtable >docs/gpu-kernels.md
//
// It fails where a kernel spills, where ptxas warns, or where it says that it
// serialised wgmma; the package's test runs it and compares the table with the
// committed one.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/updraft-ml/updraft/kernels"
)

func main() {
	ptxas, err := exec.LookPath("ptxas")
	if err == nil {
		var table string
		if table, err = tabulate(ptxas); err == nil {
			fmt.Print(table)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// chip is an architecture to assemble for, with a multiprocessor's shared memory,
// threads and blocks.
type chip struct {
	name                    string
	shared, threads, blocks int
}

var chips = []chip{
	{"sm_80", 164 << 10, 2048, 32}, {"sm_86", 100 << 10, 1536, 16}, {"sm_89", 100 << 10, 1536, 24}, {"sm_90", 228 << 10, 2048, 32},
	{"sm_90a", 228 << 10, 2048, 32},
}

// registersOfSM and the 1 KB of shared memory that the system takes of a block are
// the same on all of them.
const registersOfSM, sharedOfSystem = 1 << 16, 1 << 10

// runs reports whether a chip is to run a module: those for sm_90a run there alone,
// and there nothing else needs another assembly.
func (c chip) runs(module string) bool {
	return strings.HasSuffix(module, "_sm90a") == (c.name == "sm_90a")
}

// tabulate assembles every module for every chip and returns the table.
func tabulate(ptxas string) (string, error) {
	specs := slices.Concat(kernels.ProductSpecs(), kernels.AttentionSpecs(), kernels.RowSpecs())
	texts := map[string]string{}
	for _, s := range specs {
		texts[s.Module] = s.PTX
	}
	registers, err := assembleAll(ptxas, texts)
	if err != nil {
		return "", err
	}
	version, err := release(ptxas)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# Registers and shared memory of the GPU kernels\n\nBy ptxas %s; no kernel spills.\n", version)
	out.WriteString("Blocks on a multiprocessor follow from its registers, shared memory and threads; they are computed, not observed.\n\n    go run ./kernels/ptxtable >docs/gpu-kernels.md\n")
	slices.SortStableFunc(specs, func(a, b kernels.Spec) int { return strings.Compare(a.Module, b.Module) })
	module := ""
	for _, s := range specs {
		if s.Module != module {
			module = s.Module
			heading(&out, module)
		}
		if err := row(&out, s, registers); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

func heading(out *strings.Builder, module string) {
	fmt.Fprintf(out, "\n## %s\n\n| kernel | threads | shared memory, bytes |", module)
	rule := "\n|---|---|---|"
	for _, c := range chips {
		if c.runs(module) {
			fmt.Fprintf(out, " %s: registers, blocks |", c.name)
			rule += "---|"
		}
	}
	out.WriteString(rule + "\n")
}

// key names an entry point on a chip.
type key struct{ chip, entry string }

func row(out *strings.Builder, s kernels.Spec, registers map[key]int) error {
	fmt.Fprintf(out, "| %s | %d | %d |", s.Entry, s.Block, s.Shared)
	for _, c := range chips {
		if !c.runs(s.Module) {
			continue
		}
		n, ok := registers[key{c.name, s.Entry}]
		if !ok {
			return fmt.Errorf("%s: ptxas for %s says nothing of it", s.Entry, c.name)
		}
		blocks := c.blocksOf(s, n)
		if blocks == 0 {
			return fmt.Errorf("%s: no block fits on a multiprocessor of %s", s.Entry, c.name)
		}
		fmt.Fprintf(out, " %d, %d |", n, blocks)
	}
	out.WriteString("\n")
	return nil
}

// blocksOf returns how many blocks fit on a multiprocessor. Registers are given to
// warps in units of 256.
func (c chip) blocksOf(s kernels.Spec, registers int) int {
	warps := (s.Block + 31) / 32
	perWarp := (32*registers + 255) / 256 * 256
	return min(c.blocks, c.threads/(32*warps), registersOfSM/perWarp/warps, c.shared/(s.Shared+sharedOfSystem))
}

// assembleAll runs ptxas for every module and chip, as many at once as there are
// processors.
func assembleAll(ptxas string, texts map[string]string) (map[key]int, error) {
	all := map[key]int{}
	var errs []error
	var mu sync.Mutex
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for module, text := range texts {
		for _, c := range chips {
			if !c.runs(module) {
				continue
			}
			slots <- struct{}{}
			wait.Go(func() {
				found, err := assemble(ptxas, c.name, module, text)
				<-slots
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
				for entry, n := range found {
					all[key{c.name, entry}] = n
				}
			})
		}
	}
	wait.Wait()
	return all, errors.Join(errs...)
}

var verbose = regexp.MustCompile(`Compiling entry function '(\w+)'|(\d+) bytes spill stores, (\d+) bytes spill loads|Used (\d+) registers`)

// assemble returns the registers of a module's entry points.
func assemble(ptxas, arch, module, text string) (map[string]int, error) {
	f, err := os.CreateTemp("", module+"-*.ptx")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	msg, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, f.Name()).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %w: %s", module, arch, err, msg)
	}
	registers, err := read(string(msg))
	if err != nil {
		return nil, fmt.Errorf("%s for %s: %w", module, arch, err)
	}
	return registers, nil
}

// read reads what ptxas says. It refuses what ptxas does, and tells nobody who does
// not read: spills, and wgmma serialised since accumulators are in the way or there
// is no cap for setmaxnreg.
func read(msg string) (map[string]int, error) {
	for _, bad := range []string{"Potential Performance Loss", "warning"} {
		if _, after, ok := strings.Cut(msg, bad); ok {
			return nil, fmt.Errorf("%s%s", bad, strings.SplitN(after, "\n", 2)[0])
		}
	}
	registers, entry := map[string]int{}, ""
	for _, m := range verbose.FindAllStringSubmatch(msg, -1) {
		switch {
		case m[1] != "":
			entry = m[1]
		case m[4] != "":
			registers[entry], _ = strconv.Atoi(m[4])
		case m[2] != "0" || m[3] != "0":
			return nil, fmt.Errorf("%s spills: %s bytes stored, %s loaded", entry, m[2], m[3])
		}
	}
	if len(registers) == 0 {
		return nil, fmt.Errorf("nothing read from ptxas: %s", msg)
	}
	return registers, nil
}

// release returns ptxas' version, such as 12.9.
func release(ptxas string) (string, error) {
	msg, err := exec.Command(ptxas, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ptxas --version: %w: %s", err, msg)
	}
	m := regexp.MustCompile(`release ([0-9.]+)`).FindSubmatch(msg)
	if m == nil {
		return "", fmt.Errorf("ptxas --version: no release in %s", msg)
	}
	return string(m[1]), nil
}
