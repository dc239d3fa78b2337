//go:build !unix

package cloud

func helperSmallDisk(string) {}
