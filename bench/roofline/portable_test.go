//go:build noasm || !arm64

package roofline

func extra() []loop { return portable() }
