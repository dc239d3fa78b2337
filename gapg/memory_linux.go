package gapg

import (
	"bytes"
	"os"
	"strconv"
)

// residentMemory returns the bytes of the process's memory that lie in RAM, 0
// where nobody knows.
func residentMemory() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
