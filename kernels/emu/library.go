package emu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Options say what Library builds.
type Options struct {
	// Sources is the directory of the .cu files; empty means the kernels of this
	// module, whose directory is found from the working directory upwards.
	Sources string
	// Modules names the .cu files to compile, without suffix; empty means all.
	Modules []string
	// Edit, unless nil, changes the text of a .cu file before it is compiled: a
	// test sows defects with it.
	Edit func(module, text string) string
}

// Library builds the emulated driver, unless the same has been built before, and
// returns the path of the shared library. Objects are kept in the user's cache
// directory under a hash of what they are made from; several processes may call
// it at once. The error is errors.ErrUnsupported where there is no C++ compiler
// or the system is not Linux.
func Library(o Options) (string, error) {
	cxx, err := compiler()
	if err != nil {
		return "", err
	}
	b := &builder{cxx: cxx}
	if b.kernels, err = KernelDir(); err != nil {
		return "", err
	}
	if o.Sources == "" {
		o.Sources = b.kernels
	}
	if b.cache, err = cacheDir(); err != nil {
		return "", err
	}
	pruneOnce.Do(func() { prune(b.cache) })
	objects, err := b.objects(o)
	if err != nil {
		return "", err
	}
	return b.link(objects)
}

var pruneOnce sync.Once

// compiler returns the C++ compiler and what identifies its version.
var compiler = sync.OnceValues(func() (tool, error) {
	if runtime.GOOS != "linux" {
		return tool{}, fmt.Errorf("emu: the emulator runs on Linux only: %w", errors.ErrUnsupported)
	}
	for _, name := range []string{os.Getenv("CXX"), "g++", "c++"} {
		if name == "" {
			continue
		}
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		version, err := exec.Command(path, "--version").Output()
		if err != nil {
			return tool{}, fmt.Errorf("emu: %s --version: %w", path, err)
		}
		return tool{path: path, version: string(version)}, nil
	}
	return tool{}, fmt.Errorf("emu: no C++ compiler: %w", errors.ErrUnsupported)
})

type tool struct{ path, version string }

// KernelDir finds this module's kernels from the working directory upwards.
func KernelDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		try := filepath.Join(dir, "kernels")
		if _, err := os.Stat(filepath.Join(try, "device.cuh")); err == nil {
			return try, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("emu: no kernels/device.cuh above the working directory")
		}
		dir = up
	}
}

func cacheDir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		user = os.TempDir()
	}
	dir := filepath.Join(user, "updraft", "emu")
	return dir, os.MkdirAll(dir, 0o755)
}

// builder compiles into a cache whose files are named by the hash of what they
// were made from.
type builder struct {
	cxx            tool
	kernels, cache string
	headers        string // hash of every header
}

// baseFlags are the compiler's for every file. Contraction is off as on the
// device; nothing of one library is shared with another in the same process.
var baseFlags = []string{
	"-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-ffp-contract=off", "-fno-strict-aliasing",
	"-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-DUPDRAFT_EMULATE",
}

// kernelFlags instrument the kernels' accesses to memory for driver/checks.cc.
var kernelFlags = []string{"-O1", "-fsanitize=alignment,bounds,shift,integer-divide-by-zero"}

// sanitizerFlags instrument every access to memory: for driver/checks.cc, or, in a
// test binary built with -asan, for AddressSanitizer, which then takes its place.
func sanitizerFlags() []string {
	if addressSanitizer {
		return []string{"-fsanitize=address", "-fno-omit-frame-pointer"}
	}
	return []string{"-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"}
}

func driverFlags() []string {
	if addressSanitizer {
		return append([]string{"-O2"}, sanitizerFlags()...)
	}
	return []string{"-O2"}
}

