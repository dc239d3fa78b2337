//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package cloud

import (
	"os"
	"syscall"
)

// unlock lets go of bbolt's lock. Closing the file is not enough if a bbolt that
// panicked has left it mapped: the mapping keeps the lock alive.
func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
