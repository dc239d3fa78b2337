//go:build noasm || !arm64

package roofline

import "runtime"

// portable are loops that every processor has. What the compiler makes of them
// is no limit of the hardware, and their name says so.
func portable() []loop {
	return []loop{{"plain Go", fmaGo, 2 * 4, readGo, 16}}
}

func fmaGo(n int) {
	var a, b, c, d float32
	for range n {
		a, b, c, d = a*0.5+1, b*0.5+1, c*0.5+1, d*0.5+1
	}
	runtime.KeepAlive(a + b + c + d) // so that the loop is not removed
}

func readGo(x []float32) {
	var a, b, c, d float32
	for ; len(x) >= 4; x = x[4:] {
		a, b, c, d = max(a, x[0]), max(b, x[1]), max(c, x[2]), max(d, x[3])
	}
	runtime.KeepAlive(max(a, b, c, d))
}
