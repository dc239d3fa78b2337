package emu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// An unused file stays in the cache for keepFor, or, once there are more than
// keepBytes, for keepLeast: somebody may be about to open it.
const (
	keepFor   = 7 * 24 * time.Hour
	keepLeast = time.Hour
	keepBytes = 2 << 30
)

// touch marks a file as used now and reports whether it is there.
func touch(name string) bool {
	now := time.Now()
	return os.Chtimes(name, now, now) == nil
}

// prune removes what has not been used for long, the oldest first.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var files []os.FileInfo
	var bytes int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
			bytes += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		unused := time.Since(f.ModTime())
		if unused < keepLeast || unused < keepFor && bytes < keepBytes {
			return
		}
		if os.RemoveAll(filepath.Join(dir, f.Name())) == nil {
			bytes -= f.Size()
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
