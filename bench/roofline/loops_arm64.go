//go:build !noasm

package roofline

func loops() []loop {
	return []loop{{"NEON", fmaNEON, flopPerRound(4), func(x []float32) { readNEON(&x[0], len(x)/32) }, 32}}
}

// fmaNEON does n rounds of twelve independent multiply-adds of 4 floats, n > 0.
//
//go:noescape
func fmaNEON(n int)

// readNEON loads n blocks of 32 floats, n > 0.
//
//go:noescape
func readNEON(x *float32, n int)
