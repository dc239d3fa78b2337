package emu

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// keepFor is how long an unused file stays in the cache.
const keepFor = 7 * 24 * time.Hour

// touch marks a file as used now and reports whether it is there.
func touch(name string) bool {
	now := time.Now()
	return os.Chtimes(name, now, now) == nil
}

// prune removes what has not been used for long.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > keepFor {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// cpuFlags let the compiler use fused multiply-add where this processor has it;
// without it every fma() is a slow call. The results are the same.
func cpuFlags() []string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	words := strings.Fields(string(info))
	has := map[string]bool{}
	for _, w := range words {
		has[w] = true
	}
	if has["fma"] && has["avx2"] {
		return []string{"-mfma", "-mavx2"}
	}
	return nil
}
