package bench

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/cpuid/v2"
)

// Machine is where a run was made.
type Machine struct {
	CPU      string   `json:"cpu"`
	Cores    int      `json:"cores"` // physical ones, as the processor says; 0 where it does not
	Threads  int      `json:"threads"`
	Features []string `json:"features"`
	Cache    int      `json:"last_level_cache_bytes,omitempty"`
	Memory   uint64   `json:"memory_bytes,omitempty"`
	OS       string   `json:"os"`
	Kernel   string   `json:"kernel,omitempty"`
	Engine   string   `json:"engine"`     // what our kernels are
	Limits   string   `json:"limits"`     // the instructions that the limits were measured with
	Hugepage string   `json:"huge_pages"` // the system's policy, where it tells
}

// features are those that kernels of anybody's may use.
var features = []cpuid.FeatureID{cpuid.AVX, cpuid.AVX2, cpuid.FMA3, cpuid.F16C, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VL,
	cpuid.AVX512BF16, cpuid.AVX512VNNI, cpuid.AMXBF16, cpuid.ASIMD, cpuid.ASIMDHP, cpuid.SVE}

func thisMachine(engine, limits string) Machine {
	c := cpuid.CPU
	m := Machine{CPU: c.BrandName, Cores: c.PhysicalCores, Threads: runtime.NumCPU(), Features: []string{}, Cache: max(c.Cache.L3, c.Cache.L2, 0),
		OS: runtime.GOOS + "/" + runtime.GOARCH, Kernel: firstLine("/proc/sys/kernel/osrelease"), Engine: engine, Limits: limits,
		Hugepage: firstLine("/sys/kernel/mm/transparent_hugepage/enabled")}
	if m.CPU == "" {
		m.CPU = runtime.GOARCH + " processor without a name"
	}
	for _, f := range features {
		if c.Supports(f) {
			m.Features = append(m.Features, f.String())
		}
	}
	slices.Sort(m.Features)
	return m
}

// firstLine of a file of the system's, or "".
func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// loadAverage is the mean number of runnable threads over the last minute; -1
// where the system does not tell.
func loadAverage() float64 {
	first, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}

// busyLoad is a load average, before a run, at which its figures are the
// machine's no more.
const busyLoad = 0.5

// residentPeak reads how much memory this process has in use, and how much it had
// at most since clearPeak. ok is false where the system does not tell.
func residentPeak() (now, peak int64, ok bool) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "VmHWM":
			peak = kb << 10
		case name == "VmRSS":
			now = kb << 10
		}
	}
	return now, peak, now > 0 && peak > 0
}

// clearPeak makes the peak begin anew at what is in use.
func clearPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }
