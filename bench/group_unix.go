//go:build unix

package bench

import (
	"os/exec"
	"syscall"
)

// ownGroup makes a process the first of a group, so that what a script starts
// ends with it, and an interrupt at the terminal is ours to pass on.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(c *exec.Cmd) { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