// objects compiles what the library is made of and returns the object files.
func (b *builder) objects(o Options) ([]string, error) {
	var err error
	if b.headers, err = b.hashFiles("*.cuh", "emu/*.h", "emu/driver/*.h"); err != nil {
		return nil, err
	}
	var jobs []job
	sources, err := filepath.Glob(filepath.Join(b.kernels, "emu", "driver", "*.cc"))
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		text, err := os.ReadFile(s)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job{name: filepath.Base(s), text: string(text), flags: driverFlags()})
	}
	kernels, err := filepath.Glob(filepath.Join(o.Sources, "*.cu"))
	if err != nil {
		return nil, err
	}
	found := 0
	for _, s := range kernels {
		module := strings.TrimSuffix(filepath.Base(s), ".cu")
		if len(o.Modules) > 0 && !slices.Contains(o.Modules, module) {
			continue
		}
		found++
		text, err := os.ReadFile(s)
		if err != nil {
			return nil, err
		}
		j := job{name: filepath.Base(s), text: string(text), flags: append(slices.Clone(kernelFlags), sanitizerFlags()...)}
		if o.Edit != nil {
			j.text = o.Edit(module, j.text)
		}
		if j.text != string(text) {
			j.flags = append(slices.Clone(j.flags), "-w") // a defect may leave something unused
		}
		// Each file has a namespace of its own: two kernels' helpers of one name
		// must not be taken for one function.
		j.flags = append(slices.Clone(j.flags), "-Dupdraft=updraft_"+module)
		if strings.HasSuffix(module, "_sm90a") {
			j.flags = append(j.flags, "-DUPDRAFT_SM90A")
		}
		jobs = append(jobs, j)
	}
	if found == 0 || len(o.Modules) > 0 && found != len(o.Modules) {
		return nil, fmt.Errorf("emu: %s: not all of the modules %q are there", o.Sources, o.Modules)
	}
	return b.compileAll(jobs)
}

// job is one file to compile.
type job struct {
	name, text string
	flags      []string
}

// compileAll compiles as many files at once as there are processors.
func (b *builder) compileAll(jobs []job) ([]string, error) {
	objects, errs := make([]string, len(jobs)), make([]error, len(jobs))
	slots := make(chan struct{}, runtime.NumCPU())
	var wait sync.WaitGroup
	for i, j := range jobs {
		wait.Add(1)
		slots <- struct{}{}
		go func() {
			defer wait.Done()
			objects[i], errs[i] = b.compile(j)
			<-slots
		}()
	}
	wait.Wait()
	return objects, errors.Join(errs...)
}

func (b *builder) compile(j job) (string, error) {
	args := append(append(slices.Clone(baseFlags), cpuFlags()...), j.flags...)
	name := strings.TrimSuffix(j.name, filepath.Ext(j.name))
	key := hash(b.cxx.version, b.headers, strings.Join(args, " "), j.name, j.text)
	object := filepath.Join(b.cache, name+"-"+key+".o")
	if touch(object) {
		return object, nil
	}
	unlock, err := lock(object + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if touch(object) { // another process made it meanwhile
		return object, nil
	}
	tmp, err := os.MkdirTemp(b.cache, "compile")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	source := filepath.Join(tmp, j.name)
	if err := os.WriteFile(source, []byte(j.text), 0o644); err != nil {
		return "", err
	}
	out := filepath.Join(tmp, "object.o")
	args = append(args, "-I"+b.kernels, "-I"+filepath.Join(b.kernels, "emu", "driver"), "-x", "c++", "-c", "-o", out, source)
	if msg, err := exec.Command(b.cxx.path, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("emu: %s: %w\n%s", j.name, err, msg)
	}
	return object, os.Rename(out, object)
}

func (b *builder) link(objects []string) (string, error) {
	library := filepath.Join(b.cache, "libcuda-"+hash(append([]string{b.cxx.version}, objects...)...)+".so")
	unlock, err := lock(library + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if touch(library) {
		return library, nil
	}
	out := library + ".tmp"
	args := append([]string{"-shared", "-o", out}, objects...)
	if msg, err := exec.Command(b.cxx.path, args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("emu: link: %w\n%s", err, msg)
	}
	return library, os.Rename(out, library)
}

// hashFiles hashes the files of the kernels' directory that match.
func (b *builder) hashFiles(patterns ...string) (string, error) {
	var parts []string
	for _, p := range patterns {
		names, err := filepath.Glob(filepath.Join(b.kernels, p))
		if err != nil {
			return "", err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return "", err
			}
			parts = append(parts, filepath.Base(name), string(text))
		}
	}
	return hash(parts...), nil
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
