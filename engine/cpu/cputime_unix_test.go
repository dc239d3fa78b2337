//go:build unix

package cpu

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the processor time this process has used: on a machine that others
// use too, rates over it are steadier than over elapsed time.
func cpuTime() time.Duration {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(unix.TimevalToNsec(r.Utime) + unix.TimevalToNsec(r.Stime))
}
