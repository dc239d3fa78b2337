//go:build noasm || !(amd64 || arm64)

package roofline

func loops() []loop { return portable() }
