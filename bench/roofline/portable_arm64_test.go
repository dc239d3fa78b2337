//go:build !noasm

package roofline

func extra() []loop { return nil }
